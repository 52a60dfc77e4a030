"""Logins of browsers: passwords, tokens, codes, the first link; what a try costs; cookies and their word."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from twisted.internet.defer import Deferred

from revtunnel.ground.limits import AuditLimits
from revtunnel.process.admin.refusals import NotFound
from revtunnel.process.web.web_rules import PAGE
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.trust.login_routes import FIRST_LIFE, LoggedIn
from tests.support.desk import ARGON2, Answer, Desk

pytestmark = pytest.mark.skipif(not ARGON2, reason="argon2-cffi is not here")
PASSWORD = "correct horse battery staple"
MY = "/api/v1/my"


def cookie_of(answer: Answer) -> str:
    """``NAME=VALUE``, as a browser sends it back."""
    assert answer.status == 200, answer
    return answer.headers["set-cookie"].partition(";")[0]


def with_password(desk: Desk, user: str = "ana") -> None:
    """Let somebody log in."""
    token = desk.person(user)
    assert desk.ask("PUT", f"{MY}/password", token, {"password": PASSWORD}).status == 200
    desk.people.revoke_token(user, None)


def log_in(desk: Desk, **row: Any) -> Answer:
    """Try."""
    return desk.ask("POST", "/login", "", row or {"user": "ana", "password": PASSWORD})


def test_a_browser_logs_in_and_out() -> None:
    """A cookie that no script reads; a word for changes; nothing of it counts behind the logout."""
    desk = Desk()
    with_password(desk)
    answer = log_in(desk)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-rt"
    assert rest.partition("; ")[2] == "Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Strict"
    cookie = f"Cookie: {cookie_of(answer)}"
    me = desk.ask("GET", MY, "", None, cookie).row
    assert (me["user"], me["scope"], me["csrf"]) == ("ana", "browser", answer.row["csrf"])
    assert [each for each in desk.facts if isinstance(each, LoggedIn)][-1].how == "password"
    word = f"X-CSRF-Token: {answer.row['csrf']}"
    assert desk.ask("POST", f"{MY}/tokens", "", {}, cookie).word == "csrf"
    assert desk.ask("POST", f"{MY}/tokens", "", {}, cookie, "X-CSRF-Token: x\xff").word == "csrf"
    assert desk.ask("POST", f"{MY}/tokens", "", {}, cookie, word).status == 200
    assert desk.ask("GET", MY, "", None, cookie, "Origin: https://evil.example").word == "origin"
    assert desk.ask("GET", MY, "", None, cookie, "Origin: https://gate.example").status == 200
    assert desk.ask("POST", "/logout", "", None, cookie).word == "csrf"
    out = desk.ask("POST", "/logout", "", None, cookie, word)
    assert (out.status, "Max-Age=0" in out.headers["set-cookie"]) == (204, True)
    assert desk.ask("GET", MY, "", None, cookie).word == "login"
    assert desk.ask("POST", "/logout", "", None, cookie, word).status == 401


def test_logins_are_in_the_audit_file(tmp_path: Path) -> None:
    """Who came from where and how, who was not let in, who left; no secret."""
    desk = Desk()
    file = AuditFile(str(tmp_path / "audit"), "test", AuditLimits(), Sync.NEVER, desk.wall_clock)
    desk.audit._file = file
    with_password(desk)
    log_in(desk, user="ana", password="wrong")
    answer = log_in(desk)
    lines = f"Cookie: {cookie_of(answer)}", f"X-CSRF-Token: {answer.row['csrf']}"
    assert desk.ask("POST", "/logout", "", None, *lines).status == 204
    desk.audit.close()
    records = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    told = [each for each in records if each["event"] in ("rights-changed", "refused")]
    assert [each.get("operation") or each["cause"] for each in told] == [
        "password-set",
        "password",
        "logged-in",
        "logged-out",
    ]
    assert next(each["detail"] for each in records if each.get("operation") == "logged-in") == (
        "password, from 192.0.2.7"
    )
    assert answer.headers["set-cookie"][20:40] not in (tmp_path / "audit").read_text()


def test_whoever_is_refused_learns_nothing() -> None:
    """A wrong password, a name that nobody has, a user without a password, a wrong token: all the same."""
    desk = Desk()
    with_password(desk)
    tries: list[dict[str, Any]] = [
        {"user": "ana", "password": PASSWORD + "x"},
        {"user": "zoe", "password": PASSWORD},
        {"user": "ben", "password": ""},
        {"user": "@night", "password": ""},
        {"token": "rtuser1_" + "B" * 43},
        {"token": "x"},
    ]
    answers = {log_in(desk, **row).body for row in tries}
    assert len(answers) == 1
    assert log_in(desk, user="ana").status == 400
    assert log_in(desk, user="ana", password="x", token="y").status == 400
    assert desk.ask("GET", "/login").row == {"company": None}
    assert desk.ask("GET", "/logout").word == desk.ask("PUT", "/login").word == "method"
    assert desk.ask("POST", "/login/x", "", {}).status == 404
    assert desk.ask("POST", "/login", "", b"user=ana", "Content-Type: text/plain").word == "media-type"
    assert desk.ask("POST", "/login", "", {}, "Origin: https://evil.example").word == "origin"


def test_a_browser_that_came_by_token_goes_with_it_and_may_no_more_than_it() -> None:
    """Also no longer."""
    desk = Desk()
    token = desk.person("ana", scope="read")
    answer = log_in(desk, token=token)
    cookie, word = f"Cookie: {cookie_of(answer)}", f"X-CSRF-Token: {answer.row['csrf']}"
    assert desk.ask("GET", MY, "", None, cookie).row["scope"] == "browser read"
    assert desk.ask("POST", f"{MY}/tokens", "", {}, cookie, word).word == "denied"
    assert log_in(desk, token=cookie_of(answer).partition("=")[2]).status == 401
    assert desk.ask("GET", MY, cookie_of(answer).partition("=")[2]).status == 401
    assert desk.ask("GET", MY, "", None, f"Cookie: __Host-rt={token}").status == 401
    desk.people.revoke_token(
        "ana", next(each for each in desk.people.tokens("ana") if each.scope == "read").id
    )
    assert desk.ask("GET", MY, "", None, cookie).status == 401


def test_a_second_factor() -> None:
    """Shown once, counts once it was shown back; a code is good once; it can be lost."""
    desk = Desk()
    with_password(desk)
    token = desk.person("ana")
    made = desk.ask("POST", f"{MY}/second-factor", token).row
    totp = TOTP(base64.b32decode(made["secret"]), 6, SHA1(), 30)

    def code() -> str:
        return totp.generate(int(desk.wall_clock())).decode()

    assert desk.ask("PUT", f"{MY}/second-factor", token, {"code": "000000"}).status == 409
    assert log_in(desk).status == 200
    used = code()
    assert desk.ask("PUT", f"{MY}/second-factor", token, {"code": used}).status == 200
    assert desk.ask("POST", f"{MY}/second-factor", token).status == 409
    assert log_in(desk).word == "code"
    assert log_in(desk, user="ana", password="wrong", code=used).word == "denied"
    assert log_in(desk, user="ana", password=PASSWORD, code=used).word == "denied"  # a replay
    desk.advance(30.0)
    assert log_in(desk, token=token).word == "code"
    assert log_in(desk, user="ana", password=PASSWORD, code=code()).status == 200
    assert log_in(desk, user="ana", password=PASSWORD, code=code()).word == "denied"
    desk.advance(30.0)
    assert desk.ask("POST", f"{MY}/second-factor/remove", token, {"code": code()}).status == 200
    assert log_in(desk).status == 200


def test_tries_are_paid_for_by_name_and_by_address() -> None:
    """Of one name from wherever; of one address, whatever the name; who is right begins anew."""
    desk = Desk()
    with_password(desk)
    for _ in range(9):
        assert log_in(desk, user="ana", password="x").status == 401
    assert log_in(desk).status == 200
    for number in range(10):
        row = {"user": "ana", "password": "x"}
        assert desk.ask("POST", "/login", "", row, peer=f"198.51.100.{number}:1").status == 401
    assert desk.ask("POST", "/login", "", row, peer="198.51.100.99:1").word == "too-many"
    assert log_in(desk).word == "too-many"
    desk.advance(60.0)
    assert log_in(desk).status == 200
    for number in range(20):
        desk.ask("POST", "/login", "", {"user": f"u{number}", "password": "x"}, peer="203.0.113.1:1")
    answer = desk.ask("POST", "/login", "", {"user": "ben", "password": "x"}, peer="203.0.113.1:1")
    assert (answer.word, answer.headers["retry-after"]) == ("too-many", "60")


def test_an_address_that_fails_is_locked_out() -> None:
    """As everywhere else, also of the API."""
    desk = Desk(pays=True)
    answers = [log_in(desk, user="ana", password="x").status for _ in range(12)]
    assert (answers[0], answers[-1]) == (401, 429)
    assert desk.ask("GET", MY, desk.person("ana")).word == "too-many"
    assert desk.ask("GET", MY, desk.person("ben"), peer="198.51.100.1:1").status == 200


def test_the_first_link_is_good_once_and_for_an_hour() -> None:
    """While nobody is known; it makes an administrator."""
    desk = Desk()
    assert desk.web.logins is not None
    desk.people.remove_user("ana")
    desk.people.remove_user("ben")
    desk.web.logins.offer_first("https://gate.example")
    row = {"word": desk.web.logins.first, "user": "root", "password": PASSWORD}
    assert desk.ask("POST", "/first", "", {**row, "word": "x"}).word == "denied"
    assert desk.ask("POST", "/first", "", {**row, "password": "short"}).word == "invalid"
    cookie = cookie_of(desk.ask("POST", "/first", "", row))
    assert desk.ask("GET", MY, "", None, f"Cookie: {cookie}").row["role"] == "admin"
    assert desk.ask("POST", "/first", "", row).word == "denied"
    desk.people.remove_user("root")
    desk.web.logins.offer_first("https://gate.example")
    desk.advance(FIRST_LIFE + 1)
    assert desk.ask("POST", "/first", "", {**row, "word": desk.web.logins.first}).word == "denied"


def test_a_password_is_changed_by_who_knows_the_old_one() -> None:
    """And is long enough."""
    desk = Desk()
    with_password(desk)
    token, path = desk.person("ana"), f"{MY}/password"
    assert desk.ask("PUT", path, token, {"password": "another password"}).word == "denied"
    assert desk.ask("PUT", path, token, {"password": "short", "current": PASSWORD}).word == "invalid"
    assert desk.ask("PUT", path, token, {"password": "another password", "current": PASSWORD}).status == 200
    assert log_in(desk).status == 401
    assert desk.ask("PUT", path, desk.person("ana", scope="own"), {"password": PASSWORD}).word == "denied"


def test_an_operator_takes_password_and_second_factor_away() -> None:
    """Of whoever has lost them; his browsers are logged out, his tokens stay."""
    desk = Desk()
    with_password(desk)
    token, cookie = desk.person("ana"), f"Cookie: {cookie_of(log_in(desk))}"
    desk.operator.people.user_reset("ana", "root")
    assert log_in(desk).status == 401
    assert desk.ask("GET", MY, "", None, cookie).status == 401
    assert desk.ask("GET", MY, token).row["password"] is False
    with pytest.raises(NotFound):
        desk.operator.people.user_reset("ana", "root")


def test_passwords_wait_in_a_short_queue() -> None:
    """Two at once, sixteen in all; the next one is told to come later."""
    desk = Desk()
    assert desk.web.logins is not None
    hashing = desk.web.logins._hashing
    hashing._run = lambda work: Deferred()  # type: ignore[method-assign]
    waits = hashing.make(PASSWORD)
    assert not waits.called
    del hashing._run  # type: ignore[method-assign]
    hashing._count = hashing.most
    assert log_in(desk).word == "busy"


def test_without_tls_a_setting_is_wanted() -> None:
    """A cookie of another name, without Secure; the other one does not count there."""
    desk = Desk()
    with_password(desk)
    secure = cookie_of(log_in(desk))
    desk.rules = replace(desk.rules, plain_cookies=True)
    answer = log_in(desk)
    assert answer.headers["set-cookie"].startswith("rt=")
    assert "Secure" not in answer.headers["set-cookie"]
    assert desk.ask("GET", MY, "", None, f"Cookie: {cookie_of(answer)}").status == 200
    assert desk.ask("GET", MY, "", None, f"Cookie: {secure}").status == 401
    desk.rules = replace(desk.rules, parts=desk.rules.parts - {PAGE})
    assert log_in(desk).status == 404
