"""Who asks by HTTP: a user's token as Bearer, or a browser's in its cookie.

Rule of this file: a token of a browser counts in its cookie only, and any other never there. A wrong token
costs its address a penalty; a cookie that is over costs nothing, for nobody guesses one. The word against
forged requests is made of the cookie's secret, so that nothing has to be kept for it.

Source: RFC 6265bis "Cookie Name Prefixes"; RFC 6750; ours.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from revtunnel.ground.facts import Report, WebRefused
from revtunnel.process.admin.operation_form import CallerRole
from revtunnel.process.web.askers import Asker, Place
from revtunnel.process.web.http_answers import HttpRefused
from revtunnel.state.session_audit import SessionAudit
from revtunnel.trust.people import People
from revtunnel.trust.user_tokens import OWN, READ, BadToken, Login, parse_user_token

__all__ = ["WebAskers", "cookie_name", "csrf_of"]

_ROLES = {"": CallerRole.NOBODY, "reader": CallerRole.READER, "admin": CallerRole.OPERATOR}


def cookie_name(place: Place) -> str:
    """Of the one cookie; a browser takes the first form over TLS only, or from its own machine."""
    return "rt" if place.rules.plain_cookies else "__Host-rt"


def csrf_of(token: str) -> str:
    """What a page has to say with a change, of the cookie that it cannot read."""
    hashed = hashlib.sha256(b"revtunnel csrf" + parse_user_token(token)).digest()
    return base64.urlsafe_b64encode(hashed[:24]).decode("ascii")


class WebAskers:
    """Everybody who asks. ``failed``: an address failed; ``owing``: why one is not heard now, or nothing."""

    def __init__(
        self,
        people: People,
        audit: SessionAudit,
        report: Report,
        wall: Callable[[], float],
        owing: Callable[[str, bool], str],
        failed: Callable[[str], None],
    ) -> None:
        self._people = people
        self._audit = audit
        self._report = report
        self._wall = wall
        self._owing = owing
        self._failed = failed

    def who(self, request: Any, place: Place) -> Asker:
        """Who it is.

        Raises:
            HttpRefused: nobody, or his address failed too often.
        """
        self.hear(place)
        said = request.requestHeaders.getRawHeaders(b"authorization")
        if said is None:
            return self._browser(request, place)
        scheme, _, text = said[0].decode("latin-1").partition(" ")
        if len(said) > 1 or scheme.lower() != "bearer":
            raise _nobody()
        try:
            login = self.token(text)
        except BadToken as error:
            self.refuse(request, place, "", error.word)
            raise _nobody() from None
        return self._asker(login, place, "")

    def token(self, text: str) -> Login:
        """Who shows a token that is no browser's.

        Raises:
            BadToken: it does not count.
        """
        login = self._people.log_in(text, self._wall())
        if login.is_browser:
            raise BadToken("unknown", "the token of a browser counts in its cookie only")
        return login

    def hear(self, place: Place) -> None:
        """HttpRefused: the address failed too often."""
        why = self._owing(place.peer, place.is_forwarded)
        if why:
            raise HttpRefused(429, "too-many", why, Retry_After="60")

    def refuse(self, request: Any, place: Place, user: str, word: str) -> None:
        """Somebody is not who he says; told, written down, and paid for."""
        self.note(place, user, word)
        self._failed(place.peer)
        path = request.path.decode("latin-1")[:80]
        self._report(WebRefused(place.rules.name, place.peer, path, 401, "denied", word))

    def note(self, place: Place, user: str, word: str) -> None:
        """Somebody is not let in; written down."""
        self._audit.refused("login", user, "", (), place.peer, word)

    def stands(self, asker: Asker) -> bool:
        """Whether somebody's login still counts, and he is still what he was."""
        login: Login = asker.login
        if self._people.standing(login, self._wall()):
            return False
        return self._role(login) >= asker.role

    def _browser(self, request: Any, place: Place) -> Asker:
        text = (request.getCookie(cookie_name(place).encode()) or b"").decode("latin-1")
        try:
            login = self._people.log_in(text, self._wall())
        except BadToken:
            raise _nobody() from None
        if not login.is_browser:
            raise _nobody()
        return self._asker(login, place, csrf_of(text))

    def _asker(self, login: Login, place: Place, csrf: str) -> Asker:
        looks_only = READ in login.scope.split()
        return Asker(login.user, self._role(login), place, login, looks_only, csrf)

    def _role(self, login: Login) -> CallerRole:
        if OWN in login.scope.split():
            return CallerRole.NOBODY
        return _ROLES[self._people.user(login.user).role]


def _nobody() -> HttpRefused:
    return HttpRefused(401, "login", "a token is wanted, or a login", WWW_Authenticate="Bearer")
