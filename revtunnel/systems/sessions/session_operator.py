"""What operators see of remote sessions, and can do with them.

Source: issue 10 "What a user can do"; ours.
"""

import heapq
from collections import Counter
from typing import Any

from revtunnel.fleet.devices import Device
from revtunnel.fleet.pools import Lease
from revtunnel.process.admin.device_listings import At, Place
from revtunnel.process.admin.device_operations import SESSIONS
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid, NotFound, OperatorError
from revtunnel.streams.running import Running
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.session_life import Role, SessionEvent, SessionRefused
from revtunnel.systems.sessions.session_seats import Live

__all__ = ["NUMBERS", "SessionOperator", "SessionRows", "as_refusal"]

NUMBERS = 2**30  # of sessions in listings: above those of all channels
_ERRORS: dict[str, type[OperatorError]] = {
    "unknown": NotFound,
    "ended": NotFound,
    "too-many": Busy,
    "audit": Busy,
    "stopping": Busy,
}  # all others: Conflict


class SessionRows:
    """Remote sessions as one of the wires (wires.Wire); their channels are those of their devices."""

    def __init__(self, live: LiveSessions, at: At) -> None:
        self._live = live
        self._at = at

    def about(self, device: Device[Any]) -> tuple[list[Running], Row]:
        return [], {}

    def streams(self, serial: str | None, after: Place, limit: int) -> list[Running]:
        return []

    def sessions(self, serial: str | None, after: Place, limit: int) -> list[Row]:
        found = (each for each in self._live.all() if serial in (None, each.session.wish.serial))
        behind = (each for each in found if _place(each) > after)
        return [self._row(each) for each in heapq.nsmallest(limit, behind, key=_place)]

    def counts(self) -> dict[str, int]:
        return {}

    def facts(self) -> Counter[str]:
        return Counter()  # the switchboard counts them

    def uses(self, lease: Lease) -> bool:
        return False

    def kick(self, serial: str, detail: str, retry_after: int, by: str) -> bool:
        return False

    def close(self, serial: str, channel: int, detail: str) -> bool:
        found = next((each for each in self._live.all() if _place(each) == (serial, channel)), None)
        if found is not None:
            self._live.end(found.session.id, SessionEvent.OPERATOR, detail)
        return found is not None

    def grants(self, serial: str, client: str) -> bool:
        """Whether a client of a device has its use from a session."""
        if not self._live.sessions.of_device(serial):
            return False
        found = (each for each in self._live.all() if each.session.wish.serial == serial)
        return any(seated.line.peer == client for live in found for seated in live.seated.values())

    def _row(self, live: Live) -> Row:
        session = self._live.counted(live.session)
        return SESSIONS.row(
            session,
            serial=session.wish.serial,
            channel=NUMBERS + live.number,
            kind="remote",
            state=session.status,
            target=", ".join(session.wish.offers),
            client=live.peer,
            since=self._at(session.since),
            until=None,
            bytes=session.bytes_to_device + session.bytes_to_client,
            persistent=False,
            session=session.id,
            user=session.owner,
            people=sorted({seat.person for seat in session.seats.values() if seat.role is not Role.DEVICE}),
        )


class SessionOperator:
    """The calls about remote sessions; ``live`` None: this server has no web listener."""

    def __init__(self) -> None:
        self.live: LiveSessions | None = None

    @property
    def count(self) -> int:
        """Sessions that run."""
        return 0 if self.live is None else len(self.live)

    def session_end(self, session: str, by: str) -> None:
        """End one.

        Raises:
            NotFound: none runs of this id.
            Invalid: several do.
        """
        live, number = self._find(session)
        live.end(number, SessionEvent.OPERATOR, f"by {by}", by)

    def session_share(
        self,
        session: str,
        person: str,
        by: str,
        watch: bool = False,
        use: bool = False,
        take: bool = False,
        minutes: int = 1,
    ) -> Row:
        """What somebody comes in with, once: to watch, unless another role is said.

        Raises:
            NotFound: none runs of this id.
            Invalid: several do, or several roles are said.
            Conflict: it is private, may not be taken, or the person may not.
            Busy: too many wait already.
        """
        if watch + use + take > 1:
            raise Invalid("one of watch, use and take wanted")
        role = Role.USE if use else Role.TAKE if take else Role.WATCH
        live, number = self._find(session)
        try:
            nonce = live.share(number, by, person, role, "", operator=True, life=60.0 * minutes)
        except SessionRefused as refused:
            raise as_refusal(refused, denied=Conflict) from None
        return {"id": number, "nonce": nonce}

    def session_unshare(self, session: str, person: str, by: str) -> None:
        """Take back what somebody was let in by, and cut him.

        Raises:
            NotFound: none runs of this id, or it is his own.
            Invalid: several do.
        """
        live, number = self._find(session)
        try:
            live.unshare(number, by, person, operator=True)
        except SessionRefused as refused:
            raise as_refusal(refused) from None

    def _find(self, session: str) -> tuple[LiveSessions, str]:
        found = [] if self.live is None else [each.session.id for each in self.live.all()]
        found = [each for each in found if each.startswith(session)]
        if self.live is None or not found or not session:
            raise NotFound(f"no remote session {session[:40]!a} runs")
        if len(found) > 1:
            raise Invalid(f"{session[:40]!a} is the beginning of {len(found)} sessions")
        return self.live, found[0]


def as_refusal(refused: SessionRefused, denied: type[OperatorError] = Denied) -> OperatorError:
    """What a session's refusal is for whoever asks an operator."""
    return {**_ERRORS, "denied": denied}.get(refused.word, Conflict)(str(refused))


def _place(live: Live) -> Place:
    return live.session.wish.serial, NUMBERS + live.number
