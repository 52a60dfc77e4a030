"""An agent with a token: what its command line takes, and when the token is used at all."""

import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from twisted.python import usage

from revtunnel.daemons.agent_options import AgentOptions
from revtunnel.ground.errors import SettingsError
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import issue_device, make_authority, new_key
from revtunnel.trust.enrolment import EnrolmentToken, write_token

NOW = datetime.now(UTC)
AUTHORITY = make_authority("gate", 7300, NOW)
TOKEN = write_token(EnrolmentToken(bytes(32), bytes(range(16)), "plc-7"))
HERE = Surroundings({}, root=True, home="/home/op", host_name="gate", default_path="/nowhere/revtunnel.ini")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVTUNNEL_CONFIG", raising=False)


def parse(state: Path, *words: str, token: str = TOKEN) -> AgentOptions:
    """Options after a command line with a token."""
    options = AgentOptions()
    options.around = HERE
    options.parseOptions(
        ["--state-directory", str(state), "--enroll", token, "--server", "gate:2065", *words]
    )
    return options


def leave(state: Path, age: timedelta = timedelta(0)) -> AgentFiles:
    """Files of an enrolment of 90 days."""
    files, key = AgentFiles(str(state), "plc-7"), new_key()
    files.trust(AUTHORITY.certificate)
    files.keep(key, issue_device(AUTHORITY, "plc-7", key.public_key(), 90, NOW - age))
    return files


def test_a_token_says_who_the_device_is(tmp_path: Path) -> None:
    """Until it was used there is no certificate; then the settings have what it brought."""
    options = parse(tmp_path, "--local", "10.0.0.5:23")
    assert options.token is not None
    assert (options.token.serial, options.settings.serial, options.enroll_only) == ("plc-7", "plc-7", False)
    assert options.settings.certificate is None
    files = leave(tmp_path)
    options.enrolled(files)
    assert (options.token, options.settings.certificate) == (None, files.certificate)
    assert options.settings.authority == files.authority
    assert options.load().certificate == files.certificate


def test_a_token_is_not_used_twice(tmp_path: Path) -> None:
    """With a good certificate the same line starts the agent; with one that has ended it enrols again."""
    files = leave(tmp_path)
    options = parse(tmp_path, "--local", "10.0.0.5:23")
    assert (options.token, options.settings.certificate) == (None, files.certificate)
    leave(tmp_path, timedelta(days=91))
    assert parse(tmp_path, "--local", "10.0.0.5:23").token is not None


def test_nothing_to_offer_is_enrolment_only(tmp_path: Path) -> None:
    """The line works as it was pasted; a missing server is still missing."""
    assert parse(tmp_path).enroll_only
    assert parse(tmp_path, "--local", "10.0.0.5:23", "--enroll-only").enroll_only
    options = AgentOptions()
    options.around = HERE
    with pytest.raises(usage.UsageError, match="no server"):
        options.parseOptions(["--enroll", TOKEN, "--state-directory", str(tmp_path)])


def test_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever does not want it in a process list."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\nmore\n"))
    options = parse(tmp_path, token="-")
    assert options.token is not None and options.token.secret == bytes(range(16))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--serial", "plc-8"], "the token is for plc-7"),
        (["--certificate", "x.pem"], "--certificate is of no use"),
        (["--plaintext"], "tls = no"),
    ],
)
def test_c7_what_does_not_go_with_a_token(tmp_path: Path, words: list[str], text: str) -> None:
    """Said before anything is asked of a server, and without the token."""
    with pytest.raises(usage.UsageError, match=text) as caught:
        parse(tmp_path, "--local", "10.0.0.5:23", *words)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("token", ["", "rttok1_", TOKEN[:-1], f"x{TOKEN}"])
def test_c7_a_token_with_an_error(tmp_path: Path, token: str) -> None:
    """Not repeated: it may be most of a good one."""
    with pytest.raises(usage.UsageError, match="token") as caught:
        parse(tmp_path, token=token)
    assert len(token) < 8 or token not in str(caught.value)


def test_only_with_a_token() -> None:
    """--enroll-only by itself is a mistake."""
    options = AgentOptions()
    options.around = HERE
    with pytest.raises(usage.UsageError, match="--enroll TOKEN wanted"):
        options.parseOptions(["--enroll-only", "--server", "gate:2065", "--local", "10.0.0.5:23"])


def test_settings_that_would_not_use_it(tmp_path: Path) -> None:
    """A certificate in the settings file wins, so what was made would lie about unused."""
    ini = tmp_path / "r.ini"
    ini.write_text(f"[agent]\ncertificate = {tmp_path}/own.pem\ncertificate_key = {tmp_path}/own.key\n")
    with pytest.raises(SystemExit):
        parse(tmp_path, "--config", str(ini), "--local", "10.0.0.5:23")
    options = parse(tmp_path, "--local", "10.0.0.5:23")
    with pytest.raises(SettingsError, match="was made, and is not what is set"):
        options.enrolled(leave(tmp_path / "other"))
