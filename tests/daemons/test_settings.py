"""Settings from files: defaults, precedence, and every error at once with its file and line (C5, C6)."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revtunnel.cluster.cluster_settings import ClusterSettings
from revtunnel.daemons.agent_reading import load_agent
from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.daemons.legacy_devices import fixed_ports, offers_at, sources_at
from revtunnel.daemons.schema import changes
from revtunnel.daemons.server_reading import load_server
from revtunnel.daemons.server_settings import (
    ListenerSettings,
    PoolSettings,
    PortMapping,
    Reservation,
    ServerSettings,
    agents_at,
)
from revtunnel.fleet.access_control import LOOPBACK
from revtunnel.fleet.penalties import PenaltySettings
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.limits import (
    AgentLimits,
    AuditLimits,
    DataLimits,
    EmoLimits,
    EnrolmentLimits,
    LinkLimits,
    RelayLimits,
    ServerLimits,
)
from revtunnel.ground.networks import address_of
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import Offer, Target
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.inifile import MissingSettings, Surroundings
from revtunnel.sockets.ways.proxy_choice import DIRECT
from revtunnel.systems.sessions.localproxy_settings import LocalproxySettings
from revtunnel.systems.sessions.session_life import SessionLimits
from revtunnel.systems.thingworx.edge_settings import EdgeSettings
from revtunnel.trust.audit_settings import AuditSettings
from revtunnel.trust.authority_settings import AuthoritySettings
from revtunnel.trust.oidc_settings import OidcSettings
from tests.support.depth import deep

SHIPPED = Path(__file__).parents[2] / "etc/revtunnel.ini"
AGENT = "[agent]\nservers = gate:2065\nserial = plc-7\nlocal = 10.41.51.152:23\n"
OFFER = Offer("x", Target("h", 1))
HERE = Surroundings({}, root=True, home="/home/op", host_name="gate", default_path="/nowhere/revtunnel.ini")


def server(tmp_path: Path, text: str | bytes, around: Surroundings = HERE) -> ServerSettings:
    """The settings of a server whose file holds ``text``."""
    path = tmp_path / "r.ini"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_server(str(path), None, around)


def errors(tmp_path: Path, text: str | bytes, role: str = "server", around: Surroundings = HERE) -> list[str]:
    """The errors of a file, without its folder."""
    path = tmp_path / "r.ini"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SettingsError) as caught:
        (load_server if role == "server" else load_agent)(str(path), None, around)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.errors]


def test_defaults_without_any_file() -> None:
    """A server needs no file: one listener on loopback, one pool, all limits as in limits.py."""
    assert load_server(None, None, HERE) == ServerSettings(
        name="gate",
        state_directory="/var/lib/revtunnel",
        allow_open_state=False,
        log_format="text",
        log_level="info",
        listeners=(
            ListenerSettings(
                name="main",
                address=(("127.0.0.1", 2065),),
                kind="rt1",
                keys="enrolled",
                allow_without_keys=False,
                duplicate="auto",
                data="auto",
                pool="default",
                serial=None,
                mappings=(),
                probe=True,
                heartbeat=True,
                tls=False,
                certificate=None,
                certificate_key=None,
                authority=None,
                device_certificates="required",
                crl=None,
                tls_least="1.3",
                allow_plaintext=False,
                proxy_protocol="no",
                proxy_from=(),
            ),
        ),
        pools=(
            PoolSettings(
                name="default",
                ranges=((20000, 20999),),
                bind="127.0.0.1",
                quarantine=60.0,
                sticky=2592000.0,
                clients=None,
                absent="close",
                proxy_protocol="no",
                proxy_from=(),
            ),
        ),
        reservations=(),
        devices=(),
        penalties=PenaltySettings(exempt=LOOPBACK),
        drain=30.0,
        limits=ServerLimits(),
        data=DataLimits(),
        emo=EmoLimits(),
        relay=RelayLimits(),
        link=LinkLimits(),
        web=(),
        oidc=OidcSettings(),
        webhooks=(),
        sessions=SessionLimits(),
        audit=AuditSettings("/var/lib/revtunnel/audit.jsonl", "lasting", "refuse", AuditLimits()),
        authority=AuthoritySettings(
            "/var/lib/revtunnel/authority",
            authority_days=7300,
            server_days=825,
            device_days=90,
            limits=EnrolmentLimits(),
        ),
        admin=AdminSettings("/run/revtunnel/admin.sock", 0o660, (), ()),
        cccp=None,
        localproxy=LocalproxySettings(),
        thingworx=EdgeSettings(),
        cluster=ClusterSettings(),
        files=(),
    )


@pytest.mark.parametrize("live", [False, True], ids=["as shipped", "with every default written out"])
def test_shipped_file_gives_the_built_in_defaults(tmp_path: Path, live: bool) -> None:
    """The file as it is, and with the mark before every default taken away."""
    text = SHIPPED.read_text("utf-8")
    text = re.sub(r"(?m)^#([a-z_]+ =)", r"\1", text) if live else text
    wanted = load_server(None, None, HERE)
    assert ("\ndata_sockets = yes\n" in text) is live

    assert replace(server(tmp_path, text), files=()) == wanted
    agent = load_agent(
        str(tmp_path / "r.ini"),
        {("agent", "servers"): (ServerPlace("g", 1),), ("agent", "local"): (OFFER,)},
        HERE,
    )
    assert (agent.serial, agent.key_file, agent.limits, agent.link) == (
        "gate",
        None,
        AgentLimits(),
        LinkLimits(),
    )


def test_everything_that_can_be_set(tmp_path: Path) -> None:
    """A file that sets something of every section."""
    found = server(
        tmp_path,
        """\
