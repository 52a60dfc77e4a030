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
