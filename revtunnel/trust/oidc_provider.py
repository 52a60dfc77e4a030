"""The company's identity provider, as it is asked: its discovery document, its keys, and who has just come.

Rule of this file: what is known of it is kept for an hour, and asked for by one at a time. A key that nobody
knows is looked for in a new key set once in a minute at most, so that no wrong token makes us ask more often;
likewise a provider that does not answer.

Source: OpenID Connect Core 1.0 sections 3.1.3, 5.3 and 5.4, Discovery 1.0 section 4; RFC 6749 2.3.1; ours.
"""

import base64
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, urlencode

from twisted.internet.defer import DeferredLock, TimeoutError

from revtunnel.process.http_requests import RequestFailed, request
from revtunnel.trust.oidc_settings import OidcSettings
from revtunnel.trust.oidc_tokens import Discovered, NotVouched, claims_of, discovered, keys_in, object_in

__all__ = ["OidcProvider", "Unreachable"]

KEPT = 3600.0  # seconds that its documents count
AGAIN = 60.0  # seconds between two looks for a key that is not there
FAILED = 5.0  # seconds in which one that did not answer is not asked again
_FORM = "application/x-www-form-urlencoded"


class Unreachable(Exception):
    """The provider did not answer, or what it answered is of no use; the text says why."""


class OidcProvider:
    """One of them, as ``settings`` say it."""

    def __init__(self, reactor: Any, wall: Callable[[], float], settings: OidcSettings) -> None:
        self.settings = settings
        self._reactor = reactor
        self._wall = wall
        self._one = DeferredLock()
        self._known: Discovered | None = None
        self._keys: list[Any] = []
        self._asked = -KEPT  # when its documents came
        self._keys_asked = -AGAIN
        self._failed = -FAILED, ""  # when, and why

    async def about(self) -> Discovered:
        """Its addresses. Unreachable: they are not known."""
        await self._one.acquire()
        try:
            if self._known is None or self._reactor.seconds() - self._asked > KEPT:
                at = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
                known = discovered(await self._get(at), self.settings.issuer)
                self._keys = keys_in(await self._get(known.keys))
                self._known, self._asked = known, self._reactor.seconds()
                self._keys_asked = -AGAIN
            return self._known
        except NotVouched as error:
            self._failed = self._reactor.seconds(), str(error)
            raise Unreachable(str(error)) from None
        finally:
            self._one.release()

    async def redeem(self, code: str, verifier: str, nonce: str) -> dict[str, Any]:
        """What the provider says of whoever brought ``code``.

        Raises:
            Unreachable: it cannot be asked.
            NotVouched: what it says does not count.
        """
        known, mine = await self.about(), self.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": mine.back,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": _FORM, "Accept": "application/json"}
        secret = self._secret()
        if secret and not known.posts_secret:
            pair = f"{quote_plus(mine.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": mine.client_id} | ({"client_secret": secret} if secret else {})
        body = await self._ask("POST", known.token, headers, urlencode(form).encode())
        answer = object_in(body, "the answer to a code")
        token = answer.get("id_token")
        claims = self._claims(token, nonce)
        if claims is None:
            await self._new_keys(known)
            claims = self._claims(token, nonce)
        if claims is None:
            raise NotVouched("the ID token is signed with a key that the provider does not show")
        if known.userinfo and not {mine.user_claim, mine.groups_claim} <= claims.keys():
            return {**await self._more(known.userinfo, answer.get("access_token"), claims["sub"]), **claims}
        return claims

    # -- inside

    def _claims(self, token: object, nonce: str) -> dict[str, Any] | None:
        mine = self.settings
        return claims_of(token, self._keys, mine.issuer, mine.client_id, nonce, self._wall(), mine.skew)

    async def _more(self, url: str, token: object, subject: str) -> dict[str, Any]:
        """What the ID token leaves to the UserInfo endpoint."""
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,8192}", token):
            raise NotVouched("there is no access token for what the ID token does not say")
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
        found = object_in(await self._ask("GET", url, headers), "what UserInfo says")
        if found.get("sub") != subject:
            raise NotVouched("UserInfo speaks of somebody else")
        return found

    async def _new_keys(self, known: Discovered) -> None:
        """Look for a key that is new, unless that was done just now."""
        await self._one.acquire()
        try:
            if self._reactor.seconds() - self._keys_asked >= AGAIN:
                self._keys_asked = self._reactor.seconds()
                self._keys = keys_in(await self._get(known.keys))
        finally:
            self._one.release()

    def _secret(self) -> str:
        if self.settings.client_secret_file is None:
            return ""
        try:
            with open(self.settings.client_secret_file, encoding="utf-8") as file:
                return file.read(4096).strip()
        except (OSError, ValueError) as error:
            raise Unreachable(f"client_secret_file: {error}") from None

    async def _get(self, url: str) -> bytes:
        """A document of it, unless it has not answered just now."""
        since, why = self._failed
        if self._reactor.seconds() - since < FAILED:
            raise Unreachable(why)
        try:
            return await self._ask("GET", url, {"Accept": "application/json"})
        except Unreachable as error:
            self._failed = self._reactor.seconds(), str(error)
            raise

    async def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> bytes:
        mine = self.settings
        try:
            return await request(
                *(self._reactor, method, url, mine.wait, headers, body), authority=mine.authority
            )
        except RequestFailed as error:
            raise Unreachable(f"{url.partition('?')[0]}: {error}") from None
        except TimeoutError:
            raise Unreachable(f"{url.partition('?')[0]}: no answer in {mine.wait:g} s") from None
