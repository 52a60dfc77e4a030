"""The settings of CCCP: defaults, open doors that are asked for by name, tokens, what a reload takes."""

from pathlib import Path

import pytest

from revtunnel.daemons.schema import changes, load
from revtunnel.daemons.server_reading import load_server
from revtunnel.settings.inifile import SettingsError, Surroundings
from revtunnel.systems.cccp.cccp_reading import read_cccp
from revtunnel.systems.cccp.cccp_settings import CccpSettings

HERE = Surroundings({}, False, "/home/u", "host", "/nonexistent/revtunnel.ini")


def cccp(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> CccpSettings:
    """The settings of a file."""
    path = tmp_path / "a.ini"
    path.write_text(text)
    return load(read_cccp, str(path), None, Surroundings(environ or {}, False, "/home/u", "host"))


def errors(tmp_path: Path, text: str) -> str:
    """What is wrong with a file."""
    with pytest.raises(SettingsError) as caught:
        cccp(tmp_path, text)
    return "\n".join(caught.value.errors)


def test_shipped_values() -> None:
    """Everything on loopback, one project, nobody needs a token."""
    settings = load(read_cccp, None, None, HERE)
    (project,) = settings.part.projects
    assert settings.part.http == (("127.0.0.1", 2080),) and settings.part.token is None
    assert project.address == (("127.0.0.1", 2070),) and project.ranges == ((21000, 21999),)
    assert (project.duplicate, project.early_data, project.off) == ("newest", "hold", "close")
    assert settings.admin.socket == "/home/u/.local/state/revtunnel/cccp.sock"
    assert load_server(None, None, HERE).cccp is None


def test_open_doors_are_asked_for_by_name(tmp_path: Path) -> None:
    """Callers and devices from other machines, and plaintext."""
    said = errors(tmp_path, "[cccp]\nhttp = 0.0.0.0:1\n[cccp-project a]\naddress = [::]:2\n")
    assert all(name in said for name in ("allow_without_token", "allow_open", "allow_plaintext"))
    meant = (
        "[cccp]\nhttp = 0.0.0.0:1\nallow_without_token = yes\n"
        "[cccp-project a]\naddress = [::]:2\nallow_open = yes\nallow_plaintext = yes\n"
    )
    assert cccp(tmp_path, meant).part.projects[0].name == "a"


def test_token_files(tmp_path: Path) -> None:
    """One word, closed to others; also from the service manager."""
    path = tmp_path / "revtunnel-cccp.token"
    for text, mode, wrong in (
        ("short", 0o600, "one word of 16"),
        ("0123456789abcdef", 0o644, "opens it to everybody"),
        ("0123456789 abcdef", 0o600, "one word"),
    ):
        path.write_text(text)
        path.chmod(mode)
        assert wrong in errors(tmp_path, f"[cccp]\ntoken_file = {path}\n")
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    by_name = cccp(tmp_path, f"[cccp]\ntoken_file = {path}\nhttp = 0.0.0.0:1\n")
    found = cccp(tmp_path, "[cccp]\n", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert by_name.part.token == found.part.token is not None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[cccp]\nwake_command = a\nwake_url = http://b\n", "one of them"),
        ("[cccp]\nwake_command = a 'b\n", "No closing quotation"),
        ("[cccp-project a]\ntls = yes\n", "missing: with tls = yes"),
        ("[cccp-project a]\nserials = a b\n", "printable characters"),
        ("[cccp]\ntoken = secret\n", "no secrets in this file"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, text: str, wanted: str) -> None:
    """Each by its name."""
    assert wanted in errors(tmp_path, text)


def test_what_a_reload_takes(tmp_path: Path) -> None:
    """Limits, manners, ports and listeners at once; where it is kept, with a restart."""
    old = cccp(tmp_path, "[cccp]\nhost = a\n[cccp-project a]\n")
    new = cccp(
        tmp_path, "[cccp]\nhost = b\nwait = 1\nhttp = 127.0.0.1:9\n[cccp-project a]\nduplicate = oldest\n"
    )
    live, restart = changes(old, new)
    assert set(live) == {"[cccp] host", "[cccp] wait", "[cccp] http", "[cccp-project a] duplicate"}
    assert restart == []
    assert changes(old, old) == ([], [])


def test_the_server_reads_it_where_it_is_enabled(tmp_path: Path) -> None:
    """The same part; its pools are beside the server's own."""
    path = tmp_path / "a.ini"
    path.write_text("[cccp]\nenabled = yes\n[cccp-project north]\nranges = 5000-5001\n")
    settings = load_server(str(path), None, HERE)
    assert settings.cccp is not None and [pool.name for pool in settings.cccp.pools] == ["cccp-north"]
