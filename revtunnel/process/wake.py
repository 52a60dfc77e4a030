"""The wake driver: what makes an absent device connect (an SMS, a call), run once a request.

Rule of this file: it gets the serial and nothing else of the request, as the last word of a command line that
no shell sees, or in the body of a POST; it has a deadline, and its failure has a sentence. What a URL answers
is read to its end, kept nowhere, and cut where it is long.

Source: issue "CCCP" (Offline intent); ours.
"""

import json
import shlex
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.python.failure import Failure

from revtunnel.ground.facts import Report, WakeEnded
from revtunnel.process.http_requests import RequestFailed, request
from revtunnel.process.programs import run
from revtunnel.process.wake_settings import WakeRules
from revtunnel.sockets.end_transport import in_words

__all__ = ["WakeDriver", "WakeFailed"]


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
                else Deferred.fromCoroutine(_post(self._reactor, rules.url, rules.seconds, serial))
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


def _command(reactor: Any, command: str, serial: str) -> "Deferred[Any]":
    return run(reactor, [*shlex.split(command), serial])


async def _post(reactor: Any, url: str, wait: float, serial: str) -> None:
    headers = {"Content-Type": "application/json"}
    try:
        await request(reactor, "POST", url, wait, headers, json.dumps({"serial": serial}).encode())
    except RequestFailed as error:
        raise WakeFailed(str(error)) from None
