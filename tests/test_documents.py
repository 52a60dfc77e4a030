"""What is written for people: the pages are sound, and what they promise is what the code says."""

import re
from pathlib import Path

import pytest

from revtunnel.daemons.agent_options import AgentOptions
from revtunnel.daemons.cameo_options import CameoOptions
from revtunnel.daemons.cccp_options import CccpOptions
from revtunnel.daemons.daemon_options import DaemonOptions
from revtunnel.daemons.schema import SECTIONS
from revtunnel.daemons.server_options import ServerOptions
from revtunnel.settings.inifile import Surroundings, read_files

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.rst", ROOT / "benchmarks/README.rst", *(ROOT / "docs").glob("*.rst")])
FOLDERS = ("benchmarks", "docs", "revtunnel", "tests")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_no_fault_that_docutils_finds(path: Path) -> None:
    """Neither an error nor a warning: what it would leave out, readers miss."""
    core = pytest.importorskip("docutils.core")
    told: list[str] = []

    class Stream:
        def write(self, text: str) -> None:
            told.append(text)

    settings = {
        "warning_stream": Stream(),
        "report_level": 2,
        "file_insertion_enabled": False,
        "_disable_config": True,
    }
    core.publish_doctree(path.read_text(encoding="utf-8"), str(path), settings_overrides=settings)
    assert "".join(told) == ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_files_and_modules_that_are_there(path: Path) -> None:
    """By the whole path, or by the end of it where a table has said the rest."""
    text = path.read_text(encoding="utf-8")
    there = {f"/{each.relative_to(ROOT)}" for name in FOLDERS for each in (ROOT / name).rglob("*.*")}
    there |= {f"/{each.name}" for each in ROOT.iterdir()}
    named = set(re.findall(r"(?<![\w/.*-])[\w/-]+\.(?:py|c|h|rst)\b", text))
    assert {each for each in named if not any(one.endswith(f"/{each}") for one in there)} == set()
    modules = re.findall(r"-m ((?:benchmarks|revtunnel|tests)[\w.]*\w)", text)
    homes = {f"/{each.replace('.', '/')}{end}" for each in modules for end in (".py", "/__main__.py")}
    assert len(there & homes) == len(set(modules))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_row_names_what_its_file_has(path: Path) -> None:
    """A file with a function or a class behind it, a test most often."""
    named = re.compile(r"((?:revtunnel|tests)/[\w/]+\.py)(?: \(slow\))?, ``(\w+)``")
    rows = named.findall(path.read_text(encoding="utf-8"))
    assert [
        (file, name)
        for file, name in rows
        if not re.search(rf"(?:def|class) {name}\b", (ROOT / file).read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize("options", [AgentOptions, CameoOptions, CccpOptions, ServerOptions])
def test_a_manual_has_every_option(options: type[DaemonOptions]) -> None:
    """``--key`` is none: it is there to be refused."""
    text = (ROOT / f"man/{options.program}.8").read_text(encoding="utf-8").replace("\\-", "-")
    named = set(re.findall(r"--([a-z-]+)", text[text.index(".SH OPTIONS") : text.index(".SH SIGNALS")]))
    assert {name.rstrip("=") for name in options().longOpt} - {"key"} - named == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_settings_that_a_page_shows_are_read(path: Path, tmp_path: Path) -> None:
    """Every block of them by itself, as it would be copied; commands between them are left out."""
    blocks = re.findall(r"::\n\n((?:(?: +.*)?\n)+)", path.read_text(encoding="utf-8"))
    command = re.compile(r" +(?:revtunnelctl|openssl|\(umask) ")
    for block in blocks:
        lines = [line[4:] for line in block.splitlines() if not command.match(line)]
        if any(re.fullmatch(r"\[[a-z].*\]", line.strip()) for line in lines):
            file = tmp_path / "shown.ini"
            file.write_text("\n".join(lines), encoding="utf-8")
            around = Surroundings({}, root=True, home="/root", host_name="gate")
            assert read_files(str(file), None, around, SECTIONS).errors == [], block


def test_a_section_that_is_named_is_there() -> None:
    """Of another page, in pages and in the heads of files."""
    heads = {
        page.name: re.findall(
            r"^(.+)\n(?:=+|-+|~+|\.+|\^+)\n", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        for page in PAGES
    }
    for path in [*PAGES, *(ROOT / "revtunnel").rglob("*.py")]:
        text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        for page, section in re.findall(r"docs/([\w-]+\.rst),? \(?\"([^\"]+)\"", text):
            assert section in heads[page], (path, page, section)
