"""When an absent device is woken: at once, again and again, one at a time, and not too often."""

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from revtunnel.fleet.waking import Waking
from revtunnel.ground.limits import ServerLimits

LIMITS = ServerLimits(wakes=2, wake_first=60.0, wake_most=200.0)


class Site:
    """Devices that are here, and wakes that end when the test says so."""

    def __init__(self, quick: bool = True) -> None:
        self.clock = Clock()
        self.quick = quick
        self.here: set[str] = set()
        self.unknown: set[str] = set()
        self.woken: list[tuple[str, float]] = []
        self.running: dict[str, Deferred[None]] = {}
        self.waking = Waking(self.clock, self._wake, self.here.__contains__, lambda: LIMITS)

    def _wake(self, serial: str) -> "Deferred[None] | None":
        if serial in self.unknown:
            return None
        self.woken.append((serial, self.clock.seconds()))
        if self.quick:
            return succeed(None)
        assert serial not in self.running
        self.running[serial] = Deferred()
        return self.running[serial]

    def end(self, serial: str, failed: bool = False) -> None:
        """A wake ends."""
        running = self.running.pop(serial)
        if failed:
            running.errback(RuntimeError("it answered 500"))
        else:
            running.callback(None)

    def times(self, serial: str = "a") -> list[float]:
        """When a device was woken."""
        return [at for who, at in self.woken if who == serial]

    def pass_time(self, seconds: int) -> None:
        """In steps of a second."""
        self.clock.pump([1.0] * seconds)

    def arrive(self, serial: str) -> None:
        """A device connects."""
        self.here.add(serial)
        self.waking.arrived(serial)

    def lose(self, serial: str) -> None:
        """Its link is lost."""
        self.here.discard(serial)
        self.waking.want(serial)


@pytest.fixture
def site() -> Iterator[Site]:
    """Nothing of it may be left when it stops."""
    site = Site()
    yield site
    site.waking.stop()
    assert not site.clock.getDelayedCalls()


def test_it_is_woken_until_it_is_here(site: Site) -> None:
    """At once, after a minute, then after times that double, up to the longest."""
    site.waking.want("a")
    site.pass_time(700)
    assert site.times() == [0, 60, 180, 380, 580]
    site.arrive("a")
    site.pass_time(1000)
    assert len(site.woken) == 5
    site.lose("a")
    assert site.times()[-1] == 1700
    site.pass_time(61)
    assert site.times()[-1] == 1760


def test_a_device_that_is_here_is_not_woken(site: Site) -> None:
    """Nor one for which nothing is set."""
    site.here.add("a")
    site.waking.want("a")
    site.unknown.add("b")
    site.waking.want("b")
    site.pass_time(1000)
    assert not site.woken


def test_clients_shorten_no_time_below_the_first(site: Site) -> None:
    """A client every second wakes it every minute, and not every second."""
    site.waking.want("a")
    for _ in range(200):
        site.waking.want("a")
        site.pass_time(1)
    assert site.times() == [0, 60, 120, 180]


def test_a_device_that_comes_and_goes_is_not_woken_all_the_time(site: Site) -> None:
    """An hour of links that live for a second."""
    for _ in range(100):
        site.lose("a")
        site.pass_time(1)
        site.arrive("a")
        site.pass_time(1)
    assert site.times() == [0, 60, 120, 180]


@pytest.mark.parametrize("failed", [False, True])
def test_one_wake_at_a_time_for_each_device_and_so_many_in_all(failed: bool) -> None:
    """The others wait in line, in their order; a failure is one more try."""
    site = Site(quick=False)
    for serial in "abcd":
        site.waking.want(serial)
        site.waking.want(serial)
    assert [who for who, _ in site.woken] == ["a", "b"]
    site.pass_time(300)
    assert [who for who, _ in site.woken] == ["a", "b"]
    site.end("b", failed)
    assert [who for who, _ in site.woken] == ["a", "b", "c"]
    site.arrive("d")
    site.end("a", failed)
    site.end("c", failed)
    assert len(site.woken) == 3
    site.pass_time(60)
    assert [who for who, _ in site.woken] == ["a", "b", "c", "b", "a"]
    site.waking.stop()
    site.end("a", failed)
    site.end("b", failed)
    assert not site.clock.getDelayedCalls()


def test_thousands_whose_wakes_end_at_once() -> None:
    """One after the other, each once."""
    site = Site(quick=False)
    for number in range(5000):
        site.waking.want(f"plc-{number}")
    site.quick = True
    site.end("plc-0")
    assert len(site.woken) == 5000
    site.waking.stop()
    assert not site.clock.getDelayedCalls()


def test_it_comes_while_it_is_woken_and_goes_again() -> None:
    """The wake that runs is not doubled; what follows it has its time."""
    site = Site(quick=False)
    site.waking.want("a")
    site.arrive("a")
    site.lose("a")
    assert site.times() == [0]
    site.pass_time(5)
    site.end("a")
    site.pass_time(59)
    assert site.times() == [0]
    site.pass_time(1)
    assert site.times() == [0, 65]
    site.waking.stop()
    site.waking.want("b")
    assert len(site.woken) == 2
