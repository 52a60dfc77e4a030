"""Logins: a file for its owner only, and no token in a sentence."""

from pathlib import Path

import pytest

from revtunnel.connect.addressing import ServerAddress
from revtunnel.connect.logins import KeptLogin, Logins, place_of
from revtunnel.connect.outcomes import CONFIG, DENIED, Stop

GATE, OTHER = ServerAddress("gate.example", 2443), ServerAddress("other.example", 443)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "below" / "revtunnel" / "logins.json")


def test_what_is_kept_is_there_again(path: str) -> None:
    """Directory 0700, file 0600; the last login is the server that is meant."""
    logins = Logins(path)
    logins.keep(GATE, KeptLogin("secret-1", "ana", "/etc/ca.pem"))
    logins.keep(OTHER, KeptLogin("secret-2", "ana"))
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    again = Logins(path)
    assert again.server("") == OTHER
    assert again.server("https://gate.example:2443") == GATE
    assert again.login(GATE, {}) == KeptLogin("secret-1", "ana", "/etc/ca.pem")
    assert again.login(GATE, {"REVTUNNEL_TOKEN": " other "}) == KeptLogin("other", "", "/etc/ca.pem")
    assert "secret" not in repr(again.login(GATE, {}))
    assert again.forget(OTHER)
    assert not again.forget(OTHER)
    assert Logins(path).server("") == GATE


def test_without_a_login(path: str) -> None:
    """A sentence says what to do."""
    logins = Logins(path)
    for ask, status in ((lambda: logins.server(""), CONFIG), (lambda: logins.login(GATE, {}), DENIED)):
        with pytest.raises(Stop, match="run revtunnel-connect login") as stop:
            ask()
        assert stop.value.status == status
    with pytest.raises(Stop, match="--server"):
        logins.server("ftp://x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_file_that_others_can_read_is_refused(path: str, mode: int) -> None:
    """And left as it is."""
    Logins(path).keep(GATE, KeptLogin("secret", "ana"))
    Path(path).chmod(mode)
    with pytest.raises(Stop, match="chmod 600") as stop:
        Logins(path)
    assert stop.value.status == CONFIG
    assert Path(path).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "1",
        '{"servers": []}',
        '{"servers": {"ftp://x": {}}}',
        '{"servers": {"https://x": {"token": "s", "y": 1}}}',
        '{"servers": {"https://x": {}}}',
        '{"servers": {"https://x": 3}}',
    ],
)
def test_a_file_that_is_not_ours_is_refused(path: str, text: str) -> None:
    """Never a traceback."""
    Path(path).parent.mkdir(parents=True)
    Path(path).write_text(text)
    Path(path).chmod(0o600)
    with pytest.raises(Stop, match="not written by this program"):
        Logins(path)


def test_where_it_is() -> None:
    """A relative XDG_CONFIG_HOME is ignored, as the specification wants."""
    assert place_of({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == "/x/revtunnel/logins.json"
    assert place_of({"XDG_CONFIG_HOME": "x", "HOME": "/h"}) == "/h/.config/revtunnel/logins.json"
    assert place_of({"HOME": "/h"}) == "/h/.config/revtunnel/logins.json"
