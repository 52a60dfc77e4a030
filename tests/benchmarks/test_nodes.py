"""Idle devices over three nodes, on a small scale: all come, and come back. What it costs is not judged."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import nodes
from benchmarks.agents import returns
from benchmarks.processes import end_everything
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")
@pytest.mark.parametrize("more", [(), ("--tls",)])
def test_devices_of_a_node_that_died_are_at_the_others(more: tuple[str, ...]) -> None:
    """Each with its record in the engine."""
    words = ["--devices", "60", "--kill", "--spread", "1", "--rest", "0", "--seconds", "1"]
    told = dict[str, Any]()
    try:
        nodes.measure(nodes.arguments([*words, *more]), told)
    finally:
        end_everything()
    assert sum(told["at rest"].values()) == sum(told["after it"].values()) == 61
    assert told["death of a node"]["devices"] == 20
    assert len(told["after it"]) == 2


def test_a_line_that_is_not_whole_yet_is_not_read(tmp_path: Path) -> None:
    """Its process is still writing it."""
    log = tmp_path / "log"
    log.write_text('lost plc-1\nall {"tries": 1}\nall {"tri')
    assert returns(log) == [{"tries": 1}]
