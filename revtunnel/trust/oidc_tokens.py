"""What an identity provider says of somebody, as it is read and judged: discovery document, keys, ID token.

Rule of this file: it denies. RS256 and ES256 are read and nothing else, each with a key of its own kind and
of at least 2048 bits or of P-256, so that no public key serves as a secret and nothing is unsigned. A token
is for us alone or says so (azp), new, and of this very login (nonce). No text of a token is repeated.

Source: OpenID Connect Core 1.0 section 3.1.3.7, Discovery 1.0 section 3 and 4.3; RFC 7517, RFC 8725; ours.
"""

import hmac
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from jwt import PyJWK, PyJWS, PyJWTError

__all__ = ["Discovered", "NotVouched", "claims_of", "discovered", "keys_in", "object_in"]

ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}  # by the kind of a key
NEW = 600.0  # seconds since a token was made, at most
KEYS = 64  # of one provider
TOKEN = 32 * 1024  # characters of one
_JWS = PyJWS(algorithms=list(ALGORITHMS.values()), options={"enforce_minimum_key_length": True})


class NotVouched(Exception):
    """The provider does not say who it is, or not in a way that counts. The text is for our own log."""


class Discovered(NamedTuple):
    """What a discovery document says that is used."""

    authorization: str
    token: str
    keys: str
    userinfo: str  # "": it has none
    posts_secret: bool  # in the body of a request, for it takes no Basic
    says_issuer: bool  # in its answers, RFC 9207


def object_in(body: bytes, what: str) -> dict[str, Any]:
    """A JSON object; NotVouched: it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotVouched(f"{what} is no JSON object")
    return found


def discovered(body: bytes, issuer: str) -> Discovered:
    """Read a discovery document; NotVouched: it is another's, or of no use here."""
    row = object_in(body, "the discovery document")
    if row.get("issuer") != issuer:
        raise NotVouched("the discovery document is of another issuer")
    names, more = ("authorization_endpoint", "token_endpoint", "jwks_uri"), "userinfo_endpoint"
    for name in (*names, *([more] if more in row else [])):
        found = row.get(name)
        if not isinstance(found, str) or not found.startswith("https://") or not _is_plain(found):
            raise NotVouched(f"{name} of the discovery document is no https address")
    signs = row.get("id_token_signing_alg_values_supported", ["RS256"])
    if not isinstance(signs, list) or not set(map(str, signs)) & set(ALGORITHMS.values()):
        raise NotVouched("it signs by neither RS256 nor ES256")
    methods = row.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    posts = "client_secret_basic" not in methods and "client_secret_post" in methods
    says = row.get("authorization_response_iss_parameter_supported") is True
    authorization, token, keys, userinfo = (str(row.get(name, "")) for name in (*names, more))
    return Discovered(authorization, token, keys, userinfo, posts, says)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text and "#" not in text and len(text) < 2000


def keys_in(body: bytes) -> list[PyJWK]:
    """The keys of a key set that may sign tokens here; what is no such key is left out."""
    rows = object_in(body, "the key set").get("keys")
    if not isinstance(rows, list) or len(rows) > KEYS:
        raise NotVouched(f"the key set has no list of keys, or more than {KEYS}")
    return [key for row in rows if isinstance(row, dict) and (key := _key(row)) is not None]


def _key(row: Mapping[str, Any]) -> PyJWK | None:
    algorithm = ALGORITHMS.get(str(row.get("kty")), "")
    is_other = row.get("use", "sig") != "sig" or row.get("alg", algorithm) != algorithm or "d" in row
    if not algorithm or is_other or (row["kty"] == "EC" and row.get("crv") != "P-256"):
        return None
    try:
        return PyJWK(dict(row), algorithm)
    except (PyJWTError, KeyError, TypeError, ValueError):
        return None


def claims_of(
    token: object, keys: list[PyJWK], issuer: str, client: str, nonce: str, now: float, skew: float
) -> dict[str, Any] | None:
    """What an ID token says, once it is proved; None: none of the keys is the one that it names.

    Raises:
        NotVouched: it does not count.
    """
    if not isinstance(token, str) or len(token) > TOKEN:
        raise NotVouched("the ID token is missing, or too long")
    try:
        head = _JWS.get_unverified_header(token)
        algorithm, name = str(head.get("alg")), head.get("kid")
        if algorithm not in ALGORITHMS.values():
            raise NotVouched("the ID token is signed by neither RS256 nor ES256")
        fitting = [key for key in keys if key.algorithm_name == algorithm and name in (None, key.key_id)]
        if not fitting:
            return None
        if len(fitting) > 1:
            raise NotVouched("the ID token does not say which key it was signed with")
        payload = _JWS.decode(token, fitting[0], [algorithm])
    except PyJWTError as error:
        raise NotVouched(f"the ID token does not count: {type(error).__name__}") from None
    claims = object_in(payload, "what the ID token says")
    fault = _fault(claims, issuer, client, nonce, now, skew)
    if fault:
        raise NotVouched(f"the ID token {fault}")
    return claims


def _fault(claims: Mapping[str, Any], issuer: str, client: str, nonce: str, now: float, skew: float) -> str:
    """Why a token that is well signed does not count all the same; or nothing."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    azp = claims.get("azp")
    if claims.get("iss") != issuer:
        return "is of another issuer"
    if client not in audiences:
        return "is for somebody else"
    if (azp is not None or len(audiences) > 1) and azp != client:
        return "was given to somebody else"
    times = [claims.get(name) for name in ("exp", "iat")] + [claims.get("nbf", 0)]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in times):
        return "has no exp or iat"
    end, made, begin = (float(each) for each in times if each is not None)
    if not end > now - skew:
        return "is over"
    if not (begin <= now + skew and now - NEW - skew <= made <= now + skew):
        return "is not of now: look at the clocks"
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        return "is of another login"
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        return "has no sub"
    return ""
