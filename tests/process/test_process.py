"""Signals as calls on a daemon, the reactor's clock, the exit status; real signals to this very process."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher

from revtunnel.ground.errors import LocalError
from revtunnel.process.process import ExitStatus, SignalService, prepare_reactor
from revtunnel.process.systemd import Notifier
from tests.support.epoll import own_reactor


class Reactor(MemoryReactorClock):
    """Twisted's memory reactor, which also hands over from signal handlers and stops only once."""

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        self.callLater(0, call, *arguments)

    def stop(self) -> None:
        if self.hasStopped:
            raise ReactorNotRunning
        super().stop()


class Daemon:
    """A daemon that writes down what was asked of it; the test ends its drain."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.drained: Deferred[None] = Deferred(lambda _: self.asked.append("cancelled"))
        self.error: Exception | None = None

    def drain(self) -> Deferred[None]:
        self.asked.append("drain")
        return self.drained

    def abort(self) -> None:
        self.asked.append("abort")

    def reload(self) -> None:
        self.asked.append("reload")
        if self.error is not None:
            raise self.error


class Desk:
    """A signal service with everything around it in the test's hands."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.daemon = Daemon()
        self.left: list[int] = []
        self.at_exit: list[Callable[[], None]] = []
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        ends = self.at_exit.append, self.left.append, lambda *alarm: self.alarms.append(alarm)
        self.status = ExitStatus(self.reactor, *ends)
        self.service = SignalService(self.reactor, self.daemon, self.status, Notifier(None), deadline=30.0)

    def signal(self, number: int) -> None:
        """A real signal to this process, then one turn of the reactor."""
        os.kill(os.getpid(), number)
        self.reactor.advance(0)


@pytest.fixture
def pending() -> Iterator[Desk]:
    """A running service; the handlers that were there before come back."""
    made = Desk()
    made.service.startService()
    yield made
    made.service.restore()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The event names and messages that went to the log."""
    seen: list[str] = []

    def observer(event: dict[str, str]) -> None:
        seen.append(event.get("event") or event.get("log_format") or "")

    globalLogPublisher.addObserver(observer)
    yield seen
    globalLogPublisher.removeObserver(observer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_n19_the_first_signal_drains_and_the_process_ends_well(pending: Desk, number: int) -> None:
    """The reactor stops when the drain is done, not before, and the status is 0."""
    pending.signal(number)
    assert pending.daemon.asked == ["drain"]
    assert not pending.reactor.hasStopped

    pending.daemon.drained.callback(None)

    assert pending.reactor.hasStopped
    assert pending.status.status == 0
    assert pending.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_n19_a_signal_while_the_reactor_starts_drains(number: int) -> None:
    """Between the handlers that we install first and last stand the reactor's, for a moment: ours as well."""
    with own_reactor() as loop:
        reactor, daemon = loop.reactor, Daemon()
        exit_status = ExitStatus(reactor, lambda _: None, lambda _: None, lambda *_: None)
        service = SignalService(reactor, daemon, exit_status, Notifier(None))
        service.startService()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which alone the reactor replaces
        handling = reactor._makeSignalHandling(True)
        handling.install()
        try:
            os.kill(os.getpid(), number)
            reactor.iterate(0)
            assert daemon.asked == ["drain"]
        finally:
            handling.uninstall()
            service.restore()


def test_n19_a_drain_that_takes_too_long_is_cut(pending: Desk, logged: list[str]) -> None:
    """When time is up the rest is aborted; that is still an orderly end."""
    pending.signal(signal.SIGTERM)
    pending.reactor.advance(29.9)
    assert not pending.reactor.hasStopped
    pending.reactor.advance(0.2)
    assert pending.daemon.asked == ["drain", "cancelled", "abort"]
    assert pending.reactor.hasStopped
    assert pending.status.status == 0
    assert logged == ["stop-requested", "drain-timed-out"]


def test_whatever_hangs_the_process_ends_at_its_deadline(pending: Desk) -> None:
    """The first signal sets an alarm that needs no reactor, and so does the reactor's stop."""
    pending.signal(signal.SIGTERM)
    pending.daemon.drained.callback(None)
    assert [seconds for seconds, _ in pending.alarms] == [31.0, 5.0]
    assert pending.left == []
    pending.alarms[0][1]()
    assert pending.left == [0]


def test_a_deadline_can_be_set_anew(pending: Desk) -> None:
    """Reloaded settings hold for the next stop."""
    pending.service.deadline = 5.0
    pending.signal(signal.SIGTERM)
    pending.reactor.advance(5.0)
    assert pending.reactor.hasStopped


def test_n20_the_second_signal_aborts_now(pending: Desk, logged: list[str]) -> None:
    """A drain is cut short at once; the status says that it was not in order."""
    pending.signal(signal.SIGTERM)
    pending.signal(signal.SIGINT)
    assert pending.daemon.asked == ["drain", "abort"]
    assert pending.reactor.hasStopped
    assert pending.status.status == 1
    assert logged == ["stop-requested", "stop-aborted"]


