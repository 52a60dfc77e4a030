"""Every call of the data plane's C that may fail does, sanitized (tests/support/fault_drive.py)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sockets.test_pump import ROOT, sanitized

pytestmark = pytest.mark.slow

SOURCE = ROOT / "tests/support/pump_faults.c"


def test_whatever_fails_a_program_is_cut_or_has_all(tmp_path: Path) -> None:
    """No byte, descriptor or piece of memory is lost unsaid; nothing is logged as an error."""
    calls = tmp_path / "pump_faults.o"
    if shutil.which("gcc"):
        subprocess.run(["gcc", "-std=c11", "-g", "-fPIC", "-c", SOURCE, "-o", calls], check=True)
    replaced = [f"-D{name}=fault_{name}" for name in {*re.findall(r"fault_(\w+)\(", SOURCE.read_text())}]
    target, preload = sanitized(tmp_path, "address,undefined", "libasan.so", *replaced, calls)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fault_drive", target, "1"],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
