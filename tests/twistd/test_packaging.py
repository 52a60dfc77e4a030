"""The project survives being packed, installed in each of the three ways, and taken away again.

Every installation gets an environment of its own; the packages that ours needs come from the registry, or
from the cache that the machine has of it. Without either the tests are skipped.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.packing import ROOT, copied_tree, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DAEMONS = ["revtunnel-agent", "revtunnel-cameo", "revtunnel-server"]
COMMANDS = [*DAEMONS, "revtunnelctl", "revtunnel-connect", "cameo-rep-proxy", "cameo-pub-proxy"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source archive and the wheel that was built from it."""
    place = tmp_path_factory.mktemp("packed")
    run(sys.executable, "-m", "build", "--outdir", place / "dist", copied_tree(place), cwd=place)
    return place / "dist"


def test_the_wheel_has_our_files_and_no_file_of_twisted(packed: Path) -> None:
    """Plugin, settings, manual and units are in it; an __init__.py of Twisted's would break Twisted."""
    (wheel,) = packed.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    plugins = sorted(name for name in names if name.startswith("twisted/"))
    assert plugins == ["twisted/plugins/revtunnel_endpoints.py", "twisted/plugins/revtunnel_plugins.py"]
    assert not [name for name in names if "cache" in name or name.startswith(("tests/", "benchmarks/"))]
    data = sorted(name.partition(".data/data/")[2] for name in names if ".data/data/" in name)
    for wanted in (
        "lib/systemd/system/revtunnel-agent@.service",
        "lib/systemd/system/revtunnel-cameo.service",
        "lib/systemd/system/revtunnel-cccp.service",
        "lib/systemd/system/revtunnel-server.service",
        "share/applications/revtunnel-connect.desktop",
        "share/bash-completion/completions/revtunnelctl",
        "share/revtunnel/grafana/revtunnel.json",
        "share/revtunnel/prometheus/alerts.yml",
        "share/man/man1/revtunnel-connect.1",
        "share/man/man8/revtunnel-agent.8",
        "share/man/man8/revtunnel-cameo.8",
        "share/man/man8/revtunnel-cccp.8",
        "share/man/man8/revtunnel-server.8",
        "share/revtunnel/revtunnel.ini",
    ):
        assert wanted in data
    page = (ROOT / "revtunnel" / "process" / "web" / "page").rglob("*")
    files = {path.relative_to(ROOT).as_posix() for path in page if path.is_file()}
    assert {"revtunnel/py.typed", *files} - set(names) == set()
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "revtunnel").rglob("*.py")}
    assert ours - set(names) == set()


@pytest.mark.long
@pytest.mark.parametrize(
    ("told", "has_it"), [({}, True), ({"CC": "/bin/false"}, False), ({"REVTUNNEL_NATIVE": "no"}, False)]
)
def test_the_extension_is_built_where_it_can_be(told: dict[str, str], has_it: bool, tmp_path: Path) -> None:
    """One wheel for Python 3.11 and later; without a compiler there is a wheel all the same."""
    if has_it and shutil.which("gcc") is None:
        pytest.skip("no gcc on PATH")
    words = [f"{name}={value}" for name, value in told.items()]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path]
    run("env", *words, *pip, copied_tree(tmp_path), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert ("revtunnel/_pump.abi3.so" in names) is has_it
    assert "revtunnel/sockets/data_plane.py" in names and "revtunnel/_pump.pyi" in names
    tag = "-py3-none-any" if "REVTUNNEL_NATIVE" in told else "-cp311-abi3-linux_"
    assert tag in wheel.name


def test_the_source_archive_has_what_the_tests_need(packed: Path) -> None:
    """Somebody who has only the archive can run make test."""
    (archive,) = packed.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for wanted in (
        "Makefile",
        "setup.cfg",
        "revtunnel/_pump.c",
        "revtunnel/_pump.h",
        "revtunnel/_pump_accept.c",
        "revtunnel/_pump_dials.c",
        "revtunnel/_pump_doors.c",
        "revtunnel/_pump_tls.c",
        "revtunnel/_pump_gates.c",
        "revtunnel/_pump_pairs.c",
        "revtunnel/_pump_stock.c",
        "revtunnel/_pump_table.c",
        "tests/conftest.py",
        "twisted/plugins/revtunnel_plugins.py",
    ):
        assert wanted in names
    assert not [name for name in names if name.endswith(("dropin.cache", ".pyc"))]


def environment(place: Path, whole: bool) -> Path:
    """A Python of its own: with nothing and pip, or with the packages of this one, and without our own."""
    run(sys.executable, "-m", "venv", *([] if whole else ["--without-pip"]), place, cwd=place.parent)
    python = place / "bin" / "python"
    if not whole:
        (found,) = (place / "lib").glob("python3*/site-packages")
        (found / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


@pytest.mark.parametrize("kind", ["wheel", "plain", "editable"])
def test_twistd_finds_the_plugins_and_lives_on_without_them(packed: Path, kind: str, tmp_path: Path) -> None:
    """Installed: all daemons are listed, the commands are there. Removed: Twisted still works.

    The wheel is installed with all that it asks for, the others over what is here.
    """
    whole = kind == "wheel"
    python = environment(tmp_path / "venv", whole)
    tree = copied_tree(tmp_path)
    what = {"wheel": [*packed.glob("*.whl")], "plain": [tree], "editable": ["-e", tree]}[kind]
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", *([] if whole else ["--no-deps"]), *what, cwd=tmp_path)
    twistd = [python, "-c", "from twisted.scripts.twistd import run; run()"]

    listed = run(*twistd, "--help", cwd=tmp_path)
    assert [word for word in listed.split() if word in COMMANDS] == DAEMONS
    for command in COMMANDS:
        assert (python.parent / command).exists()

    run(*pip, "uninstall", "--quiet", "-y", "revtunnel", cwd=tmp_path)
    listed = run(*twistd, "--help", cwd=tmp_path)
    assert "conch" in listed
    assert "revtunnel" not in listed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "unit", ["revtunnel-server", "revtunnel-agent@", "revtunnel-cameo", "revtunnel-cccp"]
)
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    """No unknown setting, no setting it ignores; and TLS is not broken by MemoryDenyWriteExecute."""
    text = (ROOT / "etc" / "systemd" / f"{unit}.service").read_text()
    assert not re.search("^MemoryDenyWriteExecute=", text, re.MULTILINE)
    if unit == "revtunnel-agent@":  # beside a device nobody is there to start it again
        assert "RestartPrevent" not in text and "StartLimitIntervalSec=0\n" in text
    else:
        held = "64 75 78" if unit == "revtunnel-server" else "64 78"
        assert f"RestartPreventExitStatus={held}\n" in text
    instance = tmp_path / f"{unit.replace('@', '@plc-7')}.service"
    instance.write_text(re.sub("^ExecStart=[^ ]+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", instance],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    said = [line for line in done.stderr.splitlines() if str(instance) in line or instance.name in line]
    assert said == []
