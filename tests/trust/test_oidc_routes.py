"""Logins by an identity provider: there and back, who that is here, and what must never let anybody in."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from twisted.internet.defer import Deferred, TimeoutError, succeed

from revtunnel.ground.limits import AuditLimits
from revtunnel.process.http_requests import RequestFailed
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.trust.oidc_settings import OidcSettings
from tests.support.desk import ARGON2, Answer, Desk

pytestmark = pytest.mark.skipif(
    not ARGON2 or find_spec("jwt") is None, reason="argon2-cffi or PyJWT is not here"
)
if find_spec("jwt") is not None:
    from revtunnel.trust import oidc_provider
    from tests.support.identity_provider import CLIENT, SECRET, IdentityProvider

ISSUER, PAGE = "https://idp.example/tenant", "https://gate.example"
MY = "/api/v1/my"


class Company(Desk):
    """A desk, and the company's provider behind ``request``."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.idp = IdentityProvider(ISSUER, f"{PAGE}/oidc/back")
        self.idp.now = self.wall_clock
        self.waiting: list[Deferred[bytes]] = []
        secret = tmp_path / "secret"
        secret.write_text(f"{SECRET}\n")
        self.settings = OidcSettings(
            issuer=ISSUER,
            client_id=CLIENT,
            client_secret_file=str(secret),
            page=PAGE,
            button="Log in by ACME",
        )
        monkeypatch.setattr(oidc_provider, "request", self._request)
        self.set()

    def set(self, **others: Any) -> None:
        """Other settings, as a reload brings them."""
        self.settings = replace(self.settings, **others)
        self.web.take(self.rules.parts, self.settings)

    def _request(
        self, reactor: Any, method: str, url: str, seconds: float, headers: Any, body: bytes, **_: Any
    ) -> Any:
        said = dict(parse_qsl(body.decode()))
        found = self.idp.answer(method, url.removeprefix(ISSUER), said, headers.get("Authorization", ""))
        if found is None:
            raise TimeoutError
        if found[0] != 200:
            raise RequestFailed(f"it answered {found[0]}")
        return succeed(found[2])

    def begin(self, cookie: str = "") -> tuple[str, str]:
        """Where the browser is sent, and its cookie."""
        answer = self.ask("GET", "/oidc/login", "", None, *([f"Cookie: {cookie}"] if cookie else []))
        assert answer.status == 303, answer
        return answer.headers["location"], answer.headers.get("set-cookie", "").partition(";")[0]

    def at_provider(self, where: str) -> str:
        """What the provider sends the browser back to, as a path of ours."""
        at, _, query = where.removeprefix(ISSUER).partition("?")
        status, headers, _ = self.idp.answer("GET", at, dict(parse_qsl(query)))
        assert status == 303
        return str(headers["Location"]).removeprefix(PAGE)

    def back(self, path: str, cookie: str, *lines: str) -> Answer:
        """The browser comes back from a page of elsewhere."""
        led = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"
        return self.ask("GET", path, "", None, f"Cookie: {cookie}", *(lines or led))

    def whole(self) -> Answer:
        """All of it, by a browser that has nothing yet."""
        where, cookie = self.begin()
        return self.back(self.at_provider(where), cookie)

    def word(self, answer: Answer) -> str:
        """Of a login that came to nothing; where else it leads is looked at."""
        assert answer.status == 303 and "set-cookie" not in answer.headers
        before, _, word = answer.headers["location"].partition("#oidc=")
        assert before == f"{PAGE}/"
        assert self.facts[-1].row()["event"] == "oidc-failed" and self.facts[-1].reason == word  # type: ignore[attr-defined]
        return word

    def me(self, answer: Answer) -> Any:
        """Who somebody is after that."""
        assert answer.headers["location"] == f"{PAGE}/#/", answer
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return self.ask("GET", MY, "", None, f"Cookie: {cookie}").row


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    found = Company(tmp_path, monkeypatch)
    yield found
    found.web.stop()


