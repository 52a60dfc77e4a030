"""Targets of fuzzing, what changes inputs, and the loop that counts executions.

A target is a function of bytes. It may raise what it has declared; all else is found. Its answer and the
words of its error say how far an input came: one that came somewhere new is changed further, as others do by
coverage.

Rule of this file: the same seed and count do the same, on any machine, where a target's seeds are the same;
those with keys in them are made anew in each process.

Source: ours; the changes are those of American Fuzzy Lop's "havoc" stage.
"""

import hashlib
import random
import re
import time
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CORPUS",
    "TARGETS",
    "Finding",
    "Target",
    "fuzz",
    "inputs_of",
    "keep",
    "mutated",
    "pieces",
    "target",
]

CORPUS = Path(__file__).with_name("corpus")
MAX_INPUT = 4096  # bytes; what a seed has more is left as it is
MAX_POOL = 400  # inputs that came somewhere new
_NUMBERS = (0, 1, 2, 4, 15, 16, 31, 32, 63, 64, 126, 127, 128, 129, 254, 255)
_LONGER = (0, 1, 255, 256, 1024, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\d+|\b[0-9a-f]{2}( [0-9a-f]{2})+")

Run = Callable[[bytes], Hashable]


@dataclass(frozen=True)
class Target:
    """One of them. ``run`` answers what kind of input it was, or None."""

    name: str
    run: Run
    seeds: tuple[bytes, ...]
    raises: tuple[type[Exception], ...]
    words: tuple[bytes, ...]  # that are put in somewhere

    def shape(self, data: bytes) -> Hashable:
        """Run it once: what it answered, or what was wrong in words, without what varies."""
        try:
            return self.run(data)
        except self.raises as error:
            return type(error).__name__, _VARYING.sub("", str(error))[:80]


@dataclass(frozen=True)
class Finding:
    """An input, and what it raised that is not declared."""

    data: bytes
    error: Exception


TARGETS: dict[str, Target] = {}


def target(
    name: str, seeds: Sequence[bytes], raises: tuple[type[Exception], ...] = (), words: Sequence[bytes] = ()
) -> Callable[[Run], Run]:
    """Make a function one of the targets."""

    def made(run: Run) -> Run:
        assert name not in TARGETS
        TARGETS[name] = Target(name, run, tuple(seeds), raises, tuple(words))
        return run

    return made


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes as a network may bring them; where they are cut is said by what they are."""
    sizes = random.Random(zlib.crc32(data))
    at = 0
    while at < len(data):
        size = sizes.choice((1, 1, 2, 3, 7, 40, 300, 5000))
        yield data[at : at + size]
        at += size


def inputs_of(target: Target) -> list[bytes]:
    """Its seeds, and what once raised something."""
    kept = sorted((CORPUS / target.name).glob("*"))
    return [*target.seeds, *(each.read_bytes() for each in kept)]


def keep(target: Target, finding: Finding) -> Path:
    """Put an input into the corpus, so that all later runs begin with it too."""
    path = CORPUS / target.name / hashlib.sha256(finding.data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    return path


# -- what changes inputs


def mutated(rng: random.Random, data: bytes, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Another input, by a few changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(_CHANGES)(rng, changed, pool, words)
    return bytes(changed[: max(MAX_INPUT, len(data))])


def _at(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(len(data) + 1)


def _flip(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((rng.randrange(256), rng.choice(_NUMBERS)))


def _number(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    """A length, in some order of bytes."""
    size = rng.choice((2, 4))
    value = rng.choice((*_LONGER, len(data), max(0, len(data) - 4), rng.randrange(1 << 16))) % (1 << 8 * size)
    at = _at(rng, data)
    data[at : at + size] = value.to_bytes(size, rng.choice(("big", "big", "little")))


def _insert(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = _at(rng, data)
    data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 17)))


def _delete(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = _at(rng, data)
    del data[at : at + rng.choice((1, 1, 2, 4, 17, 300))]


def _repeat(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at, size = _at(rng, data), rng.choice((1, 2, 8, 40))
    data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 30))


def _splice(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    data[_at(rng, data) :] = other[rng.randrange(len(other) + 1) :]


def _join(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    data += rng.choice(pool)


def _word(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    if words:
        at, word = _at(rng, data), rng.choice(words)
        data[at : at + rng.choice((0, len(word)))] = word


_CHANGES = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _number,
    _insert,
    _delete,
    _repeat,
    _splice,
    _join,
    _word,
    _word,
)


# -- the loop


def fuzz(
    target: Target, seed: int, count: int | None = None, seconds: float | None = None
) -> tuple[int, list[Finding]]:
    """Run one target so often or for so long: how often it was, and what was found, each kind once."""
    rng = random.Random(f"{target.name} {seed}")
    pool = inputs_of(target)
    waiting = list(reversed(pool))
    shapes: set[Hashable] = set()
    found: dict[Hashable, Finding] = {}
    until = None if seconds is None else time.monotonic() + seconds
    done = 0
    while done != count and (until is None or done % 64 or time.monotonic() < until):
        data = waiting.pop() if waiting else mutated(rng, rng.choice(pool), pool, target.words)
        done += 1
        try:
            shape = target.shape(data)
        except Exception as error:
            found.setdefault((type(error), _place(error)), Finding(data, error))
            continue
        if shape not in shapes:
            shapes.add(shape)
            if len(pool) < MAX_POOL:
                pool.append(data)
            else:
                pool[rng.randrange(len(target.seeds), MAX_POOL)] = data
    return done, [*found.values()]


def _place(error: Exception) -> tuple[str, int]:
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
