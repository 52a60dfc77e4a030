"""Credit of one direction, and the pools above it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.streams.commands import MAX_CREDIT
from revtunnel.streams.window import CreditPool, ReceiveWindow, SendCredit
from tests.support.depth import deep

FIRST = 64 * 1024
LARGEST = 4 * 1024 * 1024


def window(pool: int = 1 << 30) -> ReceiveWindow:
    """A window at the first size."""
    return ReceiveWindow(FIRST, LARGEST, CreditPool(pool))


def flow(receiver: ReceiveWindow, size: int, now: float, round_trip: float | None) -> int:
    """Bytes arrive and are consumed."""
    receiver.arrive(size)
    return receiver.consumed(size, now, round_trip)


def test_credit_is_announced_when_half_a_window_is_owed() -> None:
    """Not on receipt, not byte by byte."""
    receiver = window()
    receiver.arrive(FIRST)
    assert receiver.held == FIRST
    assert receiver.consumed(FIRST // 2 - 1, 0.0, None) == 0
    assert receiver.left == 0
    assert receiver.consumed(1, 0.0, None) == FIRST // 2
    assert (receiver.left, receiver.owed, receiver.held) == (FIRST // 2, 0, FIRST // 2)


def test_f22_one_byte_over_the_credit_is_the_sender_s_fault() -> None:
    """All of the credit may be used, not one byte more; the window stays as it was."""
    receiver = window()
    receiver.arrive(FIRST)
    with pytest.raises(RemoteError, match="1 bytes with 0 of credit left"):
        receiver.arrive(1)
    assert receiver.left == 0


def test_more_consumed_than_held_is_our_own_fault() -> None:
    """A LocalError, and nothing is announced for it."""
    receiver = window()
    receiver.arrive(10)
    with pytest.raises(LocalError, match="11 bytes consumed, 10 held"):
        receiver.consumed(11, 0.0, None)
    assert receiver.owed == 0


def test_a_window_doubles_until_two_round_trips_have_room() -> None:
    """64 KiB to 1 MiB at 5 MB/s and 0.1 s, and no further: the flow has what it needs."""
    receiver = window()
    sizes = {}
    for turn in range(400):
        now = turn * 0.01
        while receiver.left < 50_000:
            assert flow(receiver, receiver.left, now, 0.1) or receiver.left
        flow(receiver, 50_000, now, 0.1)
        sizes[receiver.size // 1024] = turn
    assert list(sizes) == [64, 128, 256, 512, 1024]


def test_a_window_never_passes_its_limit() -> None:
    """However quick the flow."""
    receiver = window()
    for turn in range(400):
        flow(receiver, receiver.left, turn * 0.05, 0.1)
    assert receiver.size == LARGEST


def test_a_window_stays_small_where_bytes_come_in_heaps() -> None:
    """100 MB/s and a round trip of 0.3 ms: 60 kB are two of them, though 64 KiB are consumed at a blow."""
    receiver = window()
    for turn in range(1000):
        for _ in range(2):
            flow(receiver, receiver.left, turn * 0.00131, 0.0003)
    assert receiver.size == FIRST


@pytest.mark.parametrize(("gap", "round_trip"), [(0.13, 0.03), (5.0, 0.03), (0.0, None), (0.1, None)])
def test_a_window_stays_when_the_flow_is_slow_or_the_round_trip_unknown(
    gap: float, round_trip: float | None
) -> None:
    """What half of it in 0.13 s needs has room."""
    receiver = window()
    for turn in range(5):
        assert flow(receiver, FIRST // 2, turn * gap, round_trip) == FIRST // 2
    assert receiver.size == FIRST


def test_an_exhausted_pool_stops_the_growth_and_not_the_flow() -> None:
    """What cannot be widened is still repaid."""
    pool = CreditPool(FIRST)
    receiver = ReceiveWindow(FIRST, LARGEST, pool)
    said = moved = 0
    for turn in range(8):
        half = receiver.size // 2
        said += flow(receiver, half, turn, 1.0) + flow(receiver, half, turn, 1.0)
        moved += 2 * half
    assert said + receiver.owed == moved + FIRST
    assert receiver.size == 2 * FIRST
    assert pool.used == pool.limit == FIRST
    receiver.end()
    assert pool.used == 0


def test_enlarging_announces_what_was_owed_with_it() -> None:
    """Right after OPENED; a window that is larger already stays, and the largest is the limit."""
    receiver = window()
    receiver.arrive(100)
    receiver.consumed(100, 0.0, None)
    assert receiver.enlarge(4 * FIRST) == 3 * FIRST + 100
    assert receiver.enlarge(FIRST) == 0
    assert receiver.enlarge(LARGEST * 2) == LARGEST - 4 * FIRST
    assert receiver.left == receiver.size == LARGEST


def test_ending_twice_gives_back_once() -> None:
    """The pool is not robbed by a second end."""
    pool = CreditPool(LARGEST)
    receiver, other = ReceiveWindow(FIRST, LARGEST, pool), ReceiveWindow(FIRST, LARGEST, pool)
    receiver.enlarge(2 * FIRST)
    other.enlarge(2 * FIRST)
    receiver.end()
    receiver.end()
    assert pool.used == FIRST


def test_a_pool_draws_on_the_one_above_it_or_takes_nothing() -> None:
    """A link's pool and the server's: both have it, or neither gives it."""
    server = CreditPool(100)
    one, two = CreditPool(80, server), CreditPool(80, server)
    assert one.take(80)
    assert not one.take(1)
    assert not two.take(30)
    assert (one.used, two.used, server.used) == (80, 0, 80)
    assert two.take(20)
    one.give(80)
    assert (one.used, two.used, server.used) == (0, 20, 20)


def test_more_given_than_taken_is_our_own_fault() -> None:
    """A LocalError, and the pools stay as they were."""
    server = CreditPool(100)
    link = CreditPool(80, server)
    assert link.take(10)
    assert server.take(10)
    with pytest.raises(LocalError, match="11 bytes returned to a pool of which 10 are used"):
        link.give(11)
    assert (link.used, server.used) == (10, 20)


def test_send_credit_is_spent_and_grows() -> None:
    """Spending more than there is would be our own fault."""
    credit = SendCredit(10)
    credit.spend(10)
    with pytest.raises(LocalError, match="1 bytes sent with 0 of credit"):
        credit.spend(1)
    credit.grow(5)
    assert credit.left == 5


def test_f21_credit_beyond_the_largest_sum_is_the_other_side_s_fault() -> None:
    """2^31-1 is allowed, one more is not."""
    credit = SendCredit(1)
    credit.grow(MAX_CREDIT - 1)
    with pytest.raises(RemoteError, match="passes 2147483647"):
        credit.grow(1)
    assert credit.left == MAX_CREDIT


class LedgerMachine(RuleBasedStateMachine):
    """Three channels on one link's pool under a server's pool, and what the sender knows of each."""

    @initialize(link=st.integers(0, 600), server=st.integers(0, 600))
    def begin(self, link: int, server: int) -> None:
        """Pools of any size."""
        self.server = CreditPool(server)
        self.pool = CreditPool(link, self.server)
        self.windows = [ReceiveWindow(64, 512, self.pool) for _ in range(3)]
        self.credits = [SendCredit(64) for _ in range(3)]
        self.now = 0.0

    @rule(which=st.integers(0, 2), size=st.integers(1, 200))
    def send(self, which: int, size: int) -> None:
        """The sender uses credit that it has."""
        size = min(size, self.credits[which].left)
        self.credits[which].spend(size)
        self.windows[which].arrive(size)

    @rule(which=st.integers(0, 2), size=st.integers(0, 200), seconds=st.sampled_from((0.0, 0.1, 9.0)))
    def consume(self, which: int, size: int, seconds: float) -> None:
        """Bytes leave, the credit is announced."""
        self.now += seconds
        receiver = self.windows[which]
        self.announce(which, receiver.consumed(min(size, receiver.held), self.now, 0.5))

    @rule(which=st.integers(0, 2), size=st.integers(0, 700))
    def enlarge(self, which: int, size: int) -> None:
        """The target answered."""
        self.announce(which, self.windows[which].enlarge(size))

    @rule(which=st.integers(0, 2))
    def end(self, which: int) -> None:
        """A channel ends, another takes its place."""
        self.windows[which].end()
        self.windows[which] = ReceiveWindow(64, 512, self.pool)
        self.credits[which] = SendCredit(64)

    def announce(self, which: int, credit: int) -> None:
        """A WINDOW travels."""
        if credit:
            self.credits[which].grow(credit)

    @invariant()
    def the_ledger_is_even(self) -> None:
        """Both sides count the same; windows are the firsts and what the pools gave; nobody starves."""
        for receiver, credit in zip(self.windows, self.credits, strict=True):
            assert receiver.left == credit.left
            assert receiver.held >= 0
            assert 64 <= receiver.size <= 512
            assert (
                receiver.held or receiver.left
            )  # an empty window without anything to repay would stand still
        extra = sum(receiver.size - 64 for receiver in self.windows)
        assert extra == self.pool.used == self.server.used
        assert extra <= min(self.pool.limit, self.server.limit)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=deep(30), stateful_step_count=30, deadline=None)
