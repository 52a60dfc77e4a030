"""Which port comes next, and what is not given at all."""

from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.free_ports import FreePorts
from revtunnel.fleet.pools import Lease, Pool, PortState, Use
from revtunnel.ground.deadlines import Deadlines

MINE, OTHER = Use("d", "x"), Use("e", "x")


def ended(port: int, until: float, state: PortState = PortState.QUARANTINED, use: Use = MINE) -> Lease:
    """How a port ended."""
    return Lease(port, "default", "127.0.0.1", *use, state, False, False, 0.0, until)


def test_fresh_ports_go_first_and_then_the_one_given_back_longest_ago() -> None:
    """N3: next-fit, never lowest-first."""
    free = FreePorts(Pool("default", ((1, 4),)), ())
    assert [free.take(0.0), free.take(0.0)] == [1, 2]
    free.rest(ended(2, 10.0))
    free.rest(ended(1, 20.0))
    assert [free.take(30.0) for _ in range(5)] == [3, 4, 2, 1, None]


def test_resting_ports_are_not_given_until_their_time() -> None:
    """Quarantined and spoiled alike, to the second."""
    free = FreePorts(Pool("default", ((1, 2),)), ())
    free.rest(ended(1, 60.0))
    free.rest(ended(2, 300.0, PortState.SPOILED))
    assert free.take(59.9) is None
    assert free.next_expiry() == 60.0
    assert free.take(60.0) == 1
    assert free.take(299.0) is None
    assert free.take(300.0) == 2


def test_reserved_ports_are_never_given() -> None:
    """Neither in turn nor by number, whatever rests there."""
    free = FreePorts(Pool("default", ((1, 3),)), (2, 50))
    free.rest(ended(2, 0.0))
    assert not free.covers(2)
    assert not free.claim(2, MINE, 100.0)
    assert [free.take(100.0) for _ in range(3)] == [1, 3, None]
    assert free.counts().fixed == 1
    assert [lease.port for lease in free.history()] == [2]


def test_one_port_by_number() -> None:
    """Free ones, and those in quarantine after the same use; nothing leased, spoiled or foreign."""
    free = FreePorts(Pool("default", ((1, 9),)), ())
    assert free.claim(5, MINE, 0.0)
    assert not free.claim(5, MINE, 0.0)
    free.rest(ended(5, 60.0))
    assert not free.claim(5, OTHER, 1.0)
    assert free.claim(5, MINE, 1.0)
    free.rest(ended(5, 60.0, PortState.SPOILED))
    assert not free.claim(5, MINE, 1.0)
    assert free.claim(5, OTHER, 60.0)
    assert not free.claim(10, MINE, 0.0)
    assert [free.take(60.0) for _ in range(9)] == [1, 2, 3, 4, 6, 7, 8, 9, None]


def test_counts_add_up_at_every_step() -> None:
    """size = free + leased + fixed + quarantined + spoiled."""
    free = FreePorts(Pool("default", ((1, 10),)), (10,))
    for _ in range(4):
        free.take(0.0)
    free.away.add(1, "d", 0.0)
    free.rest(ended(2, 60.0))
    free.rest(ended(3, 300.0, PortState.SPOILED))
    counts = free.counts()
    assert (counts.size, counts.free, counts.leased, counts.fixed) == (10, 5, 2, 1)
    assert (counts.quarantined, counts.spoiled, counts.sticky) == (1, 1, 1)
    free.rest(ended(1, 60.0))
    assert free.counts().sticky == 0
    free.lapse(300.0)
    assert free.counts().free == 8


def test_a_pool_without_others_gives_what_has_rested_enough() -> None:
    """Only where its settings allow, the port that was given back first first, and no spoiled one."""
    ranges = ((1, 3),)
    strict, loose = FreePorts(Pool("p", ranges), ()), FreePorts(Pool("p", ranges, quarantine_least=10.0), ())
    for free in (strict, loose):
        free.hold(1)
        free.rest(ended(2, 300.0, PortState.SPOILED))
        free.rest(ended(3, 60.0))
        free.rest(ended(1, 61.0))
        assert free.take(9.0) is None
    assert strict.take(59.0) is None
    assert [loose.take(10.0), loose.take(10.0), loose.take(10.0)] == [3, 1, None]
    assert loose.quarantined_of("d") == 0


@given(st.lists(st.tuples(st.integers(1, 8), st.none() | st.integers(0, 20)), max_size=60))
def test_deadlines_are_a_sorted_dictionary(steps: list[tuple[int, int | None]]) -> None:
    """Whatever is set, moved and dropped: what is due comes once, in order."""
    deadlines, model = Deadlines(), dict[int, int]()
    for port, when in steps:
        deadlines.set(port, when)
        model.pop(port, None)
        if when is not None:
            model[port] = when
        assert deadlines.earliest() == min(model.values(), default=None)
    half = list(deadlines.due(10))
    assert half == [port for when, port in sorted((when, port) for port, when in model.items()) if when <= 10]
    assert list(deadlines.due(10)) == []
    assert deadlines.earliest() == min((when for when in model.values() if when > 10), default=None)


def test_deadlines_of_a_flapping_device_do_not_pile_up() -> None:
    """A port whose 30 days start over 100,000 times costs one entry, not 100,000."""
    deadlines = Deadlines()
    for second in range(100_000):
        deadlines.set(20000, second + 30 * 86400.0)
    assert len(deadlines._heap) <= 66
    assert deadlines.earliest() == 99_999 + 30 * 86400.0
