"""What [oidc] may say: each fault with its line, before a browser is sent anywhere."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from revtunnel.daemons.server_reading import load_server
from revtunnel.ground.errors import SettingsError
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.oidc_settings import OidcSettings

GOOD = {"issuer": "https://idp.example/tenant", "client_id": "gate", "page": "https://gate.example:2443"}


def read(tmp_path: Path, **lines: str) -> OidcSettings:
    """As a server does."""
    text = "\n".join(f"{key} = {value}" for key, value in (GOOD | lines).items())
    (tmp_path / "r.ini").write_text(f"[oidc]\n{text}\n")
    return load_server(str(tmp_path / "r.ini"), None, Surroundings({}, False, "/home/x", "gate")).oidc


@pytest.mark.skipif(find_spec("jwt") is None, reason="PyJWT is not here")
@pytest.mark.parametrize("page", ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"])
def test_a_page_of_this_machine_may_be_plain(tmp_path: Path, page: str) -> None:
    """For trials."""
    assert read(tmp_path, page=page).back == f"{page}/oidc/back"


@pytest.mark.skipif(find_spec("jwt") is None, reason="PyJWT is not here")
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("issuer", "http://idp.example", "https://HOST[:PORT][/PATH] wanted"),
        ("issuer", "https://idp.example/?a=b", "https://HOST[:PORT][/PATH] wanted"),
        ("issuer", "https://idp.example:99999/x", "https://HOST[:PORT] wanted"),
        ("page", "https://gate.example:0", "https://HOST[:PORT] wanted"),
        ("page", "https://[gate.example", "https://HOST[:PORT] wanted"),
        ("page", "https://gate.example/", "https://HOST[:PORT] wanted"),
        ("page", "http://gate.example", "is reached by other machines"),
        ("page", "http://127.0.0.1.example:80", "is reached by other machines"),
        ("page", "", "wanted beside issuer"),
        ("client_id", "", "wanted beside issuer"),
        ("client_secret_file", "/nowhere/at/all", "No such file"),
        ("scope", "email", "openid among them"),
        ("roles", "it=boss", "THEIRS=admin wanted"),
        ("groups", "plant=Plant 3", "THEIRS=OURS wanted"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, key: str, value: str, said: str) -> None:
    """One line each."""
    with pytest.raises(SettingsError) as error:
        read(tmp_path, **{key: value})
    (line,) = error.value.errors
    assert "r.ini" in line and f"[oidc] {key}" in line and said in line
