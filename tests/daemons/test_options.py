"""The command lines: what they refuse and with which words and status (C5, C7, C8, C9)."""

from dataclasses import replace
from pathlib import Path

import pytest
from twisted.python import usage

import revtunnel
from revtunnel.daemons.agent_options import AgentOptions
from revtunnel.daemons.server_options import ServerOptions
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import Offer, Target
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.enrolment import EnrolmentToken, write_token
from tests.support.throwaway_tls import Issuer

HERE = Surroundings({}, root=True, home="/home/op", host_name="gate", default_path="/nowhere/revtunnel.ini")
Options = ServerOptions | AgentOptions
TOKEN = write_token(EnrolmentToken(bytes(32), bytes(16), "plc-7"))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVTUNNEL_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def parse(kind: type[Options], *words: str, around: Surroundings = HERE) -> Options:
    """Options after a command line."""
    options = kind()
    options.around = around
    options.parseOptions(list(words))
    return options


def refused(kind: type[Options], *words: str) -> str:
    """The text of the usage error of a command line."""
    with pytest.raises(usage.UsageError) as caught:
        parse(kind, *words)
    return str(caught.value)


def test_server_needs_no_options() -> None:
    """Defaults are enough, on loopback."""
    options = parse(ServerOptions)

    assert options.settings.listeners[0].address == (("127.0.0.1", 2065),)
    assert (options["log-format"], options["log-level"]) == ("text", "info")


