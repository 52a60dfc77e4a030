"""The return of many agents after a restart, on a small scale: all are back. How soon is not judged."""

import signal
from pathlib import Path

import pytest

from benchmarks import comeback
from benchmarks.processes import end_everything

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_n22_five_hundred_agents_come_back_to_a_server_that_was_killed(tmp_path: Path) -> None:
    """Half of them over TLS, each from its own address, with the limits as shipped; every one is linked."""
    try:
        found = comeback.herd(signal.SIGKILL, 500, 250, 1.0, tmp_path)
    finally:
        end_everything()
    assert found.linked == 500
    assert found.tries == 500 + sum(found.failed.values())
    assert 0 < found.half <= found.most <= found.last and found.cpu > 0 < found.memory
