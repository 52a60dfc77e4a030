"""Other records while devices are here: at once for whoever comes, in slices for whoever is here."""

import pytest

from benchmarks.herd import WEB, Herd, Nowhere
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.ground.networks import network_of
from revtunnel.sockets import slices

NOTHING = DeviceRecords(
    {DEFAULT: DeviceRecord(targets=(parse_pattern("console"),))}
)  # not what devices here offer


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test can act between two devices."""
    monkeypatch.setattr(slices, "SLICE", 0.0)


def crowd(count: int = 5) -> tuple[Herd, dict[str, Nowhere]]:
    """Devices that offer one target, and a client of each."""
    herd = Herd()
    serials = [f"plc-{number}" for number in range(count)]
    for serial in serials:
        herd.agent(serial, WEB)
    return herd, {serial: herd.client(serial) for serial in serials}


def refused(herd: Herd) -> list[str]:
    """Why clients were turned away."""
    words = herd.board.counts.items()
    return [word.removeprefix("client-refused ") for word, _ in words if word.startswith("client-refused ")]


def test_records_cut_and_close_for_everybody_a_device_a_turn() -> None:
    """After as many turns as there are devices nothing is left that they do not allow; then it is told."""
    herd, _ = crowd()
    told: list[None] = []
    herd.board.enforcement.set_records(NOTHING).addCallback(told.append)
    left = [len(herd.board.streams)]
    while not told:
        herd.reactor.turn()
        left.append(len(herd.board.streams))
    assert left[:6] == [5, 4, 3, 2, 1, 0]
    assert all(herd.ports.of(f"plc-{number}") == [] for number in range(5))
    herd.board.enforcement.set_records(DeviceRecords())
    for _ in range(20):
        herd.reactor.turn()
    assert all(len(herd.ports.of(f"plc-{number}")) == 1 for number in range(5))


def test_a_client_who_comes_before_his_devices_turn_is_judged_by_the_new_records() -> None:
    """The port is still open; the stream is not to be had."""
    herd, _ = crowd()
    herd.board.enforcement.set_records(NOTHING)
    herd.client("plc-4")
    assert refused(herd) == ["not-allowed"] and herd.board.streams.running("plc-4") == 1


def test_newer_records_count_before_the_older_ones_were_everywhere() -> None:
    """The older ones are forgotten; both reloads are told of when the newer one is done."""
    herd, _ = crowd()
    told: list[str] = []
    herd.board.enforcement.set_records(NOTHING).addCallback(lambda _: told.append("older"))
    for _ in range(2):
        herd.reactor.turn()
    clients = DeviceRecord(clients=(network_of("10.0.0.0/8"),))
    newer = herd.board.enforcement.set_records(DeviceRecords({"plc-4": clients}))
    newer.addCallback(lambda _: told.append("newer"))
    while not told:
        herd.reactor.turn()
    assert told == ["older", "newer"]
    left = [row.serial for row in herd.board.streams.page()]
    assert left == ["plc-2", "plc-3"]  # of two the older records had the word, of one the newer
    assert all(len(herd.ports.of(f"plc-{number}")) == 1 for number in range(5))


def test_a_device_that_leaves_in_the_middle_is_left_out() -> None:
    """And one that comes has come under the new records."""
    herd, _ = crowd()
    told: list[None] = []
    herd.board.enforcement.set_records(NOTHING).addCallback(told.append)
    herd.reactor.turn()
    herd.board.kick("plc-3", "a test", 0)
    herd.agent("plc-9", WEB)
    while not told:
        herd.reactor.turn()
    assert len(herd.board.fleet) == 5 and herd.ports.of("plc-9") == [] and len(herd.board.streams) == 0


def test_the_end_of_the_default_record_is_the_end_of_everybody_who_has_it() -> None:
    """One with a record of its own stays."""
    herd, _ = crowd()
    herd.board.enforcement.set_records(
        DeviceRecords({DEFAULT: DeviceRecord(expires=50.0), "plc-1": DeviceRecord()})
    )
    for _ in range(20):
        herd.reactor.turn()
    assert len(herd.board.fleet) == 5
    herd.wall = 50.0
    herd.board.enforcement.end_expired()
    for _ in range(20):
        herd.reactor.turn()
    assert [device.serial for device in herd.board.fleet.here("rt1")] == ["plc-1"]


def test_a_server_that_drains_opens_nothing_any_more() -> None:
    """The rest of the devices is not looked at, and whoever waits is told."""
    herd, _ = crowd()
    told: list[None] = []
    herd.board.enforcement.set_records(DeviceRecords()).addCallback(told.append)
    herd.reactor.turn()
    herd.board.drain()
    assert told == [None]
    for _ in range(20):
        herd.reactor.turn()
    assert all(herd.ports.of(f"plc-{number}") == [] for number in range(5))
