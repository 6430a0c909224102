"""Sealed packages of delegates, as a client in another language opens and makes them."""

import hashlib
import hmac
import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HKDF_SHA256 = 1


class X25519:
    """DHKEM(X25519, HKDF-SHA256) with ChaCha20-Poly1305."""

    kind, kem, aead, cipher, length = 1, 0x0020, 0x0003, ChaCha20Poly1305, 32

    def generate():
        return X25519PrivateKey.generate()

    def private(raw):
        return X25519PrivateKey.from_private_bytes(raw)

    def public(raw):
        return X25519PublicKey.from_public_bytes(raw)

    def encode(public):
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def agree(private, public):
        return private.exchange(public)


class P256:
    """DHKEM(P-256, HKDF-SHA256) with AES-256-GCM."""

    kind, kem, aead, cipher, length = 2, 0x0010, 0x0002, AESGCM, 65

    def generate():
        return ec.generate_private_key(ec.SECP256R1())

    def private(raw):
        return ec.derive_private_key(int.from_bytes(raw, "big"), ec.SECP256R1())

    def public(raw):
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)

    def encode(public):
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def agree(private, public):
        return private.exchange(ec.ECDH(), public)


SUITES = {"x25519": X25519, "p256": P256}


def extract(suite, salt, label, key):
    labeled = b"HPKE-v1" + suite + label + key
    return hmac.new(salt or bytes(32), labeled, hashlib.sha256).digest()


def expand(suite, key, label, info, length):
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    # One block is enough for all that is asked for.
    return hmac.new(key, labeled + b"\x01", hashlib.sha256).digest()[:length]


def cipher(kind, shared, encapsulated, recipient, info):
    """RFC 9180, sections 4.1 and 5.1 in base mode: the cipher and the nonce of the first message."""
    suite = b"KEM" + kind.kem.to_bytes(2, "big")
    secret = extract(suite, b"", b"eae_prk", shared)
    secret = expand(suite, secret, b"shared_secret", encapsulated + recipient, 32)
    parts = (kind.kem, HKDF_SHA256, kind.aead)
    suite = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in parts)
    context = extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, secret, b"secret", b"")
    key = expand(suite, secret, b"key", b"\x00" + context, 32)
    return kind.cipher(key), expand(suite, secret, b"base_nonce", b"\x00" + context, 12)


def open_package(kem, private, info, aad, sealed):
    """Opens version 1 (1) | kind (1) | encapsulated key | ciphertext and tag."""
    kind = SUITES[kem]
    assert sealed[:2] == bytes([1, kind.kind]), sealed[:2]
    encapsulated, body = sealed[2 : 2 + kind.length], sealed[2 + kind.length :]
    shared = kind.agree(private, kind.public(encapsulated))
    recipient = kind.encode(private.public_key())
    opening, nonce = cipher(kind, shared, encapsulated, recipient, info)
    return opening.decrypt(nonce, body, aad)


def seal_package(kem, recipient, info, aad, plain):
    """Seals to the bytes of a public key."""
    kind = SUITES[kem]
    own = kind.generate()
    encapsulated = kind.encode(own.public_key())
    shared = kind.agree(own, kind.public(recipient))
    sealing, nonce = cipher(kind, shared, encapsulated, recipient, info)
    return bytes([1, kind.kind]) + encapsulated + sealing.encrypt(nonce, plain, aad)


def main(vectors):
    with open(vectors, encoding="utf-8") as file:
        vectors = json.load(file)
    assert len(vectors) == 4, vectors
    for vector in vectors:
        read = lambda name: bytes.fromhex(vector[name])
        kem, info = vector["kem"], vector["info"].encode()
        key = SUITES[kem].private(read("private_key"))
        assert SUITES[kem].encode(key.public_key()) == read("public_key")
        own = seal_package(kem, read("public_key"), info, read("aad"), read("plain"))
        for sealed in (read("sealed"), own):
            assert open_package(kem, key, info, read("aad"), sealed) == read("plain"), vector
            try:
                open_package(kem, key, info, b"another seat", sealed)
            except InvalidTag:
                continue
            raise AssertionError("a package opens for its seat only")
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
