"""A foreign client of the message router: stubs generated from the published proto, nothing of ours.

Usage: router_client.py PROTO_DIR GENERATED_DIR ROUTER_GRPC COORDINATOR_HTTP

Two parties register, join, exchange a message with acknowledgement and report a key. Every step is
asserted; the last line on standard output is "ok".
"""

import json
import queue
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc

GENERATOR_KEY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
WAIT = 20


def generate(proto_dir, out):
    Path(out).mkdir(parents=True, exist_ok=True)
    source = Path(proto_dir) / "mpc/router/v1/message_router.proto"
    arguments = ["protoc", f"-I{proto_dir}", f"--python_out={out}", f"--grpc_python_out={out}", str(source)]
    assert protoc.main(arguments) == 0, "the proto does not compile"
    sys.path.insert(0, out)


def post(url, body):
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return json.load(answer)


def follow(stream, into):
    """Puts what a stream brings into a queue, and at its end the error."""

    def run():
        try:
            for item in stream:
                into.put(item)
        except grpc.RpcError as error:
            into.put(error)

    threading.Thread(target=run, daemon=True).start()


def next_event(events, kind):
    while True:
        event = events.get(timeout=WAIT)
        if event.event_type == kind:
            return event


def reflected(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(stub.ServerReflectionInfo(iter([request]))))
    return {service.name for service in answer.list_services_response.service}


def main():
    proto_dir, generated, router_address, coordinator = sys.argv[1:5]
    generate(proto_dir, generated)
    from mpc.router.v1 import message_router_pb2 as pb
    from mpc.router.v1 import message_router_pb2_grpc as rpc

    channel = grpc.insecure_channel(router_address)
    router = rpc.MessageRouterStub(channel)
    alice, bob = "py-alice", "py-bob"

    assert "mpc.router.v1.MessageRouter" in reflected(channel)

    for party in (alice, bob):
        answer = router.RegisterParty(
            pb.RegisterPartyRequest(party_id=party, party_role="temporary", version="1.0")
        )
        assert answer.success and answer.registered_at > 0
    pulse = router.Heartbeat(pb.HeartbeatRequest(party_id=alice, timestamp=int(time.time() * 1000)))
    assert pulse.success and pulse.server_timestamp > 0

    events = queue.Queue()
    follow(router.SubscribeSessionEvents(pb.SubscribeSessionEventsRequest(party_id=bob)), events)

    created = post(
        f"http://{coordinator}/api/v1/sessions",
        {
            "session_type": "keygen",
            "threshold_n": 2,
            "threshold_t": 2,
            "participants": [{"party_id": alice}, {"party_id": bob}],
        },
    )
    session, tokens = created["session_id"], created["join_tokens"]
    event = next_event(events, "session_created")
    assert event.session_id == session
    assert dict(event.join_tokens) == {bob: tokens[bob]}, "a subscriber sees its own token only"

    for index, party in enumerate((alice, bob)):
        joined = router.JoinSession(
            pb.JoinSessionRequest(session_id=session, party_id=party, join_token=tokens[party])
        )
        assert joined.success and joined.party_index == index
        assert [p.party_id for p in joined.other_parties] == [bob if party == alice else alice]
    try:
        router.JoinSession(
            pb.JoinSessionRequest(session_id=session, party_id=alice, join_token=tokens[bob])
        )
        raise AssertionError("a wrong token was accepted")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error

    assert not router.MarkPartyReady(pb.MarkPartyReadyRequest(session_id=session, party_id=alice)).all_ready
    assert router.MarkPartyReady(pb.MarkPartyReadyRequest(session_id=session, party_id=bob)).all_ready
    next_event(events, "session_started")
    assert router.GetSessionStatus(pb.GetSessionStatusRequest(session_id=session)).status == "in_progress"

    inbox = queue.Queue()
    follow(router.SubscribeMessages(pb.SubscribeMessagesRequest(session_id=session, party_id=bob)), inbox)
    sent = router.RouteMessage(
        pb.RouteMessageRequest(
            session_id=session, from_party=alice, to_parties=[bob], round_number=1,
            message_type="hello", payload=b"\x00sealed",
        )
    )
    assert sent.success
    message = inbox.get(timeout=WAIT)
    assert (message.message_id, message.from_party, message.payload) == (sent.message_id, alice, b"\x00sealed")
    assert not message.is_broadcast and message.round_number == 1

    pending = router.GetPendingMessages(pb.GetPendingMessagesRequest(session_id=session, party_id=bob))
    assert [m.message_id for m in pending.messages] == [sent.message_id]
    acked = router.AcknowledgeMessage(
        pb.AcknowledgeMessageRequest(message_id=sent.message_id, party_id=bob, session_id=session, success=True)
    )
    assert acked.success
    status = router.GetMessageStatus(pb.GetMessageStatusRequest(message_id=sent.message_id, session_id=session))
    assert status.all_acknowledged and status.deliveries[0].status == "acknowledged"
    pending = router.GetPendingMessages(pb.GetPendingMessagesRequest(session_id=session, party_id=bob))
    assert not pending.messages

    names = {p.party_id for p in router.GetRegisteredParties(pb.GetRegisteredPartiesRequest()).parties}
    assert {alice, bob} <= names

    try:
        router.RouteMessage(
            pb.RouteMessageRequest(session_id=session, from_party="stranger", round_number=1, payload=b"x")
        )
        raise AssertionError("a stranger's message was routed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
    try:
        router.SubmitDelegateShare(pb.SubmitDelegateShareRequest(session_id=session, party_id=alice))
        raise AssertionError("a party that is no delegate handed in a share")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error

    key = bytes.fromhex(GENERATOR_KEY)
    first = router.ReportCompletion(pb.ReportCompletionRequest(session_id=session, party_id=alice, public_key=key))
    assert first.success and not first.all_completed
    last = router.ReportCompletion(pb.ReportCompletionRequest(session_id=session, party_id=bob, public_key=key))
    assert last.success and last.all_completed
    next_event(events, "session_completed")
    print("ok")


if __name__ == "__main__":
    main()
