"""An agent in one file unpacks itself: once, whole, where nobody else writes, on the machine it is for."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from revtunnel.daemons.agent_file_start import BUILD, SITE, this_machine, unpacked


def archive(path: Path, **about: str) -> str:
    """One with a single module in it."""
    with zipfile.ZipFile(path / "agent.pyz", "w") as file:
        file.writestr(BUILD, json.dumps({"id": "a1", **this_machine(), **about}))
        file.writestr(f"{SITE}/module.py", "found = 1\n")
    return str(path / "agent.pyz")


def test_unpacked_once(tmp_path: Path) -> None:
    """The second start finds what the first one left."""
    made, environ = archive(tmp_path), {"CACHE_DIRECTORY": str(tmp_path / "cache")}
    site = Path(unpacked(made, environ, False))
    assert site == tmp_path / "cache" / "agent-a1" / SITE
    assert (site / "module.py").read_text() == "found = 1\n"
    before = site.stat().st_ino
    assert Path(unpacked(made, environ, False)).stat().st_ino == before
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["agent-a1"]


def test_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the user's cache where no service manager names a place."""
    made = archive(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert unpacked(made, {"XDG_CACHE_HOME": str(tmp_path / "x")}, False).startswith(
        f"{tmp_path}/x/revtunnel/"
    )
    assert unpacked(made, {}, False).startswith(f"{tmp_path}/home/.cache/revtunnel/")


def test_another_machine(tmp_path: Path) -> None:
    """Compiled modules would fail there in worse words."""
    made = archive(tmp_path, python="3.99")
    with pytest.raises(ValueError, match=r"it is for Python 3\.99 on .*, and this is Python 3"):
        unpacked(made, {"CACHE_DIRECTORY": str(tmp_path)}, False)


def test_a_place_where_others_write(tmp_path: Path) -> None:
    """Somebody may have put a module of his there."""
    made, environ = archive(tmp_path), {"CACHE_DIRECTORY": str(tmp_path)}
    unpacked(made, environ, False)
    os.chmod(tmp_path / "agent-a1", 0o777)
    with pytest.raises(PermissionError, match="others may write there"):
        unpacked(made, environ, False)


def test_nothing_is_left_of_a_try_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say."""

    def full(self: zipfile.ZipFile, path: str) -> None:
        Path(path, "half").write_text("x")
        raise OSError(28, "No space left on device")

    made = archive(tmp_path)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match="No space left"):
        unpacked(made, {"CACHE_DIRECTORY": str(tmp_path / "cache")}, False)
    assert list((tmp_path / "cache").iterdir()) == []
