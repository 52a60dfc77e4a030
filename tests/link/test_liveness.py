"""When a link is asked for a sign of life, and when it is given up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.liveness import Liveness

LIMITS = LinkLimits()


def asked_once(limits: LinkLimits = LIMITS) -> Liveness:
    """A side whose first question, for the round trip, was answered at 0.1 s."""
    liveness = Liveness(limits, 0.0)
    assert liveness.answered(liveness.ask(0.0), 0.1)
    liveness.heard(0.1)
    return liveness


def run(
    liveness: Liveness, now: float, until: float, data_at: tuple[float, ...] = ()
) -> list[tuple[str, float]]:
    """Drive a side by its own timer while nothing is heard; data goes out at the times given."""
    story = []
    data = [at for at in data_at if at > now]
    tick = now
    while tick <= until:
        while data and data[0] <= tick:
            sent = data.pop(0)
            liveness.sent(sent)
            if liveness.may_be_busy(sent, tick):
                tick = sent + liveness.due(sent)
        if liveness.dead(tick):
            return [*story, ("dead", round(tick, 2))]
        if liveness.should_ask(tick):
            liveness.ask(tick)
            story.append(("ask", round(tick, 2)))
        tick += liveness.due(tick)
    return story


PATIENCE = 150.0


def patient() -> Liveness:
    """A side that bears with a program which answers nothing while its kernel does."""
    liveness = Liveness(LIMITS, 0.0, PATIENCE)
    assert liveness.answered(liveness.ask(0.0), 0.1)
    liveness.heard(0.1)
    return liveness


@pytest.mark.parametrize("data", [(), (0.2,)])
def test_a_program_whose_kernel_answers_has_all_its_patience(data: tuple[float, ...]) -> None:
    """A device that dials answers nothing: it is given up after 150 s of one question, no sooner."""
    asked = 5.2 if data else 25.1
    story = run(patient(), 0.1, 400.0, data)
    assert story[0] == ("ask", asked)
    word, died = story[-1]
    assert word == "dead"
    assert asked + PATIENCE <= died <= asked + PATIENCE + LIMITS.busy_keepalive


@given(st.floats(0.2, 60.0), st.booleans())
def test_n8_patience_ends_with_the_kernels_silence(off: float, busy: bool) -> None:
    """Power off at any time of an idle life: dead within 45 s of the last byte, 20 s of data sent."""
    liveness, dead_at = patient(), None
    if busy:
        liveness.sent(off)
    now = off
    while dead_at is None:
        liveness.unacknowledged = now - off
        if liveness.dead(now):
            dead_at = now
        elif liveness.should_ask(now):
            liveness.ask(now)
        now += liveness.due(now)
    assert dead_at <= off + (20.0 if busy else 45.0) + 0.05


def test_a_kernel_that_spoke_after_the_question_keeps_the_patience() -> None:
    """The acknowledgement of the question itself is a sign of life; older silence is none."""
    liveness = patient()
    liveness.ask(30.0)
    liveness.unacknowledged = 19.9  # it acknowledged at 30.1
    assert not liveness.dead(50.0)
    liveness.unacknowledged = 20.0
    assert liveness.dead(50.0)


def test_n8_a_device_that_is_never_asked_is_dead_when_its_kernel_is() -> None:
    """Without questions the kernel's probes are all there is: 40 s without an answer to them."""
    liveness = Liveness(LIMITS, 0.0, PATIENCE)
    liveness.heard(100.0)
    liveness.unacknowledged = 39.9
    assert not liveness.dead(100.0)
    liveness.unacknowledged = 40.0
    assert liveness.dead(100.0)


def test_the_first_question_is_asked_at_once() -> None:
    """The round trip is wanted before anything is silent, and asked for once only."""
    liveness = Liveness(LIMITS, 0.0)
    assert liveness.should_ask(0.0)
    liveness.ask(0.0)
    assert not liveness.should_ask(0.1)
    liveness.heard(0.2)  # a sign of life, but not the answer
    assert not liveness.should_ask(0.3)


def test_n8_an_idle_link_is_dead_after_25_and_20_seconds() -> None:
    """Silent from 0.1 s on: asked at 25.1 s, given up at 45.1 s."""
    assert run(asked_once(), 0.1, 100.0) == [("ask", 25.1), ("dead", 45.1)]


