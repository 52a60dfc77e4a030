"""Records that operators lay down for devices: key by key over the settings, kept, shown, taken back."""

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from revtunnel.daemons.kept_records import KeptRecords
from revtunnel.daemons.record_operations import RECORD_COLUMNS, RECORD_OPERATIONS
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords
from revtunnel.ground.declared import keys_of
from revtunnel.process.admin.refusals import Invalid, NotFound
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from tests.support.desk import Desk
from tests.support.room import Room

NOON = 1_800_000_000.0
WRITTEN = DeviceRecords(
    {DEFAULT: DeviceRecord(channels=8), "plc-7": DeviceRecord(labels=("line=3",), channels=4)}
)


class Records:
    """A server's, as far as its records go; made again it is the server after a restart."""

    def __init__(self, path: Path, written: DeviceRecords = WRITTEN) -> None:
        self.told: list[RightsChanged] = []
        self.ledger = SqliteLedger(str(path), lambda: NOON)
        self.kept = KeptRecords(self.ledger, lambda: NOON)
        self.kept.tell, self.kept.applies = self.told.append, lambda serial: self.reload(self.written)
        self.reload(written)

    def reload(self, written: DeviceRecords) -> None:
        """Other settings."""
        self.written = written
        self.records = self.kept.over(written)


def test_every_key_of_a_record_can_be_laid_down() -> None:
    """And is shown: what settings have, operators have."""
    names = set(keys_of(DeviceRecord))
    [edit] = [each for each in RECORD_OPERATIONS if each.name == "RecordEdit"]
    assert {each.name for each in edit.arguments} - {"serial"} == names
    assert {each.name for each in RECORD_COLUMNS} == names == set(DeviceRecord().row())
    form = files("revtunnel.process.web").joinpath("page/record.js").read_text("utf-8")
    assert set(re.findall(r'^  \{ name: "(\w+)"', form, re.MULTILINE)) == names


def test_a_key_counts_over_the_settings_and_the_others_do_not(tmp_path: Path) -> None:
    """Over a reload and a restart, until it is reset."""
    mine = Records(tmp_path / "db")
    mine.kept.edit("plc-7", "ana", labels=["line=4", "hall-b"])
    assert (mine.records.of("plc-7").labels, mine.records.of("plc-7").channels) == (("line=4", "hall-b"), 4)
    mine.kept.edit("plc-8", "ana", at_once=1, clients=["10.0.0.0/8"], targets=[], expires="2027-12-31")
    assert mine.records.of("plc-8").channels == 8  # of [device *]
    assert mine.records.of("plc-8").targets == () and mine.records.of("plc-8").at_once == 1
    assert [name for _, name in mine.records.ends] == ["plc-8"]
    mine.reload(replace(WRITTEN, devices={"plc-7": DeviceRecord(channels=2)}))
    assert (mine.records.of("plc-7").labels, mine.records.of("plc-7").channels) == (("line=4", "hall-b"), 2)
    mine.ledger.close()

    again = Records(tmp_path / "db")
    row = again.kept.row("plc-7")
    assert (row["record"], row["labels"], row["kept"], row["by"]) == (
        *("plc-7", ["line=4", "hall-b"]),
        *({"labels": "line=4, hall-b"}, "ana"),
    )
    again.kept.edit("plc-8", "ben", at_once=0, labels=[])
    assert again.records.of("plc-8").at_once is None
    again.kept.reset("plc-8", "ben", ["clients", "targets"])
    assert sorted(again.kept.row("plc-8")["kept"]) == ["at_once", "expires", "labels"]
    again.kept.reset("plc-8", "ben")
    assert again.kept.row("plc-8") | {"serial": ""} == again.kept.row("plc-9") | {"serial": ""}
    with pytest.raises(NotFound):
        again.kept.reset("plc-8", "ben")
    assert [(each.operation, each.subject, each.by) for each in again.told] == [
        ("record-changed", "plc-8", "ben"),
        ("record-reset", "plc-8", "ben"),
        ("record-reset", "plc-8", "ben"),
    ]
    again.ledger.close()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({}, "nothing is said"),
        ({"labels": ["a b"]}, "labels"),
        ({"sessions": "perhaps"}, "sessions"),
        ({"clients": ["10.0.0.1/8x"]}, "clients"),
        ({"expires": "tomorrow"}, "expires"),
        ({"leases": 70_000}, "leases"),
        ({"labels": ["x", "x"]}, "twice"),
    ],
)
def test_what_cannot_be_laid_down(tmp_path: Path, said: dict[str, object], what: str) -> None:
    """It is told by its key, and nothing changes."""
    mine = Records(tmp_path / "db")
    with pytest.raises(Invalid, match=what):
        mine.kept.edit("plc-7", "ana", **said)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="serial"):
        mine.kept.edit("", "ana", leases=1)
    assert mine.kept.row("plc-7")["kept"] == {} and mine.told == []
    mine.ledger.close()


