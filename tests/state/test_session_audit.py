"""What sessions tell the audit file: openings first, closings together, refusals added up."""

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from revtunnel.ground.facts import AuditProblem, Fact
from revtunnel.ground.limits import AuditLimits
from revtunnel.ground.retries import Retries
from revtunnel.state.audit_chain import files_of, verify
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.session_audit import KINDS, AuditFull, SessionAudit
from tests.support.disks import full_disk

NOON = 1_800_000_000.0
ANA = ("ana", "3f5e10c27a9b", "plc-7", ("ssh", "http"), "192.0.2.7:4711", "198.51.100.3:5000")


class Desk:
    """An audit over a real file, and what was told."""

    def __init__(self, path: Path, refuse: bool = True) -> None:
        self.clock = Clock()
        self.told: list[Fact] = []
        self.path = path / "audit.jsonl"
        self.file = AuditFile(str(self.path), "a test", AuditLimits(), Sync.LASTING, self.wall)
        self.audit = SessionAudit(self.clock, self.file, self.told.append, self.wall, refuse)

    def wall(self) -> float:
        return NOON + self.clock.seconds()

    def lines(self) -> list[dict[str, Any]]:
        """Records, without those that a file begins with."""
        found = [json.loads(line) for line in self.path.read_text("ascii").splitlines()]
        assert verify(files_of(str(self.path))).ok
        return [line for line in found if line["event"] != "audit-opened"]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """With a disk that has room."""
    return Desk(tmp_path)


def test_a_session_has_an_opening_and_a_closing_record(desk: Desk) -> None:
    """The first is there at once; the second says all of it, with how long it was, and comes once."""
    desk.audit.opened("5f", *ANA)
    assert [line["event"] for line in desk.lines()] == ["session-opened"]
    assert desk.audit.head()["open"] == 1
    desk.clock.advance(12.5)
    desk.audit.closed("5f", 100, 2000, 3, "operator", "root")
    desk.audit.closed("5f", 0, 0, 0, "idle")
    desk.audit.closed("60", 0, 0, 0, "idle")
    desk.clock.advance(0)
    opened, closed = desk.lines()
    same = ("session", "user", "grant", "serial", "services", "user_address", "device_address")
    assert [closed[name] for name in same] == [opened[name] for name in same]
    assert (opened["user"], opened["services"]) == ("ana", ["ssh", "http"])
    assert (closed["opened"], closed["milliseconds"]) == ("2027-01-15T08:00:00.000000Z", 12500)
    assert [closed[name] for name in ("bytes_to_device", "bytes_to_client", "connections")] == [100, 2000, 3]
    assert (closed["cause"], closed["by"]) == ("operator", "root")
    head = desk.audit.head()
    assert (head["seq"], head["hash"], head["open"]) == (closed["seq"], closed["hash"], 0)


def test_closings_of_one_turn_wait_for_the_disk_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred sessions that end with one device cost one wait."""
    for number in range(100):
        desk.audit.opened(str(number), *ANA)
    waits: list[int] = []
    monkeypatch.setattr("os.fdatasync", waits.append)
    for number in range(100):
        desk.audit.closed(str(number), 0, 0, 0, "muted")
    desk.clock.advance(0)
    assert len(waits) == 1
    assert len(desk.lines()) == 200


def test_equal_refusals_of_a_second_are_one_record(desk: Desk) -> None:
    """Whatever port they come from; others are others, and an opening goes behind what was before it."""
    for port in range(50):
        desk.audit.refused("start", "ana", "plc-7", ("ssh",), f"192.0.2.7:{port}", "no-grant")
    desk.audit.refused("start", "ana", "plc-7", ("ssh",), "192.0.2.8:1", "no-grant")
    assert desk.lines() == []
    desk.clock.advance(1.0)
    assert [(line["user_address"], line["times"]) for line in desk.lines()] == [
        ("192.0.2.7:0", 50),
        ("192.0.2.8:1", 1),
    ]
    desk.audit.refused("login", "", "", (), "192.0.2.9:1", "unknown")
    desk.audit.opened("5f", *ANA)
    assert [line["event"] for line in desk.lines()[2:]] == ["refused", "session-opened"]
    assert desk.clock.getDelayedCalls() == []


def test_different_refusals_are_held_in_a_number_that_is_limited(desk: Desk) -> None:
    """Then they are written, without waiting for the disk."""
    for number in range(KINDS):
        desk.audit.refused("login", "", "", (), f"10.0.{number >> 8}.{number & 255}:1", "unknown")
    assert len(desk.lines()) == KINDS


def test_a_full_disk_refuses_sessions_and_is_told_once(desk: Desk) -> None:
    """Nothing else raises; when there is room again that is told, and how many records are missing."""
    desk.audit.opened("5f", *ANA)
    with full_disk(0):
        for _ in range(3):
            with pytest.raises(AuditFull):
                desk.audit.opened("60", *ANA)
        desk.audit.changed(RightsChanged("user-removed", "ana", "root"))
        desk.audit.closed("5f", 1, 2, 3, "revoked")
        desk.clock.advance(1.0)
        assert desk.audit.problem
        assert [type(fact) for fact in desk.told] == [AuditProblem]
    desk.audit.opened("61", *ANA)
    assert desk.audit.problem == ""
    assert desk.told[1:] == [AuditProblem("")]
    assert [line["event"] for line in desk.lines()] == ["session-opened", "audit-gap", "session-opened"]
    assert desk.lines()[1]["lost"] == 5


def test_a_full_disk_is_tried_again(desk: Desk) -> None:
    """So that the problem ends with its cause, whether there is a session or not."""
    desk.audit.retries = Retries(desk.clock, desk.told.append, lambda: 0.0)
    with full_disk(0):
        with pytest.raises(AuditFull):
            desk.audit.opened("60", *ANA)
        desk.clock.advance(2.0)
        assert list(desk.audit.retries.problems) == ["audit file"]
    desk.clock.advance(4.0)
    assert desk.audit.problem == "" and desk.audit.retries.problems == {}
    assert [type(fact) for fact in desk.told] == [AuditProblem, AuditProblem]
    assert [line["event"] for line in desk.lines()] == ["audit-gap"]


def test_a_full_disk_may_be_gone_on_with(tmp_path: Path) -> None:
    """Where the settings say so; the end of such a session is written once there is room."""
    desk = Desk(tmp_path, refuse=False)
    with full_disk(0):
        desk.audit.opened("5f", *ANA)
        assert desk.audit.problem
    desk.audit.closed("5f", 1, 2, 3, "owner")
    desk.clock.advance(0)
    assert [line["event"] for line in desk.lines()] == ["audit-gap", "session-closed"]


def test_without_a_file_nothing_is_refused() -> None:
    """An operator who wants no audit has none."""
    audit = SessionAudit(Clock(), None, lambda fact: None, lambda: NOON)
    audit.opened("5f", *ANA)
    audit.closed("5f", 0, 0, 0, "owner")
    audit.refused("start", *ANA[:1], *ANA[2:5], "no-grant")
    audit.close()
    assert (audit.problem, audit.head()["file"]) == ("", "")


def test_an_orderly_end_writes_what_waits(desk: Desk) -> None:
    """And says that it is one."""
    desk.audit.opened("5f", *ANA)
    desk.audit.refused("start", "ana", "plc-7", ("ssh",), "192.0.2.7:1", "muted")
    desk.audit.closed("5f", 0, 0, 0, "stopping")
    desk.audit.close()
    desk.audit.close()
    assert [line["event"] for line in desk.lines()] == [
        "session-opened",
        "refused",
        "session-closed",
        "audit-closed",
    ]