def test_server_options_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of the server; relative paths are taken from where it was started."""
    path = tmp_path / "r.ini"
    path.write_text(
        "[server]\nlog_level = warn\nname = x\n[listener main]\naddress = 127.0.0.1:1\nduplicate = oldest\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]
    words += ["--state-directory", "state", "--admin-socket", "a.sock"]

    options = parse(ServerOptions, *words, "--log-level=debug", "--log-format", "json", "-c", "r.ini")

    settings = options.settings
    (listener,) = settings.listeners
    assert (listener.address, listener.duplicate) == ((("127.0.0.1", 0), ("::1", 0)), "oldest")
    assert (settings.state_directory, settings.admin.socket) == (f"{tmp_path}/state", f"{tmp_path}/a.sock")
    assert (settings.name, settings.log_level, settings.log_format) == ("x", "debug", "json")
    assert (options["log-level"], options["log-format"]) == ("debug", "json")
    assert settings.files == (str(path),)


def test_agent_options() -> None:
    """Every option of the agent; --server and --local may be repeated."""
    servers = ["--server", "gate-a:1", "--server", "[fd00::1]:2"]
    local = [
        "--local",
        "10.41.51.152:23",
        "--local",
        "http=127.0.0.1:5000",
        "--local",
        "u=unix:/run/a,b.sock",
    ]
    settings = parse(AgentOptions, *servers, *local, "--legacy", "--serial", "plc-7").settings

    assert settings.servers == (ServerPlace("gate-a", 1), ServerPlace("fd00::1", 2))
    assert settings.local == (
        Offer("tcp-23", Target("10.41.51.152", 23)),
        Offer("http", Target("127.0.0.1", 5000)),
        Offer("u", Target("unix:/run/a,b.sock", 0)),
    )
    assert (settings.serial, settings.legacy) == ("plc-7", True)


def test_agent_options_replace_lists_of_the_file(tmp_path: Path) -> None:
    """The list of the command line stands in place of that of the file; the rest of the file holds."""
    path = tmp_path / "r.ini"
    path.write_text("[agent]\nservers = a:1\nlocal = b:2\nserial = plc-9\n")
    options = parse(AgentOptions, "--config", str(path), "--local", "c:3")

    assert [offer.name for offer in options.settings.local] == ["tcp-3"]
    assert (options.settings.servers, options.settings.serial) == ((ServerPlace("a", 1),), "plc-9")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (":23", "HOST:PORT wanted, IPv6 in brackets"),
        ("host", "HOST:PORT wanted, IPv6 in brackets"),
        ("::1:23", "HOST:PORT wanted, IPv6 in brackets"),
        ("host:0", "port 0: 1 to 65535 wanted"),
        ("host:99999", "port 99999: 1 to 65535 wanted"),
        ("a b:1", "'a b' is not a host name or an IP address"),
        ("na/me=host:1", "a name is 1 to 32 of A-Z a-z 0-9 . _ -"),
        ("", "HOST:PORT wanted, IPv6 in brackets"),
        ("unix:relative", "unix:/PATH wanted, at most 100 printable characters"),
    ],
)
def test_c8_bad_local_is_named(value: str, wanted: str) -> None:
    """The message names the value once and says what is wanted."""
    assert refused(AgentOptions, "--server", "a:1", "--local", value) == f"--local '{value}': {wanted}"


@pytest.mark.parametrize(
    "value", ["host:23", "[::1]:23", "console=[::1]:23", "10.0.0.1:65535", "unix:/run/x"]
)
def test_c8_good_local(value: str) -> None:
    """The forms that the manual names."""
    options = parse(AgentOptions, "--server", "a:1", "--local", value)

    assert str(options.settings.local[0].target) == value.removeprefix("console=")


def test_c8_two_offers_of_one_name() -> None:
    """Those without a name of their own get one with their host; who was named is not renamed."""
    options = AgentOptions()
    options.around = HERE
    options.parseOptions(["--server", "a:1", "--local", "10.0.0.1:23", "--local", "[fd00::2]:23"])
    assert [offer.name for offer in options.settings.local] == ["10.0.0.1-23", "fd00--2-23"]
    text = refused(AgentOptions, "--server", "a:1", "--local", "x=10.0.0.1:23", "--local", "x=10.0.0.2:23")
    wanted = "a second offer named x, write NAME=HOST:PORT to name one of them"
    assert text == f"--local 'x=10.0.0.2:23': {wanted}"


@pytest.mark.parametrize(
    ("kind", "words", "wanted"),
    [
        (ServerOptions, ["--nope"], "option --nope not recognized"),
        (ServerOptions, ["--password=hunter2"], "option --password not recognized"),
        (ServerOptions, ["word"], "'word': only options are taken, see --help"),
        (ServerOptions, ["--config"], "option --config requires argument"),
        (ServerOptions, ["--config", ""], "--config '': the name of a file wanted"),
        (ServerOptions, ["--listen", "2065"], "--listen '2065': HOST:PORT wanted, IPv6 in brackets"),
        (
            ServerOptions,
            ["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"],
            "--listen '127.0.0.1:1' was given twice",
        ),
        (ServerOptions, ["--log-level", "loud"], "--log-level 'loud': debug, info, warn or error wanted"),
        (AgentOptions, ["--server", "a:0"], "--server 'a:0': port 1 to 65535 wanted"),
        (AgentOptions, ["--server", "a:1", "--server", "a:1"], "--server 'a:1' was given twice"),
        (
            AgentOptions,
            ["--serial", "a b"],
            "--serial 'a b': serial 'a b': 1 to 64 of A-Z a-z 0-9 . _ : - wanted",
        ),
        (AgentOptions, ["--listen", "a:1"], "option --listen not recognized"),
    ],
)
def test_c9_wrong_usage(kind: type[Options], words: list[str], wanted: str) -> None:
    """Unknown options, bare words, bad values: one line that names them."""
    assert refused(kind, *words) == wanted


def test_c9_agent_without_arguments() -> None:
    """It says all that is missing."""
    assert refused(AgentOptions) == (
        "no server: --server HOST:PORT or --server wss://HOST wanted, or servers in [agent]; "
        "no service to offer: --local [NAME=]HOST:PORT wanted, or local in [agent]"
    )


@pytest.mark.parametrize("kind", [ServerOptions, AgentOptions])
@pytest.mark.parametrize("words", [["--key", "hunter2"], ["--key=hunter2"]])
def test_c7_key_on_the_command_line(kind: type[Options], words: list[str]) -> None:
    """Refused with advice, without repeating it; it is not taken for a short form of --key-file."""
    text = refused(kind, *words)

    assert text.startswith("--key is refused") and "--key-file PATH" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("kind", [ServerOptions, AgentOptions])
def test_c9_version_is_ours(kind: type[Options], capsys: pytest.CaptureFixture[str]) -> None:
    """Not that of Twisted; status 0."""
    with pytest.raises(SystemExit) as caught:
        parse(kind, "--version")

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{kind.program} {revtunnel.__version__}\n"


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (ServerOptions, ["--listen=", "--state-directory=", "--admin-socket=", "default: 127.0.0.1:2065"]),
        (
            AgentOptions,
            ["--server=", "--local=", "--serial=", "--key-file=", "--legacy", "--local 10.41.51.152:23"],
        ),
    ],
)
def test_c9_help(kind: type[Options], wanted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every option with unit, limit and default, and examples at the end; status 0."""
    with pytest.raises(SystemExit) as caught:
        parse(kind, "--help")
    text = " ".join(capsys.readouterr().out.split())

    assert not caught.value.code
    for word in [
        *wanted,
        "--config=",
        "--check-config",
        "--log-format=",
        "(word: text or json; default: text)",
    ]:
        assert word in text
    assert text.index("Examples:") > text.index("--version")


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that examples name, in the current directory."""
    monkeypatch.chdir(tmp_path)
    issuer = Issuer(tmp_path, "authority")
    issuer.server("gate.example")
    issuer.device("plc-7")
    return tmp_path


def test_c9_examples_of_the_help_are_right(certificates: Path) -> None:
    """What the help shows can be typed, beside files of those names."""
    around = replace(HERE, environ={"STATE_DIRECTORY": str(certificates / "state")})
    for kind in (ServerOptions, AgentOptions):
        text = kind.examples.replace("\\\n", " ").replace(" TOKEN ", f" {TOKEN} ")
        lines = [line.split() for line in text.splitlines() if line.lstrip().startswith(kind.program)]
        assert len(lines) >= 4
        for _, *words in lines:
            if "--config" not in words:
                parse(kind, *words, around=around)


def test_certificate_of_a_server(certificates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--certificate turns TLS on; --check-config says until when it is good."""
    files = ("--certificate", "server.pem", "--certificate-key", "server.key", "--authority", "authority.pem")
    options = parse(ServerOptions, *files)
    assert isinstance(options, ServerOptions)
    (main,) = options.settings.listeners
    assert (main.tls, main.certificate, main.authority) == (
        True,
        str(certificates / "server.pem"),
        str(certificates / "authority.pem"),
    )
    with pytest.raises(SystemExit):
        parse(ServerOptions, *files, "--check-config")
    said = capsys.readouterr().out
    assert "listener main: TLS 1.3 at least, device certificates required" in said
    assert "listener main: certificate until 2" in said


