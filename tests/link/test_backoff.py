"""How long an agent stays away: the series, the spread, what the server asks for, when it starts over."""

from collections.abc import Callable

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


def test_a_link_that_never_lives_long_is_no_success() -> None:
    """Links that come up and fall at once go on up the series: no storm of quick reconnects."""
    backoff = Backoff(LIMITS, always(1.0))
    waits = [backoff.after_loss(lived=59.9, spread=1.0) for _ in range(9)]
    assert waits == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_only_a_stable_minute_starts_over() -> None:
    """59.9 s do not count as a link that works; 60 s do."""
    backoff = Backoff(LIMITS, always(1.0))
    for _ in range(5):
        backoff.after_failure()
    assert backoff.after_loss(lived=59.9, spread=1.0) == 16.0
    assert backoff.failures == 6
    assert backoff.after_loss(lived=60.0, spread=1.0) == 1.0
    assert backoff.failures == 1
    assert backoff.after_failure() == 1.0


def test_retry_after_comes_on_top() -> None:
    """A server that asks for 300 s gets 300 s and the spread behind them, whatever failed before."""
    backoff = Backoff(LIMITS, always(0.5))
    assert backoff.after_loss(lived=3600.0, spread=10.0, retry_after=300.0) == 305.0
    for _ in range(5):
        backoff.after_failure()
    assert backoff.after_loss(lived=1.0, spread=10.0, retry_after=300.0) == 305.0
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
