"""Segments as signs of life: two ends by their own timers, a kernel that probes, and what may lie between."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.liveness import Liveness
from revtunnel.link.path_signs import PathSigns

LIMITS = LinkLimits()
GRACE = 10.0  # seconds
MOST = 60.0
EXCHANGE = 2 * (52 + 12) + 52  # bytes of IP for PING, PONG with the acknowledgement of PING, and that of PONG
PROBE = 2 * 52
FOUND = MOST + GRACE + LIMITS.answer  # seconds


@dataclass
class Side:
    """One end, and when it looks next."""

    liveness: Liveness
    looks: float = 0.0
    segments: int = 1
    said: list[float] = field(default_factory=list)
    dead_at: float | None = None


class Path:
    """A server, an agent and its kernel.

    ``late`` is by how much each of the kernel's probes is late: its timers are coarse.
    """

    def __init__(self, most: float = MOST, late: float = 0.0) -> None:
        self.server, self.agent = (Side(Liveness(LIMITS, 0.0)) for _ in "sa")
        for side in (self.server, self.agent):
            side.liveness.signs = PathSigns(LIMITS.keepalive, most, 0.0)
        self.bytes = 0
        self.probes = True  # reach the server and are answered
        self.proxy = False  # answers them itself, and the server hears nothing
        self.frozen = False  # the agent's process
        self.off = float("inf")  # when nothing passes any more
        self._late = late
        self._acked = 0.0  # when the agent's kernel heard of the other last
        self.now = 0.0

    def run(self, until: float, watch: Callable[[], object] = lambda: None) -> None:
        while self.now < until and not (self.server.dead_at and self.agent.dead_at):
            assert self.agent.liveness.signs is not None
            probe = self._acked + self.agent.liveness.signs.after + self._late
            self.now = min(self.server.looks, self.agent.looks, probe)
            if self.now == probe:
                self._probe()
            for side, other in ((self.server, self.agent), (self.agent, self.server)):
                if side.looks <= self.now and side.dead_at is None:
                    self._look(side, other)
            watch()

    def _probe(self) -> None:
        self._acked = self.now
        if self.now < self.off and self.probes:
            self.bytes += PROBE
            self.agent.segments += 1
            self.server.segments += not self.proxy

    def _look(self, side: Side, other: Side) -> None:
        if side is self.agent and self.frozen:
            side.looks = float("inf")
            return
        alive = side.liveness
        if alive.signs is not None:
            alive.signs.counted(side.segments, alive.heard_at, self.now)
        if alive.dead(self.now):
            side.dead_at, side.looks = self.now, float("inf")
            return
        if alive.should_ask(self.now):
            question = alive.ask(self.now)
            side.said.append(self.now)
            if self.now < self.off and not self.frozen:
                self._exchange(side, other, question)
        side.looks = self.now + alive.due(self.now)

    def _exchange(self, side: Side, other: Side, question: bytes) -> None:
        self.bytes += EXCHANGE
        for each, came in ((side, 1), (other, 2)):
            each.segments += came
            each.liveness.heard(self.now)
        assert side.liveness.answered(question, self.now)
        self._acked = self.now


def test_a_day_of_silence_costs_less_than_200_kb() -> None:
    path = Path()
    path.run(86_400.0)
    assert path.bytes < 200_000
    assert len(path.server.said) + len(path.agent.said) < 86_400 / LIMITS.hung + 10
    assert path.server.dead_at is path.agent.dead_at is None


@pytest.mark.parametrize("late", [0.1, 1.0, 2.0, 4.0])
def test_a_kernel_whose_timers_are_late_costs_a_question_now_and_then(late: float) -> None:
    """The server looks a little behind each probe; where that is not enough it asks, and begins anew."""
    path = Path(late=late)
    path.run(86_400.0)
    assert path.bytes < 250_000
    assert path.server.dead_at is path.agent.dead_at is None


def test_the_time_grows_with_each_silence_that_was_borne() -> None:
    path, seen = Path(most=200.0), list[float]()

    def watch() -> None:
        signs = path.agent.liveness.signs
        assert signs is not None
        if not seen or signs.after != seen[-1]:
            seen.append(signs.after)

    path.run(2_000.0, watch)
    assert seen == [25.0, 50.0, 100.0, 200.0]


@given(st.floats(1.0, 4_000.0), st.floats(0.0, 3.0))
def test_a_path_that_dies_is_found_by_both_within_90_seconds(off: float, late: float) -> None:
    """Whenever that is: 60 s to the next probe, 10 s of grace, 20 s for the answer to a PING."""
    path = Path(late=late)
    path.off = off
    path.run(off + 1_000.0)
    for side in (path.server, path.agent):
        assert side.dead_at is not None
        assert side.dead_at <= off + FOUND + late + 1.0


@given(st.floats(1.0, 4_000.0))
def test_a_process_that_hangs_is_found_though_its_kernel_answers(off: float) -> None:
    path = Path()
    path.run(off)
    path.frozen = True
    path.run(off + 2_000.0)
    assert path.server.dead_at is not None
    assert path.server.dead_at <= off + LIMITS.hung + LIMITS.answer + MOST


def test_a_proxy_that_answers_for_itself_is_asked_by_ping_from_the_first_silence_on() -> None:
    """It must not be silent for longer than without the kernel's probes, but once."""
    path = Path()
    path.proxy = True
    path.run(3_600.0)
    assert path.server.liveness.signs is None
    gaps = [after - before for before, after in zip(path.server.said, path.server.said[1:], strict=False)]
    assert gaps[0] == LIMITS.keepalive + GRACE
    assert set(gaps[1:]) == {LIMITS.keepalive}


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 80.0)), max_size=60), st.floats(1.0, 300.0))
def test_the_table_of_a_silence(looks: list[tuple[int, float]], most: float) -> None:
    """Whatever is counted, and whenever: it only grows, never beyond ``most``, and is due last of all."""
    signs, now, heard, count = PathSigns(25.0, most, 0.0), 0.0, 0.0, 0
    for more, wait in looks:
        now, count, before = now + wait, count + more, signs.after
        assert signs.last(heard) <= now
        borne = signs.counted(count, heard, now)
        assert borne == (signs.after > before) or signs.after == most
        assert min(25.0, most) <= before <= signs.after <= most
        assert signs.due(heard) >= min(heard + 5.0, now)
        if more == 2:
            heard = now
    assert signs.silent(heard, now + most + GRACE + 80.0)


def test_nothing_is_learned_where_the_kernel_does_not_count() -> None:
    signs = PathSigns(25.0, 60.0, 0.0)
    assert not signs.counted(-1, 0.0, 5.0)
    assert not signs.counted(-1, 0.0, 35.0)
    assert (signs.seen, signs.after) == (False, 25.0)