# a comment
[server]
name = gate-a
state_directory = none
drain = 5
log_format = json

[listener main]
address = 0.0.0.0:2065, [::]:2065
keys = required
allow_plaintext = yes
duplicate = oldest
pool = plant

[listener press]
address = 127.0.0.1:2066
kind = legacy
serial = press:4
mappings =
    127.0.0.2:2300 -> 10.41.51.152:23
    ; a comment between
    0 -> http=[fd00::7]:80
probe = no

[pool default]
[pool plant]
  ranges = 30000-30999,
           31005
  absent = refuse

[reservations]
plc:7/tcp-23 = 20023
press:4/tcp-23 = 2300
[limits]
clients = 50
[link]
keepalive = 10 s
[admin]
socket = /tmp/a.sock
operators = root
[agent]
local = a:1
""",
    )

    assert (found.name, found.state_directory, found.log_format) == ("gate-a", None, "json")
    assert (found.drain, found.limits) == (5.0, replace(ServerLimits(), clients=50))
    assert found.link == replace(LinkLimits(), keepalive=10.0)
    assert found.admin == AdminSettings("/tmp/a.sock", 0o660, ("root",), ())
    main, press = found.listeners
    assert (main.address, main.keys, main.pool) == ((("0.0.0.0", 2065), ("::", 2065)), "required", "plant")
    assert (press.serial, press.probe, press.heartbeat) == ("press:4", False, True)
    assert press.mappings == (
        PortMapping(2300, Offer("tcp-23", Target("10.41.51.152", 23)), "127.0.0.2"),
        PortMapping(0, Offer("http", Target("fd00::7", 80))),
    )
    assert [(pool.name, pool.ranges, pool.absent) for pool in found.pools] == [
        ("default", ((20000, 20999),), "close"),
        ("plant", ((30000, 30999), (31005, 31005)), "refuse"),
    ]
    assert found.reservations == (
        Reservation("plc:7", "tcp-23", 20023),
        Reservation("press:4", "tcp-23", 2300),
    )


@pytest.mark.parametrize(
    "data", [b"", b"\xef\xbb\xbf", b"\n\r\n# only a comment", b"\xef\xbb\xbf[server]\r\n"]
)
def test_c5_empty_files_and_byte_order_marks_are_defaults(tmp_path: Path, data: bytes) -> None:
    """0 bytes, a byte order mark and CR LF are no errors."""
    assert replace(server(tmp_path, data), files=()) == load_server(None, None, HERE)


def test_c5_lines_may_end_with_cr_lf(tmp_path: Path) -> None:
    """A file from another system is read the same, line numbers included."""
    text = b"[pool default]\r\nranges = 1000-1001,\r\n  1005\r\n[link]\r\nkeepalive = x\r\n"

    assert errors(tmp_path, text)[0].startswith("r.ini:5: [link] keepalive: 'x'")
    assert server(tmp_path, text[: text.index(b"[link]")]).pools[0].ranges == ((1000, 1001), (1005, 1005))


@pytest.mark.parametrize(
    "text",
    ["[link]\nprobe = 1    # second", "[link]\nprobe = 1\t; second", "[link]   # of all\nprobe = 1"],
)
def test_c5_a_comment_behind_a_value_is_told_where_it_belongs(tmp_path: Path, text: str) -> None:
    """Nowhere else: a value may have a # in it."""
    told = "a comment has to be a line of its own"
    with pytest.raises(SettingsError, match=rf"r\.ini:[12]: .*; {told}$"):
        server(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        server(tmp_path, "[link]\nprobe = 1#")
    assert told not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"[server]\nname = \xff\n", "r.ini:2: byte 0xff is not UTF-8, UTF-8 wanted"),
        ("[server]".encode("utf-16"), "r.ini:1: byte 0xff is not UTF-8, UTF-8 wanted"),
        ("[server]\n\nname = a\0b", "r.ini:3: control character '\\x00', plain text wanted"),
        ("[server]\rname = a", "r.ini:1: control character '\\r', plain text wanted"),
        ("name = a", "r.ini:1: 'name' before any section, a line such as [server] wanted above it"),
        ("[server]\nhello", "r.ini:2: neither [section] nor key = value"),
        ("[server]\n= hello", "r.ini:2: neither [section] nor key = value"),
        ("[server]\nna\n  me = x", "r.ini:2: neither [section] nor key = value"),
        ("[reservations]\nplc\n  7 = 5000", "r.ini:2: neither [section] nor key = value"),
        ("[sever]", "r.ini:1: '[sever]' is no section, wanted: [server], [listener NAME], "),
        ("[server", "r.ini:1: '[server' is no section"),
        ("[]", "r.ini:1: '[]' is no section"),
        ("[listener]", "r.ini:1: '[listener]': [listener NAME] wanted, NAME 1 to 32"),
        ("[pool a/b]", "r.ini:1: '[pool a/b]': [pool NAME] wanted"),
        ("[link x]", "r.ini:1: '[link x]': [link] wanted, without a name"),
        ("[link]\nkeepalve = 1", "r.ini:2: [link] keepalve: no such key, did you mean keepalive?"),
        ("[admin]\nqq = 1", "r.ini:2: [admin] qq: no such key, wanted: socket, mode, operators, readers"),
        ("[link]\n[server]\n[link]", "r.ini:3: [link]: stands there twice, first in line 1"),
        ("[link]\nprobe = 1\nprobe = 1", "r.ini:3: [link] probe: stands there twice, first in line 2"),
        ("[link]\nkeepalive =\n  5\n  6", "r.ini:2: [link] keepalive: '5\\n6': a number"),
        ("[pool default]\nranges = 6000-5000", "r.ini:2: [pool default] ranges: '6000-5000' runs backwards"),
        ("[link]\nopen_window = 5 KiB", "r.ini:1: [link] first_window: 65536 is above open_window = 5120"),
        (
            "[agent]\nretry_first = 50\nretry_most = 2",
            "r.ini:2: [agent] retry_first: 50.0 is above retry_most",
        ),
        ("[agent]\nservers = x", "r.ini:2: [agent] servers: 'x': HOST:PORT wanted, IPv6 in brackets"),
        ("[listener a]\npool = b", "r.ini:2: [listener a] pool: there is no [pool b]"),
        ("[agent]\nservers = https://x", "r.ini:2: [agent] servers: 'https://x': wss://HOST[:PORT][/PATH]"),
        ("[web a]\naddress = 127.0.0.1:0\npool = b", "r.ini:3: [web a] pool: there is no [pool b]"),
        (
            "[web a]\naddress = 0.0.0.0:0\nallow_plaintext = yes\nagents = yes\nkeys = enrolled",
            "r.ini:5: [web a] keys: 0.0.0.0 lets devices without keys in from other machines",
        ),
        (
            "[web a]\naddress = 127.0.0.1:0\ndevice_names = p.example\nhosts = g.p.example",
            "r.ini:3: [web a] device_names: g.p.example is below p.example, where only devices are",
        ),
        (
            "[web a]\naddress = 127.0.0.1:0\ndevice_ports = 3000-3001",
            "r.ini:3: [web a] device_ports: device_ports and device_host are set together",
        ),
        (
            "[web a]\naddress = 127.0.0.1:0\ndevice_ports = 3000\ndevice_host = g\ndevice_names = p.example",
            "r.ini:3: [web a] device_ports: either device_names or device_ports wanted",
        ),
        (
            "[web a]\naddress = 127.0.0.1:0\ndevice_ports = 3000\ndevice_host = g\n"
            "[web b]\naddress = 127.0.0.1:0\nhosts = g",
            "r.ini:4: [web a] device_host: g is where our own page is",
        ),
        (
            "[web a]\naddress = 127.0.0.1:0\ndevice_names = 10.0.0.5",
            "r.ini:3: [web a] device_names: 10.0.0.5: a",
        ),
        (
            "[pool default]\nranges = 3001-3100\n[web a]\naddress = 127.0.0.1:0\ndevice_ports = 3000-3001\n"
            "device_host = g",
            "r.ini:5: [web a] device_ports: 3000-3001 overlaps 3001-3100 of [pool default]",
        ),
        (
            "[web a]\naddress = 127.0.0.1:3000\ndevice_ports = 3000-3001\ndevice_host = g",
            "r.ini:3: [web a] device_ports: 3000-3001 holds port 3000, where [web a] listens",
        ),
        (
            "[device plc-7]\nweb = ui=gopher",
            "r.ini:2: [device plc-7] web: 'ui=gopher': NAME=http, NAME=https or NAME=https-any wanted",
        ),
        ("[device plc-7]\nweb_host = a/b", "r.ini:2: [device plc-7] web_host: 'a/b': target, or HOST or"),
        (
            "[admin]\nreaders = @no-such-group",
            "r.ini:2: [admin] readers: '@no-such-group': no such user or group",
        ),
    ],
)
def test_c5_one_error(tmp_path: Path, text: str | bytes, wanted: str) -> None:
    """Each wrong file gives one line: file, line, section and key, what is wrong, what is wanted."""
    (line,) = errors(tmp_path, text)

    assert line.startswith(wanted)


