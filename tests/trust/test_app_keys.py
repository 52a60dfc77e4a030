"""App keys: made once, kept as hashes, one a serial, and there after a restart."""

import hashlib
import os
from pathlib import Path

from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.app_keys import AppKeys


def test_a_key_is_known_and_not_kept(tmp_path: Path) -> None:
    """What is on the disk is its SHA-256; a second key takes the place of the first."""
    path = str(tmp_path / "db")
    ledger = SqliteLedger(path, lambda: 5.0)
    keys = AppKeys(ledger, os.urandom)
    first, other = keys.make("Robot1"), keys.make("Robot2")
    assert len(first) < 64 and first != other
    assert (keys.serial_of(first), keys.serial_of(other)) == ("Robot1", "Robot2")
    second = keys.make("Robot1")
    assert (keys.serial_of(first), keys.serial_of(second)) == (None, "Robot1")
    rows = ledger.select("SELECT serial, mark, made FROM edge_keys ORDER BY serial")
    assert rows[0] == ("Robot1", hashlib.sha256(second.encode()).digest(), 5.0)
    ledger.close()
    again = AppKeys(SqliteLedger(path, lambda: 6.0), os.urandom)
    assert (again.serial_of(second), again.serial_of(other)) == ("Robot1", "Robot2")
    assert again.serials() == ["Robot1", "Robot2"] and again.serials("Robot1", 1) == ["Robot2"]
    assert again.remove("Robot1") and not again.remove("Robot1")
    assert again.serial_of(second) is None and not again.has("Robot1")


def test_what_is_no_key_is_nobodys() -> None:
    """Nothing, something long, and bytes that are no text."""
    keys = AppKeys(SqliteLedger(None, lambda: 0.0), os.urandom)
    keys.make("Robot1")
    assert [keys.serial_of(each) for each in ("", "x" * 10_000, "\udc80")] == [None, None, None]
