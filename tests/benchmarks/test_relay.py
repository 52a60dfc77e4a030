"""The command itself: its usage errors, and one short run whose figures are not looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import relay
from benchmarks.load import CompilerMissing, compile_load


@pytest.mark.parametrize(
    "argv", [["--systems", "nobody"], ["--systems", ","], ["--passes", "0"], ["--idle", "9999"]]
)
def test_usage_errors_exit_with_64(argv: list[str]) -> None:
    """Nothing is started for a command line that cannot be meant."""
    with pytest.raises(SystemExit) as stopped:
        relay.main(argv)
    assert stopped.value.code == relay.EX_USAGE


def test_list_names_every_system_and_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    """The list says which rows a run on this machine will have."""
    assert relay.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(relay.RELAY.systems)
    assert lines[0].split() == ["direct", "found"]


def test_a_missing_compiler_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cc there is no load, so there is no run."""
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CompilerMissing, match="no C compiler"):
        compile_load(tmp_path)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator needs cc")
@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("relay", "direct"),
        pytest.param("sessions", "revtunnel session", marks=pytest.mark.long),
    ],
)
def test_a_short_run_writes_both_files(tmp_path: Path, name: str, system: str) -> None:
    """Every row is measured; how fast it is does not matter here.

    A process of its own, because the command takes over signal handlers and all of its children.
    """
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        "--quick",
        "--systems",
        system,
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=Path(relay.__file__).parent.parent, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / f"{name}.json").read_text())
    measured = record["medians"][system]
    assert {"up_1", "up_16", "down_1", "down_16", "ping_p50", "ping_beside_p99", "connect_16"} <= set(
        measured
    )
    assert record["remarks"] == []
    assert (tmp_path / f"{name}.md").read_text().startswith("# Relay benchmark")
