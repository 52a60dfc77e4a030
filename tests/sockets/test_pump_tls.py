"""Whatever two programs do over TLS, step by step, the data plane does what Python does: words and bytes.

Every step is settled before the next, on socketpairs, so that nothing is a matter of chance: over TCP a busy
kernel delivers when it likes (tests/support/pump_drive.py has that).
"""

import hashlib
import itertools
import socket
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import RECORD, End, TlsEnd, ends_with_reset
from revtunnel.sockets.plane_settings import find_pump
from tests.sockets.test_relay import CARRIERS, ROOM, Joined
from tests.support.depth import deep

BAD_RECORD = b"\x17\x03\x03\0\x20" + bytes(32)
ALERT = b"\x15\x03\x03\0\x02\x02\x28"  # in the clear, where nothing is any more
SETTLED = 8  # turns
RECORDS = 64  # of a reading, as in _pump_tls.c
WORDS = hashlib.shake_256(b"what they say").digest(1_000_000)


class Program:
    """A client or a service that does as it is told, as far as it still can."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.over = False  # it has ended its direction, or left
        self.said = 0  # bytes
        self.unsent = b""  # refused, and to be repeated
        self.heard = bytearray()
        self.saw = ""

    def say(self, size: int) -> None:
        """So many bytes, perhaps not all of them."""
        self._write(self.unsent or WORDS[self.said : self.said + size])

    def end_in_order(self) -> None:
        """Its end of file, behind all its bytes."""
        if self.unsent:
            self._write(self.unsent)
        elif not self.over:
            self.over = self.end.end_writing()

    def hang_up(self, garbage: bytes = b"") -> None:
        """A FIN without close_notify; it may say something before that is not TLS."""
        if not self.over:
            self.over = True
            if garbage and isinstance(self.end, TlsEnd):
                self.end.sock.send(garbage)
            self.end.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Be gone."""
        self.over, self.saw = True, self.saw or "itself"
        ends_with_reset(self.end.sock)
        self.end.close()

    def hear(self) -> None:
        """One reading."""
        if self.saw:
            return
        try:
            size = self.end.read_into(ROOM[:RECORD])
        except OSError as error:
            self.saw = type(error).__name__
            return
        self.heard += ROOM[: size or 0]
        self.saw = "the end" if size == 0 else ""

    def _write(self, data: bytes) -> None:
        if not self.over:
            taken = self.end.write(data)
            self.said += taken
            self.unsent = data[taken:]


DEEDS = (
    partial(Program.say, size=100),
    partial(Program.say, size=70_000),
    Program.hear,
    Program.end_in_order,
    Program.hang_up,
    partial(Program.hang_up, garbage=BAD_RECORD),
    partial(Program.hang_up, garbage=ALERT),
    Program.reset,
)
SAYS, SAYS_MUCH, HEARS, ENDS, HANGS_UP, *_ = range(len(DEEDS))
built = pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")
Step = tuple[int, int]  # who: 0 client, 1 service; number of the deed


def what_becomes(tls: tuple[bool, bool], steps: list[Step], plane: str, after: int = 0) -> tuple[object, ...]:
    """Of a pair that lives through these steps."""
    joined = Joined(tls, our_turn=True, plane=plane, after=after)
    joined.relay.start()
    programs = Program(joined.client), Program(joined.service)
    for who, deed in steps:
        try:
            DEEDS[deed](programs[who])
        except OSError:
            programs[who].over = True
        joined.turn(SETTLED)
    before = [*joined.ended]
    for _ in range(60):
        for each in programs:
            each.hear()
        joined.turn(2)
    relay, ended = joined.relay, [*joined.ended]
    joined.finish()
    client, service = programs
    assert WORDS.startswith(client.heard) and WORDS.startswith(service.heard)
    assert relay.to_far >= len(service.heard) and relay.to_near >= len(client.heard)
    if (Ended.CLOSED, "") in ended:
        assert (relay.to_far, relay.to_near) == (client.said, service.said)
    return (
        before,
        ended,
        client.saw,
        service.saw,
    )  # how far a cut one got is a matter of whose turn came first


def is_the_same(tls: tuple[bool, bool], steps: list[Step], after: int = 0) -> None:
    """Python beside the data plane."""
    assert what_becomes(tls, steps, "native", after) == what_becomes(tls, steps, "")


PARTINGS = (ENDS, HANGS_UP, 5, 6, 7)
WITH_TLS = CARRIERS[1:]


@pytest.mark.slow
@pytest.mark.parametrize("tls", WITH_TLS, ids=str)
@pytest.mark.parametrize("first", [0, 1])
def test_partings_in_every_order(tls: tuple[bool, bool], first: int) -> None:
    """Each side says something and parts in its way, the second before or behind an answer, or never."""
    second = 1 - first
    for one, other, said in itertools.product(PARTINGS, (*PARTINGS, None), (False, True)):
        steps = [(first, SAYS), (first, one)]
        steps += [(second, SAYS)] if said else []
        steps += [] if other is None else [(second, other)]
        is_the_same(tls, steps)


@pytest.mark.slow
@pytest.mark.parametrize("tls", WITH_TLS, ids=str)
@pytest.mark.parametrize("leaver", [0, 1])
def test_partings_of_a_side_that_is_not_read(tls: tuple[bool, bool], leaver: int) -> None:
    """The other takes nothing by then, and may go on to read or part itself."""
    other = 1 - leaver
    for one, then in itertools.product(PARTINGS, (None, HEARS, *PARTINGS)):
        steps = [(leaver, SAYS_MUCH)] * 6 + [(leaver, one)]
        steps += [] if then is None else [(other, then)]
        is_the_same(tls, steps)


@pytest.mark.slow
@pytest.mark.parametrize("garbage", [b"", BAD_RECORD, ALERT])
@pytest.mark.parametrize("answer", [b"", b"an answer"])
def test_what_was_found_behind_good_bytes_is_what_is_said(garbage: bytes, answer: bytes) -> None:
    """The far side takes nothing then, and the near one may be written before it is read again."""

    def said(plane: str) -> list[tuple[Ended, str]]:
        limits = RelayLimits(first=4 * RECORD, turn=4 * RECORD)
        joined = Joined((True, False), limits, our_turn=True, plane=plane)
        joined.fill(joined.relay._far.end)
        joined.relay.start()
        joined.client.write(b"good bytes")
        Program(joined.client).hang_up(garbage)
        joined.turn(SETTLED)
        if answer:
            joined.service.write(answer)
        joined.turn(SETTLED)
        for _ in range(60):
            joined.service.read_into(ROOM) if not joined.ended else None
            joined.turn()
        ended = [*joined.ended]
        joined.finish()
        return ended

    assert said("native") == said("")


@built
def test_a_turn_takes_a_bounded_number_of_records() -> None:
    """However small they are: somebody's keystrokes by the thousand are no burden on others."""
    joined = Joined((True, False), RelayLimits(), plane="native")
    joined.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for _ in range(1000):
        assert joined.client.write(b"k") == 1
    joined.relay.start()
    moved = [0]
    while moved[-1] < 1000:
        joined.turn()
        moved.append(joined.relay.to_far)
    assert max(b - a for a, b in itertools.pairwise(moved)) <= 4 * RECORDS
    joined.finish()


@pytest.mark.slow
@settings(max_examples=deep(150), deadline=None)
@given(
    st.sampled_from(WITH_TLS),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, len(DEEDS) - 1)), max_size=12),
)
def test_whatever_they_do(tls: tuple[bool, bool], steps: list[Step]) -> None:
    """Random steps."""
    is_the_same(tls, steps)
