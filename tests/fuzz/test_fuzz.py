"""Each target takes its seeds and all that was ever found; and some thousand changed inputs (slow)."""

import random

import pytest

from revtunnel.ground.errors import RemoteError
from tests.fuzz import harness
from tests.fuzz.__main__ import main
from tests.fuzz.everything import TARGETS
from tests.fuzz.harness import Target, fuzz, inputs_of, mutated, pieces

COUNT = 3000  # executions of each target


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found(name: str) -> None:
    """None raises what is not declared."""
    target = TARGETS[name]
    for data in inputs_of(target):
        target.shape(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs(name: str) -> None:
    """The same ones each time; ``make fuzz`` has others."""
    done, found = fuzz(TARGETS[name], seed=1, count=COUNT)
    for finding in found:
        print(f"{name}: {finding.data!r}")
        raise finding.error
    assert done == COUNT


# -- the harness


def _reads(data: bytes) -> int:
    if data[:1] == b"\x07":
        raise KeyError("a bug")
    if data[:1] != b"\0":
        raise RemoteError(f"byte {data[:1].hex()}")
    return len(data) % 3


ODD = Target("odd", _reads, (b"\0abc",), (RemoteError,), (b"\x07",))


def test_what_is_not_declared_is_found_once_and_kept(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next run begins with it, and the program's status says it."""
    monkeypatch.setattr(harness, "CORPUS", tmp_path)
    monkeypatch.setattr("tests.fuzz.__main__.CORPUS", tmp_path)
    done, (finding,) = fuzz(ODD, 1, count=5000)
    assert done == 5000
    assert finding.data[:1] == b"\x07" and isinstance(finding.error, KeyError)
    harness.keep(ODD, finding)
    assert inputs_of(ODD) == [b"\0abc", finding.data]
    assert fuzz(ODD, 2, count=2)[1][0].data == finding.data
    monkeypatch.setitem(TARGETS, "odd", ODD)
    assert main(["--seconds", "0.01", "odd"]) == 1
    assert "KeyError" in capsys.readouterr().out


def test_a_seed_is_one_run() -> None:
    """Two runs of one seed are the same, of another are not; the pieces of an input are all of it."""
    runs = [
        [mutated(rng, b"\0" * 40, [b"abc"], [b"word"]) for _ in range(200)]
        for rng in (random.Random(1), random.Random(1), random.Random(2))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert all(b"".join(pieces(data)) == data for data in runs[0])
