"""Floods of the same line: what is printed, what is summed up, and that memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from revtunnel.process.flood import Flood

KEY = ("warn", "link-refused", "denied", "")
OTHER = ("warn", "link-refused", "silent", "")


def test_ten_lines_then_a_sum() -> None:
    """Of 25 identical lines in a minute ten are printed and fifteen become one number, said once."""
    flood = Flood(lines=10, window=60.0)

    admitted = [flood.admit(KEY, float(second)) for second in range(25)]

    assert admitted == [True] * 10 + [False] * 15
    assert flood.over(59.9) == []
    assert flood.over(60.0) == [(KEY, 15)]
    assert flood.over(1e9) == []


def test_a_new_window_prints_again() -> None:
    """After its window a key starts afresh; a key that was never suppressed is not summed up."""
    flood = Flood(lines=1, window=60.0)
    assert flood.admit(KEY, 0.0)
    assert flood.over(61.0) == []
    assert flood.admit(KEY, 61.0)


def test_keys_do_not_disturb_each_other() -> None:
    """Another reason is another line."""
    flood = Flood(lines=1)
    assert flood.admit(KEY, 0.0)
    assert not flood.admit(KEY, 0.0)
    assert flood.admit(OTHER, 0.0)


def test_the_oldest_window_ends_early_when_keys_run_out() -> None:
    """Memory is bounded by the number of keys; what was suppressed is still told."""
    flood = Flood(lines=1, keys=2)
    flood.admit(KEY, 0.0)
    flood.admit(KEY, 0.0)
    flood.admit(OTHER, 1.0)
    flood.admit(("info", "third", "", ""), 2.0)

    assert flood.over(3.0) == [(KEY, 1)]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30)), max_size=200))
def test_every_line_is_printed_or_counted(steps: list[tuple[int, float]]) -> None:
    """Whatever comes when: printed lines and told numbers add up to what came, with few keys to remember."""
    flood = Flood(lines=3, window=10.0, keys=3)
    now, printed, told = 0.0, 0, 0
    for name, wait in steps:
        now += wait
        told += sum(more for _, more in flood.over(now))
        printed += flood.admit(("info", str(name), "", ""), now)
    told += sum(more for _, more in flood.over(now + 10.0))
    assert printed + told == len(steps)
