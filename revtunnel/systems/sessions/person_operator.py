"""What a person can see and do about services and sessions: plain methods, as operators have them.

Rule of this file: nothing of somebody else's session is told to one who may not know of it. A token that is
for looking starts nothing: whoever calls knows that.

Source: issue 13; systems/sessions/control_asks.py; ours.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.process.admin.device_listings import At
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.refusals import Conflict, Invalid
from revtunnel.process.web.askers import Asker
from revtunnel.systems.sessions.control_asks import ROLES, session_row, started_row, visible
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.page_places import OFF
from revtunnel.systems.sessions.session_life import RemoteSession, SessionRefused
from revtunnel.systems.sessions.session_operator import as_refusal
from revtunnel.systems.sessions.session_seats import SERVICES, Start

__all__ = ["PersonOperator"]


class PersonOperator:
    """Of one person who asks now. ``at``: a monotonic time for people."""

    def __init__(self, live: LiveSessions, at: At, asker: Asker) -> None:
        self._live = live
        self._at = at
        self._login = asker.login
        self._place = asker.place

    def services(self, after: str = "", limit: int = PAGE) -> Any:
        """Services that he may see, at all nodes: a page, which ends with a device, and the next."""
        looking = self._live.rights.look_behind(after)
        if looking is None:
            return self._services(after, limit, ())
        return looking.addCallback(lambda found: self._services(after, limit, found))

    def _services(
        self, after: str, limit: int, elsewhere: Sequence[DeviceElsewhere]
    ) -> tuple[list[Row], str | None]:
        most, wall = max(1, min(limit, PAGE)), self._live.wall()
        page = self._live.rights.listing(self._login, after, "", wall, most, elsewhere)
        return page.services, page.after if page.more else None

    def sessions(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Sessions that he has, then those of others that he may watch."""
        found = list(visible(self._live, self._login))
        ids = [each.id for each in found]
        first = ids.index(after) + 1 if after in ids else 0
        limit = max(1, min(limit, PAGE))
        rows = [session_row(self._live.counted(each), self._at) for each in found[first : first + limit]]
        return rows, (rows[-1]["session"] if len(found) > first + limit else None)

    def start(
        self, device: str, services: Sequence[str], private: bool = False, take_over: bool = False
    ) -> "Row | Deferred[Row]":
        """Start a session; where the device's site is asked, the answer comes with its own.

        Raises:
            Invalid: no service, or too many.
            Denied: he may not, or the site says no.
            NotFound, Conflict, Busy: of the device and the services; as the text says.
        """
        names = tuple(dict.fromkeys(services))
        if not 1 <= len(names) <= SERVICES:
            raise Invalid(f"services: 1 to {SERVICES} names wanted")
        asked, looking = Start(device, names, private, take_over), self._live.rights.look(device)
        return self._begun(asked) if looking is None else looking.addCallback(lambda _: self._begun(asked))

    def _begun(self, asked: Start) -> "Row | Deferred[Row]":
        try:
            session = self._live.start(self._login, asked, self._place.peer)
            if session.status != "initializing":
                return started_row(self._live, self._login, session)
        except SessionRefused as refused:
            raise as_refusal(refused) from None
        answer: Deferred[Row] = Deferred()
        self._live.when_answered(session, lambda: self._answered(session, answer))
        return answer

    def _answered(self, session: RemoteSession, answer: "Deferred[Row]") -> None:
        try:
            row = started_row(self._live, self._login, session)
        except SessionRefused as refused:
            answer.errback(as_refusal(refused))
        else:
            answer.callback(row)

    def end(self, session: str) -> None:
        """End one.

        Raises:
            NotFound: none runs that is his, or that he may end.
        """
        self._try(lambda: self._live.end_by(self._login, session, self._place.peer))

    def share(self, session: str, person: str, role: str, minutes: int = 1) -> Row:
        """What a second person comes in with, once.

        Raises:
            NotFound: he has none of this id.
            Denied, Conflict, Busy: as the text says.
        """
        nonce = self._try(
            lambda: self._live.share(
                *(session, self._login.user, person, ROLES[role], self._place.peer), life=60.0 * minutes
            )
        )
        place = self._place
        return {
            "nonce": nonce,
            "url": f"revtunnel://{place.host}/s/{session}#{nonce}",
            "page": f"{place.scheme}://{place.host}/page/share.html#{session}/{nonce}",
        }

    def unshare(self, session: str, person: str) -> None:
        """Take that back, and cut the person.

        Raises:
            NotFound: he has none of this id, or it is shared with nobody so called.
        """
        self._try(lambda: self._live.unshare(session, self._login.user, person))

    def nonce(self, session: str, browser: bool = False) -> str:
        """What one more connection comes in with.

        Raises:
            NotFound: he has none of this id.
            Conflict, Busy: as the text says.
        """
        nonce: str = self._try(lambda: self._live.nonce(self._login.user, session, browser))
        return nonce

    def page(self, session: str, service: str) -> str:
        """Where the web page of a service of the device is opened, once.

        Raises:
            NotFound: he has no session of this id with this service.
            Conflict, Busy: as the text says.
        """
        pages = self._live.pages
        if pages is None:
            raise Conflict(OFF.format(self._place.rules.name))
        url: str = self._try(lambda: pages.address(self._login.user, session, service, self._place))
        return url

    @staticmethod
    def _try(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SessionRefused as refused:
            raise as_refusal(refused) from None
