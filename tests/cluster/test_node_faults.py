"""Three real nodes and an engine: killed, frozen, doubled, cut off, in any order, with streams that say whose
they are."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from benchmarks.agents import Herd, arguments
from tests.cluster.nodes_lab import NAMES, PATIENCE, NodesLab, nodes_lab
from tests.cluster.nodes_load import Load
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]
SECONDS = float(os.environ.get("REVTUNNEL_FAULTS_SECONDS", "4"))  # of faults in any order
SEED = int(os.environ.get("REVTUNNEL_FAULTS_SEED", "0")) or random.randrange(1 << 32)


def test_each_fault_alone(tmp_path: Path) -> None:
    """One after the other, since three nodes take their time to start."""
    with nodes_lab(tmp_path) as lab:
        lab.all_reach(*NAMES)
        _a_node_is_killed(lab)
        _a_node_sleeps_until_its_device_is_elsewhere(lab)
        _the_engine_is_killed(lab)
        _a_second_process_has_the_name(lab)


def _a_node_is_killed(lab: NodesLab) -> None:
    """Others reach its devices."""
    lab.nodes["one"].kill()
    lab.all_reach("two", "three")
    lab.nodes["one"].start()
    lab.all_reach(*NAMES)


def _a_node_sleeps_until_its_device_is_elsewhere(lab: NodesLab) -> None:
    """It takes nothing back: what moved is told to it, and no more."""
    two = lab.nodes["two"]
    here = lab.held(two)
    begun = len(two.events("link-down", reason="replaced"))
    two.pause()
    lab.all_reach("one", "three")
    two.resume()
    lab.all_reach(*NAMES)
    assert len(two.events("link-down", reason="replaced")) - begun <= len(here)


def _the_engine_is_killed(lab: NodesLab) -> None:
    """Devices that are here go on; who starts meanwhile guesses nothing; and takes no agents if told so."""
    lab.engine.kill()
    for name, node in lab.nodes.items():
        for serial in lab.held(node):
            device = int(serial.removeprefix("plc-"))
            assert lab.ask(name, device, 1, 100, PATIENCE) == "whole", "its own"
    lab.nodes["one"].wait_event("state", state="directory")
    three = lab.nodes["three"]
    three.write(cluster={"without_engine": "wait"})
    three.stop()
    three.start()
    refused = Herd(arguments(["--port", str(three.port), "--first", "9", "--count", "1"]))
    lab.until(lambda: refused.turn() or three.events("link-refused"), "refusal")
    assert three.events("link-refused", serial="plc-00009", reason="stopping")
    refused.close()
    assert lab.ask("three", 0, 1, 9) == "none"  # whose port it is cannot be said there
    assert "directory-away" in str(three.control("status"))
    lab.engine.start()
    lab.all_reach(*NAMES)


def _a_second_process_has_the_name(lab: NodesLab) -> None:
    """The later one; the earlier drains and ends."""
    twin = lab.node("three", "twin").start()
    assert lab.nodes["three"].wait() == 75
    assert twin.running
    lab.all_reach("one", "two")


@pytest.mark.long
def test_faults_in_any_order(tmp_path: Path) -> None:
    """No byte wrong, no client at another's device, no cut that looks like an end; and all is well at last.

    ``REVTUNNEL_FAULTS_SECONDS=300 pytest -m slow tests/cluster/test_node_faults.py -k any --timeout 600``
    """
    chance = random.Random(SEED)
    print(f"REVTUNNEL_FAULTS_SEED={SEED}")
    with nodes_lab(tmp_path) as lab:
        load = Load(lab, 6, SEED)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not load.wrong:
            _fault(lab, chance)
            time.sleep(chance.uniform(0.1, 1.0))
        lab.engine.start() if not lab.engine.running else None
        for node in lab.nodes.values():
            node.resume() if node.running else node.start()
        lab.all_reach(*NAMES)
        load.end()
        print(load.outcomes)
        assert not load.wrong, load.wrong
        assert load.outcomes.get("whole", 0) > 0


def _fault(lab: NodesLab, chance: random.Random) -> None:
    node = lab.nodes[chance.choice(NAMES)]
    kind = chance.choice(["kill", "freeze", "engine-kill", "engine-freeze", "empty", "cut-off", "agent"])
    print(f"{time.monotonic():.1f} {kind} {node.name}")
    if kind == "kill":
        node.kill()
        node.start()
    elif kind == "freeze":
        node.pause()
        time.sleep(chance.choice([0.5, 4.0]))
        node.resume()
    elif kind == "engine-kill":
        lab.engine.kill()
        time.sleep(chance.choice([0.1, 1.5]))
        lab.engine.start()
    elif kind == "engine-freeze":
        lab.engine.pause()
        time.sleep(chance.choice([0.3, 2.0]))
        lab.engine.resume()
    elif kind == "empty":
        lab.engine.ask("FLUSHALL")
    elif kind == "cut-off":
        lab.engine.ask("CLIENT", "KILL", "TYPE", chance.choice(["normal", "pubsub"]))
    else:
        agent = chance.choice([*lab.agents.values()])
        agent.signal(signal.SIGKILL)
        agent.wait()
        agent.start(wait=False)
