"""The wake driver: what makes an absent device connect (an SMS, a call), run once a request.

Rule of this file: it gets the serial and nothing else of the request, as the last word of a command line that
no shell sees, or in the body of a POST; it has a deadline, and its failure has a sentence. What a URL answers
is read to its end, kept nowhere, and cut where it is long.

Source: issue "CCCP" (Offline intent); ours.
"""

import json
import shlex
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, inlineCallbacks
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from revtunnel.ground.facts import Report, WakeEnded
from revtunnel.process.programs import run
from revtunnel.process.wake_settings import WakeRules
from revtunnel.sockets.addresses import address_of
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End
from revtunnel.sockets.opening import open_end
from revtunnel.sockets.twisted_transport import TwistedTransport

__all__ = ["WakeDriver", "WakeFailed"]

ANSWER = 64 * 1024  # bytes of a URL's answer


class WakeFailed(Exception):
    """The driver did not do it; the text says why."""


class WakeDriver:
    """Runs it. ``rules``, what is run for a serial, is asked each time."""

    def __init__(self, reactor: Any, rules: Callable[[str], WakeRules], report: Report) -> None:
        self._rules = rules
        self.running = 0
        self._reactor = reactor
        self._report = report

    def wake(self, serial: str) -> "Deferred[None] | None":
        """Run it for a device: fires when it is done, fails with WakeFailed; None: nothing is set."""
        rules = self._rules(serial)
        if not rules:
            return None
        begun = self._reactor.seconds()
        if self.running >= rules.most:
            running = fail(WakeFailed(f"{self.running} wake drivers are running"))
        elif rules.command and serial.startswith("-"):
            running = fail(WakeFailed("a serial with - in front would be an option of the command"))
        else:
            self.running += 1
            running = (
                _command(self._reactor, rules.command, serial)
                if rules.command
                else _post(self._reactor, rules.url, rules.seconds, serial)
            )
            running.addTimeout(rules.seconds, self._reactor)
            running.addBoth(self._left)
        return running.addBoth(self._tell, serial, begun, rules.seconds)

    def _left(self, result: Any) -> Any:
        self.running -= 1
        return result

    def _tell(self, result: Any, serial: str, begun: float, patience: float) -> Any:
        outcome, detail = "done", ""
        if isinstance(result, Failure):
            outcome, detail = "failed", in_words(result)
            if result.check(TimeoutError):
                outcome, detail = "timed-out", f"it did not end in {patience:g} s"
            result = Failure(WakeFailed(detail))
        seconds = round(self._reactor.seconds() - begun, 3)
        self._report(WakeEnded(serial, outcome, detail, seconds))
        return result if isinstance(result, Failure) else None


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


def _command(reactor: Any, command: str, serial: str) -> "Deferred[Any]":
    return run(reactor, [*shlex.split(command), serial])


@implementer(IAgentEndpointFactory)
class _Places:
    """Where requests go to, dialled as all the rest is; certificates are verified as a browser does."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds

    def endpointForURI(self, uri: URI) -> Any:
        """Twisted calls this."""
        place = _Place(self._reactor, uri.host.decode("ascii").strip("[]"), uri.port, self._seconds)
        if uri.scheme != b"https":
            return place
        return wrapClientTLS(BrowserLikePolicyForHTTPS().creatorForNetloc(uri.host, uri.port), place)


@implementer(IStreamClientEndpoint)
class _Place:
    """One of them."""

    def __init__(self, *where: Any) -> None:
        self._reactor = where[0]
        self._where = where

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[Any]":
        """Twisted calls this."""

        def reached(end: End) -> Any:
            peer = address_of(end.sock.family, end.sock.getpeername())
            protocol: Any = protocolFactory.buildProtocol(peer)
            TwistedTransport(self._reactor, end, protocol).start()
            return protocol

        return open_end(*self._where).addCallback(reached)


@inlineCallbacks
def _post(reactor: Any, url: str, wait: float, serial: str) -> Any:
    body = BytesIO(json.dumps({"serial": serial}).encode())
    taking_turns = Cooperator(scheduler=partial(reactor.callLater, 0))
    headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"revtunnel"]})
    agent = Agent.usingEndpointFactory(reactor, _Places(reactor, wait))
    answer = yield agent.request(b"POST", url.encode(), headers, FileBodyProducer(body, taking_turns))
    body_of = _Answer()
    answer.deliverBody(body_of)
    if not 200 <= answer.code < 300:
        body_of.cut()
        raise WakeFailed(f"it answered {answer.code}")
    yield body_of.done
