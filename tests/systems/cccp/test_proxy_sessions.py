"""The life of a proxy session: the table against a model that knows the document's words only."""

from itertools import product

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revtunnel.ground.errors import LocalError
from revtunnel.ground.networks import address_of, network_of
from revtunnel.systems.cccp.proxy_sessions import NEXT, Life, ProxyEvent, ProxyOptions, ProxySession, SideMode


@pytest.mark.parametrize(("persistent", "life", "event"), list(product((True, False), Life, ProxyEvent)))
def test_every_pair_of_the_table(persistent: bool, life: Life, event: ProxyEvent) -> None:
    """What is listed moves, all else raises and leaves the session alone."""
    session = ProxySession("a", ProxyOptions(persistent), 0.0)
    session.life = life
    wanted = NEXT[persistent].get((life, event))
    if wanted is None:
        with pytest.raises(LocalError):
            session.step(event)
        assert session.life is life
    else:
        assert session.step(event) is wanted
        assert bool(session.ended) == (wanted is Life.ENDED)


class Proxies(RuleBasedStateMachine):
    """Devices, clients, calls and time in any order; the model is a handful of plain facts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.session: ProxySession | None = None
        self.device = self.client = False
        self.deadline: float | None = None

    @rule(persistent=st.booleans(), timeout=st.sampled_from([0.0, 1.0, 5.0]))
    def on(self, persistent: bool, timeout: float) -> None:
        """The same call starts and renews."""
        options = ProxyOptions(persistent, timeout=timeout)
        if self.session is None:
            self.session = ProxySession("a", options, self.now)
            self.device = self.client = False
        else:
            self.session.renew(options, self.now)
        if not self.client:
            self.deadline = self.now + timeout if timeout else None

    @precondition(lambda self: self.session is not None)
    @rule()
    def device_comes(self) -> None:
        """A second one takes over, or ends a one-shot session."""
        assert self.session is not None
        ends = self.device and not self.session.options.persistent
        self.session.step(ProxyEvent.DEVICE_CAME)
        self.device = True
        self._over(ends, "device-replaced")

    @precondition(lambda self: self.session is not None and self.device)
    @rule()
    def device_leaves(self) -> None:
        """It closed, or its line is dead."""
        assert self.session is not None
        ends = not self.session.options.persistent
        self.session.step(ProxyEvent.DEVICE_LEFT)
        self.device = False
        self._over(ends, "device-closed")

    @precondition(lambda self: self.session is not None)
    @rule()
    def client_comes(self) -> None:
        """One at a time; the first one ends the waiting for good."""
        assert self.session is not None
        assert self.session.refuses(address_of("127.0.0.1")) == ("too-many-clients" if self.client else "")
        if not self.client:
            self.session.step(ProxyEvent.CLIENT_CAME)
            self.client, self.deadline = True, None

    @precondition(lambda self: self.session is not None and self.client)
    @rule()
    def client_leaves(self) -> None:
        """It closed."""
        assert self.session is not None
        ends = not self.session.options.persistent
        self.session.step(ProxyEvent.CLIENT_LEFT)
        self.client = False
        self._over(ends, "client-closed")

    @precondition(lambda self: self.session is not None)
    @rule()
    def off(self) -> None:
        """In any state."""
        assert self.session is not None
        self.session.step(ProxyEvent.OFF)
        self._over(True, "off")

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        """The time-out fires when it is due, and only then."""
        self.now += seconds
        if self.session is None:
            return
        due = self.deadline is not None and self.now >= self.deadline
        assert self.session.expired(self.now) == due
        if due:
            self.session.step(ProxyEvent.TIMED_OUT)
            self._over(True, "timed-out")

    def _over(self, ends: bool, word: str) -> None:
        assert self.session is not None
        assert self.session.ended == (word if ends else "")
        if ends:
            assert self.session.until is None and self.session.refuses(None) == "off"
            self.session, self.deadline = None, None
            self.device = self.client = False

    @invariant()
    def says_who_is_here(self) -> None:
        """``/status`` is the model's."""
        session = self.session
        if session is None:
            return
        assert (session.device_connected, session.client_connected) == (self.device, self.client)
        assert session.until == self.deadline
        both = self.device and self.client
        alone = SideMode.DISCARD if session.options.persistent else SideMode.HOLD
        assert session.manner is (SideMode.PASS if both else alone)


TestProxies = Proxies.TestCase


def test_h6_whitelist_compares_canonical_addresses() -> None:
    """Addresses, networks, IPv6, and IPv4 written as IPv6; a refused client changes nothing."""
    entries = ("192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "::ffff:198.51.100.1")
    session = ProxySession("a", ProxyOptions(whitelist=tuple(map(network_of, entries)), timeout=5.0), 0.0)
    for peer in ("192.0.2.7:1", "10.9.9.9:1", "[2001:db8::1]:1", "198.51.100.1:1", "[::ffff:192.0.2.7]:1"):
        assert session.refuses(address_of(peer)) == ""
    for peer in ("192.0.2.8:1", "[2001:db9::1]:1", "unix"):
        assert session.refuses(address_of(peer)) == "not-allowed"
    assert session.until == 5.0 and session.life is Life.WAITING


def test_h12_the_time_out_and_the_client_at_the_same_moment() -> None:
    """Whoever is first wins; the other finds nothing to do."""
    session = ProxySession("a", ProxyOptions(timeout=1.0), 0.0)
    session.step(ProxyEvent.CLIENT_CAME)
    assert not session.expired(1.0)
    other = ProxySession("a", ProxyOptions(timeout=1.0), 0.0)
    assert other.expired(1.0)
    other.step(ProxyEvent.TIMED_OUT)
    assert other.refuses(address_of("127.0.0.1")) == "off"


def test_early_bytes_may_be_thrown_away_by_setting() -> None:
    """``early_data = discard`` holds for one-shot sessions too."""
    session = ProxySession("a", ProxyOptions(), 0.0, hold=False)
    session.step(ProxyEvent.CLIENT_CAME)
    assert session.manner is SideMode.DISCARD
    assert (session.device_connected, session.client_connected, session.transferred) == (False, True, 0)