def test_a_user_goes_there_and_comes_back(company: Company) -> None:
    """With PKCE, state and nonce; by a cookie that scripts do not read; the login ends as others do."""
    company.people.add_user("ana@example.com", "", 0.0, "reader")
    assert company.ask("GET", "/login").row["company"] == {
        "text": "Log in by ACME",
        "at": f"{PAGE}/oidc/login",
    }
    answer = company.ask("GET", "/oidc/login")
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"] == [f"{PAGE}/oidc/back"]
    assert asked["code_challenge_method"] == ["S256"] and len(asked["code_challenge"][0]) == 43
    assert asked["scope"] == ["openid email profile"] and asked["state"] != asked["nonce"]
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert (name, rest[43:]) == ("__Host-rt-oidc", "; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=Lax")
    assert answer.headers["referrer-policy"] == "no-referrer"
    answer = company.back(company.at_provider(answer.headers["location"]), f"{name}={rest[:43]}")
    assert "HttpOnly; Secure; SameSite=Strict" in answer.headers["set-cookie"]
    me = company.me(answer)
    assert (me["user"], me["role"], me["scope"]) == ("ana@example.com", "reader", "browser")
    cookie, word = answer.headers["set-cookie"].partition(";")[0], f"X-CSRF-Token: {me['csrf']}"
    assert company.ask("POST", "/logout", "", None, f"Cookie: {cookie}", word).status == 204
    assert company.ask("GET", MY, "", None, f"Cookie: {cookie}").status == 401


def test_whoever_is_nobody_here_gets_nothing(company: Company) -> None:
    """No user of that name, and no group that means anything: no user is made."""
    before = len(company.people)
    assert company.word(company.whole()) == "denied"
    company.set(groups=(("plant-3", "plant3"),))  # a group that is not there
    assert company.word(company.whole()) == "denied"
    company.set(roles=(("it", "admin"),))
    assert company.word(company.whole()) == "denied"
    assert len(company.people) == before


def test_groups_there_mean_groups_and_roles_here(company: Company, tmp_path: Path) -> None:
    """Made at the first login, set right at each, and gone with the last of them; it is in the audit file."""
    file = AuditFile(str(tmp_path / "audit"), "test", AuditLimits(), Sync.NEVER, company.wall_clock)
    company.audit._file = file
    for group in ("plant3", "other"):
        company.people.add_group(group, "", 0.0)
    company.set(groups=(("plant-3", "plant3"),), roles=(("it", "admin"), ("look", "reader")))
    me = company.me(company.whole())
    assert (me["user"], me["role"], me["groups"]) == ("ana@example.com", "person", ["plant3"])
    company.people.add_member("other", "ana@example.com")
    company.idp.manner = {"claims": {"groups": ["look", "it"]}}
    me = company.me(company.whole())
    assert (me["role"], me["groups"]) == ("admin", [])
    company.idp.manner = {"claims": {"groups": "look"}}
    assert company.me(company.whole())["role"] == "reader"
    company.idp.manner = {"claims": {"groups": None}}
    assert company.word(company.whole()) == "denied"
    user = company.people.user("ana@example.com")
    assert (user.role, user.groups) == ("", ())
    company.audit.close()
    told = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    words = [each["operation"] for each in told if each.get("by") == "oidc"]
    assert words[:3] == ["user-added", "user-tied", "member-added"]
    assert words[-1] == "user-changed" and "member-removed" in words
    assert [each["cause"] for each in told if each["event"] == "refused"] == ["oidc"]


def test_whom_an_operator_made_has_what_he_gave_him(company: Company) -> None:
    """Whatever the provider says of groups."""
    company.people.add_user("ana@example.com", "", 0.0)
    company.people.add_group("plant3", "", 0.0)
    company.set(groups=(("plant-3", "plant3"),), roles=(("plant-3", "admin"),))
    me = company.me(company.whole())
    assert (me["role"], me["groups"]) == ("person", [])