def test_c5_all_errors_at_once(tmp_path: Path) -> None:
    """One run shows everything; what follows a bad head is not judged; a wrong value is named once."""
    text = (
        "[server]\nnme = 1\ndrain = x\n[wrong]\nfoo = 1\n[pool default]\nranges = 1-x\n[link]\nprobe = 99\n"
    )

    assert [line.split(": ")[0] for line in errors(tmp_path, text)] == [f"r.ini:{n}" for n in (2, 3, 4, 7, 9)]


def test_c5_a_hopeless_file_does_not_flood(tmp_path: Path) -> None:
    """Of very many errors a hundred are shown; of a huge file nothing is read."""
    lines = errors(tmp_path, "[link]\n" + "x\n" * 500)
    (line,) = errors(tmp_path, b"#" * (1024 * 1024 + 1))

    assert lines[100:] == ["and 400 more"]
    assert line == "r.ini:1: more than 1048576 bytes, a settings file wanted"


@pytest.mark.parametrize("key", ["key", "secret", "password", "PSK"])
def test_c7_no_secrets_in_the_file(tmp_path: Path, key: str) -> None:
    """A secret is refused with advice, and never shown."""
    (line,) = errors(tmp_path, f"[agent]\n{key} = hunter2")

    assert line == f"r.ini:2: [agent] {key}: no secrets in this file, key_file = PATH wanted"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "[pool a]\nranges = 100-200\n[pool b]\nranges = 300, 200-250\n[listener main]\npool = a",
            "r.ini:4: [pool b] ranges: 200-250 overlaps 100-200 of [pool a]",
        ),
        (
            "[pool default]\nranges = 100-200, 150",
            "r.ini:2: [pool default] ranges: 150-150 overlaps 100-200 of [pool default]",
        ),
        (
            "[pool default]\nranges = 2000-2100",
            "r.ini:2: [pool default] ranges: 2000-2100 holds port 2065, where [listener main] listens",
        ),
        (
            "[listener a]\n[listener b]\n",
            "r.ini:2: [listener b] address: 127.0.0.1 port 2065 is also that of [listener a]",
        ),
        (
            "[reservations]\na/x = 100\nb/x = 100",
            "r.ini:3: [reservations] b/x: port 100 is already that of a/x",
        ),
        (
            "[reservations]\na/x = 2065",
            "r.ini:2: [reservations] a/x: port 2065 is where [listener main] listens",
        ),
        (
            "[listener l]\nkind = legacy\nserial = s\nmappings = 100 -> x=h:1\n[reservations]\na/x = 100",
            "r.ini:4: [listener l] mappings: port 100 is already that of a/x",
        ),
        ("[reservations]\nplc-7 = 100", "r.ini:2: [reservations] plc-7: SERIAL/TARGETNAME = PORT wanted"),
        ("[reservations]\na b/x = 100", "r.ini:2: [reservations] a b/x: SERIAL/TARGETNAME = PORT wanted"),
        ("[reservations]\na/x = 0", "r.ini:2: [reservations] a/x: '0': a port of 1 to 65535 wanted"),
    ],
)
def test_c5_no_port_has_two_owners(tmp_path: Path, text: str, wanted: str) -> None:
    """Pools, listeners, reservations and fixed ports are held against each other."""
    (line,) = errors(tmp_path, text)

    assert line.startswith(wanted)


