"""The wake driver: what makes an absent device connect (an SMS, a call), run once a request.

Rule of this file: it gets the serial and nothing else of the request, as the last word of a command line that
no shell sees, or in the body of a POST; it has a deadline, and its failure has a sentence. What a URL answers
is read to its end, kept nowhere, and cut where it is long.

Source: issue "CCCP" (Offline intent); ours.
"""

import json
import shlex
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, inlineCallbacks
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from revtunnel.ground.facts import Report
from revtunnel.systems.cccp.cccp_facts import WakeEnded

__all__ = ["WakeDriver", "WakeFailed", "WakeRules"]

SAID = 400  # characters of a driver's last output that are kept
ANSWER = 64 * 1024  # bytes of a URL's answer


class WakeFailed(Exception):
    """The driver did not do it; the text says why."""


@dataclass(frozen=True, slots=True)
class WakeRules:
    """What is run; neither: nothing."""

    command: str = ""
    url: str = ""
    seconds: float = 20.0
    most: int = 16  # at once


class WakeDriver:
    """Runs it. ``rules`` may be replaced."""

    def __init__(self, reactor: Any, rules: WakeRules, report: Report) -> None:
        self.rules = rules
        self.running = 0
        self._reactor = reactor
        self._report = report

    def wake(self, serial: str) -> "Deferred[None] | None":
        """Run it for a device: fires when it is done, fails with WakeFailed; None: nothing is set."""
        rules = self.rules
        if not rules.command and not rules.url:
            return None
        begun = self._reactor.seconds()
        if self.running >= rules.most:
            running = fail(WakeFailed(f"{self.running} wake drivers are running"))
        elif rules.command and serial.startswith("-"):
            running = fail(WakeFailed("a serial with - in front would be an option of the command"))
        else:
            self.running += 1
            running = (
                _command(self._reactor, rules, serial)
                if rules.command
                else _post(self._reactor, rules, serial)
            )
            running.addTimeout(rules.seconds, self._reactor)
            running.addBoth(self._left)
        return running.addBoth(self._tell, serial, begun)

    def _left(self, result: Any) -> Any:
        self.running -= 1
        return result

    def _tell(self, result: Any, serial: str, begun: float) -> Any:
        outcome, detail = "done", ""
        if isinstance(result, Failure):
            outcome, detail = "failed", result.getErrorMessage() or type(result.value).__name__
            if result.check(TimeoutError):
                outcome, detail = "timed-out", f"it did not end in {self.rules.seconds:g} s"
            result = Failure(WakeFailed(detail))
        seconds = round(self._reactor.seconds() - begun, 3)
        self._report(WakeEnded(serial, outcome, detail, seconds))
        return result if isinstance(result, Failure) else None


class _Process(ProcessProtocol):
    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._kill())
        self._said = b""

    def outReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        self._said = (self._said + data)[-SAID:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Twisted calls this."""
        done, self.done = self.done, Deferred()
        if done.called:
            return
        if reason.check(ProcessDone):
            done.callback(None)
        else:
            words = self._said.decode("ascii", "backslashreplace").strip().splitlines()[-1:]
            done.errback(WakeFailed(": ".join([reason.getErrorMessage(), *words])))

    def _kill(self) -> None:
        if self.transport is not None:
            self.transport.signalProcess("KILL")


class _Answer(Protocol):
    """What a URL says behind its status; ``done`` fires at its end, and fails where that does not come."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self.cut())
        self._size = 0

    def cut(self) -> None:
        """Read no more of it."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        self._size += len(data)
        if self._size > ANSWER and not self.done.called:
            self.done.errback(WakeFailed(f"it answered more than {ANSWER} bytes"))
            self.cut()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(WakeFailed("its answer broke off"))


def _command(reactor: Any, rules: WakeRules, serial: str) -> "Deferred[None]":
    words = [*shlex.split(rules.command), serial]
    process = _Process()
    done = process.done
    try:
        reactor.spawnProcess(process, words[0], words, env={"PATH": "/usr/local/bin:/usr/bin:/bin"})
    except OSError as error:
        return fail(WakeFailed(f"{words[0]}: {error.strerror}"))
    return done


@inlineCallbacks
def _post(reactor: Any, rules: WakeRules, serial: str) -> Any:
    body = json.dumps({"serial": serial}).encode()
    headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"revtunnel"]})
    agent = Agent(reactor, connectTimeout=rules.seconds)
    answer = yield agent.request(b"POST", rules.url.encode(), headers, FileBodyProducer(BytesIO(body)))
    body_of = _Answer()
    answer.deliverBody(body_of)
    if not 200 <= answer.code < 300:
        body_of.cut()
        raise WakeFailed(f"it answered {answer.code}")
    yield body_of.done
