"""Device keys: their written form, what the server keeps, both proofs, what a thief of either can do."""

import base64
import hashlib
import hmac
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.link.keys import (
    DUMMY,
    Verifier,
    check_device,
    new_key,
    parse_key,
    prove_device,
    prove_server,
    verifier_of,
)

KEY = bytes(range(32))
WRITTEN = "rtkey1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
SERVER_NONCE = bytes([0xA5]) * 32
AGENT_NONCE = bytes([0x5A]) * 32
BINDING = bytes([0x77]) * 32

byte_strings = st.binary(min_size=32, max_size=32)
serials = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)


def sha(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256 spelled out as in RFC 2104, so that nothing is shared with the code under test."""
    block = key.ljust(64, b"\0")
    return sha(bytes(byte ^ 0x5C for byte in block) + sha(bytes(byte ^ 0x36 for byte in block) + data))


def test_the_key_is_written_as_the_page_says() -> None:
    """The 32 bytes 0 to 31 have exactly one written form, and it is read back."""
    assert new_key(lambda size: bytes(range(size))) == WRITTEN
    assert parse_key(WRITTEN) == KEY
    assert parse_key(f"\t {WRITTEN}\r\n") == KEY


@given(byte_strings)
def test_every_key_survives_its_written_form(key: bytes) -> None:
    """Write and read give the same 32 bytes."""
    assert parse_key(new_key(lambda size: key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rtkey1_",
        WRITTEN.removeprefix("rtkey1_"),
        WRITTEN.replace("rtkey1_", "rtkey2_"),
        WRITTEN[:-1],
        WRITTEN + "A",
        WRITTEN + "AAAAA",
        WRITTEN[:-1] + "9",  # the last character carries two bits that belong to nothing
        WRITTEN[:-2] + "+8",
        WRITTEN[:-2] + "\n8",
        WRITTEN[:-1] + "\u00e9",
        WRITTEN[:20] + " " + WRITTEN[20:],
        "rtkey1_" + base64.urlsafe_b64encode(bytes(31)).decode().rstrip("="),
    ],
)
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    """A wrong key file is an error whose text does not show what was in it: it may be a secret."""
    with pytest.raises(ValueError, match="device key") as caught:
        parse_key(text)
    secret = text.removeprefix("rtkey1_")
    assert not secret or secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_formulae_of_the_page() -> None:
    """Keys and proofs are, byte for byte, what the table at the head of keys.py says."""
    client_key = mac(KEY, b"rt1 deviceplc-7")
    stored_key = sha(client_key)
    server_key = mac(KEY, b"rt1 serverplc-7")
    verifier = Verifier(stored_key, server_key)
    assert verifier_of(KEY, "plc-7") == verifier

    transcript = b"\0plc-7\0" + SERVER_NONCE + AGENT_NONCE + BINDING
    mask = mac(stored_key, b"rt1 agent" + transcript)
    proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
    nonces = SERVER_NONCE, AGENT_NONCE, BINDING
    assert prove_device(KEY, "plc-7", *nonces) == proof
    assert prove_server(verifier, "plc-7", *nonces) == mac(server_key, b"rt1 server" + transcript)
    assert mac(KEY, b"x") == hmac.new(KEY, b"x", "sha256").digest()


def test_what_an_enrolled_device_proves_is_accepted() -> None:
    """The right key passes, with and without a binding."""
    verifier = verifier_of(KEY, "plc-7")
    for binding in (b"", BINDING):
        proof = prove_device(KEY, "plc-7", SERVER_NONCE, AGENT_NONCE, binding)
        assert check_device(verifier, "plc-7", proof, SERVER_NONCE, AGENT_NONCE, binding)


def test_a_proof_is_good_for_one_exchange_only() -> None:
    """Another serial, another nonce of either side, swapped nonces or another binding: refused."""
    verifier = verifier_of(KEY, "plc-7")
    proof = prove_device(KEY, "plc-7", SERVER_NONCE, AGENT_NONCE, BINDING)
    for serial, server_nonce, agent_nonce, binding in [
        ("plc-8", SERVER_NONCE, AGENT_NONCE, BINDING),
        ("plc-7", bytes(32), AGENT_NONCE, BINDING),
        ("plc-7", SERVER_NONCE, bytes(32), BINDING),
        ("plc-7", AGENT_NONCE, SERVER_NONCE, BINDING),
        ("plc-7", SERVER_NONCE, AGENT_NONCE, b""),
    ]:
        assert not check_device(verifier, serial, proof, server_nonce, agent_nonce, binding)


def test_a_key_is_good_for_one_serial_only() -> None:
    """The same 32 bytes, enrolled for another serial, prove nothing for this one."""
    proof = prove_device(KEY, "plc-8", SERVER_NONCE, AGENT_NONCE)
    assert not check_device(verifier_of(KEY, "plc-7"), "plc-7", proof, SERVER_NONCE, AGENT_NONCE)


@given(byte_strings, serials, st.integers(0, 255))
def test_one_flipped_bit_of_a_proof_is_refused(key: bytes, serial: str, bit: int) -> None:
    """There is one good proof, not a family of them."""
    proof = bytearray(prove_device(key, serial, SERVER_NONCE, AGENT_NONCE))
    proof[bit // 8] ^= 1 << bit % 8
    assert not check_device(verifier_of(key, serial), serial, bytes(proof), SERVER_NONCE, AGENT_NONCE)


def test_a_proof_whose_hash_begins_or_ends_like_the_right_one_is_refused() -> None:
    """The whole of it is compared: two bytes are found by trying, here in a moment."""
    verifier = verifier_of(KEY, "plc-7")
    right = prove_device(KEY, "plc-7", SERVER_NONCE, AGENT_NONCE)
    client_key = mac(KEY, b"rt1 deviceplc-7")
    for place in (slice(0, 2), slice(30, 32)):
        alike = next(
            guess
            for guess in (number.to_bytes(32, "big") for number in range(2_000_000))
            if sha(guess)[place] == verifier.stored_key[place]
        )
        proof = bytes(a ^ b ^ c for a, b, c in zip(right, client_key, alike, strict=True))
        assert not check_device(verifier, "plc-7", proof, SERVER_NONCE, AGENT_NONCE)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_a_proof_of_another_size_is_only_wrong(size: int) -> None:
    """A cut or long proof is refused like any other wrong one; it is no error of ours."""
    assert not check_device(verifier_of(KEY, "plc-7"), "plc-7", bytes(size), SERVER_NONCE, AGENT_NONCE)


def test_what_the_server_keeps_makes_no_proof() -> None:
    """A thief of the ledger alone has two hashes; taken as keys they pass for nothing."""
    verifier = verifier_of(KEY, "plc-7")
    for stolen in (verifier.stored_key, verifier.server_key):
        proof = prove_device(stolen, "plc-7", SERVER_NONCE, AGENT_NONCE)
        assert not check_device(verifier, "plc-7", proof, SERVER_NONCE, AGENT_NONCE)


def test_a_server_s_proof_is_no_device_s_proof() -> None:
    """What a server says cannot be sent back to it as PROOF: the roles are part of the transcript."""
    verifier = verifier_of(KEY, "plc-7")
    proof = prove_server(verifier, "plc-7", SERVER_NONCE, AGENT_NONCE)
    assert not check_device(verifier, "plc-7", proof, SERVER_NONCE, AGENT_NONCE)


def test_nothing_passes_for_the_dummy() -> None:
    """The verifier of unknown serials is nobody's: a random search and the obvious guesses fail."""
    chance = random.Random(7)
    guesses = [bytes(32), b"\xff" * 32, *(chance.randbytes(32) for _ in range(100))]
    for guess in guesses:
        assert not check_device(DUMMY, "plc-7", guess, SERVER_NONCE, AGENT_NONCE)
        assert not check_device(
            DUMMY, "plc-7", prove_device(guess, "plc-7", SERVER_NONCE, AGENT_NONCE), SERVER_NONCE, AGENT_NONCE
        )
