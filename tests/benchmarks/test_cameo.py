"""The benchmark of the CAMEO relays: its table, and one short run whose figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("zmq", exc_type=ImportError)

from benchmarks import cameo

ROOT = Path(__file__).resolve().parents[2]


def figures(value: float) -> dict[str, float]:
    """The same for every row."""
    return {row.key: value for row in cameo.ROWS}


def test_ratios_above_one_are_in_our_favour() -> None:
    """More is better in some rows, less in others; nothing on both sides is a draw."""
    names = [system.name for system in cameo.SYSTEMS]
    passes = [{names[0]: figures(20.0), names[1]: figures(10.0), names[2]: figures(40.0)} for _ in range(3)]
    for each in passes:
        for name in names:
            each[name]["lost"] = 0.0
    lines, record = cameo.table(passes)
    ratios = record["ratios"]
    assert (ratios[names[1]]["requests"], ratios[names[1]]["trip_p50"]) == (2.0, 0.5)
    assert (ratios[names[2]]["requests"], ratios[names[2]]["trip_p50"]) == (0.5, 2.0)
    assert ratios[names[1]]["lost"] == 1.0
    assert len(lines) == 2 + len(cameo.ROWS)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_short_run(tmp_path: Path) -> None:
    """Everything starts, every row has a figure, both files are written."""
    command = [sys.executable, "-m", "benchmarks.cameo", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
    record = json.loads((tmp_path / "cameo.json").read_text())
    assert set(record["medians"]) == {system.name for system in cameo.SYSTEMS}
    assert all({row.key for row in cameo.ROWS} <= set(each) for each in record["medians"].values())
    assert "round trip p50" in (tmp_path / "cameo.md").read_text()
