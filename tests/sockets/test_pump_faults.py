"""Every call of the data plane's C that may fail does, sanitized (tests/support/fault_drive.py)."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sockets.test_pump import ROOT, run_sanitized

pytestmark = pytest.mark.slow

SOURCE = ROOT / "tests/support/pump_faults.c"


def test_whatever_fails_a_program_is_cut_or_has_all(tmp_path: Path) -> None:
    """No byte, descriptor or piece of memory is lost unsaid; nothing is logged as an error."""
    calls = tmp_path / "pump_faults.o"
    if shutil.which("gcc"):
        subprocess.run(["gcc", "-std=c11", "-g", "-fPIC", "-c", SOURCE, "-o", calls], check=True)
    replaced = [f"-D{name}=fault_{name}" for name in {*re.findall(r"fault_(\w+)\(", SOURCE.read_text())}]
    how = "address,undefined", "libasan.so"
    done = run_sanitized(tmp_path, *how, "tests.support.fault_drive", "1", also=(*replaced, calls))
    assert done == (0, "ok\n", "")
