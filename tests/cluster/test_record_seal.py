"""What others cannot make, alter, move or read."""

import os
from base64 import b64decode
from pathlib import Path

import pytest

from revtunnel.cluster.engine_settings import EngineSettings, engine_faults, read_engine
from revtunnel.cluster.record_seal import OpenRecords, SealedRecords, read_secret

SECRET = bytes(range(32))
SEAL = SealedRecords(SECRET, "home")


def test_a_record_is_opened_by_whoever_has_the_secret() -> None:
    """Another process with it; nothing of it can be seen, nor whether two are alike."""
    again = SealedRecords(SECRET, "home")
    name, value = SEAL.name("people:ana"), SEAL.close("people:ana", "admin")
    assert again.open(name, value) == ("people:ana", "admin")
    assert "people" not in name + value and b"admin" not in b64decode(value)
    assert value != SEAL.close("people:ana", "admin")
    assert OpenRecords().open("x", OpenRecords().close("x", "y")) == ("x", "y")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (SEAL.name("people:bob"), SEAL.close("people:ana", "admin")),  # put in another's place
        ("people:ana", SEAL.close("people:ana", "admin")),
        (SEAL.name("people:ana"), '["people:ana", "admin"]'),
        (SEAL.name("people:ana"), ""),
        (SEAL.name("people:ana"), "AAAA"),
        (SEAL.name("people:ana"), SEAL.close("people:ana", "admin")[:-8]),
        (SEAL.name("people:ana"), "é"),
        (SEAL.name("people:ana"), SealedRecords(SECRET, "other").close("people:ana", "admin")),
        (SEAL.name("people:ana"), SealedRecords(SECRET[::-1], "home").close("people:ana", "admin")),
    ],
    ids=range(9),
)
def test_whoever_has_it_not_makes_none(name: str, value: str) -> None:
    """Nor one of another cluster, or secret."""
    assert SEAL.open(name, value) is None


def test_each_byte_is_sealed() -> None:
    """Any other one, and it is none."""
    name, value = SEAL.name("x"), SEAL.close("x", "y")
    for at in range(len(value)):
        other = "A" if value[at] != "A" else "B"
        changed = value[:at] + other + value[at + 1 :]
        same = b64decode(changed + "==") == b64decode(value + "==")  # the last one has spare bits
        assert same or SEAL.open(name, changed) is None


def test_a_secret_is_long_and_in_a_file_that_is_closed(tmp_path: Path) -> None:
    """Said by --check-config; nothing of it is repeated."""
    file, place = tmp_path / "secret", read_engine("redis://127.0.0.1")
    settings = EngineSettings(engine=place, secret_file=str(file))

    def fault() -> str:
        return "".join(f"{key}: {text}" for key, text in engine_faults(settings))

    assert fault().startswith(f"secret_file: {file}: No such file")
    file.write_text("short\n")
    os.chmod(file, 0o600)
    assert "5 bytes, 32 to 4096 wanted" in fault() and "short" not in fault()
    file.write_bytes(b" " + b"x" * 32 + b"\n")
    assert fault() == "" and read_secret(str(file)) == b"x" * 32
    os.chmod(file, 0o644)
    assert "0600 wanted" in fault()
    os.chmod(file, 0o600)
    alone = EngineSettings(secret_file=str(file))
    assert [key for key, _ in engine_faults(alone)] == ["secret_file"]
