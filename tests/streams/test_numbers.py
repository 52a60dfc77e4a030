"""Channel numbers come round in turn; oddities are counted in a window of time."""

import pytest

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.streams.numbers import Numbers, Tally


def test_n23_all_numbers_are_taken_and_the_next_one_has_none() -> None:
    """1 to 255, never 0; the 256th is told so, and no holder loses its number."""
    numbers = Numbers(255)
    assert [numbers.take() for _ in range(255)] == list(range(1, 256))
    assert numbers.take() is None
    assert numbers.free == 0


def test_n24_a_number_given_back_is_the_last_to_come_again() -> None:
    """Round in turn: a late frame for number 1 meets a number that rests as long as it can."""
    numbers = Numbers(4)
    assert numbers.take() == 1
    numbers.give(1)
    assert [numbers.take() for _ in range(4)] == [2, 3, 4, 1]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_number_nobody_took_cannot_be_given(number: int) -> None:
    """A second giving would let two clients hold it: our own fault, raised."""
    numbers = Numbers(4)
    taken = numbers.take()
    assert taken == 1
    numbers.give(1)
    with pytest.raises(LocalError, match=f"number {number} was not taken"):
        numbers.give(number)
    assert numbers.free == 4


def test_too_many_oddities_in_a_window_end_the_link() -> None:
    """Three in 60 s: the third is one too many."""
    tally = Tally(3, 60.0, "oddities")
    tally.add(0.0)
    tally.add(60.0)
    with pytest.raises(RemoteError, match="3 oddities in 60 s"):
        tally.add(60.0)
    assert tally.total == 3


def test_oddities_far_apart_are_tolerated_for_ever() -> None:
    """A window begins with its first oddity; the total goes on counting."""
    tally = Tally(3, 60.0, "oddities")
    for minute in range(100):
        tally.add(minute * 61.0)
        tally.add(minute * 61.0 + 1.0)
    assert tally.total == 200
