"""Devices that take no sessions: kept, told, listed."""

from pathlib import Path

import pytest

from revtunnel.process.admin.refusals import Invalid, NotFound
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.mutes import Mutes

NOON = 1_800_000_000.0


def test_a_mute_is_kept_told_and_lifted(tmp_path: Path) -> None:
    """Over a restart; whoever ends sessions hears of it, and the audit of who did it."""
    path = str(tmp_path / "ledger.db")
    told: list[RightsChanged] = []
    ended: list[str] = []
    for restart in (False, True):
        ledger = SqliteLedger(path, lambda: NOON)
        mutes = Mutes(ledger, lambda: NOON, told.append)
        mutes.watchers.append(ended.append)
        if not restart:
            assert mutes.of("plc-7") is None
            mutes.mute("plc-7", "root", "a press is being mended")
        muted = mutes.of("plc-7")
        assert muted is not None
        assert (muted.why, muted.by, muted.since) == ("a press is being mended", "root", NOON)
        if restart:
            mutes.unmute("plc-7", "ana")
            assert mutes.of("plc-7") is None
            with pytest.raises(NotFound):
                mutes.unmute("plc-7", "ana")
        ledger.close()
    assert ended == ["plc-7"]
    assert told == [
        RightsChanged("device-muted", "plc-7", "root", "a press is being mended"),
        RightsChanged("device-unmuted", "plc-7", "ana"),
    ]


def test_mutes_are_listed_in_pages() -> None:
    """Every one once, in order; muted again, one has other words."""
    mutes = Mutes(SqliteLedger(None, lambda: NOON), lambda: NOON, lambda change: None)
    for number in range(7):
        mutes.mute(f"plc-{number}", "root")
    mutes.mute("plc-3", "ana", "again")
    for size in (1, 2, 7, 200):
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            rows, after = mutes.muted(after, size)
            seen += [row["serial"] for row in rows]
        assert seen == [f"plc-{number}" for number in range(7)]
    row = mutes.muted()[0][3]
    assert row == {"serial": "plc-3", "why": "again", "by": "ana", "since": "2027-01-15T08:00:00Z"}
    assert len(mutes) == 7


@pytest.mark.parametrize(("serial", "why"), [("no serial", ""), ("plc-7", "x" * 129), ("plc-7", "a\nb")])
def test_what_is_no_serial_and_no_line_is_refused(serial: str, why: str) -> None:
    """And nothing is muted."""
    mutes = Mutes(SqliteLedger(None, lambda: NOON), lambda: NOON, lambda change: None)
    with pytest.raises(Invalid):
        mutes.mute(serial, "root", why)
    assert len(mutes) == 0
