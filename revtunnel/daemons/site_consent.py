"""The device's own say: whether a remote session may be, as the site's settings want it.

The rules: what is not allowed here is not dialled, on the link and on data sockets alike (``may_dial`` is
asked for every channel of a session). ``allow`` says yes to what the agent offers, ``no`` says no, ``ask``
runs the site's command, which must end with 0 in time; whatever goes wrong is a no. The agent's list stays
the last word after a yes. A yes is kept for a while when the link is lost, so that nobody is asked twice for
one session.

The command's words are made once, then ``{user}``, ``{services}``, ``{session}``, ``{address}`` and
``{device}`` in them are replaced; no shell sees them. The same is in the environment, as ``REVTUNNEL_USER``
and so on. Names that the server says are plain, or were refused before (consent_messages.py).

Source: issue "Remote sessions" (The device's own say); ours.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Typing

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from revtunnel.daemons.agent_settings import ConsentSettings
from revtunnel.ground.facts import ConsentGiven, Report
from revtunnel.ground.targets import Target
from revtunnel.process.programs import ProgramFailed, run
from revtunnel.streams.consent_messages import ConsentRequest

__all__ = ["SiteConsent"]

MOST = 1024  # sessions that are allowed at once
AT_ONCE = 4  # commands that run at once
KEPT = 300.0  # seconds that a yes is kept without a link
NO_MORE = "the device's site takes no sessions any more"


class Asking(Typing):
    """The link that a question came by."""

    serial: str

    def consent(self, session: str, yes: bool, why: str) -> None:
        """Answer it."""

    def end_session(self, session: str, detail: str) -> None:
        """End what runs of it."""


@dataclass(slots=True)
class _Allowed:
    asked: ConsentRequest
    targets: frozenset[Target]
    link: Asking | None
    until: float = field(default=float("inf"))  # without a link


class SiteConsent:
    """All sessions that the site has allowed, and those that it is being asked for.

    ``targets`` are what services are called here. ``cut`` ends streams that have no link.
    """

    def __init__(
        self, reactor: Any, rules: ConsentSettings, targets: Mapping[str, Target], report: Report
    ) -> None:
        self.cut: Callable[[str, str], None] = lambda session, detail: None
        self._reactor = reactor
        self._rules = rules
        self._targets = targets
        self._report = report
        self._allowed: dict[str, _Allowed] = {}
        self._asking: dict[str, tuple[Asking, Deferred[str]]] = {}

    def may_dial(self, session: str, target: Target) -> str:
        """Why a channel of a session may not have a target, or nothing."""
        allowed = self._allowed.get(session)
        if allowed is None:
            return "the device's site has not allowed this session"
        return "" if target in allowed.targets else f"the session is not for {target}"

    def offer(self, targets: Mapping[str, Target]) -> None:
        """What services are called here from now on, in sessions that were allowed too."""
        self._targets = targets
        for each in self._allowed.values():
            each.targets = self._targets_of(each.asked)

    def take(self, rules: ConsentSettings) -> None:
        """Other settings; with ``no`` what was allowed ends, and nobody is asked any more."""
        self._rules = rules
        if rules.sessions == "no":
            for session in [*self._allowed]:
                self._withdraw(session, NO_MORE)
            for _, running in [*self._asking.values()]:
                running.cancel()

    # -- from the link

    def asked(self, link: Asking, asked: ConsentRequest) -> None:
        """The server asks; it is answered at once, or when the command has ended."""
        self._forget_old()
        before = self._allowed.get(asked.session)
        if before is not None and before.asked[:3] == asked[:3] and self._rules.sessions != "no":
            before.link, before.until = link, float("inf")
            link.consent(asked.session, True, "")
            return
        refusal = self._refusal(asked)
        if refusal:
            self._answer(link, asked, False, refusal, 0.0)
        elif self._rules.sessions == "allow":
            self._answer(link, asked, True, "", 0.0)
        else:
            self._run(link, asked)

    def over(self, session: str) -> None:
        """It is over: it may dial no more, and nobody waits for the command."""
        self._allowed.pop(session, None)
        asking = self._asking.pop(session, None)
        if asking is not None:
            asking[1].cancel()

    def link_gone(self, link: Asking) -> None:
        """Its questions are asked again by the next link, if they still matter."""
        for session in [each for each, (of, _) in self._asking.items() if of is link]:
            self.over(session)
        for allowed in self._allowed.values():
            if allowed.link is link:
                allowed.link, allowed.until = None, self._now() + KEPT

    def stop(self) -> None:
        """Wait for no command any more."""
        for session in [*self._asking]:
            self.over(session)

    # -- inside

    def _now(self) -> float:
        return float(self._reactor.seconds())

    def _refusal(self, asked: ConsentRequest) -> str:
        """Why the answer is no without asking anybody."""
        unknown = next((name for name in asked.services if name not in self._targets), None)
        if self._rules.sessions == "no":
            return "the device's site takes no sessions"
        if unknown is not None:
            return f"there is no service {unknown}"
        if len(self._allowed) >= MOST:
            return f"{len(self._allowed)} sessions are allowed, {MOST} at most"
        if asked.session in self._asking:
            return "it is being asked for already"
        if self._rules.sessions == "ask" and len(self._asking) >= AT_ONCE:
            return f"{len(self._asking)} sessions are being asked for, {AT_ONCE} at most"
        return ""

    def _run(self, link: Asking, asked: ConsentRequest) -> None:
        begun, rules = self._now(), self._rules
        values = {
            "user": asked.user,
            "services": ",".join(asked.services),
            "session": asked.session,
            "address": asked.address,
            "device": link.serial,
        }
        words = [_filled(word, values) for word in shlex.split(rules.consent_command)]
        environ = {f"REVTUNNEL_{name.upper()}": value for name, value in values.items()}
        running = run(self._reactor, words, environ)
        self._asking[asked.session] = link, running

        def done(result: Any) -> None:
            if self._asking.get(asked.session) != (link, running):
                return  # it is over, or its link is gone
            del self._asking[asked.session]
            why = _why(result, rules) if isinstance(result, Failure) else ""
            if self._rules.sessions == "no":
                why = NO_MORE
            self._answer(link, asked, not why, why, self._now() - begun)

        running.addTimeout(rules.consent_wait, self._reactor).addBoth(done)

    def _answer(self, link: Asking, asked: ConsentRequest, yes: bool, why: str, seconds: float) -> None:
        self._allowed.pop(asked.session, None)
        if yes:
            self._allowed[asked.session] = _Allowed(asked, self._targets_of(asked), link)
        answer = "yes" if yes else "no"
        services = ",".join(asked.services)
        self._report(
            ConsentGiven(link.serial, asked.session, asked.user, services, answer, why, round(seconds, 3))
        )
        link.consent(asked.session, yes, why)

    def _targets_of(self, asked: ConsentRequest) -> frozenset[Target]:
        return frozenset(self._targets[name] for name in asked.services if name in self._targets)

    def _withdraw(self, session: str, why: str) -> None:
        allowed = self._allowed.pop(session)
        self.cut(session, why)
        if allowed.link is not None:
            allowed.link.end_session(session, why)
            allowed.link.consent(session, False, why)

    def _forget_old(self) -> None:
        now = self._now()
        for session in [each for each, allowed in self._allowed.items() if allowed.until <= now]:
            del self._allowed[session]


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _why(failure: Failure, rules: ConsentSettings) -> str:
    """What the server is told of a command that did not say yes: its last line, or how it ended."""
    if failure.check(TimeoutError, CancelledError):
        return f"nobody at the device's site said yes in {rules.consent_wait:g} s"
    if failure.check(ProgramFailed):
        error: ProgramFailed = failure.value  # type: ignore[assignment]
        return error.said or "the device's site said no"
    return "the device's site could not be asked"
