"""Ports that operators reserve: picked, kept, given back, and behind those of the settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from revtunnel.daemons.kept_ports import KeptPorts
from revtunnel.daemons.server_means import pools_of, reservations_of
from revtunnel.daemons.server_options import ServerOptions
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.fleet.leases import Leases
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from tests.daemons.test_options import parse

POOL = "[pool default]\nranges = 20000-20003\n"


class Ports:
    """A server's, as far as its ports go; made again it is the server after a restart."""

    def __init__(self, directory: Path, text: str = POOL) -> None:
        self.path = directory / "r.ini"
        self.told: list[RightsChanged] = []
        self.applied = 0
        self.ledger = SqliteLedger(str(directory / "ledger.db"), lambda: 1_800_000_000.0)
        self.kept = KeptPorts(self.ledger, lambda: 1_800_000_000.0)
        self.settings = self.read(text)
        self.leases = Leases(pools_of(self.settings), 0.0, reservations_of(self.settings), self.ledger)
        self.kept.leases, self.kept.tell = self.leases, self.told.append
        self.kept.pools = lambda: {pool.name: pool for pool in pools_of(self.settings)}
        self.kept.applies = self.apply
        self.kept.fixed = lambda: reservations_of(self.settings)

    def read(self, text: str) -> ServerSettings:
        """Settings, with what is kept."""
        self.path.write_text(text)
        options = parse(ServerOptions, "--config", str(self.path))
        assert isinstance(options, ServerOptions)
        return self.kept.beside(options.settings, {})

    def apply(self) -> None:
        """As the server does."""
        self.applied += 1
        self.settings = self.kept.beside(self.settings, {})
        self.leases.reload(pools_of(self.settings), reservations_of(self.settings), 0.0)

    def reload(self, text: str) -> None:
        """Other settings."""
        self.settings = self.read(text)
        self.leases.reload(pools_of(self.settings), reservations_of(self.settings), 0.0)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Ports]:
    """A server, and once more after the one before has ended."""
    made: list[Ports] = []

    def one(*text: str) -> Ports:
        for each in made:
            each.ledger.close()
        made[:] = [Ports(tmp_path, *text)]
        return made[0]

    return one


def test_a_free_port_is_picked_and_kept_over_a_restart(make: Callable[..., Ports]) -> None:
    """Nobody else gets it meanwhile, and it is told who reserved it."""
    ports = make()
    assert ports.kept.reserve("mill-7", "emo", "ana") == 20000
    assert (ports.told, ports.applied) == ([RightsChanged("port-reserved", "mill-7/emo", "ana", "20000")], 1)
    ports = make()
    assert ports.leases.reserved("mill-7", "emo") == 20000
    assert ports.leases.open("other", "a", 0.0).port != 20000
    assert ports.leases.open("mill-7", "emo", 0.0).port == 20000


def test_the_port_that_it_has_becomes_its_own(make: Callable[..., Ports]) -> None:
    """Also one above free ones."""
    ports = make()
    ports.leases.open("other", "a", 0.0)
    held = ports.leases.open("plc-7", "http", 0.0).port
    ports.leases.open("third", "a", 0.0)
    assert ports.kept.reserve("plc-7", "http", "ana") == held
    (lease,) = ports.leases.leases_of("plc-7")
    assert lease.fixed and lease.port == held


def test_what_is_anothers(make: Callable[..., Ports]) -> None:
    """A port of a lease, of another reservation, of the settings; a use that has one; no port, no use."""
    ports = make(POOL + "[reservations]\nmill-1/emo = 5010\n")
    held = ports.leases.open("other", "a", 0.0).port
    ports.kept.reserve("mill-2", "emo", "ana", 6000)
    for serial, port, why in (
        ("mill-3", held, "is that of other/a"),
        ("mill-3", 6000, "is that of mill-2/emo"),
        ("mill-3", 5010, "is that of mill-1/emo"),
        ("mill-1", 0, "port 5010 is reserved for mill-1/emo"),
        ("mill-2", 7000, "port 6000 is reserved for mill-2/emo"),
    ):
        with pytest.raises(Conflict, match=why):
            ports.kept.reserve(serial, "emo", "ana", port)
    for serial, port, pool in (("no serial", 0, "default"), ("a", 80, "default"), ("a", 0, "none")):
        with pytest.raises(Invalid):
            ports.kept.reserve(serial, "emo", "ana", port, pool)
    for number in range(3):
        ports.kept.reserve(f"m-{number}", "emo", "ana")
    with pytest.raises(Conflict, match="no port that is free"):
        ports.kept.reserve("m-9", "emo", "ana")


def test_it_is_given_back(make: Callable[..., Ports]) -> None:
    """To whoever comes, and once; what the settings reserve is theirs."""
    ports = make("[reservations]\nmill-1/emo = 5010\n" + POOL)
    port = ports.kept.reserve("mill-7", "emo", "ana")
    assert ports.kept.unreserve("mill-7", "emo", "ben") == port
    assert ports.leases.reserved("mill-7", "emo") is None
    for serial in ("mill-7", "mill-1"):
        with pytest.raises(NotFound):
            ports.kept.unreserve(serial, "emo", "ben")
    assert make().leases.reserved("mill-7", "emo") is None


def test_the_settings_win_and_give_back(make: Callable[..., Ports]) -> None:
    """A reload that names the port, or the use, takes it; one that does not brings back what was reserved."""
    ports = make()
    ports.kept.reserve("mill-7", "emo", "ana", 5010)
    for text in ("mill-8/emo = 5010", "mill-7/emo = 5011"):
        ports.reload(f"{POOL}[reservations]\n{text}\n")
        (named,) = ports.settings.reservations
        assert not named.kept and ports.leases.reserved(named.serial, "emo") == named.port
        ports.reload(POOL)
        assert ports.leases.reserved("mill-7", "emo") == 5010
