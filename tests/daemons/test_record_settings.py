"""Records and penalties from files: what a device's section says, takes over, and must not leave out."""

from pathlib import Path

import pytest

from revtunnel.daemons.schema import changes
from revtunnel.daemons.server_reading import load_server, records_of
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.fleet.device_records import Pattern
from revtunnel.fleet.penalties import PenaltySettings
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.networks import network_of
from revtunnel.ground.targets import parse_offer
from revtunnel.settings.inifile import Surroundings

HERE = Surroundings({}, root=True, home="/home/op", host_name="gate", default_path="/nowhere/revtunnel.ini")
OFFICE = network_of("10.1.0.0/16")


def server(tmp_path: Path, text: str) -> ServerSettings:
    """The settings of a server whose file holds ``text``."""
    path = tmp_path / "r.ini"
    path.write_text(text)
    return load_server(str(path), None, HERE)


def errors(tmp_path: Path, text: str) -> list[str]:
    """The errors of a file, without its folder."""
    with pytest.raises(SettingsError) as caught:
        server(tmp_path, text)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.errors]


def test_a_device_s_section(tmp_path: Path) -> None:
    """Every key, as a record."""
    found = server(
        tmp_path,
        """[device plc:7]
clients = 10.1.0.0/16, ::ffff:192.0.2.0/120
    2001:db8::/32
targets = http, *:23
ports = 20000-20009, 30000
channels = 3
expires = 2025-12-31
""",
    )
    record = records_of(found.devices, found.pools).of("plc:7")
    assert record.clients == (OFFICE, network_of("192.0.2.0/24"), network_of("2001:db8::/32"))
    assert record.targets == (Pattern(name="http"), Pattern(port=23))
    assert record.ports == ((20000, 20009), (30000, 30000))
    assert record.channels == 3
    assert record.expires == 1_767_225_600.0


def test_what_a_section_does_not_say_is_that_of_all(tmp_path: Path) -> None:
    """Key by key; ``any`` takes a limit of all away for one."""
    found = server(
        tmp_path,
        """[device *]
clients = 10.1.0.0/16
channels = 5
[device plc-1]
channels = 9
[device plc-2]
clients = any
targets = none
""",
    )
    records = records_of(found.devices, found.pools)
    assert (records.of("plc-1").clients, records.of("plc-1").channels) == ((OFFICE,), 9)
    assert (records.of("plc-2").clients, records.of("plc-2").channels) == (None, 5)
    assert not records.of("plc-2").has_target(parse_offer("10.0.0.5:23"))
    assert (records.of("plc-3").clients, records.of("plc-3").channels) == ((OFFICE,), 5)
    assert (records.source("plc-3"), records.source("plc-2")) == ("*", "plc-2")


def test_nothing_said_is_no_record(tmp_path: Path) -> None:
    """As in the shipped file, where every key is a comment."""
    found = server(tmp_path, "[device *]\n[pool default]\n")
    assert found.devices == ()
    assert records_of(found.devices, found.pools).source("plc-1") == ""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[device]\n", "[device SERIAL] wanted, SERIAL or *, 1 to 64 of"),
        ("[device a b]\n", "[device SERIAL] wanted"),
        ("[device plc/7]\n", "[device SERIAL] wanted"),
        ("[device a]\nclients = 10.0.0.1/8\n", "has host bits set"),
        ("[device a]\nclients = any, 10.0.0.0/8\n", "'any': an address or a network"),
        ("[device a]\nclients =\n", "0 entries, 1 to 1024 wanted"),
        ("[device a]\ntargets = 10.0.*:80\n", "NAME, HOST:PORT"),
        ("[device a]\nports = 30000-20000\n", "runs backwards"),
        ("[device a]\nexpires = 31.12.2027\n", "never, or a day such as 2027-12-31 wanted"),
        ("[device a]\nexpires = 2027-02-29\n", "never, or a day"),
        ("[device a]\nport = 1\n", "did you mean ports?"),
        ("[penalties]\nmost = 0\n", "is outside"),
        ("[penalties]\nexempt = host\n", "an address or a network"),
    ],
)
def test_c5_what_is_wrong_is_said(tmp_path: Path, text: str, error: str) -> None:
    """With its line."""
    (found,) = errors(tmp_path, text)
    assert found.startswith("r.ini:")
    assert error in found


def test_client_ports_for_other_machines_say_for_whom(tmp_path: Path) -> None:
    """A pool beyond loopback names its clients, or [device *] does, and ``any`` is a name too."""
    wide = "[pool default]\nbind = 0.0.0.0\n"
    (found,) = errors(tmp_path, wide)
    assert found.startswith("r.ini:2: [pool default] bind: 0.0.0.0 is reached by other machines")
    assert found.endswith("if that is meant, clients = any")
    assert errors(tmp_path, f"{wide}[device plc-1]\nclients = any\n") == [found]
    for said in ("clients = 10.1.0.0/16\n", "clients = any\n", "[device *]\nclients = any\n"):
        server(tmp_path, wide + said)
    server(tmp_path, "[pool default]\nbind = ::1\n")
    pool = server(tmp_path, f"{wide}clients = 10.1.0.0/16\n").pools[0]
    assert pool.clients == (OFFICE,)


def test_penalties(tmp_path: Path) -> None:
    """Each is a setting; loopback is exempt unless something else is said."""
    text = "[penalties]\nauthentication = 1\nserial_failures = 3\nexempt = 10.0.0.7\n"
    found = server(tmp_path, text)
    exempt = (network_of("10.0.0.7"),)
    assert found.penalties == PenaltySettings(authentication=1.0, serial_failures=3, exempt=exempt)
    assert server(tmp_path, "").penalties.exempt == (network_of("127.0.0.0/8"), network_of("::1"))


def test_records_and_penalties_change_on_sighup(tmp_path: Path) -> None:
    """Whole sections too: nothing of it needs a restart."""
    before = server(tmp_path, "[device plc-1]\nchannels = 1\n[device plc-2]\nchannels = 1\n")
    text = "[device plc-1]\nchannels = 2\n[device plc-3]\nchannels = 1\n[penalties]\nsilence = 1\n"
    live, restart = changes(before, server(tmp_path, f"{text}[pool default]\nclients = none\n"))
    assert restart == []
    assert set(live) == {
        "[device plc-1] channels",
        "[device plc-2]",
        "[device plc-3]",
        "[penalties] silence",
        "[pool default] clients",
    }
