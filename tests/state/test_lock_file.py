"""The lock beside a file: one holder, by name, and no link is followed to it."""

import os
from pathlib import Path

import pytest

from revtunnel.state.lock_file import hold


def test_one_has_it_until_it_is_closed(tmp_path: Path) -> None:
    """The other one is told who."""
    path = str(tmp_path / "x")
    first = hold(path)
    with pytest.raises(OSError) as caught:
        hold(path)
    assert caught.value.strerror == f"{path} is in use by another server, process {os.getpid()}"
    os.close(first)
    os.close(hold(path))


def test_no_link_is_followed(tmp_path: Path) -> None:
    """It could lead to a file of somebody else, which would be cut to nothing."""
    other = tmp_path / "precious"
    other.write_text("kept")
    (tmp_path / "x.lock").symlink_to(other)
    with pytest.raises(OSError, match=r"x\.lock"):
        hold(str(tmp_path / "x"))
    assert other.read_text() == "kept"


def test_a_second_name_of_a_file_is_no_lock(tmp_path: Path) -> None:
    """A hard link leads to the same file as a symbolic one would."""
    other = tmp_path / "precious"
    other.write_text("kept")
    (tmp_path / "x.lock").hardlink_to(other)
    with pytest.raises(OSError, match="2 names"):
        hold(str(tmp_path / "x"))
    assert other.read_text() == "kept"


def test_what_is_no_plain_file_is_no_lock(tmp_path: Path) -> None:
    """A pipe or a device in its place."""
    os.mkfifo(tmp_path / "x.lock")
    with pytest.raises(OSError, match="no plain file"):
        hold(str(tmp_path / "x"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_somebody_else_s_file_is_no_lock(tmp_path: Path) -> None:
    """Its owner could take it away, or it is precious; the owner of the directory is no other."""
    path = tmp_path / "x.lock"
    path.write_text("kept")
    os.chown(path, 4711, 4711)
    with pytest.raises(OSError, match="belongs to user 4711"):
        hold(str(tmp_path / "x"))
    assert path.read_text() == "kept"
    os.chown(tmp_path, 4711, 4711)
    os.close(hold(str(tmp_path / "x")))
