"""How long an agent stays away: the series, the spread, what the server asks for, when it starts over."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.limits import AgentLimits
from revtunnel.link.backoff import Backoff

LIMITS = AgentLimits()  # 0.5 s first, 60 s most, stable after 60 s


def always(value: float) -> Callable[[], float]:
    """A random that is not."""
    return lambda: value


def test_the_series_doubles_up_to_a_minute() -> None:
    """The longest waits are 0.5, 1, 2 ... 32, and 60 from then on."""
    backoff = Backoff(LIMITS, always(1.0))
    assert [backoff.after_failure() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_full_jitter() -> None:
    """A wait is the random share of the longest one: it may be nothing at all."""
    assert [Backoff(LIMITS, always(share)).after_failure() for share in (0.0, 0.25, 0.5)] == [
        0.0,
        0.125,
        0.25,
    ]
    backoff = Backoff(LIMITS, always(0.5))
    assert [backoff.after_failure() for _ in range(4)] == [0.25, 0.5, 1.0, 2.0]


def test_a_year_of_failures_does_not_overflow() -> None:
    """The exponent has an end; 10,000 failures give a minute like 10 do."""
    backoff = Backoff(LIMITS, always(1.0))
    assert [backoff.after_failure() for _ in range(10_000)][-1] == 60.0


@pytest.mark.parametrize("lived", [0.0, 1.0, 60.0, 86_400.0])
def test_the_first_loss_is_spread_as_the_server_asked(lived: float) -> None:
    """A herd that lost its server comes back over the whole spread, however long the links lived."""
    assert Backoff(LIMITS, always(0.5)).after_loss(lived, spread=10.0) == 5.0


def test_a_link_that_falls_at_once_is_no_success() -> None:
    """Links that come up and fall at once go on up the series: no storm of quick reconnects."""
    backoff = Backoff(LIMITS, always(1.0))
    waits = [backoff.after_loss(lived=0.9, spread=1.0) for _ in range(9)]
    assert waits == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_link_that_came_up_halves_the_failures_and_a_stable_minute_ends_them() -> None:
    """Six failures, a link of 59.9 s: three; a link of 60 s: none, and its own loss."""
    backoff = Backoff(LIMITS, always(1.0))
    for _ in range(6):
        backoff.after_failure()
    assert backoff.after_loss(lived=59.9, spread=1.0) == 4.0
    assert backoff.failures == 3
    assert backoff.after_loss(lived=60.0, spread=1.0) == 1.0
    assert backoff.failures == 1
    assert backoff.after_failure() == 1.0


def test_the_spread_is_kept_whatever_failed_before() -> None:
    """A herd of thousands that loses its server twice in a minute does not come back within a second."""
    backoff = Backoff(LIMITS, always(0.5))
    for _ in range(3):
        backoff.after_failure()
    assert backoff.after_loss(lived=10.0, spread=30.0) == 15.0


def test_the_longest_wait_is_for_who_says_no() -> None:
    """A server that had us lately and is not reached is tried every 10 s; ten spreads, if it has a herd."""
    for spread, longest in ((1.0, 10.0), (0.0, 10.0), (3.0, 30.0), (30.0, 60.0)):
        backoff = Backoff(LIMITS, always(1.0))
        backoff.after_loss(100.0, spread)
        assert [backoff.after_failure(away=9.0) for _ in range(9)][-1] == longest
        assert backoff.after_failure() == 60.0
        assert backoff.after_failure(away=600.0) == 60.0


def test_what_is_announced_is_waited_for_and_no_longer() -> None:
    """However often it failed before; others who were told so come within the second after."""
    backoff = Backoff(LIMITS, always(0.5))
    for _ in range(8):
        backoff.after_failure()
    assert backoff.announced(20.0) == 20.5


def returns(seed: int, kills: int, every: float = 10.0, down: float = 2.0) -> list[float]:
    """A server is killed each ``every`` seconds and listens ``down`` later: how long its agent takes then."""
    backoff, found = Backoff(LIMITS, Random(seed).random), []
    up_since, now = 0.0, every
    for kill in range(1, kills):
        killed, ready = kill * every, kill * every + down
        if up_since is not None:
            now = killed + backoff.after_loss(killed - up_since, 1.0)
            lost = killed
        while now < ready:
            now += backoff.after_failure(now - lost)
        up_since = now if now < killed + every else None  # type: ignore[assignment]
        if up_since is not None:
            found.append(now - ready)
    return found


def test_an_agent_is_back_soon_however_often_its_server_is_killed() -> None:
    """A hundred agents, twenty kills; it was a third of them when only a stable minute was a success."""
    found = sorted(each for seed in range(100) for each in returns(seed, 20))
    assert len(found) > 0.99 * 1900  # the others missed one life of the server
    assert found[len(found) // 2] < 2.0
    assert found[len(found) * 95 // 100] < 6.0


def test_retry_after_comes_on_top() -> None:
    """A server that asks for 300 s gets 300 s and the spread behind them, whatever failed before."""
    backoff = Backoff(LIMITS, always(0.5))
    assert backoff.after_loss(lived=3600.0, spread=10.0, retry_after=300.0) == 305.0
    for _ in range(5):
        backoff.after_failure()
    assert backoff.after_loss(lived=0.5, spread=10.0, retry_after=300.0) == 305.0
    assert backoff.failures == 7  # a dismissal is no success


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.floats(0, 200),
            st.floats(0, 30),
            st.integers(0, 400),
            st.booleans(),
        ),
        max_size=50,
    )
)
def test_every_wait_is_within_its_bounds(steps: list[tuple[float, float, float, int, bool]]) -> None:
    """Never before retry-after, never later than a minute or the spread on top of it."""
    shares = iter([step[0] for step in steps])
    backoff = Backoff(LIMITS, lambda: next(shares))
    for _, lived, spread, retry_after, up in steps:
        wait = backoff.after_loss(lived, spread, retry_after) if up else backoff.after_failure()
        least = retry_after if up else 0
        assert least <= wait <= least + max(60.0, spread)
