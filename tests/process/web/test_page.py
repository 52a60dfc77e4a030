"""The sources of the page: what they may use, what belongs together, and how much it is."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import revtunnel.process.web

PAGE = Path(revtunnel.process.web.__file__).parent / "page"
SUPPORT = Path(__file__).parents[2] / "support"
SCRIPTS = sorted(PAGE.glob("*.js"))
MOST = 150_000  # bytes compressed, without what others have made
LINES = 500


def imports(script: Path) -> dict[str, dict[str, str]]:
    """By the module of the page: what is imported from it, and as what; ``*``: all."""
    found: dict[str, dict[str, str]] = {}
    for names, at in re.findall(r'^import (.+?) from "\./([\w-]+\.js)";$', script.read_text(), re.M):
        pairs = [each.strip().split(" as ") for each in names.strip("{} ").split(",")]
        found[at] = {each[0]: each[-1] for each in pairs}
    return found


def exports(script: Path) -> set[str]:
    """What a module has for others."""
    text = script.read_text()
    found = set(re.findall(r"^export (?:async )?(?:function\*?|const|let|class) (\w+)", text, re.M))
    for listed in re.findall(r"^export \{ (.+?) \};", text, re.M):
        found |= {each.strip() for each in listed.split(",")}
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda each: each.name)
def test_a_script(script: Path) -> None:
    """Text never becomes markup or a program, and what it imports is there, and used."""
    text = script.read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|"
        r"createContextualFragment|setHTML|https?://(?!www\.w3\.org)",
        text,
    )
    assert text.startswith("// ")
    assert len(text.splitlines()) <= LINES
    body = re.sub(r"^import .+;$", "", text, flags=re.M)
    for at, names in imports(script).items():
        assert names.keys() - {"*"} <= exports(PAGE / at), at
        assert all(re.search(rf"\b{alias}\b", body) for alias in names.values()), at


def test_every_module_is_reached() -> None:
    """From those that pages begin with."""
    texts = [each.read_text() for each in PAGE.glob("*.html")]
    reached, waiting = (
        set(),
        {name for text in texts for name in re.findall(r'src="/page/([\w-]+\.js)"', text)},
    )
    while waiting:
        at = waiting.pop()
        reached.add(at)
        waiting |= imports(PAGE / at).keys() - reached
    assert reached == {each.name for each in SCRIPTS}


def test_the_page_itself() -> None:
    """No script, no style and no handler stands in it: the policy would not let them run."""
    for page in PAGE.glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text, re.I)
        assert all('src="/page/' in tag for tag in re.findall(r"<script[^>]*>", text))
        assert all((PAGE / name).exists() for name in re.findall(r'(?:src|href)="/page/([^"]+)"', text))


def test_it_is_small() -> None:
    """All that a browser fetches."""
    own = [each for each in PAGE.iterdir() if each.is_file()]
    assert sum(len(gzip.compress(each.read_bytes(), 9)) for each in own) < MOST


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_scripts_can_be_read() -> None:
    """By a program that reads such scripts."""
    for script in SCRIPTS:
        command = ["node", "--check", "--input-type=module"]
        subprocess.run(command, input=script.read_bytes(), check=True, timeout=60)


@pytest.mark.parametrize(
    "sources",
    [*sorted(PAGE.glob("*/SOURCES.txt")), *SUPPORT.glob("*/SOURCES.txt")],
    ids=lambda each: each.parent.name,
)
def test_what_others_have_made_is_as_it_was_taken(sources: Path) -> None:
    """Each file by its hash, and none that is not named."""
    told = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", sources.read_text(), re.M))
    files = [each for each in sources.parent.rglob("*") if each.is_file() and each != sources]
    found = {
        hashlib.sha256(each.read_bytes()).hexdigest(): str(each.relative_to(sources.parent)) for each in files
    }
    assert found == told


TELNET = """
import { Telnet } from "./telnet.mjs";
const sent = [], telnet = new Telnet((bytes) => sent.push(...bytes), () => [80, 255]);
const take = (...bytes) => [...telnet.take(new Uint8Array(bytes))];
const found = [];
found.push(take(104, 105, 13, 0), telnet.shows, [...telnet.typed([13, 255])]);
found.push(take(255), take(251), take(1, 255, 251, 3, 255, 251, 1, 65), telnet.shows);
found.push(sent.splice(0));
found.push(take(255, 253, 31, 255, 253, 39, 255, 251, 99, 255, 255), sent.splice(0));
found.push(take(255, 253, 24, 255, 250, 24, 1, 255, 240, 66), sent.splice(0).length);
found.push([...telnet.typed([13, 255])], take(13, 0, 67), take(255, 252, 1), telnet.shows, sent.splice(0));
console.log(JSON.stringify(found));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_telnet(tmp_path: Path) -> None:
    """Commands are taken out and answered once; a service that says none is left alone."""
    (tmp_path / "telnet.mjs").write_text((PAGE / "telnet.js").read_text())
    (tmp_path / "test.mjs").write_text(TELNET)
    said = subprocess.run(["node", tmp_path / "test.mjs"], capture_output=True, check=True, timeout=60).stdout
    size = [255, 250, 31, 0, 80, 0, 255, 255, 255, 240]
    assert json.loads(said) == [
        *([104, 105, 13, 0], False, [13, 255]),
        *([], [], [65], False, [255, 253, 1, 255, 253, 3]),
        *([255], [255, 251, 31, *size, 255, 252, 39, 255, 254, 99]),
        *([66], 3 + 4 + len("xterm-256color") + 2),
        *([13, 10, 255, 255], [13, 67], [], True, [255, 254, 1]),
    ]