def test_n20_services_that_hang_after_an_abort_are_left_behind(pending: Desk) -> None:
    """Stopping in order gets one more second, then the process is gone; a third signal does not even wait."""
    pending.signal(signal.SIGTERM)
    pending.signal(signal.SIGTERM)
    assert pending.left == []
    pending.reactor.advance(1.0)
    assert pending.left == [1]
    pending.signal(signal.SIGTERM)
    assert pending.left == [1, 1]


def test_a_signal_while_the_reactor_stops_already_is_no_error(pending: Desk) -> None:
    """A daemon that stopped for another reason may still get the signal."""
    pending.status.end(75)
    pending.signal(signal.SIGTERM)
    pending.daemon.drained.callback(None)
    assert pending.status.status == 75


def test_a_failing_drain_ends_the_process_all_the_same(pending: Desk, logged: list[str]) -> None:
    """It is a bug, said in full and in the status, but the operator asked for an end."""
    pending.signal(signal.SIGTERM)
    pending.daemon.drained.errback(LocalError("bug"))
    assert pending.daemon.asked == ["drain", "abort"]
    assert pending.reactor.hasStopped
    assert pending.status.status == 1
    assert logged == ["stop-requested", "drain failed"]


def test_n20_a_storm_of_hangups_reloads_once(pending: Desk) -> None:
    """A hundred signals in a row are one reload, when they are over."""
    for _ in range(100):
        pending.signal(signal.SIGHUP)
        pending.reactor.advance(0.01)
    assert pending.daemon.asked == []
    pending.reactor.advance(0.2)
    assert pending.daemon.asked == ["reload"]
    assert pending.reactor.getDelayedCalls() == []


def test_n20_an_endless_storm_does_not_put_the_reload_off_for_ever(pending: Desk) -> None:
    """Settings are read two seconds after the first signal in any case."""
    for _ in range(25):
        pending.signal(signal.SIGHUP)
        pending.reactor.advance(0.1)
    assert pending.daemon.asked == ["reload"]


def test_a_reload_that_fails_is_logged_and_the_next_one_works(pending: Desk, logged: list[str]) -> None:
    """An exception out of a reload does not end the service."""
    pending.daemon.error = LocalError("bug")
    pending.signal(signal.SIGHUP)
    pending.reactor.advance(0.2)
    pending.daemon.error = None
    pending.signal(signal.SIGHUP)
    pending.reactor.advance(0.2)
    assert pending.daemon.asked == ["reload", "reload"]
    assert logged == ["reload failed"]


def test_a_stopping_daemon_reloads_no_more(pending: Desk) -> None:
    """Neither a waiting reload nor a new one happens once the service stopped."""
    pending.signal(signal.SIGHUP)
    pending.service.stopService()
    pending.signal(signal.SIGHUP)
    pending.reactor.advance(5.0)
    assert pending.daemon.asked == []


def test_a_draining_daemon_reloads_no_more(pending: Desk) -> None:
    """New settings would open again what the drain has closed."""
    pending.signal(signal.SIGTERM)
    pending.signal(signal.SIGHUP)
    pending.reactor.advance(5.0)
    assert pending.daemon.asked == ["drain"]


def test_n20_a_broken_pipe_is_no_signal(pending: Desk) -> None:
    """SIGPIPE is ignored."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    pending.signal(signal.SIGPIPE)
    assert pending.daemon.asked == []


def test_handlers_are_taken_again_when_the_reactor_runs(pending: Desk) -> None:
    """Twisted puts its own there when it starts: ours, which do not end in 143, come last."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for hook, args, kwargs in pending.reactor.whenRunningHooks:
        hook(*args, **kwargs)
    pending.signal(signal.SIGTERM)
    assert pending.daemon.asked == ["drain"]


def test_the_first_status_counts_and_is_left_with_at_exit() -> None:
    """A second, later problem does not hide the first; status 0 ends in the ordinary way."""
    pending = Desk()
    (at_exit,) = pending.at_exit
    at_exit()
    assert pending.left == []
    pending.status.end(75)
    pending.status.end(1)
    at_exit()
    assert pending.left == [75]


class IdleReactor(ReactorBase):
    """Twisted's own timers on nothing."""

    def installWaker(self) -> None:
        """There is nothing to wake."""


def test_n14_the_reactor_gets_the_monotonic_clock() -> None:
    """Before any timer, and only then: a timer of the other clock would never fire."""
    reactor = IdleReactor()
    assert prepare_reactor(reactor) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert reactor.seconds is time.monotonic
    reactor.callLater(1.0, print)
    prepare_reactor(reactor)  # again is harmless

    late = IdleReactor()
    late.callLater(1.0, print)
    with pytest.raises(LocalError):
        prepare_reactor(late)


def test_descriptors_are_raised_to_the_hard_limit() -> None:
    """A daemon may use what the system gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        assert prepare_reactor(IdleReactor()) == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
