"""``/login``, ``/logout``, ``/first``: how a browser becomes somebody, and nobody again.

Rule of this file: whoever is refused learns nothing of why, but that a right password wants a code; each try
is paid for by its address and by the name that is tried. What a browser gets is a token of its user of a kind
of its own, so it is listed and revoked with the others, and ends with the token that it was given for.

Source: issue 13; next/web.md section 5; ours.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import resource

from revtunnel.fleet.rates import Rates
from revtunnel.ground.facts import Fact, Report
from revtunnel.process.admin.operation_form import Argument, Row
from revtunnel.process.web.api import Answer, body_of, failed
from revtunnel.process.web.api_values import checked, read_body
from revtunnel.process.web.askers import Place, place_of
from revtunnel.process.web.http_answers import HttpRefused, answered, header, in_bytes, write
from revtunnel.process.web.web_rules import PAGE
from revtunnel.state.audit_records import RightsChanged
from revtunnel.trust.issuer import written
from revtunnel.trust.login_secrets import LoginSecrets
from revtunnel.trust.password_hashing import PasswordHashing, check_password
from revtunnel.trust.people import GROUP_SIGN, People
from revtunnel.trust.user_tokens import BROWSER, SECRET_SIZE, BadToken, Login, write_user_token
from revtunnel.trust.web_askers import WebAskers, cookie_name, csrf_of

__all__ = ["FIRST_LIFE", "LoggedIn", "LoginRoutes"]

log = Logger(namespace="revtunnel.web")
FIRST_LIFE = 3600.0  # seconds that the first link is good
_CODE = Argument("code", optional=True, form="[0-9 ]{6,8}")
_LOGIN = (
    Argument("user", optional=True),
    Argument("password", optional=True),
    Argument("token", optional=True),
    _CODE,
)
_FIRST = (Argument("word"), Argument("user"), Argument("password"))


@dataclass(frozen=True, slots=True)
class LoggedIn(Fact):
    """A browser is somebody's from now on."""

    word = "logged-in"
    user: str
    peer: str
    how: str  # password, token, first, oidc
    listener: str


