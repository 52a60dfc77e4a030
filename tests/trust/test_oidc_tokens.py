"""What an identity provider says: its documents, its keys, and each way in which a token does not count."""

import json
from importlib.util import find_spec
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(find_spec("jwt") is None, reason="PyJWT is not here")
if find_spec("jwt") is not None:
    from revtunnel.trust.oidc_tokens import NotVouched, claims_of, discovered, keys_in
    from tests.support.identity_provider import CLIENT, IdentityProvider

ISSUER = "https://idp.example/tenant"
NOW = 1_800_000_000.0


def provider(**manner: Any) -> "IdentityProvider":
    """One at a time of ours."""
    idp = IdentityProvider(ISSUER, "https://gate.example/oidc/back", **manner)
    idp.now = lambda: NOW
    return idp


def judged(nonce: str = "n", **manner: Any) -> dict[str, Any] | None:
    """What its token says."""
    idp = provider(**manner)
    keys = keys_in(json.dumps(idp.keys()).encode())
    return claims_of(idp.token("n"), keys, ISSUER, CLIENT, nonce, NOW, 60.0)


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_good_token_says_who_it_is(alg: str) -> None:
    """Also with others beside us, if it is ours; by its only key where it names none."""
    claims = judged(alg=alg)
    assert claims is not None
    assert (claims["sub"], claims["email"]) == ("248289761001", "Ana@Example.com")
    assert judged(alg=alg, claims={"aud": [CLIENT, "other"], "azp": CLIENT}) is not None
    assert judged(alg=alg, kid="") is not None


@pytest.mark.parametrize(
    ("manner", "why"),
    [
        ({"alg": "none"}, "neither"),
        ({"alg": "HS256"}, "neither"),
        ({"key": 2, "kid": "e1"}, "InvalidSignature"),
        ({"kid": "", "shown": [1, 2]}, "which key"),
        ({"claims": {"iss": "https://idp.example"}}, "another issuer"),
        ({"claims": {"iss": None}}, "another issuer"),
        ({"claims": {"aud": "other"}}, "somebody else"),
        ({"claims": {"aud": None}}, "somebody else"),
        ({"claims": {"aud": [CLIENT, "other"]}}, "given to somebody else"),
        ({"claims": {"azp": "other"}}, "given to somebody else"),
        ({"claims": {"exp": NOW - 61}}, "is over"),
        ({"claims": {"exp": None}}, "no exp"),
        ({"claims": {"exp": "later"}}, "no exp"),
        ({"claims": {"iat": True}}, "no exp or iat"),
        ({"claims": {"iat": NOW + 61}}, "clocks"),
        ({"claims": {"iat": NOW - 661}}, "clocks"),
        ({"claims": {"nbf": NOW + 61}}, "clocks"),
        ({"claims": {"nonce": "m"}}, "another login"),
        ({"claims": {"nonce": None}}, "another login"),
        ({"claims": {"sub": None}}, "no sub"),
        ({"claims": {"sub": "x" * 256}}, "no sub"),
    ],
)
def test_a_token_that_does_not_count(manner: dict[str, Any], why: str) -> None:
    """Unsigned, signed by a secret that is none, by another key; of elsewhere, of another time or login."""
    with pytest.raises(NotVouched, match=why):
        judged(**manner)


def test_clocks_may_differ_a_little() -> None:
    """By the skew, either way."""
    for claims in ({"exp": NOW - 59}, {"iat": NOW + 59}, {"nbf": NOW + 59}, {"iat": NOW - 659}):
        assert judged(claims=claims) is not None, claims


def test_a_key_that_is_not_there_is_looked_for() -> None:
    """No fault yet: the key set may be older than the key."""
    assert judged(key=2) is None
    assert judged(key=2, shown=[1, 2]) is not None


def test_what_is_no_token() -> None:
    """Nothing, numbers, too long, encrypted, with an extension that counts and that nobody knows."""
    keys = keys_in(json.dumps(provider().keys()).encode())
    good = provider().token("n")
    head = "eyJhbGciOiJFUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxLCJraWQiOiJlMSJ9"  # {"alg","crit":["x"],"x","kid"}
    for token in (
        None,
        7,
        "",
        "a.b",
        "x" * 40_000,
        f"{good}.a.b",
        f"{head}.{good.partition('.')[2]}",
        good + "\n",
    ):
        with pytest.raises(NotVouched):
            claims_of(token, keys, ISSUER, CLIENT, "n", NOW, 60.0)


def test_which_keys_count() -> None:
    """Public ones of two kinds that are for signing; what is broken or another's is left out."""
    good = provider().keys()["keys"]
    ec = next(row for row in good if row.get("kid") == "e1")
    others = [
        {**ec, "use": "enc"},
        {**ec, "alg": "ES384"},
        {**ec, "crv": "P-384"},
        {**ec, "d": "AAAA"},
        {**ec, "x": 1},
    ]
    others += [{"kty": "RSA", "n": "AQAB"}, {"kty": ["EC"]}, 7, {}]
    found = keys_in(json.dumps({"keys": [*good, *others]}).encode())
    assert [key.key_id for key in found] == ["r1", "e1"]
    for body in (b"[]", b"{}", b'{"keys": {}}', json.dumps({"keys": [{}] * 65}).encode(), b"[" * 100_000):
        with pytest.raises(NotVouched):
            keys_in(body)


@pytest.mark.parametrize(
    "others",
    [
        {"issuer": "https://idp.example"},
        {"issuer": f"{ISSUER}/"},
        {"issuer": None},
        {"token_endpoint": "http://idp.example/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": "https://idp.example/a\r\nSet-Cookie: x=y"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"id_token_signing_alg_values_supported": ["HS256"]},
        {"id_token_signing_alg_values_supported": "RS256"},
    ],
)
def test_a_discovery_document_that_does_not_count(others: dict[str, Any]) -> None:
    """Another's, with addresses in plain, with line ends, with signatures that we do not read."""
    about = json.dumps(provider(discovery=others).about()).encode()
    with pytest.raises(NotVouched):
        discovered(about, ISSUER)
