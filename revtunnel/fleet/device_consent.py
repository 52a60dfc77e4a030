"""What a device's site says to remote sessions: asked before one begins, and again when its agent comes back.

::

    refusal = say.refusal("plc-7")               # by its record; nothing: go on
    if say.asks("plc-7"):                        # its agent wants to be asked: Wish(..., ask=True)
        say.ask("plc-7", Asked(session.id, "ana", ("ssh",), "192.0.2.7"), answered)
    say.over(session.id)                         # always, once it has ended

``answered(yes, why)`` is called once the site has said something, and once more with a no if it takes a yes
back. The rules: who was asked once is asked again whenever his agent comes back, for it may have been started
anew and know nothing; and an agent that comes back and cannot be asked any more says no. A device that cannot
be asked says nothing: whether it has sessions is then the record's business.

Source: docs/link-protocol.rst "Sessions"; ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.fleet.fleet import Fleet
from revtunnel.streams.consent_messages import ConsentRequest, encode_asked, encode_over

__all__ = ["ConsentRequest", "DeviceConsent"]

Answered = Callable[[bool, str], None]


@dataclass(slots=True)
class _Question:
    serial: str
    asked: ConsentRequest
    answered: Answered
    yes: bool | None = None  # what was said last


class DeviceConsent:
    """All questions of one server. ``record_of`` knows what the settings say of a device."""

    def __init__(self, fleet: Fleet[Any], record_of: Callable[[str], DeviceRecord]) -> None:
        self._fleet = fleet
        self._record_of = record_of
        self._questions: dict[str, _Question] = {}
        self._of: dict[str, set[str]] = {}  # serial -> sessions

    def asks(self, serial: str) -> bool:
        """Whether a device has to be asked before a session begins."""
        link = self._link(serial)
        return bool(getattr(link, "says_sessions", False))

    def refusal(self, serial: str) -> str:
        """Why the settings let a device have no session, or nothing."""
        policy = self._record_of(serial).sessions
        if policy == "no":
            return f"the record of {serial} has sessions = no"
        if policy == "asked" and not self.asks(serial):
            return f"{serial} cannot be asked, and its record has sessions = asked"
        return ""

    def ask(self, serial: str, asked: ConsentRequest, answered: Answered) -> None:
        """Ask the site of a device that is here; its answer may take as long as somebody needs there."""
        self._questions[asked.session] = _Question(serial, asked, answered)
        self._of.setdefault(serial, set()).add(asked.session)
        self._say(serial, encode_asked(asked))

    def over(self, session: str) -> None:
        """A session has ended; one that was never asked for is left alone."""
        question = self._questions.pop(session, None)
        if question is None:
            return
        of = self._of[question.serial]
        of.discard(session)
        if not of:
            del self._of[question.serial]
        self._say(question.serial, encode_over(session))

    # -- from the switchboard

    def consented(self, serial: str, session: str, yes: bool, why: str) -> bool:
        """The site of a device answered; False: nobody asked it."""
        question = self._questions.get(session)
        if question is None or question.serial != serial:
            return False
        self._answer(question, yes, why)
        return True

    def arrived(self, serial: str) -> None:
        """A device is here, maybe again: ask for what is waited for, and for what runs."""
        for session in [*self._of.get(serial, ())]:
            question = self._questions.get(session)
            if question is None:
                continue
            if self.asks(serial):
                self._say(serial, encode_asked(question.asked))
            else:
                self._answer(question, False, f"{serial} cannot be asked any more")

    # -- inside

    @staticmethod
    def _answer(question: _Question, yes: bool, why: str) -> None:
        if yes is not question.yes:
            question.yes = yes
            question.answered(yes, why)

    def _link(self, serial: str) -> Any:
        device = self._fleet.get(serial)
        return device.link if device is not None else None

    def _say(self, serial: str, payload: bytes) -> None:
        if self.asks(serial):
            self._link(serial).say_session(payload)
