"""packaging/Containerfile: its steps name what there is; built and tried where there is an engine."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "packaging" / "Containerfile"


def steps(word: str) -> list[list[str]]:
    """The words behind an instruction."""
    text = RECIPE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split()[1:] for line in text.splitlines() if line.split()[:1] == [word]]


def test_what_is_copied_is_there_and_enough() -> None:
    """All that a wheel is made of."""
    copied = {name for *names, _ in steps("COPY") for name in names}
    assert all((ROOT / name).exists() for name in copied)
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    named = settings["options.data_files"].values()
    needed = {line.split("/")[0] for value in named for line in value.split()}
    packages = {line.split(".")[0] for line in settings["options"]["packages"].split() if line != "="}
    assert needed | packages | {"setup.cfg", "setup.py", "pyproject.toml", "README.rst"} <= copied


def test_what_it_runs_is_a_program() -> None:
    """As which nobody is root."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    programs = re.findall("^(\\S+) =", settings["options.entry_points"]["console_scripts"], re.MULTILINE)
    assert steps("ENTRYPOINT") == [['["revtunnel-server"]']]
    assert {"revtunnel-server", "revtunnel-agent", "revtunnelctl"} <= {*programs}
    assert steps("USER") == [["revtunnel"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_built(tmp_path: Path) -> None:
    """And the server in it says its version."""
    engine = next((name for name in ("podman", "docker") if shutil.which(name)), None)
    if engine is None or subprocess.run([engine, "info"], capture_output=True, check=False).returncode:
        pytest.skip("no container engine runs here")
    name = f"revtunnel-test-{tmp_path.name}".lower()
    built = subprocess.run(
        [engine, "build", "-q", "-f", RECIPE, "-t", name, ROOT], capture_output=True, text=True, check=False
    )
    if re.search("no such host|dial tcp|timeout|pull access|registry", built.stderr):
        pytest.skip("the registry of images cannot be reached")
    assert built.returncode == 0, built.stderr
    try:
        done = subprocess.run([engine, "run", "--rm", name, "--version"], capture_output=True, text=True)
        assert done.stdout.startswith("revtunnel-server "), done.stderr
    finally:
        subprocess.run([engine, "rmi", name], capture_output=True, check=False)
