"""``/oidc/login``, ``/oidc/back``: a browser goes to the identity provider, and comes back as somebody.

Rule of this file: what was begun is kept here, bounded, and good once and for ten minutes; its ``state`` is
for the browser that began it and for no other, by a cookie. A browser is sent to the provider or to our own
page, both as the settings say them, and nowhere that a request names. It is told one word of why not; the
log has the sentence. Whoever is known there and nobody here costs his address nothing: a company has one.

The cookie is SameSite=Lax, for the provider's page leads here; that of the login itself stays Strict.

Source: OpenID Connect Core 1.0 section 3.1.2; RFC 7636; RFC 9207; RFC 9700 section 4; ours.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.web import resource

from revtunnel.fleet.rates import Rates
from revtunnel.ground.facts import Fact, Report, Severity
from revtunnel.process.web.api import Answer, failed
from revtunnel.process.web.api_values import query_of
from revtunnel.process.web.askers import Place, place_of
from revtunnel.process.web.http_answers import HttpRefused, answered, write
from revtunnel.process.web.web_rules import PAGE
from revtunnel.trust.login_routes import LoginRoutes
from revtunnel.trust.oidc_people import OidcPeople
from revtunnel.trust.oidc_provider import OidcProvider, Unreachable
from revtunnel.trust.oidc_settings import OidcSettings
from revtunnel.trust.oidc_tokens import NotVouched
from revtunnel.trust.web_askers import WebAskers, cookie_name

__all__ = ["OidcFailed", "OidcRoutes"]

LIFE = 600.0  # seconds from /oidc/login to /oidc/back
BEGUN = 1024  # logins that were begun; the oldest makes room
AT_ONCE = 32  # questions to the provider
_WORD = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OidcFailed(Fact):
    """Somebody who came from the identity provider, or was to go there, is nobody."""

    word = "oidc-failed"
    severity = Severity.WARN
    peer: str
    reason: str  # a word: denied, late, refused, unreachable, busy
    detail: str
    listener: str


class _Sent(Exception):
    """He is sent back to the page with a word."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(detail)
        self.word = word


class _Begun(NamedTuple):
    browser: bytes  # hash of its cookie
    nonce: str
    verifier: str
    provider: OidcProvider
    until: float


