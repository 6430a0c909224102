"""The user of a delegate, in another language: has a key made, fetches its share and opens it."""

import json
import os
import sys
import time
import urllib.request

import grpc
import packages
from router_client import generate

WAIT = 60


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=WAIT + 10) as answer:
        return json.load(answer)


def refused(code, function, request):
    try:
        function(request)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return
    raise AssertionError(f"not refused: {request}")


def associated_data(session, key, epoch, index, holder, scheme):
    """What a user's package is bound to: see crates/schemes/src/package.rs."""
    uuid = lambda text: bytes.fromhex(text.replace("-", ""))
    data = uuid(session) + uuid(key) + epoch.to_bytes(4, "big") + index.to_bytes(2, "big")
    for text in (holder, scheme):
        data += len(text).to_bytes(8, "big") + text.encode()
    return data


def main():
    proto_dir, generated, router_address, coordinator, delegate, kem, scheme, opened = sys.argv[1:9]
    generate(proto_dir, generated)
    from mpc.router.v1 import message_router_pb2 as pb
    from mpc.router.v1 import message_router_pb2_grpc as rpc

    router = rpc.MessageRouterStub(grpc.insecure_channel(router_address))
    url = f"http://{coordinator}/api/v1/sessions"
    kind = packages.SUITES[kem]
    private = kind.generate()
    seal_key = {"kem": kem, "key": kind.encode(private.public_key()).hex()}
    user = f"python-{kem}"
    keygen = {
        "session_type": "keygen",
        "threshold_n": 3,
        "threshold_t": 2,
        "scheme": scheme,
        "participants": [
            {"party_id": delegate, "on_behalf_of": {"user_id": user, "seal_key": seal_key}}
        ],
    }
    deadline = time.time() + WAIT
    while True:
        try:
            created = call("POST", url, keygen)
            break
        except urllib.error.HTTPError as error:
            # Parties connect when the router is there.
            answer = json.load(error)
            assert answer["error"] in ("threshold_not_met", "unavailable"), answer
            assert time.time() < deadline, answer
    session, token = created["session_id"], created["fetch_tokens"][delegate]
    ended = call("GET", f"{url}/{session}?wait=end&wait_seconds={WAIT}")
    assert ended["status"] == "completed", ended
    key = call("GET", f"http://{coordinator}/api/v1/keys/{ended['key_id']}")
    assert user in key["holders"] and delegate not in key["holders"], key

    fetch = lambda token: pb.FetchDelegateShareRequest(session_id=session, party_id=user, fetch_token=token)
    wrong = created["join_tokens"][delegate]
    refused(grpc.StatusCode.UNAUTHENTICATED, router.FetchDelegateShare, fetch(wrong))
    shares = [router.FetchDelegateShare(fetch(token)) for _ in range(2)]
    assert shares[0] == shares[1], "any number of times"
    share = shares[0]
    assert (share.party_id, share.user_id) == (delegate, user), share
    data = associated_data(session, ended["key_id"], 0, share.party_index, user, scheme)
    info = b"quorate/delegate-share/v1"
    package = packages.open_package(kem, private, info, data, share.encrypted_share)
    assert package[0] == 2, "version"
    with open(os.open(opened, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.write(package)

    confirm = pb.ConfirmDelegateShareRequest(session_id=session, party_id=user, fetch_token=token)
    assert router.ConfirmDelegateShare(confirm).success
    assert router.ConfirmDelegateShare(confirm).success
    refused(grpc.StatusCode.NOT_FOUND, router.FetchDelegateShare, fetch(token))
    print("ok")


if __name__ == "__main__":
    main()