def test_a_name_counts_once(company: Company) -> None:
    """Later only sub says who it is: another with the same mail address is not him, he with another is."""
    company.people.add_user("ana@example.com", "", 0.0)
    assert company.me(company.whole())["user"] == "ana@example.com"
    company.idp.manner = {"claims": {"sub": "another"}}
    assert company.word(company.whole()) == "denied"
    company.idp.manner = {"claims": {"email": "ana@new.example"}}
    assert company.me(company.whole())["user"] == "ana@example.com"
    company.operator.people.user_reset("ana@example.com", "root")
    company.idp.manner = {"claims": {"sub": "another"}}
    assert company.me(company.whole())["user"] == "ana@example.com"
    company.people.remove_user("ana@example.com")
    company.people.add_user("ana@example.com", "", 0.0)
    company.idp.manner = {}
    assert company.me(company.whole())["user"] == "ana@example.com"
    assert company.ledger.select("SELECT user, made FROM subjects") == [("ana@example.com", 0)]


def test_a_name_that_is_none(company: Company) -> None:
    """Not verified, missing, of another form."""
    company.people.add_user("ana@example.com", "", 0.0)
    names: list[dict[str, Any]] = [{"email": None}, {"email": "-x y"}, {"email": ["ana"]}]
    for claims in ({"email_verified": None}, {"email_verified": "true"}, *names):
        company.idp.manner = {"claims": claims}
        assert company.word(company.whole()) == "denied", claims


def test_what_the_id_token_leaves_to_userinfo(company: Company) -> None:
    """Name and groups, of the same person, with the access token; what the ID token says counts more."""
    company.people.add_group("plant3", "", 0.0)
    company.set(groups=(("plant-3", "plant3"),))
    short = {"claims": {"email": None, "email_verified": None, "groups": None}}
    said: dict[str, Any] = {"email": "ana@example.com", "email_verified": True, "groups": ["plant-3"]}
    for manner in ({"userinfo": {}}, {"userinfo": {**said, "sub": "other"}}, {"userinfo": said, "access": 7}):
        company.idp.manner = {**short, **manner}
        assert company.word(company.whole()) == "denied", manner
    company.idp.manner = {**short, "userinfo": said, "access": "other"}
    assert company.word(company.whole()) == "unreachable"
    company.idp.manner = {**short, "userinfo": said}
    assert company.me(company.whole())["groups"] == ["plant3"]
    company.idp.manner = {"userinfo": {**said, "email": "ben@example.com", "groups": []}}
    assert company.me(company.whole())["user"] == "ana@example.com"
    assert company.idp.asked["/userinfo"] == 4


def test_a_state_is_good_once_and_for_one_browser_and_for_ten_minutes(company: Company) -> None:
    """Replayed, of another browser, too late, made up, from before another provider was set."""
    company.people.add_user("ana@example.com", "", 0.0)
    where, cookie = company.begin()
    path = company.at_provider(where)
    assert company.me(company.back(path, cookie))["user"] == "ana@example.com"
    assert company.word(company.back(path, cookie)) == "late"
    where, mine = company.begin()
    _, other = company.begin()
    path = company.at_provider(where)
    assert company.word(company.back(path, other)) == "late"
    assert company.word(company.back(path, mine)) == "late"  # it was used up
    where, cookie = company.begin()
    company.advance(601.0)
    assert company.word(company.back(company.at_provider(where), cookie)) == "late"
    assert company.word(company.back("/oidc/back?code=x&state=made-up", cookie)) == "late"
    assert company.word(company.back("/oidc/back", cookie)) == "late"
    where, cookie = company.begin()
    company.set(skew=1.0)
    assert company.word(company.back(company.at_provider(where), cookie)) == "late"
    again = company.begin(cookie)  # a second tab has the same cookie
    assert again[1] == cookie


