"""What a daemon does as a process: clock, descriptors, signals, exit status.

Rule of this file: plain classes with the reactor passed in; nothing happens on import. Signal handlers only
hand over to the reactor.

======== ===================================================================================
signal   what happens
======== ===================================================================================
TERM INT first: drain, at most ``deadline`` seconds, exit 0; second: abort now, exit 1
HUP      reload, once for a storm of them
USR1     begin a new log file, where twistd's --logfile names one; else ignored
PIPE     ignored
======== ===================================================================================

Whatever hangs, a thread of a resolver or a disk, the process has ended ``deadline`` and a second after the
first TERM: a thread of its own sees to that, for the reactor itself may wait for the one that hangs.

Twisted's own handlers re-raise the signal at the end (exit 143) and drain nothing, so ours are in their place
from the first moment on.
"""

import atexit
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from revtunnel.ground.errors import LocalError
from revtunnel.process.systemd import Notifier
from revtunnel.sockets.name_threads import resolve_apart
from revtunnel.sockets.reactor_turn import shorten_turns

__all__ = ["ExitStatus", "SignalService", "prepare_reactor", "rotate_on_signal"]

log = Logger()

QUIET = 0.2  # seconds without a further HUP before settings are read
PATIENCE = 2.0  # seconds after the first HUP at which they are read in any case
LAST_WAIT = 1.0  # seconds that services get after an abort before the process leaves without them
STOPPING = 5.0  # seconds from the reactor's stop to the end, whatever still runs
ABORTED = 1  # exit status of a second signal


def prepare_reactor(reactor: Any) -> int:
    """Give the reactor the monotonic clock, short turns, threads for names, all descriptors: their number.

    Twisted's default clock is the wall clock, whose steps fire or freeze every timer.

    Raises:
        LocalError: a timer was set before, on the other clock.
    """
    if reactor.seconds is not time.monotonic:
        if reactor.getDelayedCalls():
            raise LocalError("a timer was set before the clock was")
        reactor.seconds = time.monotonic
    shorten_turns(reactor)
    resolve_apart(reactor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # a hard limit above what the kernel allows now
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def rotate_on_signal(reactor: Any, rotate: Callable[[], None]) -> None:
    """Let SIGUSR1 call ``rotate``, in the reactor's turn; without anybody who takes it, it ends a process."""
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(rotate))


class ExitStatus:
    """The status this process ends with: 0 unless ``end`` said otherwise; the first one said counts.

    Make it before the reactor runs. The only way out with a status of one's own under ``twistd`` is to leave
    in the last exit handler, so it registers itself there; handlers registered later still run first.
    """

    def __init__(
        self,
        reactor: Any,
        register: Callable[[Callable[[], None]], object] = atexit.register,
        leave: Callable[[int], object] = os._exit,
        call_in_thread: "Callable[[float, Callable[[], object]], object] | None" = None,
    ) -> None:
        """``call_in_thread``: calls something after so many seconds, whatever the reactor does."""
        self.status = 0
        self._reactor = reactor
        self._leave = leave
        self._call_in_thread = call_in_thread or _call_in_thread
        register(self._at_exit)

    def end(self, status: int = 0) -> None:
        """Stop the reactor in order and end with ``status``; harmless when it stops already."""
        self.status = self.status or status
        gc.freeze()  # what is still there need not be searched for cycles once more
        with suppress(ReactorNotRunning):
            self._reactor.stop()
            self.leave_in(STOPPING)

    def leave_in(self, seconds: float) -> None:
        """See to it that the process has ended by then, whatever hangs; not even a flush is waited for."""
        self._call_in_thread(seconds, lambda: self._leave(self.status))

    def leave_now(self) -> None:
        """End without waiting for anything."""
        _flush()
        self._leave(self.status)

    def _at_exit(self) -> None:
        if self.status:
            self.leave_now()