def test_listeners_may_share_port_0(tmp_path: Path) -> None:
    """Any free port is never the same one."""
    text = "[listener a]\naddress = 127.0.0.1:0\n[listener b]\naddress = 127.0.0.1:0\n"

    assert len(server(tmp_path, text).listeners) == 2


@pytest.mark.parametrize("address", ["0.0.0.0:2065", "[::]:2065", "127.0.0.1:2065, 192.0.2.1:2065"])
def test_open_listener_without_keys_does_not_start_unasked(tmp_path: Path, address: str) -> None:
    """Off loopback everybody proves a key, or the insecure setting stands there by name."""
    text = f"[listener main]\naddress = {address}\nallow_plaintext = yes\n"
    (line,) = errors(tmp_path, text)

    assert line.startswith("r.ini:2: [listener main] address: ")
    assert line.endswith("or keys = required, or, if that is meant, allow_without_keys = yes")
    assert "wanted: tls = yes with device_certificates = required" in line
    assert server(tmp_path, f"{text}keys = required").listeners[0].keys == "required"
    assert server(tmp_path, f"{text}allow_without_keys = yes").listeners[0].allow_without_keys


@pytest.mark.parametrize(
    "address", ["127.8.8.8:2065", "[::1]:2065", "[::ffff:127.0.0.1]:2065", "localhost:1"]
)
def test_loopback_listener_needs_no_keys(tmp_path: Path, address: str) -> None:
    """All forms of loopback are known."""
    assert server(tmp_path, f"[listener main]\naddress = {address}\n").listeners[0].keys == "enrolled"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mappings = 0 -> a:1", "serial: missing"),
        ("serial = s", "mappings: missing"),
        ("serial = s\nmappings = 0 -> a:1\nkeys = required", "keys: a legacy device has no key"),
        ("serial = s\nmappings = 0 -> a:1, 0 -> b:1", "mappings: two targets are named tcp-1"),
        (
            "serial = s\nmappings = 0 -> a:1\naddress = 0.0.0.0:1\nallow_plaintext = yes",
            "address: 0.0.0.0 lets devices without keys in",
        ),
    ],
)
def test_legacy_listener_must_be_complete(tmp_path: Path, text: str, wanted: str) -> None:
    """The wire names neither the device nor its services, so the file does."""
    (line,) = errors(tmp_path, f"[listener l]\nkind = legacy\n{text}\n")

    assert line.split("[listener l] ")[1].startswith(wanted)


FLEET = "[listener l]\nkind = legacy\nmappings = 0 -> a:1\n"
PLC = "[legacy-device plc-7]\nlistener = l\n"