def test_answers_that_do_not_count(company: Company) -> None:
    """Of another issuer, of none though it says so always, without a code, an error, twice the same word."""
    company.people.add_user("ana@example.com", "", 0.0)
    for manner, word in (
        ({"answer_iss": "https://evil.example"}, "denied"),
        ({"answer_iss": None}, "denied"),
        ({"error": "access_denied\r\n<b>"}, "refused"),
        ({"alg": "none"}, "denied"),
        ({"alg": "HS256"}, "denied"),
        ({"key": 2, "kid": "e1"}, "denied"),
        ({"claims": {"iss": "https://evil.example"}}, "denied"),
        ({"claims": {"nonce": "other"}}, "denied"),
        ({"status": {"/token": 400}}, "unreachable"),
        ({"garbage": ["/token"]}, "denied"),
        ({"silent": ["/token"]}, "unreachable"),
    ):
        company.idp.manner = manner
        assert company.word(company.whole()) == word, manner
        company.advance(60.0)
    company.idp.manner = {}
    where, cookie = company.begin()
    path = company.at_provider(where)
    assert company.word(company.back(path.replace("code=", "kode="), cookie)) == "denied"
    where, cookie = company.begin()
    assert company.back(f"{company.at_provider(where)}&code=x", cookie).word == "invalid"
    assert company.me(company.whole())["user"] == "ana@example.com"


def test_nobody_is_sent_elsewhere(company: Company) -> None:
    """No request names where to: not by a query, not by its Host; a page of elsewhere may lead here only."""
    for path in ("/oidc/login?redirect_uri=https://evil.example&next=//evil.example", "/oidc/login"):
        answer = company.ask("GET", path, "", None, "X-Forwarded-Host: evil.example")
        assert answer.headers["location"].startswith(f"{ISSUER}/authorize?")
        assert "evil" not in answer.headers["location"]
    where, cookie = company.begin()
    path = company.at_provider(where)
    frame = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"
    script = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"
    assert company.back(path, cookie, *frame).word == "origin"
    assert company.back(path, cookie, *script).word == "origin"
    assert company.back(path, cookie, "Origin: https://evil.example").word == "origin"
    assert company.ask("POST", "/oidc/back", "", {}).word == "method"
    assert company.ask("GET", "/oidc/else").word == company.ask("GET", "/oidc").word == "not-found"


def test_keys_rotate_and_are_not_looked_for_too_often(company: Company) -> None:
    """A new key is found at the first login with it; a wrong one makes us ask once in a minute."""
    company.people.add_user("ana@example.com", "", 0.0)
    company.me(company.whole())
    company.idp.manner = {"shown": [1, 2], "key": 2}
    company.me(company.whole())
    assert company.idp.asked["/keys"] == 2
    company.idp.manner = {"shown": [1, 2], "key": 3}
    for _ in range(5):
        assert company.word(company.whole()) == "denied"
    assert company.idp.asked["/keys"] == 2
    company.advance(60.0)
    assert company.word(company.whole()) == "denied"
    assert company.idp.asked["/keys"] == 3
    company.advance(3600.0)
    company.idp.manner = {"shown": [3], "key": 3}
    company.me(company.whole())
    assert company.idp.asked["/.well-known/openid-configuration"] == 2


def test_a_provider_that_is_not_well(company: Company) -> None:
    """Told in words, not asked again for a few seconds, and well again by itself."""
    about, wrong = "/.well-known/openid-configuration", {"issuer": "https://evil.example"}
    manners = {"silent": [about]}, {"status": {about: 302}}, {"garbage": [about]}, {"discovery": wrong}
    for manner in (*manners, {"garbage": ["/keys"]}, {"status": {"/keys": 500}}):
        company.idp.manner, company.idp.asked = {**manner}, {}
        for _ in range(2):
            assert company.word(company.ask("GET", "/oidc/login")) == "unreachable", manner
        assert company.idp.asked[about] == 1
        company.advance(60.0)
    company.idp.manner = {}
    company.begin()


def test_one_address_begins_so_many(company: Company) -> None:
    """Sixty at once and one a second, so that it never fills what was begun alone; others go on."""
    for _ in range(60):
        company.begin()
    assert company.ask("GET", "/oidc/login").word == "too-many"
    assert company.ask("GET", "/oidc/login", peer="198.51.100.1:1").status == 303
    company.advance(1.0)
    company.begin()


def test_without_the_setting_there_is_none_of_it(company: Company) -> None:
    """Taken away by a reload, too; a client without a secret says so in the form."""
    company.set(client_secret_file=None)
    assert company.word(company.whole()) == "unreachable"  # this provider wants one
    company.set(issuer="")
    assert company.ask("GET", "/oidc/login").status == 404
    assert company.ask("GET", "/login").row == {"company": None}
