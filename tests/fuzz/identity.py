"""What an identity provider says: documents, keys, tokens as they come, and what well signed ones say."""

import json
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

from jwt import PyJWS

from revtunnel.trust.oidc_tokens import NotVouched, claims_of, discovered, keys_in
from tests.fuzz.harness import target
from tests.support.identity_provider import CLIENT, IdentityProvider, key_of

ISSUER, NOW = "https://idp.example", 1_800_000_000.0
_WORDS = [
    b'"alg":"none"',
    b'"kid":"e1"',
    b'"azp":',
    b'["a","b"]',
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b"https://",
]


@cache
def _provider() -> IdentityProvider:
    idp = IdentityProvider(ISSUER, "https://gate.example/oidc/back")
    idp.now = lambda: NOW
    return idp


def _claims(token: object, keys: list[Any]) -> Any:
    return claims_of(token, keys, ISSUER, CLIENT, "n", NOW, 60.0)


def _signed(data: bytes) -> str:
    return PyJWS().encode(data, key_of(1, "ES256"), "ES256", {"kid": "e1"})


def _seeds() -> list[bytes]:
    idp = _provider()
    token = idp.token("n").encode()
    keys = json.dumps(idp.keys()).encode()
    claims = {"iss": ISSUER, "aud": CLIENT, "iat": NOW, "exp": NOW, "nonce": "n", "sub": "s", "azp": CLIENT}
    return [json.dumps(idp.about()).encode(), keys, token, json.dumps(claims).encode()]


_SEEDS = _seeds()


@target("identity-provider", _SEEDS, words=_WORDS)
def identity_provider(data: bytes) -> Hashable:
    """Read, or refused in one sentence; a token that nobody signed never says who somebody is."""
    keys = keys_in(json.dumps(_provider().keys()).encode())
    reads: list[Callable[[], Any]] = [
        lambda: discovered(data, ISSUER),
        lambda: keys_in(data),
        lambda: _claims(data.decode("latin-1"), keys),
        lambda: _claims(_signed(data), keys),
    ]
    found: list[Hashable] = []
    for read in reads:
        try:
            found.append(type(read()).__name__)
        except NotVouched as error:
            found.append(str(error)[:40])
    assert found[2] != "dict" or data.rstrip(b"=") == _SEEDS[2]
    return tuple(found)