def test_devices_of_a_listener_that_many_share(tmp_path: Path) -> None:
    """Each by its address, with its own services or the common ones."""
    own = "[legacy-device plc-8]\nlistener = l\nsource = 10.1.0.0/16, 2001:db8::7\nmappings = 2323 -> b:2\n"
    found = server(tmp_path, f"{FLEET}{PLC}source = 10.1.2.3\n{own}")
    (listener,) = found.listeners
    table = sources_at(found, listener)
    peers = ("10.1.2.3:1", "10.1.2.4:1", "[2001:db8::7]:1", "10.2.0.1:1")
    assert [table.at(address_of(peer)) for peer in peers] == ["plc-7", "plc-8", "plc-8", None]
    one, two = Offer("tcp-1", Target("a", 1)), Offer("tcp-2", Target("b", 2))
    assert offers_at(found, listener) == {"plc-7": (one,), "plc-8": (two,)}
    assert [(use, mapping.client_port) for _, mapping, use in fixed_ports(found)] == [
        (("plc-8", "tcp-2"), 2323)
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{FLEET}{PLC}", "r.ini:4: [legacy-device plc-7] source: missing: nothing else tells it"),
        (f"{PLC}source = 10.1.2.3", "r.ini:2: [legacy-device plc-7] listener: l: the NAME of a listener"),
        ("[legacy-device x]\nsource = 10.1.2.3", "r.ini:1: [legacy-device x] listener: missing: the NAME"),
        (f"{FLEET}serial = s\n{PLC}source = 10.1.2.3", "r.ini:6: [legacy-device plc-7] listener: l: the"),
        (
            f"{FLEET}{PLC}source = 10.1.2.3\n[legacy-device plc-8]\nlistener = l\nsource = 10.1.2.3",
            "r.ini:9: [legacy-device plc-8] source: 10.1.2.3/32 is that of plc-7 already",
        ),
        (
            f"{FLEET}{PLC}source = 10.1.2.3\nmappings = 0 -> a:1, 0 -> b:1",
            "r.ini:7: [legacy-device plc-7] mappings: two targets are named tcp-1",
        ),
        (
            f"[listener l]\nkind = legacy\n{PLC}source = 10.1.2.3",
            "r.ini:3: [legacy-device plc-7] mappings: missing, here and in [listener l]",
        ),
        (
            f"[listener l]\nkind = legacy\nmappings = 23 -> a:1\n{PLC}source = 10.1.2.3",
            "r.ini:3: [listener l] mappings: port 23 cannot be that of several devices, 0 wanted, or",
        ),
        (
            f"{FLEET}{PLC}source = 10.1.2.3\nmappings = 2065 -> a:1",
            "r.ini:7: [legacy-device plc-7] mappings: port 2065 is where [listener l] listens",
        ),
        (
            f"{FLEET}{PLC}source = 10.1.2.3\nmappings = 192.0.2.5:2323 -> a:1",
            "r.ini:7: [legacy-device plc-7] mappings: 192.0.2.5 is reached by other machines, which",
        ),
    ],
)
def test_what_devices_of_a_shared_listener_must_not_say(tmp_path: Path, text: str, wanted: str) -> None:
    """Nobody would find such a device, or it would be another one."""
    (line,) = errors(tmp_path, text)
    assert line.startswith(wanted)


def test_legacy_keys_mean_nothing_for_rt1(tmp_path: Path) -> None:
    """A setting that would do nothing is an error."""
    lines = errors(tmp_path, "[listener l]\nserial = s\nmappings = 0 -> a:1\nprobe = no\n")

    assert [line.split("] ")[1] for line in lines] == [
        f"{key}: only with kind = legacy" for key in ("serial", "mappings", "probe")
    ]


def test_agent_settings(tmp_path: Path) -> None:
    """An agent takes [agent] and [link] of the same file, and checks the rest of it."""
    path = tmp_path / "r.ini"
    path.write_text(
        f"{AGENT}legacy = yes\ndial = 3\n[link]\nkeepalive = 9\n[listener main]\naddress = 0.0.0.0:1\n"
    )

    assert load_agent(str(path), None, HERE) == AgentSettings(
        servers=(ServerPlace("gate", 2065),),
        serial="plc-7",
        state_directory="/var/lib/revtunnel",
        renew_before=0.33,
        token_file="/var/lib/revtunnel/plc-7.token",
        key_file=None,
        local=(Offer("tcp-23", Target("10.41.51.152", 23)),),
        legacy=True,
        emo=False,
        server_port=0,
        modern="auto",
        emo_limits=EmoLimits(),
        relay=RelayLimits(),
        data_sockets=True,
        sessions="allow",
        consent_command="",
        consent_wait=60.0,
        tls="auto",
        authority=None,
        server_name=None,
        certificate=None,
        certificate_key=None,
        tls_least="1.3",
        allow_plaintext=False,
        proxy=DIRECT,
        proxy_credentials=None,
        proxy_protocol=(),
        log_format="text",
        log_level="info",
        limits=replace(AgentLimits(), dial=3.0),
        link=replace(LinkLimits(), keepalive=9.0),
        files=(str(path),),
    )
    path.write_text(f"{AGENT}[listener main]\naddress = x\n")
    with pytest.raises(SettingsError, match=r"r\.ini:6: \[listener main\] address: 'x'"):
        load_agent(str(path), None, HERE)