class LoginRoutes:
    """The three; ``resources`` by name."""

    def __init__(
        self,
        clock: Any,
        wall: Callable[[], float],
        people: People,
        kept: LoginSecrets,
        hashing: PasswordHashing,
        askers: WebAskers,
        report: Report,
        tell: Callable[[RightsChanged], None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """``tell``: the audit file, which must not raise."""
        self._clock = clock
        self._wall = wall
        self._people = people
        self._kept = kept
        self._hashing = hashing
        self._askers = askers
        self._report = report
        self._tell = tell
        self._random_bytes = random_bytes
        self._names = Rates(burst=10.0, second=1 / 60)
        self._sources = Rates(burst=20.0, second=1 / 15)
        self.first = ""  # the word of the first link; "": there is none
        self.company: Row = {}  # how a browser logs in by the company: text and where; nothing: it does not
        self._until = 0.0
        self.resources = {
            "login": _Post(self._login, lambda: {"company": self.company or None}),
            "logout": _Post(self._logout),
            "first": _Post(self._first),
        }

    def offer_first(self, at: str) -> None:
        """Nobody is known: print a link by which somebody becomes the administrator. ``at``: where we are."""
        self.first = secrets.token_urlsafe(24)
        self._until = self._clock.seconds() + FIRST_LIFE
        link = f"{at}/#first={self.first}"
        log.warn("first-administrator", event="first-administrator", link=link, seconds=FIRST_LIFE)

    # -- each

    async def _login(self, request: Any, place: Place, body: dict[str, Any]) -> Answer:
        said = checked(_LOGIN, {}, body)
        name = said["user"] or ""
        if (said["token"] is None) == (said["password"] is None) or (said["token"] is None and not name):
            raise HttpRefused(400, "invalid", "user and password, or token, wanted")
        self.pay(place, name)
        if said["token"] is not None:
            how, login = "token", self._by_token(said["token"])
        else:
            how, login = "password", await self._by_password(name, said["password"])
        if login is None or not self._people.knows(login.user):
            self._askers.refuse(request, place, name, how)
            raise HttpRefused(401, "denied", "that is not right")
        if self._kept.of(login.user).secret:
            code = said["code"]
            if code is None:
                raise HttpRefused(401, "code", "the code of the second factor is wanted")
            if not self._kept.take_code(login.user, code.replace(" ", ""), self._wall()):
                self._askers.refuse(request, place, login.user, "code")
                raise HttpRefused(401, "denied", "that is not right")
        self._names.forget(name)
        return self.let_in(place, login, how)

    async def _first(self, request: Any, place: Place, body: dict[str, Any]) -> Answer:
        said = checked(_FIRST, {}, body)
        self.pay(place, "")
        good = self.first and self._clock.seconds() < self._until and not len(self._people)
        if not good or not secrets.compare_digest(said["word"].encode(), self.first.encode()):
            self._askers.refuse(request, place, "", "first")
            raise HttpRefused(401, "denied", "this link is not good, or not any more")
        hashed = await self._hashing.make(check_password(said["password"]))
        user = self._people.add_user(said["user"], "", self._wall(), "admin")
        self.first = ""
        self._kept.set_password(user.name, hashed)
        self._tell(RightsChanged("user-added", user.name, "first-link", "admin"))
        return self.let_in(place, self.by_itself(user.name), "first")

    async def _logout(self, request: Any, place: Place, body: dict[str, Any]) -> Answer:
        asker = self._askers.who(request, place)
        if not asker.csrf or not secrets.compare_digest(
            header(request, "x-csrf-token").encode(), asker.csrf.encode()
        ):
            raise HttpRefused(403, "csrf", "X-CSRF-Token is wanted, from a browser that is logged in")
        self._people.revoke_token(asker.name, asker.login.token)
        self._tell(RightsChanged("logged-out", f"{asker.name}/{asker.login.token}", asker.name))
        return Answer(204, b"", headers={"Set-Cookie": self._cookie(place, "", 0)})

    # -- inside

    def pay(self, place: Place, name: str) -> None:
        """HttpRefused: the address has failed too often, or it or the name was tried too often."""
        self._askers.hear(place)
        now = self._clock.seconds()
        sources = self._sources.take(place.peer, now)
        if not (not name or self._names.spend(name, now)) or not sources:
            raise HttpRefused(429, "too-many", "tried too often; wait a minute", Retry_After="60")

    def _by_token(self, text: str) -> Login | None:
        try:
            return self._askers.token(text)
        except BadToken:
            return None

    async def _by_password(self, name: str, password: str) -> Login | None:
        known = self._people.knows(name) and not name.startswith(GROUP_SIGN)
        hashed = self._kept.of(name).password if known else ""
        return self.by_itself(name) if await self._hashing.is_right(hashed, password) else None

    def by_itself(self, user: str) -> Login:
        """A login of somebody who showed no token."""
        return Login(user, "", self._wall() + self._people.limits.browser_life)

    def let_in(self, place: Place, login: Login, how: str) -> Answer:
        """He is who he says: the answer that makes his browser his."""
        now = self._wall()
        life = min(self._people.limits.browser_life, login.until - now)
        secret = self._random_bytes(SECRET_SIZE)
        scope = " ".join(filter(None, (BROWSER, login.scope)))
        note = f"{how}, from {place.peer.rpartition(':')[0]}"
        kept = self._people.new_token(login.user, secret, note, now, life, scope, login.token)
        text = write_user_token(secret)
        self._tell(RightsChanged("logged-in", f"{login.user}/{kept.id}", login.user, note))
        self._report(LoggedIn(login.user, place.peer, how, place.rules.name))
        row: Row = {"user": login.user, "csrf": csrf_of(text), "until": written(kept.until)}
        return Answer(200, in_bytes(row), headers={"Set-Cookie": self._cookie(place, text, life)})

    def _cookie(self, place: Place, text: str, life: float) -> str:
        secure = "" if place.rules.plain_cookies else " Secure;"
        return f"{cookie_name(place)}={text}; Path=/; Max-Age={life:.0f}; HttpOnly;{secure} SameSite=Strict"


class _Post(resource.Resource):
    """One of them. ``about``: what GET answers, where it does."""

    isLeaf = True

    def __init__(
        self, work: Callable[[Any, Place, dict[str, Any]], Any], about: Callable[[], Row] | None = None
    ) -> None:
        super().__init__()
        self._work = work
        self._about = about

    def render(self, request: Any) -> Any:
        """Twisted calls this."""
        done: Deferred[Any] = Deferred.fromCoroutine(self._carry_out(request))
        done.addErrback(failed)
        return answered(request, done, write, cancels=False)

    async def _carry_out(self, request: Any) -> Any:
        place = place_of(request)
        if PAGE not in place.rules.parts or request.postpath:
            raise HttpRefused(404, "not-found", "nothing is here")
        if request.method == b"GET" and self._about is not None:
            return Answer(200, in_bytes(self._about()))
        if request.method != b"POST":
            raise HttpRefused(405, "method", "not with this method, but POST", Allow="POST")
        raw = body_of(request)
        return await self._work(request, place, read_body(raw) if raw else {})