def _call_in_thread(seconds: float, call: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    with suppress(RuntimeError):  # no thread can be had: then all ends in order, or not at all
        timer.start()


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()


class Daemon(Protocol):
    """What signals act on; the server and the agent each have one."""

    def drain(self) -> Deferred[None]:
        """Take no new ones, let the old end; fires when nothing is left. Cancelled when time is up."""

    def abort(self) -> object:
        """Cut everything now."""

    def reload(self) -> object:
        """Read the settings again; on any error keep the old ones and say so. May return a Deferred."""


class SignalService(Service):
    """Signals of the process as calls on a ``Daemon``.

    Args:
        reactor: IReactorTime and IReactorCore.
        daemon: what is drained, aborted, reloaded.
        exit_status: how the process ends.
        notifier: the service manager.
        deadline: seconds a drain may take before the rest is cut; may be set anew later.
    """

    def __init__(
        self,
        reactor: Any,
        daemon: Daemon,
        exit_status: ExitStatus,
        notifier: Notifier,
        deadline: float = 30.0,
    ) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._exit = exit_status
        self._notifier = notifier
        self.deadline = deadline
        self._stops = 0
        self._first_hangup: float | None = None
        self._reload_call: Any = None
        self._previous: dict[int, Any] = {}

    def startService(self) -> None:
        """Take the signals now, from the reactor while it starts, and again when it runs."""
        super().startService()
        self._install()
        self._reactor.sigTerm = partial(self._stop_by, "SIGTERM")  # what it installs in between
        self._reactor.sigInt = partial(self._stop_by, "SIGINT")
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> None:
        """Forget a waiting reload. The handlers stay: a second signal must abort a slow stop."""
        super().stopService()
        if self._reload_call is not None:
            self._reload_call.cancel()
            self._reload_call = None

    def restore(self) -> None:
        """Put the handlers back that were there before us; for tests, a daemon never does."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def stop_requested(self, name: str = "request") -> None:
        """The first one drains, every further one aborts."""
        self._stops += 1
        if self._stops == 1:
            log.info("stop-requested", event="stop-requested", by=name, deadline=self.deadline)
            self._drain()
        elif self._stops == 2:
            log.warn("stop-aborted", event="stop-aborted", by=name)
            self._abort()
        else:
            self._exit.leave_now()

    def reload_requested(self) -> None:
        """Reload after a moment of quiet, so that a storm reloads once."""
        if self._stops or not self.running:
            return
        now = self._reactor.seconds()
        if self._reload_call is None:
            self._first_hangup = now
            self._reload_call = self._reactor.callLater(QUIET, self._reload)
        elif self._first_hangup is not None:
            self._reload_call.reset(min(QUIET, max(0.0, self._first_hangup + PATIENCE - now)))

    def _install(self) -> None:
        actions: dict[int, Any] = {
            signal.SIGTERM: partial(self._stop_by, "SIGTERM"),
            signal.SIGINT: partial(self._stop_by, "SIGINT"),
            signal.SIGHUP: lambda *_: self._hand_over(self.reload_requested),
            signal.SIGPIPE: signal.SIG_IGN,
        }
        for number, action in actions.items():
            previous = signal.signal(number, action)
            self._previous.setdefault(number, previous)

    def _stop_by(self, name: str, *_: object) -> None:
        self._hand_over(self.stop_requested, name)

    def _hand_over(self, call: Callable[..., None], *arguments: str) -> None:
        self._reactor.callFromThread(call, *arguments)

    def _drain(self) -> None:
        self._notifier.stopping("draining", self.deadline + LAST_WAIT)
        self._exit.leave_in(self.deadline + LAST_WAIT)
        done = maybeDeferred(self._daemon.drain)
        done.addTimeout(self.deadline, self._reactor)
        done.addErrback(self._drain_failed)
        done.addCallback(lambda _: self._exit.end())

    def _drain_failed(self, failure: Failure) -> None:
        if failure.check(TimeoutError):
            log.warn("drain-timed-out", event="drain-timed-out", seconds=self.deadline)
        elif self._stops == 1:
            log.failure("drain failed", failure)
            self._exit.end(ABORTED)
        self._daemon.abort()

    def _abort(self) -> None:
        self._daemon.abort()
        self._exit.end(ABORTED)
        self._reactor.callLater(LAST_WAIT, self._exit.leave_now)

    def _reload(self) -> None:
        self._reload_call = None
        self._notifier.reloading(self._reactor.seconds())
        done = maybeDeferred(self._daemon.reload)
        done.addErrback(lambda failure: log.failure("reload failed", failure))
        done.addCallback(lambda _: self._notifier.ready())
