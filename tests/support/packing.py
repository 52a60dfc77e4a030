"""The project packed and installed: commands that must succeed, or have no registry to ask."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["ROOT", "copied_tree", "packed_wheel", "run"]

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".*", "venv", "build", "dist", "results", "*.egg-info", "__pycache__", "dropin.cache", "*.pyc", "*.so"
)
OFFLINE = re.compile(
    "No matching distribution|ConnectionError|Failed to establish|Temporary failure|timed out"
)


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; skips the test when the registry is what failed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # this checkout's
    done = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode and OFFLINE.search(done.stdout + done.stderr):
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied_tree(place: Path) -> Path:
    """The sources alone, so that nothing of the build stays in the checkout."""
    tree = place / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    return tree


def packed_wheel(place: Path) -> Path:
    """The wheel, as ``dist/NAME.whl`` in ``place``."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", place / "dist", copied_tree(place), cwd=place)
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel
