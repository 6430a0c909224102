"""The user of a delegate, in another language: has a key made, fetches its share and signs through it."""

import base64
import hashlib
import json
import os
import sys
import time
import urllib.request

import grpc
import packages
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from router_client import generate

WAIT = 60
DELEGATE_KEY = b"quorate/delegate-key/v1"


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


def delegate_key(party, identity):
    """The key of a delegate whose identity is known, as its registration shows it."""
    assert party.identity_key == identity, "another identity than is known"
    key = party.delegate_key.key
    signed = bytes([len(DELEGATE_KEY)]) + DELEGATE_KEY
    for part in (party.party_id.encode(), key.kem.encode(), key.key):
        signed += len(part).to_bytes(8, "big") + part
    Ed25519PublicKey.from_public_bytes(identity).verify(party.delegate_key.signature, signed)
    return key


def signing_request(key, message, nonce):
    """The canonical request for a signature by any holders: see crates/authority/src/request.rs."""
    if key["scheme"] == "ed25519":
        asked = b"\x02" + hashlib.sha256(message).digest()
    else:
        asked = b"\x01" + message
    fields = {
        1: b"sign",
        2: key["scheme"].encode(),
        3: bytes.fromhex(key["key_id"].replace("-", "")),
        4: key["epoch"].to_bytes(4, "big"),
        5: bytes.fromhex(key["public_key"]),
        8: asked,
        9: b"",
        10: b"\x00",
        11: int((time.time() + WAIT) * 1000).to_bytes(8, "big"),
        12: nonce,
        13: b"",
    }
    body = b"".join(bytes([tag]) + len(part).to_bytes(4, "big") + part for tag, part in fields.items())
    return b"quorate/request/v1" + body


def sign_through(url, key, delegate, place, initiator, sealed_for, request, message, seal):
    """Lends a share that is sealed for a request, and answers with how the session ended."""
    public = initiator.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    text = lambda data: base64.b64encode(data).decode()
    body = {
        "session_type": "sign",
        "key_id": key["key_id"],
        "authorization": {
            "request": text(request),
            "initiator": f"ed25519:{public}",
            "signature": initiator.sign(request).hex(),
        },
        "delegate_user_share": {
            "delegate_party_id": delegate,
            "encrypted_share": text(seal(sealed_for)),
            "party_index": place,
        },
    }
    if key["scheme"] == "ed25519":
        body["message"] = text(message)
    else:
        body["message_hash"] = message.hex()
    session = call("POST", url, body)["session_id"]
    return call("GET", f"{url}/{session}?wait=end&wait_seconds={WAIT}")


def main():
    proto_dir, generated, router_address, coordinator, delegate, kem, scheme, opened = sys.argv[1:9]
    initiator_file, identity = sys.argv[9:11]
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

    parties = router.GetRegisteredParties(pb.GetRegisteredPartiesRequest(role_filter="delegate")).parties
    published = delegate_key(parties[0], bytes.fromhex(identity))
    with open(initiator_file, "rb") as file:
        initiator = load_pem_private_key(file.read(), None)
    info = b"quorate/delegate-request/v1"
    seal = lambda asked: packages.seal_package(published.kem, published.key, info, asked, package)
    message = bytes(range(32))
    requests = [signing_request(key, message, os.urandom(16)) for _ in range(3)]
    through = lambda sealed_for, request: sign_through(
        url, key, delegate, share.party_index, initiator, sealed_for, request, message, seal
    )
    signed = through(requests[0], requests[0])
    assert signed["status"] == "completed" and len(signed["signature"]) == 128, signed
    seats = [seat for seat in signed["participants"] if seat["party_id"] == delegate]
    assert seats[0]["on_behalf_of"]["user_id"] == user, signed
    foreign = through(requests[1], requests[2])
    assert foreign["status"] == "failed", "a share is lent for one request"
    assert "another request" in foreign["failure"]["message"], foreign
    again = through(requests[0], requests[0])
    assert again["failure"]["reason"] == "policy_denied", "and a request is allowed once"
    print("ok")


if __name__ == "__main__":
    main()
