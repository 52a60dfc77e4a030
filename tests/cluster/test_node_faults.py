"""Three real nodes and an engine: killed, frozen, doubled, cut off, in any order, with streams that say whose
they are."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from benchmarks.agents import Herd
from tests.cluster.nodes_lab import NAMES, NodesLab, nodes_lab
from tests.cluster.nodes_load import Load
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]
SECONDS = float(os.environ.get("REVTUNNEL_FAULTS_SECONDS", "6"))  # of faults in any order
SEED = int(os.environ.get("REVTUNNEL_FAULTS_SEED", "0")) or random.randrange(1 << 32)


def test_a_node_is_killed_frozen_and_doubled(tmp_path: Path) -> None:
    """Others reach its devices; who sleeps through it takes nothing back; one process has a name."""
    with nodes_lab(tmp_path) as lab:
        lab.all_reach(*NAMES)
        lab.nodes["one"].kill()
        lab.all_reach("two", "three")
        lab.nodes["one"].start()
        lab.all_reach(*NAMES)
        # frozen until its lease is over and its device is elsewhere
        two = lab.nodes["two"]
        here = lab.held(two)
        begun = len(two.events("link-down", reason="replaced"))
        two.pause()
        lab.all_reach("one", "three")
        two.resume()
        lab.all_reach(*NAMES)
        assert len(two.events("link-down", reason="replaced")) - begun <= len(here)
        # a second process of the same name
        twin = lab.node("three", "twin").start()
        assert lab.nodes["three"].wait() == 75
        assert twin.running
        lab.all_reach("one", "two")


def test_the_engine_is_killed_under_clients(tmp_path: Path) -> None:
    """Devices that are here go on, others as far as they are known; who is not known is refused in words."""
    with nodes_lab(tmp_path) as lab:
        lab.all_reach(*NAMES)
        lab.engine.kill()
        for number, name in enumerate(NAMES):
            assert lab.reaches(name, number), "its own"
        lab.nodes["one"].wait_event("state", state="directory")
        three = lab.nodes["three"]
        three.write(cluster={"without_engine": "wait"})
        three.stop()
        three.start()
        refused = Herd(three.port, ["plc-9"], (), "lab")
        lab.until(lambda: refused.turn() or refused.lost, "refusal")
        assert three.events("link-refused", serial="plc-9", reason="stopping")
        refused.close()
        lab.engine.start()
        lab.all_reach(*NAMES)


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
        agent = chance.choice(lab.agents)
        agent.signal(signal.SIGKILL)
        agent.wait()
        agent.start(wait=False)
