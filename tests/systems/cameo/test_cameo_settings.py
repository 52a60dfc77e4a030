"""Settings of the CAMEO relays: defaults, every key, what is wrong, what a reload changes."""

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from revtunnel.daemons.cameo_options import CameoOptions
from revtunnel.daemons.schema import changes, load
from revtunnel.ground.limits import CameoLimits
from revtunnel.settings.inifile import SettingsError, Surroundings
from revtunnel.systems.cameo.cameo_requests import READ_ONLY
from revtunnel.systems.cameo.cameo_settings import CameoSettings, read_cameo

HERE = Surroundings({}, True, "/root", "gate", "/nowhere/revtunnel.ini")
SHIPPED = Path(__file__).parents[3] / "etc" / "revtunnel.ini"


def cameo(tmp_path: Path, text: str) -> CameoSettings:
    """The settings of a file."""
    path = tmp_path / "c.ini"
    path.write_text(text)
    return load(read_cameo, str(path), None, HERE)


def test_defaults() -> None:
    """CAMEO's usual ports, on loopback only; the door beside the server's; syslog for the programs."""
    found = load(read_cameo, None, None, HERE)
    assert (found.proxy_ports, found.bind, found.log_file) == (
        (10000, 10001, 10002),
        ("127.0.0.1",),
        "syslog",
    )
    assert (found.allow, found.trusted, found.outside, found.limits) == ((), (), (), CameoLimits())
    assert found.admin.socket == "/run/revtunnel/cameo.sock"


def test_shipped_file_gives_the_defaults() -> None:
    """Its example of an outside listener is empty, and so is none."""
    assert replace(load(read_cameo, str(SHIPPED), None, HERE), files=()) == load(read_cameo, None, None, HERE)


def test_everything(tmp_path: Path) -> None:
    """A file that sets something of everything."""
    found = cameo(
        tmp_path,
        """\
[cameo]
proxy_ports = 12000,12001, 12002
bind = 0.0.0.0, ::
allow = 10.0.0.0/8, 192.0.2.7
trusted = 10.1.0.0/16
admin_socket = /run/c.sock
log_file = /var/log/cameo.log
message = 1 GiB
queue_messages = 7
drain = 1 min

[cameo-outside web]
responder = 127.0.0.1:10100
subscriber = 127.0.0.1:10101, [::1]:10101
advertise = 12000:21000, 12001:21001
requests = read-only
refuse_types = 1, 999

[admin]
operators = root
""",
    )
    assert found.proxy_ports == (12000, 12001, 12002) and found.bind == ("0.0.0.0", "::")
    assert found.allow == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("192.0.2.7/32"))
    assert found.limits == CameoLimits(message=1 << 30, queue_messages=7, drain=60.0)
    assert (found.admin.socket, found.admin.operators) == ("/run/c.sock", ("root",))
    (web,) = found.outside
    assert web.subscriber == (("127.0.0.1", 10101), ("::1", 10101))
    assert web.rules.outside and web.rules.advertise == {12000: 21000, 12001: 21001}
    assert web.rules.refused_types == READ_ONLY | {1, 999}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[cameo]\nproxy_ports = 1, 2", "three different ports wanted"),
        ("[cameo]\nproxy_ports = 1, 2, 1", "three different ports wanted"),
        ("[cameo]\nproxy_ports = 0, 1, 2", "port"),
        ("[cameo]\nallow = everybody", "an address or a network"),
        ("[cameo]\nmessage = 1", "outside"),
        ("[cameo-outside web]\nadvertise = 1:2", "missing: HOST:PORT wanted"),
        ("[cameo-outside web]\nresponder = 127.0.0.1:10000", "10000 is also that of [cameo]"),
        (
            "[cameo-outside a]\nresponder = 127.0.0.1:1\nsubscriber = 127.0.0.1:1",
            "also that of [cameo-outside a",
        ),
        (
            "[cameo-outside a]\nresponder = 127.0.0.1:1\n[cameo-outside b]\nresponder = 127.0.0.1:1",
            "also that of",
        ),
        ("[cameo-outside web]\nresponder = 127.0.0.1:1\nadvertise = 1:2, 1:3", "port 1 is reported twice"),
        ("[cameo-outside web]\nresponder = 127.0.0.1:1\nadvertise = 1:3, 2:3", "port 3 is advertised twice"),
        ("[cameo-outside web]\nresponder = 127.0.0.1:1\nadvertise = 1-2", "REPORTED:ADVERTISED wanted"),
        ("[cameo-outside web]\nresponder = 127.0.0.1:1\nrefuse_types = START", "a message type of 0 to 999"),
        ("[cameo-outside web]\nresponder = 127.0.0.1:1\nrefuse_types = 10000", "a message type of 0 to 999"),
        ("[cameo-outside]\nresponder = 127.0.0.1:1", "[cameo-outside NAME] wanted"),
        ("[admin]\noperators = nobody-has-this-name", "no such user"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    """File, line, key, what is wanted."""
    with pytest.raises(SettingsError) as caught:
        cameo(tmp_path, text)
    (line,) = caught.value.errors
    assert error in line and "c.ini:" in line


def test_several_doors_may_use_any_free_port(tmp_path: Path) -> None:
    """Port 0 is nobody's."""
    text = "[cameo-outside a]\nresponder = 127.0.0.1:0\n[cameo-outside b]\nresponder = 127.0.0.1:0"
    assert [each.name for each in cameo(tmp_path, text).outside] == ["a", "b"]


def test_what_a_reload_changes(tmp_path: Path) -> None:
    """All but who logs how at once."""
    before = cameo(tmp_path, "[cameo-outside web]\nresponder = 127.0.0.1:1")
    after = cameo(
        tmp_path,
        "[cameo]\nproxy_ports = 1, 2, 3\nallow = 10.0.0.0/8\ntopics = 5\nlog_format = json\n"
        "[cameo-outside web]\nresponder = 127.0.0.1:9\nrequests = read-only\n"
        "[cameo-outside more]\nresponder = 127.0.0.1:7\n",
    )
    live, restart = changes(before, after)
    outside = ["[cameo-outside web] responder", "[cameo-outside web] requests", "[cameo-outside more]"]
    assert live == ["[cameo] proxy_ports", "[cameo] allow", "[cameo] topics", *outside]
    assert restart == ["[cameo] log_format"]
    assert changes(before, before) == ([], [])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options win over the file; --check-config says what would run."""
    path = tmp_path / "c.ini"
    path.write_text(
        "[cameo]\nbind = 0.0.0.0\n[cameo-outside web]\nresponder = 127.0.0.1:10100\nadvertise = 10000:21000\n"
    )
    options = CameoOptions()
    options.around = HERE
    options.parseOptions(["--config", str(path), "--proxy-ports", "1, 2, 3"])
    assert (options.settings.proxy_ports, options.settings.bind) == ((1, 2, 3), ("0.0.0.0",))
    assert options["log-level"] == "info"
    options = CameoOptions()
    options.around = HERE
    with pytest.raises(SystemExit) as ended:
        options.parseOptions(["--config", str(path), "--check-config"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok",
        f"files: {path}",
        "ports: 10000, 10001, 10002 at 0.0.0.0",
        "outside web: responder 127.0.0.1:10100 advertises 10000 as 21000, all requests",
        "admin: /run/revtunnel/cameo.sock",
    ]