def test_what_a_newer_program_laid_down_does_not_stop_the_start(tmp_path: Path) -> None:
    """It does not count, and is told."""
    mine = Records(tmp_path / "db")
    row = "plc-7", '{"colour": "red", "leases": "3"}', "ana", NOON
    mine.ledger.change([("device_records", "plc-7", row)])
    mine.ledger.close()
    again = Records(tmp_path / "db")
    assert again.records.of("plc-7").leases == 3
    assert any("'colour' is no key" in each for each in again.ledger.warnings)
    again.ledger.close()


def test_what_it_allows_no_more_is_cut_at_once() -> None:
    """At the one device; by revtunnelctl's words."""
    room = Room(serials=("plc-1", "plc-2"))
    room.pump()
    clients = {serial: room.client(serial) for serial in ("plc-1", "plc-2")}
    room.pump()
    room.operator.records.edit("plc-1", "ana", clients=["198.51.100.0/24"])
    room.pump()
    assert clients["plc-1"].lost and not clients["plc-2"].lost
    assert room.operator.record("plc-1")["kept"] == ["clients"]


def test_a_look_at_all_devices_is_not_lost_for_one() -> None:
    """While the records of a reload are still being looked at, one more is laid down."""
    room = Room(serials=("plc-1", "plc-2"))
    room.pump()
    client = room.client("plc-2")
    room.pump()
    room.switchboard.enforcement.set_records(DeviceRecords({DEFAULT: DeviceRecord(clients=())}))
    room.operator.records.edit("plc-1", "ana", leases=3)
    room.pump()
    assert client.lost


def test_by_http_with_tags() -> None:
    """Read, changed where it is as it was read, and taken back."""
    desk = Desk()
    token = desk.person("root", "admin")
    path = "/api/v1/devices/plc-1/record"
    read = desk.ask("GET", path, token)
    tag = f"If-Match: {read.headers['etag']}"
    assert (read.row["kept"], read.row["labels"]) == ({}, [])
    assert desk.ask("PATCH", path, token, {"labels": ["line=3"], "leases": 3}, tag).status == 200
    late = desk.ask("PATCH", path, token, {"labels": ["line=4"]}, tag)
    assert (late.status, late.word) == (412, "changed")
    read = desk.ask("GET", path, token)
    assert (read.row["labels"], read.row["kept"]) == (["line=3"], {"labels": "line=3", "leases": "3"})
    assert (read.row["by"], read.row["since"] is None) == ("root", False)
    assert desk.ask("PATCH", path, token, {"expires": "soon"}).word == "invalid"
    assert desk.ask("PATCH", path, desk.person("rita", "reader"), {"leases": 3}).word == "denied"
    [row] = desk.ask("GET", "/api/v1/devices?labels=line=3", token).row["rows"]
    assert row["serial"] == "plc-1"
    assert desk.ask("DELETE", f"{path}?keys=leases", token).status == 200
    assert desk.ask("GET", path, token).row["kept"] == {"labels": "line=3"}
    assert desk.ask("DELETE", path, token).status == 200
    assert desk.ask("DELETE", path, token).word == "not-found"
