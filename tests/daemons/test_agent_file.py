"""The agent as one file: what is packed of what is installed, and what is said where that cannot be."""

import json
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from revtunnel.daemons import agent_file
from revtunnel.daemons.agent_file_start import BUILD, SITE

INSTALLED = {
    "revtunnel": ["twisted[tls]>=1", "only-web; extra == 'web'", "never; python_version < '3'"],
    "twisted": ["zope.interface", "pyopenssl; extra == 'tls'", "subunit; extra == 'dev'"],
    "zope-interface": [],
    "pyopenssl": ["twisted"],
}


def distribution(name: str) -> Any:
    """As importlib.metadata has it; names are as packages write them."""
    found = INSTALLED.get(name.replace(".", "-"))
    if found is None:
        raise metadata.PackageNotFoundError(name)
    return SimpleNamespace(requires=found or None, version="1.0", files=[])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", distribution)


def test_what_is_needed_is_followed_to_its_end(installed: None) -> None:
    """Extras where they are asked for, markers as they are here, and a circle only once."""
    assert sorted(agent_file.needed("revtunnel")) == ["pyopenssl", "twisted", "zope.interface"]
    assert sorted(agent_file.needed("twisted")) == ["zope.interface"]


def test_something_that_is_not_installed(
    installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and nothing is written."""
    monkeypatch.delitem(INSTALLED, "pyopenssl")
    target = tmp_path / "agent.pyz"
    assert agent_file.main([str(target)]) == 1
    assert capsys.readouterr().err == "agent_file: pyopenssl is not installed here\n"
    assert not target.exists()


class Packed(PurePosixPath):
    """A file of a distribution."""

    def locate(self) -> Path:
        """Where its bytes are: all have the same."""
        return Path(__file__)


def test_the_file_has_what_an_agent_uses_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Licences go with it; tests, stubs and what was compiled do not. The same parts make the same mark."""
    names = ["twisted/a.py", "twisted/test/b.py", "twisted/conch/c.py", "../../bin/d", "twisted/e.pyi"]
    names += ["twisted-1.dist-info/LICENSE", "twisted-1.dist-info/RECORD", "twisted/__pycache__/f.pyc"]
    part: Any = SimpleNamespace(version="1.0", files=[Packed(name) for name in names])
    monkeypatch.setattr(agent_file, "needed", lambda name: {"twisted": part})
    mine = [each for each in agent_file._mine() if each[0].startswith("revtunnel/daemons/")]
    monkeypatch.setattr(agent_file, "_mine", lambda: iter(mine))
    marks = []
    for number in range(2):
        target = tmp_path / f"{number}.pyz"
        assert agent_file.main([str(target)]) == 0
        assert f"{target}: " in (said := capsys.readouterr().out) and "twisted 1.0" in said
        with zipfile.ZipFile(target) as packed:
            held = set(packed.namelist())
            marks.append(json.loads(packed.read(BUILD))["id"])
        theirs = {name for name in held if name.startswith(f"{SITE}/twisted") and not name.endswith("/")}
        assert theirs == {f"{SITE}/twisted/a.py", f"{SITE}/twisted-1.dist-info/LICENSE"}
        assert {f"{SITE}/revtunnel/daemons/agent.py", "__main__.py", BUILD} <= held
        assert not any("__pycache__" in name for name in held)
    assert marks[0] == marks[1]


@pytest.mark.parametrize("words", [[], ["a", "b"], ["--help"]])
def test_c9_its_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One name of a file."""
    assert agent_file.main(words) == 64
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_place_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's words."""
    monkeypatch.setattr(agent_file, "needed", lambda name: {})
    monkeypatch.setattr(agent_file, "_mine", lambda: iter(()))
    assert agent_file.main([str(tmp_path / "no" / "agent.pyz")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
