"""Sources from which devices proved themselves: how long they are known, and how many."""

from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.known_sources import KnownSources
from revtunnel.fleet.rates import Bucket

HERE, BESIDE, THERE = "198.51.100.1:5", "198.51.100.1:77", "198.51.100.2:5"


def test_known_while_a_link_is_up_and_for_a_time_after() -> None:
    """However long it is up, and until the last of several is gone."""
    known = KnownSources()
    known.arrived(HERE)
    known.arrived(BESIDE)
    assert known.knows(BESIDE, 1e9)
    assert not known.knows(THERE, 0.0)
    known.left(HERE, 100.0, 0.0, 9)
    assert known.knows(HERE, 1e9)
    known.left(BESIDE, 200.0, 50.0, 9)
    assert known.knows(HERE, 249.9)
    assert not known.knows(HERE, 250.0)


def test_a_source_is_an_ipv6_block_and_a_unix_socket_is_none() -> None:
    """As for penalties."""
    known = KnownSources()
    known.proved("[2001:db8:1:2::1]:5", 0.0, 10.0, 9)
    assert known.knows("[2001:db8:1:2:ffff::9]:1", 0.0)
    assert not known.knows("[2001:db8:1:3::1]:5", 0.0)
    for peer in ("unix:/run/x", ""):
        known.arrived(peer)
        known.left(peer, 0.0, 10.0, 9)
        known.proved(peer, 0.0, 10.0, 9)
        assert not known.knows(peer, 0.0)
    assert len(known) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60), st.integers(1, 5))
def test_who_proved_nothing_for_longest_is_forgotten(story: list[tuple[int, bool]], most: int) -> None:
    """Never more than so many, and the latest ones; ``known = 0`` keeps none."""
    known, order = KnownSources(), []
    for at, (source, forgets) in enumerate(story):
        known.proved(f"198.51.100.{source}:1", float(at), 0.0 if forgets else 1e6, most)
        if not forgets:
            order = [each for each in order if each != source] + [source]
        kept = [source for source in range(10) if known.knows(f"198.51.100.{source}:1", float(at))]
        assert kept == sorted(order[-most:])
        assert len(known) == len(kept)


def test_tries_come_in_batches_once_there_are_none() -> None:
    """Four at once; then two together, or one and another later; never one by one as they come back."""
    bucket = Bucket(4.0, 0.4, 0.0, batch=2.0)
    assert [bucket.take(0.0) for _ in range(5)] == [True] * 4 + [False]
    assert not bucket.take(4.9)
    assert [bucket.take(5.0) for _ in range(3)] == [True, True, False]
    assert bucket.take(100.0)
