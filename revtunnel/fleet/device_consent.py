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

Of a device at another node that node decides, and asks (elsewhere.py). A session is known here all the same,
so that it is asked for wherever its device comes to; one of another node (``foreign``) is not asked for again
by us.

Source: docs/link-protocol.rst "Sessions"; ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.fleet.elsewhere import DeviceElsewhere, OtherNodes
from revtunnel.fleet.fleet import Fleet
from revtunnel.streams.consent_messages import ConsentRequest, encode_asked, encode_over

__all__ = ["ConsentRequest", "DeviceConsent"]

Answered = Callable[[bool, str], None]


@dataclass(slots=True)
class _Question:
    serial: str
    asked: ConsentRequest
    answered: Answered
    must: bool = True  # its site was asked, and has to be, wherever the device is
    foreign: bool = False
    yes: bool | None = None  # what was said last


class DeviceConsent:
    """All questions of one server. ``record_of`` knows what the settings say of a device."""

    def __init__(self, fleet: Fleet[Any], record_of: Callable[[str], DeviceRecord]) -> None:
        self.nodes: OtherNodes | None = None
        self._fleet = fleet
        self._record_of = record_of
        self._questions: dict[str, _Question] = {}
        self._of: dict[str, set[str]] = {}  # serial -> sessions

    def asks(self, serial: str) -> bool:
        """Whether a device has to be asked before a session begins; at another node, by that."""
        return self._elsewhere(serial) is not None or self._is_asked(serial)

    def refusal(self, serial: str) -> str:
        """Why the settings let a device have no session, or nothing."""
        policy, elsewhere = self._record_of(serial).sessions, self._elsewhere(serial)
        if policy == "no":
            return f"the record of {serial} has sessions = no"
        if elsewhere is not None:
            return elsewhere.refusal
        if policy == "asked" and not self._is_asked(serial):
            return f"{serial} cannot be asked, and its record has sessions = asked"
        return ""

    def ask(self, serial: str, asked: ConsentRequest, answered: Answered, foreign: bool = False) -> None:
        """Ask the site of a device, if it is to be; its answer may take as long as somebody needs there.

        It is called in any case: a device may be at another node by and by.
        """
        elsewhere, here = self._elsewhere(serial), self._is_asked(serial)
        if not here and self.nodes is None:
            return
        question = _Question(serial, asked, answered, here, foreign)
        self._questions[asked.session] = question
        self._of.setdefault(serial, set()).add(asked.session)
        if elsewhere is not None and self.nodes is not None and not foreign:
            self.nodes.ask_for(serial, asked)
        elif here:
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
        if self.nodes is not None and not (question.foreign or self._here(question.serial)):
            self.nodes.over(question.serial, session)

    # -- from the other nodes

    def away(self) -> list[tuple[str, ConsentRequest]]:
        """The sessions that began here and whose devices are not here: their nodes are asked for them."""
        found = (
            self._questions[each]
            for serial in self._of
            if not self._here(serial)
            for each in self._of[serial]
        )
        return [(each.serial, each.asked) for each in found if not each.foreign]

    def waits(self, session: str) -> bool:
        """Whether nothing was said to it yet."""
        question = self._questions.get(session)
        return question is not None and question.yes is None

    def told(self, session: str, asks: bool, yes: bool | None, why: str) -> bool:
        """What the node of its device says of a session; False: it is over."""
        question = self._questions.get(session)
        if question is None:
            return False
        question.must = asks
        if yes is not None and not self._here(question.serial):
            self._answer(question, yes, why)
        return session in self._questions

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
            if self._is_asked(serial):
                self._say(serial, encode_asked(question.asked))
            elif question.must:
                self._answer(question, False, f"{serial} cannot be asked any more")
            else:
                refusal = self.refusal(serial)
                self._answer(question, not refusal, refusal)

    # -- inside

    @staticmethod
    def _answer(question: _Question, yes: bool, why: str) -> None:
        if yes is not question.yes:
            question.yes = yes
            question.answered(yes, why)

    def _link(self, serial: str) -> Any:
        device = self._fleet.get(serial)
        return device.link if device is not None else None

    def _is_asked(self, serial: str) -> bool:
        """Whether a device that is here has to be asked."""
        return bool(getattr(self._link(serial), "says_sessions", False))

    def _here(self, serial: str) -> bool:
        return self._link(serial) is not None

    def _elsewhere(self, serial: str) -> DeviceElsewhere | None:
        return None if self.nodes is None or self._here(serial) else self.nodes.known(serial)

    def _say(self, serial: str, payload: bytes) -> None:
        if self._is_asked(serial):
            self._link(serial).say_session(payload)