def test_agent_says_what_is_missing() -> None:
    """Server, service, and a serial where the host name is none."""
    with pytest.raises(MissingSettings) as caught:
        load_agent(None, None, replace(HERE, host_name="my host"))

    assert [line.split(":")[0] for line in caught.value.errors] == [
        "no server",
        "no service to offer",
        "host name 'my host' is no serial",
    ]


def test_agent_offers_differ_by_name_and_are_few(tmp_path: Path) -> None:
    """Two services of one name, or more than [link] offers, are errors."""
    text = AGENT.replace("152:23", "152:23, 10.0.0.1:23")
    (same,) = errors(tmp_path, text.replace("10.0.0.1:23", "b=10.0.0.1:23, b=10.0.0.1:24"), "agent")
    (many,) = errors(tmp_path, f"{text}[link]\noffers = 1", "agent")

    assert same == "r.ini:4: [agent] local: two offers are named b, NAME=HOST:PORT wanted"
    assert many == "r.ini:4: [agent] local: 2 offers, at most 1 wanted: offers in [link]"


def test_a_site_that_asks_needs_somebody_to_ask(tmp_path: Path) -> None:
    """The command's words are read as a shell would, once, and have to be there."""
    (nobody,) = errors(tmp_path, f"{AGENT}sessions = ask\n", "agent")
    (unreadable,) = errors(tmp_path, f"{AGENT}consent_command = say 'yes\n", "agent")
    assert nobody == "r.ini:5: [agent] sessions: ask: consent_command wanted with it"
    assert unreadable.startswith('r.ini:5: [agent] consent_command: "say \'yes": No closing quotation')
    for old in ("legacy = yes", "emo = yes\nserver_port = 5000\nmodern = no"):
        (deaf,) = errors(tmp_path, f"{AGENT}sessions = no\n{old}\n", "agent")
        assert f"with {old.split()[0]} = yes a server of that wire does not say" in deaf
    path = tmp_path / "good.ini"
    path.write_text(f"{AGENT}sessions = ask\nconsent_command = say {{user}}\nconsent_wait = 5\n")
    settings = load_agent(str(path), None, HERE)
    assert (settings.sessions, settings.consent_command, settings.consent_wait) == ("ask", "say {user}", 5.0)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        (0o644, "mode 0644 opens it to everybody, 0600 wanted"),
        (0o602, "mode 0602 opens it"),
        (0o660, "mode 0660 lets its group write it, 0600 wanted"),
    ],
)
def test_c5_key_file_that_others_can_read(tmp_path: Path, mode: int, wanted: str) -> None:
    """A key that others can read or replace is refused; of one that is root's a group may read it."""
    key = tmp_path / "plc.key"
    key.write_text("k")
    text = f"{AGENT}key_file = {key}\n"
    key.chmod(mode)
    (line,) = errors(tmp_path, text, "agent")

    assert line.startswith(f"r.ini:5: [agent] key_file: plc.key: {wanted}")
    key.chmod(0o640)
    if os.geteuid() == 0:
        assert load_agent(str(tmp_path / "r.ini"), None, HERE).key_file == str(key)
        os.chown(key, 65534, -1)
    (line,) = errors(tmp_path, text, "agent")
    assert "mode 0640 lets its group read it, 0600 wanted, or root as its owner" in line
    key.chmod(0o400)
    assert load_agent(str(tmp_path / "r.ini"), None, HERE).key_file == str(key)


