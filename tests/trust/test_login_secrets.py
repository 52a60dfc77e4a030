"""What people log in with: codes by RFC 6238, good once, kept, and gone with their user."""

import base64
from pathlib import Path

import pytest

from revtunnel.state.ledger import FILE_NAME
from revtunnel.trust.login_secrets import LoginSecrets, address_of_factor, step_of
from tests.support.people import town

SECRET = b"12345678901234567890"  # of RFC 6238, appendix B


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_the_rfc(now: int, code: str) -> None:
    """The last six digits of its table; a step before and behind is good, too."""
    assert step_of(SECRET, code, now) == now // 30
    assert step_of(SECRET, code, now + 30) == step_of(SECRET, code, now - 30) == now // 30
    assert step_of(SECRET, code, now + 60) == step_of(SECRET, "000000", now) == step_of(b"", code, now) == 0
    assert step_of(SECRET, "૨૮૭૦૮૨", now) == 0


def test_a_code_is_good_once_also_over_a_restart(tmp_path: Path) -> None:
    """And none of an earlier step."""
    path = str(tmp_path / FILE_NAME)
    with town(path) as home:
        home.user("ana", "ben")
        kept = LoginSecrets(home.people, home.ledger)
        kept.set_password("ana", "$argon2id$x")
        kept.set_factor("ana", SECRET, 1)
        kept.set_factor("ben", SECRET, 1)
        assert not kept.take_code("ana", "287082", 59 + 300)
        assert kept.take_code("ana", "287082", 59) is False  # its step was used up when it was set
        assert kept.take_code("ana", "081804", 1111111109)
        assert not kept.take_code("ana", "081804", 1111111109)
    with town(path) as home:
        kept = LoginSecrets(home.people, home.ledger)
        assert kept.of("ana").password == "$argon2id$x"
        assert not kept.take_code("ana", "081804", 1111111109)
        home.people.remove_user("ana")
        assert kept.of("ana") == kept.of("nobody")
        home.user("ana")
    with town(path) as home:
        kept = LoginSecrets(home.people, home.ledger)
        assert (kept.of("ana").password, kept.of("ben").secret) == ("", SECRET)
        assert (kept.forget("ben"), kept.forget("ben")) == (True, False)


def test_who_is_removed_where_nobody_logs_in_takes_his_with_him(tmp_path: Path) -> None:
    """Somebody of that name has nothing of it, wherever it is asked for next."""
    path = str(tmp_path / FILE_NAME)
    with town(path) as home:
        home.user("ana")
        LoginSecrets(home.people, home.ledger).set_password("ana", "$argon2id$x")
    with town(path) as home:
        home.people.remove_user("ana")
        home.user("ana")
    with town(path) as home:
        assert LoginSecrets(home.people, home.ledger).of("ana").password == ""


def test_an_authenticator_reads_it() -> None:
    """Name, issuer, secret."""
    found = address_of_factor(SECRET, "ana@example", "gate")
    assert found.startswith("otpauth://totp/gate:ana%40example?")
    assert base64.b32encode(SECRET).decode() in found
