"""The wake driver: what makes an absent device connect (an SMS, a call), run once a request.

Rule of this file: it gets the serial and nothing else of the request, as the last word of a command line that
no shell sees, or in the body of a POST; it has a deadline, and its failure has a sentence.

Source: issue "CCCP" (Offline intent); ours.
"""

import json
import shlex
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, inlineCallbacks
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from revtunnel.ground.facts import Report
from revtunnel.process.programs import run
from revtunnel.systems.cccp.cccp_facts import WakeEnded

__all__ = ["WakeDriver", "WakeFailed", "WakeRules"]


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


def _command(reactor: Any, rules: WakeRules, serial: str) -> "Deferred[Any]":
    return run(reactor, [*shlex.split(rules.command), serial])


@inlineCallbacks
def _post(reactor: Any, rules: WakeRules, serial: str) -> Any:
    body = json.dumps({"serial": serial}).encode()
    headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"revtunnel"]})
    agent = Agent(reactor, connectTimeout=rules.seconds)
    answer = yield agent.request(b"POST", rules.url.encode(), headers, FileBodyProducer(BytesIO(body)))
    if not 200 <= answer.code < 300:
        raise WakeFailed(f"it answered {answer.code}")
    yield readBody(answer)