def test_n8_data_in_flight_is_dead_after_5_and_15_seconds() -> None:
    """20 s after the first unanswered data, whenever the timer happened to look before."""
    assert run(asked_once(), 0.1, 100.0, (0.2,)) == [("ask", 5.2), ("dead", 20.2)]


@given(st.floats(0.2, 60.0))
def test_n8_data_in_flight_never_waits_longer_than_20_seconds(sent: float) -> None:
    """At any moment of an idle life: data that nobody answers ends the link within 20 s."""
    story = run(asked_once(), 0.1, 200.0, (sent,))
    word, died = story[-1]
    assert word == "dead"
    assert died <= sent + 20.0 + 0.05  # the timer looks at most every 0.01 s


def test_any_byte_is_a_sign_of_life() -> None:
    """What was asked and what was unanswered start over with every byte heard."""
    liveness = asked_once()
    liveness.sent(1.0)
    assert liveness.should_ask(6.0)
    liveness.ask(6.0)
    liveness.heard(20.9)
    assert not liveness.dead(21.1)
    assert not liveness.should_ask(45.8)
    assert liveness.should_ask(45.9)


def test_more_data_does_not_move_the_limit() -> None:
    """The clock of unanswered data starts with its first byte."""
    assert run(asked_once(), 0.1, 100.0, (0.2, 4.0, 9.0, 19.0)) == [("ask", 5.2), ("dead", 20.2)]


def test_n13_a_path_dead_in_one_direction_is_found_by_both() -> None:
    """What the agent says is lost, the server is heard: the server gives up first, the agent after."""
    server, agent = asked_once(), asked_once()
    died: dict[str, float] = {}
    for tenth in range(1, 1000):
        now = tenth / 10
        for name, side in (("server", server), ("agent", agent)):
            if name not in died and side.dead(now):
                died[name] = now
            elif name not in died and side.should_ask(now):
                side.ask(now)
                if side is server:
                    agent.heard(now)
    assert set(died) == {"server", "agent"}
    assert died["server"] == pytest.approx(45.1, abs=0.2)
    assert died["agent"] == pytest.approx(25.1 + 45.0, abs=0.2)


def test_the_round_trip_is_the_smallest_of_late() -> None:
    """A better path is believed at once, a worse one step by step."""
    liveness = Liveness(LIMITS, 0.0)
    assert liveness.round_trip is None
    trips = []
    for asked, trip in ((0.0, 0.1), (30.0, 0.02), (60.0, 0.4), (90.0, 0.4)):
        assert liveness.answered(liveness.ask(asked), asked + trip)
        trips.append(round(liveness.round_trip or 0.0, 6))
    assert trips == [0.1, 0.02, 0.025, 0.03125]


def test_f23_answers_that_nobody_asked_for_are_not_taken() -> None:
    """An answer before any question, one with other bytes, and a second one."""
    liveness = Liveness(LIMITS, 0.0)
    assert not liveness.answered(b"\0" * 8, 0.0)
    question = liveness.ask(1.0)
    assert not liveness.answered(b"\xff" * 8, 1.1)
    assert liveness.answered(question, 1.2)
    assert not liveness.answered(question, 1.3)


def test_an_idle_side_looks_when_it_has_to_ask_and_not_before() -> None:
    """One timer in 25 s; what is sent meanwhile says that it comes too late."""
    liveness = asked_once()
    assert liveness.due(0.1) == 25.0
    assert liveness.due(1000.0) == 0.01  # and does not spin
    assert not liveness.may_be_busy(10.0, 25.1)
    liveness.sent(10.0)
    assert liveness.may_be_busy(10.0, 25.1)
    assert not liveness.may_be_busy(10.0, 15.0)
    assert liveness.due(10.0) == 5.0
    liveness.ask(15.0)
    assert liveness.due(15.0) == 15.0


def test_a_short_keepalive_is_kept_though_an_answer_sets_no_time() -> None:
    """Whoever looks when it is due asks in time."""
    liveness = Liveness(replace(LIMITS, keepalive=1.0), 0.0)
    assert liveness.answered(liveness.ask(0.0), 0.01)
    assert liveness.due(0.0) == 1.0
    liveness.ask(5.0)
    assert liveness.due(5.0) == 1.0
