"""Verifies a webhook with nothing but the standard library: SECRET SIGNATURE BODY NOW."""

import hashlib
import hmac
import sys

WINDOW = 300


def verify(secret: bytes, signature: str, body: bytes, now: int) -> bool:
    parts = dict(part.split("=", 1) for part in signature.split(","))
    signed = parts["t"].encode() + b"." + body
    expected = hmac.new(secret, signed, hashlib.sha256).hexdigest()
    fresh = abs(now - int(parts["t"])) <= WINDOW
    return fresh and hmac.compare_digest(expected, parts["v1"])


if __name__ == "__main__":
    secret, signature, body, now = sys.argv[1:]
    sys.exit(0 if verify(secret.encode(), signature, body.encode(), int(now)) else 1)
