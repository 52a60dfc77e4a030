"""What a node is told: every fault by name, before any socket opens."""

from collections.abc import Callable
from pathlib import Path

import pytest

from revtunnel.cluster.cluster_settings import PeerPlace
from revtunnel.daemons.server_reading import load_server
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.ground.errors import SettingsError
from revtunnel.settings.inifile import Surroundings
from tests.support.daemons import ini, merged
from tests.support.throwaway_tls import Issuer

Load = Callable[..., ServerSettings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads the settings of a node, with changes by section."""
    issuer = Issuer(tmp_path)
    issued = issuer.node("gate-1")
    around = Surroundings({}, False, str(tmp_path), "host")
    good = {
        "listener main": {"address": "127.0.0.1:2065"},
        "listener peers": {
            "address": "127.0.0.1:2066",
            "kind": "nodes",
            "tls": "yes",
            "certificate": issued.certificate_file,
            "certificate_key": issued.key_file,
            "authority": issuer.file,
        },
        "cluster": {"node": "gate-1", "peers": "gate-1=127.0.0.1:2066, gate-2=127.0.0.1:2067"},
    }

    def read(**changes: dict[str, object]) -> ServerSettings:
        told = {name.replace("_", " "): change for name, change in changes.items()}
        path = tmp_path / "node.ini"
        path.write_text(ini(merged(good, told)))
        return load_server(str(path), None, around)

    return read


def test_a_node_and_its_peers(load: Load) -> None:
    """It is not its own peer."""
    settings = load().cluster
    assert settings.node == "gate-1" and settings.others == (PeerPlace("gate-2", "127.0.0.1", 2067),)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"cluster": {"node": None}}, "[cluster] peers: of no use without node"),
        ({"cluster": {"address": "0.0.0.0:2066"}}, "[cluster] address: 0.0.0.0:2066: others dial it"),
        ({"cluster": {"peers": "b=127.0.0.1:1, b=127.0.0.1:2"}}, "[cluster] peers: b stands there 2 times"),
        (
            {"cluster": {"node": None, "peers": None}},
            "[listener peers] kind: nodes: node in",
        ),
        ({"cluster": {"node": "Gate"}}, "1 to 32 of a-z 0-9 . - wanted"),
        (
            {"cluster": {"node": "gate-2"}},
            "certificate: it is of node gate-1; node = gate-2",
        ),
        ({"cluster": {"peers": None}}, "[cluster] node: peers, or an engine that knows them, wanted"),
        ({"cluster": {"peers": "gate-1=127.0.0.1:2066"}}, "[cluster] node: peers, or an engine that knows"),
        ({"cluster": {"peers": "127.0.0.1:2067"}}, "NAME=HOST:PORT wanted"),
        ({"cluster": {"engine": "redis://127.0.0.1", "address": "a:1"}}, "peers: of no use with an engine"),
        ({"cluster": {"engine": "redis://127.0.0.1", "peers": None}}, "[cluster] address: missing"),
        (
            {"pool_default": {"nodes": "all", "ranges": "7000-7002"}, "reservations": {"d/it": 7001}},
            "[pool default] nodes: all: 2 of its 3 ports are not in [reservations], and without an engine",
        ),
        ({"listener_peers": {"kind": "rt1"}}, "one [listener NAME] with kind = nodes wanted, not 0"),
        ({"listener_peers": {"device_certificates": "optional"}}, "device_certificates = required wanted"),
        (
            {
                "listener_peers": {
                    "tls": None,
                    "certificate": None,
                    "certificate_key": None,
                    "authority": None,
                }
            },
            "[listener peers] tls: kind = nodes: tls = yes",
        ),
    ],
)
def test_what_is_wrong_is_said(load: Load, changes: dict[str, dict[str, object]], fault: str) -> None:
    """By section and key."""
    with pytest.raises(SettingsError) as error:
        load(**changes)
    assert any(fault in each for each in error.value.errors), error.value.errors


def test_without_an_engine_reserved_ports_may_be_open_everywhere(load: Load) -> None:
    """Settings say whose they are; with one, any port."""
    pool = {"nodes": "all", "ranges": "7001"}
    assert load(pool_default=pool, reservations={"d/it": 7001}).pools[0].nodes == "all"
    engine = {"engine": "redis://127.0.0.1", "peers": None, "address": "127.0.0.1:2066"}
    assert load(pool_default={"nodes": "all"}, cluster=engine).pools[0].nodes == "all"


def test_a_certificate_of_a_server_is_no_node_s(load: Load, tmp_path: Path) -> None:
    """Read as a start would."""
    issued = Issuer(tmp_path, "other").server("127.0.0.1", file="plain")
    files = {"certificate": issued.certificate_file, "certificate_key": issued.key_file}
    with pytest.raises(SettingsError) as error:
        load(listener_peers=files)
    assert any("certificate is not for nodes" in each for each in error.value.errors)