class OidcRoutes(resource.Resource):
    """Both, as ``take`` says them; before that neither is there."""

    isLeaf = True

    def __init__(
        self,
        reactor: Any,
        wall: Callable[[], float],
        logins: LoginRoutes,
        people: OidcPeople,
        askers: WebAskers,
        report: Report,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._wall = wall
        self._logins = logins
        self._people = people
        self._askers = askers
        self._report = report
        self._provider: OidcProvider | None = None
        self._begun: OrderedDict[str, _Begun] = OrderedDict()
        self._asking = 0
        self._sources = Rates(burst=60.0, second=1.0)  # no address alone fills what was begun

    def take(self, settings: OidcSettings) -> None:
        """Another provider, or none, from now on; what was begun at the old one comes to nothing."""
        if self._provider is not None and self._provider.settings == settings:
            return
        self._provider = OidcProvider(self._reactor, self._wall, settings) if settings.issuer else None
        at = {"text": settings.button, "at": f"{settings.page}/oidc/login"}
        self._logins.company = at if settings.issuer else {}

    def render(self, request: Any) -> Any:
        done: Deferred[Any] = Deferred.fromCoroutine(self._carry_out(request))
        done.addErrback(failed)
        return answered(request, done, write, cancels=False)

    async def _carry_out(self, request: Any) -> Answer:
        place = place_of(request, by_link=True)
        provider, path = self._provider, b"/".join(request.postpath)
        if PAGE not in place.rules.parts or provider is None or path not in (b"login", b"back"):
            raise HttpRefused(404, "not-found", "nothing is here")
        if request.method != b"GET":
            raise HttpRefused(405, "method", "not with this method, but GET", Allow="GET")
        self._askers.hear(place)
        if not self._sources.take(place.peer, self._reactor.seconds()):
            raise HttpRefused(429, "too-many", "tried too often; wait a minute", Retry_After="60")
        if self._asking >= AT_ONCE:
            word, detail = "busy", f"{self._asking} logins wait for the provider"
        else:
            self._asking += 1
            try:
                work = self._login if path == b"login" else self._back
                return await work(request, place, provider)
            except _Sent as sent:
                word, detail = sent.word, str(sent)
            except Unreachable as error:
                word, detail = "unreachable", str(error)
            except NotVouched as error:
                word, detail = "denied", str(error)
                self._askers.note(place, "", "oidc")
            finally:
                self._asking -= 1
        self._report(OidcFailed(place.peer, word, detail, place.rules.name))
        return _sent_to(f"{provider.settings.page}/#oidc={word}", {})

    async def _login(self, request: Any, place: Place, provider: OidcProvider) -> Answer:
        known = await provider.about()
        name = _cookie_of(place)
        browser = (request.getCookie(name.encode()) or b"").decode("latin-1")
        if not _WORD.fullmatch(browser):
            browser = secrets.token_urlsafe(32)
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        until = self._reactor.seconds() + LIFE
        self._begun[state] = _Begun(_hash(browser), nonce, verifier, provider, until)
        while len(self._begun) > BEGUN:
            self._begun.popitem(last=False)
        mine = provider.settings
        asked = {
            "response_type": "code",
            "client_id": mine.client_id,
            "redirect_uri": mine.back,
            "scope": mine.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in known.authorization else "?"
        secure = "" if place.rules.plain_cookies else " Secure;"
        cookie = f"{name}={browser}; Path=/; Max-Age={LIFE:.0f}; HttpOnly;{secure} SameSite=Lax"
        return _sent_to(f"{known.authorization}{joint}{urlencode(asked)}", {"Set-Cookie": cookie})

    async def _back(self, request: Any, place: Place, provider: OidcProvider) -> Answer:
        said = query_of(request.uri.partition(b"?")[2])
        begun = self._begun.pop(said.get("state", ""), None)
        if begun is None or begun.until < self._reactor.seconds() or begun.provider is not provider:
            raise _Sent("late", "nothing was begun so, or it was used, or it is over")
        browser = (request.getCookie(_cookie_of(place).encode()) or b"").decode("latin-1")
        if not hmac.compare_digest(_hash(browser), begun.browser):
            raise _Sent("late", "another browser began it")
        known = await provider.about()
        issuer = said.get("iss")
        if issuer != provider.settings.issuer and (issuer is not None or known.says_issuer):
            raise NotVouched("the answer is of another issuer, or does not say of whom")
        if "error" in said:
            raise _Sent("refused", f"the provider says {said['error'][:80]!a}")
        code = said.get("code", "")
        if not 0 < len(code) <= 4096:
            raise NotVouched("the answer has no code")
        claims = await provider.redeem(code, begun.verifier, begun.nonce)
        if provider is not self._provider:
            raise _Sent("late", "the settings changed meanwhile")
        user = self._people.user_of(claims, provider.settings)
        let_in = self._logins.let_in(place, self._logins.by_itself(user), "oidc")
        return _sent_to(f"{provider.settings.page}/#/", let_in.headers)


def challenge_of(verifier: str) -> str:
    """What the provider is told of a verifier at first: RFC 7636 section 4.2, S256."""
    hashed = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode("ascii")


def _cookie_of(place: Place) -> str:
    return f"{cookie_name(place)}-oidc"


def _hash(browser: str) -> bytes:
    return hashlib.sha256(browser.encode("latin-1")).digest()


def _sent_to(where: str, headers: dict[str, str]) -> Answer:
    """Nothing but where to go; nobody is told from where."""
    return Answer(303, b"", headers={"Location": where, "Referrer-Policy": "no-referrer", **headers})