def test_tls_and_plaintext_of_an_agent(certificates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both name what they do; without them other machines are spoken to over TLS."""
    words = ("--local", "a:1", "--serial", "plc-7", "--server", "gate:1", "--server", "127.0.0.1:1")
    for more, plain in (
        ((), "127.0.0.1:1"),
        (("--tls",), "none"),
        (("--authority", "authority.pem"), "none"),
        (("--plaintext",), "gate:1, 127.0.0.1:1"),
    ):
        with pytest.raises(SystemExit):
            parse(AgentOptions, *words, *more, "--check-config")
        assert f"plaintext: {plain}" in capsys.readouterr().out.splitlines()
    assert "exclude each other" in refused(AgentOptions, *words, "--tls", "--plaintext")


def test_check_config_says_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A summary and status 0."""
    path = tmp_path / "r.ini"
    path.write_text("[agent]\nservers = gate:1, [::1]:2\nlocal = a:1\nserial = plc-7\n")
    for kind in (ServerOptions, AgentOptions):
        with pytest.raises(SystemExit) as caught:
            parse(kind, "--check-config", "--config", str(path))
        assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines.count("ok") == 2
    assert "listener main: 127.0.0.1:2065 rt1, keys enrolled" in lines
    assert "pool default: 20000-20999 at 127.0.0.1" in lines
    assert "servers: gate:1, [::1]:2" in lines
    assert "local tcp-1: a:1" in lines


def test_a_web_listener_says_where_it_is_and_until_when(
    certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As listeners for agents do."""
    file, pem, key = (certificates / name for name in ("web.ini", "server.pem", "server.key"))
    file.write_text(
        f"[web desk]\naddress = 0.0.0.0:443\ntls = yes\ncertificate = {pem}\ncertificate_key = {key}\n"
    )
    with pytest.raises(SystemExit):
        parse(ServerOptions, "--config", str(file), "--check-config")
    said = capsys.readouterr().out
    assert "\nweb desk: 0.0.0.0:443\n" in said
    assert "web desk: certificate until 2" in said


@pytest.mark.parametrize("words", [[], ["--check-config"]])
def test_c5_wrong_settings_end_with_78(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """All errors on standard error, each with file and line, and nothing else is done."""
    path = tmp_path / "r.ini"
    path.write_text("[server]\nx = 1\n[link]\nkeepalive = y\n")
    with pytest.raises(SystemExit) as caught:
        parse(ServerOptions, *words, "--config", str(path))
    out, err = capsys.readouterr()

    assert (caught.value.code, out) == (78, "")
    first, second = err.splitlines()
    assert first.startswith(f"revtunnel-server: {path}:2: [server] x: no such key")
    assert second.startswith(f"revtunnel-server: {path}:4: [link] keepalive: 'y'")


def test_check_config_of_an_agent_without_server_is_78(capsys: pytest.CaptureFixture[str]) -> None:
    """Under --check-config missing settings are errors of the settings, not of the command line."""
    with pytest.raises(SystemExit) as caught:
        parse(AgentOptions, "--check-config")

    assert caught.value.code == 78
    assert "revtunnel-agent: no server" in capsys.readouterr().err


def test_c5_open_listener_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """--listen on all addresses does not open a door without keys."""
    with pytest.raises(SystemExit) as caught:
        parse(ServerOptions, "--listen", "0.0.0.0:2065")

    assert caught.value.code == 78
    assert "allow_without_keys = yes" in capsys.readouterr().err


def test_config_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REVTUNNEL_CONFIG names the file; --config wins over it."""
    path, other = tmp_path / "r.ini", tmp_path / "o.ini"
    path.write_text("[server]\nname = from-env\n")
    other.write_text("[server]\nname = from-option\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REVTUNNEL_CONFIG", "r.ini")
    options = parse(ServerOptions)

    assert (options.settings.name, options.path) == ("from-env", str(path))
    assert parse(ServerOptions, "--config", str(other)).settings.name == "from-option"


def test_c6_load_again_keeps_the_command_line(tmp_path: Path) -> None:
    """For SIGHUP: the file is read again, options still win, and an error leaves the old settings."""
    path = tmp_path / "r.ini"
    path.write_text("[server]\nname = one\n")
    options = parse(ServerOptions, "--config", str(path), "--log-level", "debug")
    path.write_text("[server]\nname = two\nlog_level = warn\n")
    again = options.load()
    path.write_text("[server]\nname = a b\n")
    with pytest.raises(SettingsError, match=r"r\.ini:2: \[server\] name"):
        options.load()

    assert (again.name, again.log_level) == ("two", "debug")
    assert options.settings.name == "one"
