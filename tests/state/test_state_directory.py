"""Who may write where our state is."""

import os
import tempfile
from pathlib import Path

import pytest

from revtunnel.state.ledger import FILE_NAME, open_ledger
from revtunnel.state.state_directory import openness


@pytest.mark.parametrize(
    ("mode", "words"), [(0o770, "its group"), (0o707, "anybody"), (0o1777, "its group and anybody")]
)
def test_a_directory_that_others_write_in_is_refused(tmp_path: Path, mode: int, words: str) -> None:
    """Whoever can write there can put another database in the place of ours."""
    tmp_path.chmod(mode)
    with pytest.raises(OSError, match=f"{tmp_path} is open to {words}: chmod go-w it"):
        open_ledger(str(tmp_path), FILE_NAME)
    assert list(tmp_path.iterdir()) == []


def test_it_is_warned_of_where_the_operator_allows_it(tmp_path: Path) -> None:
    """By ``allow_open_state``."""
    tmp_path.chmod(0o770)
    ledger = open_ledger(str(tmp_path), FILE_NAME, allow_open=True)
    assert ledger.warnings == [f"{tmp_path} is open to its group: chmod go-w it"]
    ledger.close()


def test_a_directory_of_our_own_is_silent(tmp_path: Path) -> None:
    """One that is there, and one that is made; others may read in it, its files are closed to them."""
    for path in (tmp_path, tmp_path / "made" / "deep"):
        ledger = open_ledger(str(path), FILE_NAME)
        assert ledger.warnings == []
        ledger.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_somebody_else_s_directory_is_open() -> None:
    """Its owner may write there; root's is not, and root itself goes where its service's user is at home."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, 4711, 4711)
        os.chmod(directory, 0o755)
        assert openness(directory) == ""
        os.seteuid(4712)
        try:
            assert "belongs to user 4711" in openness(directory)
            assert openness("/") == ""
        finally:
            os.seteuid(0)
