"""The storm: that it runs, on a small scale; what it finds is not judged."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import storm

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(storm.__file__).parent.parent


def test_a_small_storm() -> None:
    """Two rows, and what became of the strangers."""
    argv = [sys.executable, "-m", "benchmarks.storm", "--manner", "stalled", "--sockets", "40"]
    argv += ["--addresses", "20", "--seconds", "2", "--quiet", "1"]
    said = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "| quiet |" in said
    assert "| storm |" in said
    assert "'opened': " in said


def test_an_unknown_manner() -> None:
    """Nothing is started for it."""
    with pytest.raises(SystemExit):
        storm.main(["--manner", "polite"])