def test_c5_key_file_that_is_none(tmp_path: Path) -> None:
    """Missing, a folder, a pipe: said at start, without waiting for a writer."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    found = [
        errors(tmp_path, f"{AGENT}key_file = {tmp_path}/{name}\n", "agent")[0].split(": ", 3)[3]
        for name in ("gone", "folder", "pipe")
    ]

    assert found == [
        "No such file or directory, a file that can be read wanted",
        "Is a directory, a file that can be read wanted",
        "not a plain file",
    ]


def test_key_file_comes_from_the_service_manager(tmp_path: Path) -> None:
    """Without a setting the credential of systemd is the key, if there is one."""
    around = replace(HERE, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    (tmp_path / "r.ini").write_text(AGENT)
    before = load_agent(str(tmp_path / "r.ini"), None, around).key_file
    (tmp_path / "revtunnel.key").write_text("k")
    (tmp_path / "revtunnel.key").chmod(0o400)

    assert before is None
    assert load_agent(str(tmp_path / "r.ini"), None, around).key_file == f"{tmp_path}/revtunnel.key"


def test_c5_missing_and_unreadable_files(tmp_path: Path) -> None:
    """A file that was asked for must be there, from the command line or from the environment."""
    loop = tmp_path / "loop.ini"
    loop.symlink_to(loop)
    for path, wanted in (
        (tmp_path / "gone.ini", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (loop, "Too many levels of symbolic links"),
    ):
        for told, environ in ((str(path), {}), (None, {"REVTUNNEL_CONFIG": str(path)})):
            with pytest.raises(SettingsError) as caught:
                load_server(told, None, replace(HERE, environ=environ))
            assert caught.value.errors == [f"{path}: {wanted}, a file that can be read wanted"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_c5_file_without_permission(tmp_path: Path) -> None:
    """No permission is an error, not the defaults."""
    path = tmp_path / "r.ini"
    path.touch(0o000)
    with pytest.raises(SettingsError, match="Permission denied"):
        load_server(str(path), None, HERE)


def test_precedence(tmp_path: Path) -> None:
    """Command line over a path in the environment over the default file over the built-in values."""
    default, named, given = (tmp_path / f"{name}.ini" for name in ("default", "named", "given"))
    here = replace(HERE, default_path=str(default))
    named_too = replace(here, environ={"REVTUNNEL_CONFIG": str(named)})
    missing = load_server(None, None, here)
    for path in (default, named, given):
        path.write_text(f"[server]\nname = {path.stem}\nlog_level = warn\n")

    assert (missing.name, missing.log_level) == ("gate", "info")
    assert load_server(None, None, here).name == "default"
    assert load_server(None, None, named_too).name == "named"
    assert load_server(str(given), None, named_too).name == "given"
    overridden = load_server(str(given), {("server", "name"): "told"}, named_too)
    assert (overridden.name, overridden.log_level, overridden.files) == ("told", "warn", (str(given),))


def test_further_files_win_in_the_order_of_their_names(tmp_path: Path) -> None:
    """FILE.d for every file, conf.d beside the default one; a key may come again, but not within one file."""
    main = tmp_path / "revtunnel.ini"
    main.write_text("[server]\nname = main\nlog_level = warn\n[reservations]\na/x = 100\n")
    (tmp_path / "revtunnel.ini.d").mkdir()
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "revtunnel.ini.d/20.ini").write_text("[server]\nname = twenty\n")
    (tmp_path / "revtunnel.ini.d/10.ini").write_text("[server]\nname = ten\n[reservations]\nb/x = 101\n")
    (tmp_path / "revtunnel.ini.d/30.txt").write_text("not read")
    (tmp_path / "conf.d/10.ini").write_text("[server]\nname = conf\n")
    given = load_server(str(main), None, HERE)
    default = load_server(None, None, replace(HERE, default_path=str(main)))

    assert (given.name, given.log_level, [each.port for each in given.reservations]) == (
        "twenty",
        "warn",
        [100, 101],
    )
    assert [os.path.relpath(path, tmp_path) for path in default.files] == [
        "revtunnel.ini",
        "revtunnel.ini.d/10.ini",
        "revtunnel.ini.d/20.ini",
        "conf.d/10.ini",
    ]
    assert default.name == "conf"
    (tmp_path / "conf.d/10.ini").write_text("[link]\nprobe = 1\nprobe = 1\n")
    with pytest.raises(SettingsError, match=r"conf\.d/10\.ini:3: \[link\] probe: stands there twice"):
        load_server(None, None, replace(HERE, default_path=str(main)))


def test_wrong_value_on_the_command_line_has_no_file() -> None:
    """What is only wrong together with other settings is said to come from the command line."""
    with pytest.raises(SettingsError, match=r"^command line: \[listener main\] address: 0\.0\.0\.0 lets"):
        load_server(None, {("listener main", "address"): (("0.0.0.0", 1),)}, HERE)


@pytest.mark.parametrize(
    ("root", "environ", "state", "admin"),
    [
        (True, {}, "/var/lib/revtunnel", "/run/revtunnel/admin.sock"),
        (False, {}, "/home/op/.local/state/revtunnel", "/home/op/.local/state/revtunnel/admin.sock"),
        (
            False,
            {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"},
            "/s/revtunnel",
            "/r/revtunnel/admin.sock",
        ),
        (False, {"XDG_STATE_HOME": "s"}, "/home/op/.local/state/revtunnel", None),
        (True, {"STATE_DIRECTORY": "/a:/b", "RUNTIME_DIRECTORY": "/c:/d"}, "/a", "/c/admin.sock"),
    ],
)
def test_places_follow_systemd_then_xdg(
    root: bool, environ: dict[str, str], state: str, admin: str | None
) -> None:
    """Where state and socket lie when nobody says; a relative XDG path does not count."""
    found = load_server(None, None, replace(HERE, root=root, environ=environ))

    assert found.state_directory == state
    assert admin is None or found.admin.socket == admin


def test_odd_host_name_still_makes_a_server_name() -> None:
    """The name is only shown, so anything unfit is replaced."""
    assert load_server(None, None, replace(HERE, host_name="über gate")).name == "-ber-gate"


def test_changes_names_what_is_live_and_what_is_not(tmp_path: Path) -> None:
    """SIGHUP applies the first list and reports the second."""
    old = server(tmp_path, "[reservations]\na/x = 100\n[pool old]\nranges = 1-2\n[pool default]\n")
    new = server(
        tmp_path,
        "[server]\nlog_level = debug\nlog_format = json\ndrain = 1\n[reservations]\na/x = 101\nb/x = 102\n"
        "[listener main]\nduplicate = oldest\n[listener more]\naddress = 127.0.0.1:1\n[limits]\nclients = 5\n"
        "[link]\nkeepalive = 5\n[admin]\noperators = root\nmode = 0600\n",
    )

    live, restart = changes(old, new)

    assert sorted(live) == [
        "[admin] operators",
        "[limits] clients",
        "[link] keepalive",
        "[listener main] duplicate",
        "[listener more]",
        "[pool old]",
        "[reservations] a/x",
        "[reservations] b/x",
        "[server] drain",
        "[server] log_level",
    ]
    assert sorted(restart) == [
        "[admin] mode",
        "[server] log_format",
    ]
    assert changes(old, old) == ([], [])


def test_changes_of_an_agent(tmp_path: Path) -> None:
    """The same for an agent; which files were read is no change."""
    path = tmp_path / "r.ini"
    path.write_text(AGENT)
    old = load_agent(str(path), None, HERE)
    path.write_text(AGENT.replace("gate", "gate-b").replace("152:23", "152:24"))
    new = load_agent(str(path), None, HERE)

    assert changes(old, replace(new, files=())) == (["[agent] servers", "[agent] local"], [])


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["[server]", "[listener a]", "[pool p]", "[reservations]", "[link]", "[agent]", " x = 1"]
        ),
        st.sampled_from(
            ["address = 127.0.0.1:0", "ranges = 1-5", "pool = p", "kind = legacy", "a/b = 5", "probe ="]
        ),
        st.text(max_size=30),
    ),
    max_size=12,
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


@settings(max_examples=deep(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(LINES, st.binary(max_size=200)))
def test_c5_any_file_gives_settings_or_errors(tmp_path: Path, data: bytes) -> None:
    """Whatever a file holds, the answer is settings, or lines that begin with file and line number."""
    path = tmp_path / "any.ini"
    path.write_bytes(data)
    for load in (load_server, load_agent):
        try:
            load(str(path), None, HERE)
        except MissingSettings:
            continue
        except SettingsError as error:
            assert all(re.match(rf"{re.escape(str(path))}:\d+: |settings: ", line) for line in error.errors)


def test_agents_by_web(tmp_path: Path) -> None:
    """They need keys unless it is said otherwise; as a listener for agents it has a blank in its name."""
    text = "[web a]\naddress = 127.0.0.1:0\nagents = yes\n[web b]\naddress = 127.0.0.1:1"
    first, second = server(tmp_path, text).web
    assert (first.agents, first.keys, first.pool, second.agents) == (True, "required", "default", False)
    made = agents_at(first)
    assert (made.name, made.keys, made.kind, made.tls) == ("web a", "required", "rt1", False)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("servers = ws://gate.example", "[agent] tls: gate.example is another machine"),
        ("servers = wss://gate.example\ntls = no", "[agent] tls: no, and wss://gate.example:443/link is"),
        ("servers = wss://gate.example\nlegacy = yes", "[agent] servers: wss://gate.example:443/link: with"),
    ],
)
def test_what_does_not_go_with_a_url(tmp_path: Path, text: str, wanted: str) -> None:
    """Plaintext to others, TLS that is switched off, another wire."""
    (line,) = errors(tmp_path, f"[agent]\nserial = plc-7\nlocal = 10.0.0.1:23\n{text}", "agent")
    assert wanted in line


def test_plaintext_by_web_can_be_asked_for(tmp_path: Path) -> None:
    """And needs not be for this machine."""
    for text in ("ws://127.0.0.1:80/link", "ws://gate.example\nallow_plaintext = yes"):
        told = f"[agent]\nserial = plc-7\nlocal = 10.0.0.1:23\nservers = {text}"
        (tmp_path / "r.ini").write_text(told)
        assert load_agent(str(tmp_path / "r.ini"), None, HERE).servers[0].web


def test_ports_of_emo_that_nobody_has_by_name(tmp_path: Path) -> None:
    """Each is of the machine that is called by it, but for those that the settings give to somebody."""
    emo = "[listener machines]\naddress = 127.0.0.1:8080\nkind = emo\nfirst_come = 5010-5012\n"
    told = server(tmp_path, emo + "[reservations]\nmill-1/emo = 5011\n")
    found = {(each.serial, each.port) for each in told.reservations}
    assert found == {("mill-1", 5011), ("emo-5010", 5010), ("emo-5012", 5012)}
    for text, why in (
        (emo.replace("kind = emo", "kind = rt1"), "only with kind = emo"),
        (emo.replace("5010-5012", "80-90"), "1025 and above, 1000 at most, wanted"),
        (emo.replace("5010-5012", "2000-60000"), "1025 and above, 1000 at most, wanted"),
    ):
        (said,) = errors(tmp_path, text)
        assert why in said and "first_come" in said


@pytest.mark.parametrize("wrong", ["0", "65", "many", "-1", "1.5"])
def test_workers_are_a_number_or_auto(tmp_path: Path, wrong: str) -> None:
    """With the file and the line."""
    (error,) = errors(tmp_path, f"[server]\nworkers = {wrong}\n")
    assert error.startswith("r.ini:2: [server] workers: ")


def test_auto_is_a_worker_for_each_processor(tmp_path: Path) -> None:
    """And one, the default, is no worker at all."""
    (tmp_path / "r.ini").write_text("[server]\nworkers = auto\n")
    settings = load_server(str(tmp_path / "r.ini"), None, HERE)
    assert settings.workers is None and settings.processes == len(os.sched_getaffinity(0))
    (tmp_path / "r.ini").write_text("")
    assert load_server(str(tmp_path / "r.ini"), None, HERE).processes == 1
