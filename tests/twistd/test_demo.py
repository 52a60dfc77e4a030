"""The demonstration of README.rst: it works, and it would notice if it did not."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "examples" / "demo.py"
WAIT = 100  # seconds


@pytest.fixture
def demo() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demonstration_ends_well() -> None:
    """Real processes, every byte right, the tables shown, and nothing left in its directory."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, DEMO],
        env=environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plc-7/http ->" in done.stdout
    assert re.search("^session [0-9a-f]{32}: plc-7, owner$", done.stdout, re.MULTILINE)
    assert re.search(
        "^20 connections to 127.0.0.1:[0-9]+, 636934 bytes, every byte right$", done.stdout, re.MULTILINE
    )
    assert ": unbroken" in done.stdout
    [opened, closed] = [json.loads(line) for line in done.stdout.splitlines() if '"event":"session-' in line]
    assert opened["grant"] in done.stdout.partition("grant ana")[2].partition(" of ana counts")[0]
    assert (opened["user"], closed["cause"], closed["connections"]) == ("ana", "owner", 20)
    assert not re.search("rtuser1_[A-Za-z0-9_-]{43}", done.stdout + done.stderr)
    assert done.stdout.endswith("\nall right\n")
    settings = re.search("REVTUNNEL_CONFIG=(.+)", done.stdout)
    assert settings is not None
    assert not Path(settings[1]).parent.exists()


def test_the_demonstration_notices_a_wrong_byte(demo: ModuleType) -> None:
    """A device whose answers differ in one byte is found out."""
    right, client = demo.probe, threading.current_thread()

    def probe(number: int) -> bytes:
        return right(number)[:-1] + b"?" if threading.current_thread() is client else right(number)

    with demo.Devices(("127.0.0.1", 0), demo.Device) as device:
        threading.Thread(target=device.serve_forever, daemon=True).start()
        port = device.server_address[1]
        assert demo.fetch(port, [5]) == len(right(5))
        demo.probe = probe
        with pytest.raises(demo.Wrong, match="answer 5"):
            demo.fetch(port, [5])
        device.shutdown()
