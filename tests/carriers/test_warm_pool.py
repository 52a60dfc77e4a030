"""The pool follows the load within limits, costs nothing in standby, and nobody waits in vain."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revtunnel.carriers.warm_pool import WarmPool
from revtunnel.ground.limits import DataLimits
from tests.support.depth import deep

LIMITS = DataLimits()
PLENTY = 1000


class Pool:
    """A WarmPool with an owner: tickets go out at once, sockets come ``trip`` seconds later."""

    def __init__(self, limits: DataLimits = LIMITS, trip: float = 0.05) -> None:
        self.core = WarmPool(limits)
        self.now = 0.0
        self.trip = trip
        self.out: deque[float] = deque()  # when each ticket's socket comes
        self.frames = 0
        self.waited = 0

    def client(self) -> None:
        """One comes and takes a socket, or waits until it is served."""
        self.core.client(self.now)
        if self.core.warm:
            self.core.gone()
        else:
            self.core.waiting += 1
            self.waited += 1
        self.refill()

    def refill(self) -> None:
        """Do what the core says."""
        if count := self.core.missing(self.now, PLENTY):
            self.frames += 1
            self.core.hand_out(count)
            self.out.extend([self.now + self.trip] * count)
        for _ in range(self.core.surplus(self.now)):
            self.core.gone()

    def pass_time(self, seconds: float) -> None:
        """Sockets come, and the owner looks when it should."""
        end = self.now + seconds
        while self.out and self.out[0] <= end:
            self.now = max(self.now, self.out.popleft())
            self.core.came(self.now, self.trip)
            if self.core.waiting:
                self.core.waiting -= 1
                self.core.gone()
            self.refill()
        while (due := self.core.due()) is not None and self.now + due <= end:
            self.now += due
            self.refill()
        self.now = end


def test_a_link_without_clients_costs_nothing() -> None:
    """No socket, no ticket, no timer."""
    pool = Pool()
    pool.pass_time(1000.0)
    pool.refill()
    assert (pool.core.warm, pool.core.coming, pool.frames) == (0, 0, 0)
    assert pool.core.due() is None


def test_the_first_client_waits_and_the_next_ones_do_not() -> None:
    """Its ticket brings the least that are to be warm with it."""
    pool = Pool()
    pool.client()
    assert pool.core.coming == 1 + LIMITS.warm
    pool.pass_time(1.0)
    assert (pool.core.waiting, pool.core.warm) == (0, LIMITS.warm)
    for _ in range(20):
        pool.client()
        pool.pass_time(1.0)
    assert pool.waited == 1


def test_the_pool_is_empty_after_a_minute_without_clients() -> None:
    """And from then on nothing ticks."""
    pool = Pool()
    pool.client()
    pool.pass_time(LIMITS.warm_idle - 1.0)
    assert pool.core.warm == LIMITS.warm
    pool.pass_time(10.0)
    assert pool.core.warm == 0
    assert pool.core.due() is None


def test_a_steady_stream_of_clients_does_not_wait() -> None:
    """100 a second, each socket 50 ms away: after the first second nobody waits."""
    pool = Pool()
    for number in range(500):
        pool.client()
        pool.pass_time(0.01)
        if number == 100:
            pool.waited = 0
    assert pool.waited == 0
    assert LIMITS.warm < pool.core.warm + pool.core.coming <= LIMITS.warm_most
    pool.pass_time(30.0)
    assert pool.core.warm == LIMITS.warm  # back to the least that wait


def test_a_burst_is_remembered() -> None:
    """A page that loads six things at once, every few seconds: the second time all six are served at once."""
    pool = Pool()
    for _ in range(6):
        pool.client()
    pool.pass_time(3.0)
    pool.waited = 0
    for _ in range(4):
        pool.client()
    assert pool.waited == 0


def test_many_clients_do_not_mean_as_many_frames() -> None:
    """A full pool is filled up by the quarter."""
    pool = Pool()
    for _ in range(2000):
        pool.client()
        pool.pass_time(0.0005)
    assert pool.core.warm + pool.core.coming <= LIMITS.warm_most
    assert pool.frames < 400


def test_300_clients_at_once_are_all_served() -> None:
    """Never more sockets on the way than the limit."""
    pool = Pool()
    for _ in range(300):
        pool.client()
    assert LIMITS.warm_most / 2 < pool.core.coming <= LIMITS.warm_most
    pool.pass_time(5.0)
    assert pool.core.waiting == 0


def test_a_link_whose_sockets_never_come_is_left_alone() -> None:
    """Nobody waits for them any more; one is asked for every half minute in which a client came."""
    pool = Pool(trip=1e9)
    pool.client()
    pool.core.waiting -= 1
    pool.core.gave_up(0.0, 3.0)
    pool.core.expired(pool.core.coming)
    pool.now = 4.0
    assert not pool.core.client(pool.now)
    assert pool.core.missing(pool.now, PLENTY) == 0
    pool.now = 34.0
    assert not pool.core.client(pool.now)
    assert pool.core.missing(pool.now, PLENTY) == 1
    pool.core.hand_out(1)
    assert pool.core.missing(pool.now, PLENTY) == 0
    pool.core.came(pool.now + 1.0)
    assert pool.core.client(pool.now + 1.0)
    assert pool.core.missing(pool.now + 1.0, PLENTY) > 0


def test_one_client_that_gave_up_is_no_doubt_while_others_are_served() -> None:
    """A socket came while it waited: they can be had."""
    pool = Pool()
    pool.client()
    pool.pass_time(1.0)
    pool.core.gave_up(0.5, 3.5)
    assert pool.core.in_doubt
    other = Pool()
    other.client()
    other.pass_time(1.0)
    other.core.gave_up(0.01, 3.0)
    assert not other.core.in_doubt


def test_no_ticket_without_room() -> None:
    """A server that runs out of descriptors asks for none."""
    core = WarmPool(LIMITS)
    core.client(0.0)
    core.waiting = 5
    assert core.missing(0.0, 0) == 0
    assert core.missing(0.0, 3) == 3


class WarmPoolMachine(RuleBasedStateMachine):
    """Whatever clients, sockets and time do."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = DataLimits(warm=2, warm_most=8, warm_idle=20.0)
        self.core = WarmPool(self.limits)
        self.now = 0.0
        self.since: deque[float] = deque()  # when each waiting client came

    def settle(self) -> None:
        """What an owner does behind every event."""
        before = self.core.warm + self.core.coming
        wanted = self.core.wanted(self.now)
        count = self.core.missing(self.now, PLENTY)
        assert count >= 0
        if count:
            assert before + count <= max(1, wanted)
        self.core.hand_out(count)
        for _ in range(self.core.surplus(self.now)):
            self.core.gone()

    @rule()
    def a_client_comes(self) -> None:
        """It takes a socket, waits, or goes by the link."""
        may_wait = self.core.client(self.now)
        if self.core.warm:
            self.core.gone()
        elif may_wait:
            self.core.waiting += 1
            self.since.append(self.now)
        self.settle()

    @precondition(lambda self: self.core.coming)
    @rule()
    def a_socket_comes(self) -> None:
        """The longest waiting client has it."""
        self.core.came(self.now, 0.1)
        if self.core.waiting:
            self.core.waiting -= 1
            self.since.popleft()
            self.core.gone()
        self.settle()

    @precondition(lambda self: self.core.warm)
    @rule()
    def a_waiting_socket_dies(self) -> None:
        """Nobody had it."""
        self.core.gone()
        self.settle()

    @precondition(lambda self: self.core.coming)
    @rule()
    def a_ticket_expires(self) -> None:
        """Its socket never came."""
        self.core.expired()
        self.settle()

    @rule(seconds=st.sampled_from((0.01, 0.3, 3.0, 7.0, 40.0)))
    def time_passes(self, seconds: float) -> None:
        """Who waited for 3 s is told."""
        self.now += seconds
        while self.since and self.now - self.since[0] >= 3.0:
            self.core.waiting -= 1
            self.core.gave_up(self.since.popleft(), self.now)
        self.settle()

    @invariant()
    def the_laws_hold(self) -> None:
        """Bounds, and nobody waits without a ticket out."""
        core = self.core
        assert core.warm >= 0 and core.coming >= 0 and core.waiting == len(self.since)
        assert core.warm + core.coming <= self.limits.warm_most
        assert not core.waiting or not core.warm
        assert not core.waiting or core.coming
        assert core.due() is not None or not (core.warm or core.coming or core.waiting)

    def teardown(self) -> None:
        """Without clients it comes to rest."""
        for _ in range(3):
            self.time_passes(40.0)
            self.core.expired(self.core.coming)
            self.settle()
        assert (self.core.warm, self.core.coming, self.core.waiting) == (0, 0, 0)
        assert self.core.due() is None


TestWarmPool = WarmPoolMachine.TestCase
TestWarmPool.settings = settings(max_examples=deep(60), stateful_step_count=40, deadline=None)
