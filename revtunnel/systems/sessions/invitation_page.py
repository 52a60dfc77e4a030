"""``POST /invitation``: what a link to somebody's session is for, for the page that opens it.

``POST /invitation-page`` gives the web page of a service of the device for the link.

Rule of this file: who shows a nonce is told what it lets in to, and uses nothing up but for a page; a refusal
is a sentence for people. A nonce that is wrong costs its address what a wrong token does.

Source: issue 13, "Share a session"; ours.
"""

from typing import Any

from revtunnel.process.admin.operation_form import Argument, CallerRole, Kind, Operation, Row
from revtunnel.process.web.api import Answer
from revtunnel.process.web.askers import Place
from revtunnel.process.web.http_answers import HttpRefused, in_bytes
from revtunnel.process.web.post_pages import PostPage
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.nonces import NonceRefused
from revtunnel.systems.sessions.page_places import OFF
from revtunnel.systems.sessions.session_life import RemoteSession, Role, SessionRefused
from revtunnel.trust.web_askers import WebAskers

__all__ = ["InvitationPage"]

_LINK = Argument("session", form="[0-9a-f]{32}"), Argument("nonce")
_ABOUT = Operation(
    "Invitation", "", "see what a link to a session is for", "It stays good. No login is wanted.",
    _LINK,
    (
        Argument("device"),
        Argument("services", Kind.LIST),
        Argument("pages", Kind.LIST),
        Argument("role"),
        Argument("person"),
        Argument("owner"),
    ),
    role=CallerRole.NOBODY, route="POST /invitation",
)  # fmt: skip
_OPEN = Operation(
    "InvitationPage", "", "open a device's web page by a link to a session",
    "The link is used up, and the address is good once. No login is wanted.",
    (*_LINK, Argument("service")), (Argument("url"),),
    role=CallerRole.NOBODY, route="POST /invitation-page",
)  # fmt: skip
_SAYS = {
    "used": "This link was used already: it is good once. Ask for another.",
    "expired": "The time of this link is over. Ask for another.",
    "withdrawn": "This link was taken back.",
    "ended": "The session of this link has ended.",
    "denied": "This link's person may not come to that device any more.",
}
_NO_LINK = "This is no link to a session, or none that is known any more."


class InvitationPage:
    """``pages`` answer."""

    def __init__(self, live: LiveSessions, askers: WebAskers) -> None:
        self.pages = PostPage(_ABOUT, self._judge), PostPage(_OPEN, self._open)
        self._live = live
        self._askers = askers

    async def _judge(self, request: Any, place: Place, said: Row) -> Answer:
        self._askers.hear(place)
        try:
            bound = self._live.judge(said["nonce"], said["session"], place.peer)
        except (NonceRefused, SessionRefused) as error:
            raise self._refused(request, place, error) from None
        session = self._live.sessions.running(bound.session)
        row = {
            "device": session.wish.serial,
            "services": [*session.wish.offers],
            "pages": self._pages(session, bound.role, place),
            "role": bound.role.value,
            "person": bound.person,
            "owner": session.owner,
        }
        return Answer(200, in_bytes(row))

    async def _open(self, request: Any, place: Place, said: Row) -> Answer:
        self._askers.hear(place)
        if self._live.pages is None:
            raise HttpRefused(409, "off", OFF.format(place.rules.name))
        try:
            url = self._live.pages.invited(said["nonce"], said["session"], said["service"], place)
        except (NonceRefused, SessionRefused) as error:
            raise self._refused(request, place, error) from None
        return Answer(200, in_bytes({"url": url}))

    def _pages(self, session: RemoteSession, role: Role, place: Place) -> list[str]:
        return (
            self._live.pages.of(session, place) if self._live.pages is not None and role is Role.USE else []
        )

    def _refused(self, request: Any, place: Place, error: NonceRefused | SessionRefused) -> HttpRefused:
        self._askers.pay(request, place, error.word)
        why = _NO_LINK if isinstance(error, NonceRefused) else str(error)
        return HttpRefused(403, error.word, _SAYS.get(error.word, why))
