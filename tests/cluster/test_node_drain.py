"""A node of three that is drained: its devices are elsewhere before it ends, and no client is told wrong."""

from pathlib import Path

import pytest

from tests.cluster.nodes_lab import nodes_lab, serial_of
from tests.cluster.nodes_load import Load
from tests.support.keyed_streams import WORD, begin
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]
DEVICES = 21
CLIENT = 500


def test_a_drained_node_s_devices_are_elsewhere_before_it_ends(tmp_path: Path) -> None:
    """Spread over the others, one after the other; a stream that runs there goes on until it is closed."""
    with nodes_lab(tmp_path, DEVICES, {"cluster": {"drain_pace": 5}}) as lab:
        one, others = lab.nodes["one"], [lab.nodes["two"], lab.nodes["three"]]
        lab.until(lambda: all(each["linked"] for each in others[0].control("nodes")["nodes"]), "links")
        share = DEVICES // 3  # each says what it has with its next renewal, and goes by what the others say
        lab.until(lambda: all(each["devices"] == share for each in one.control("nodes")["nodes"]), "counts")
        moves = lab.held(one)
        assert len(moves) == DEVICES / 3
        before = [len(lab.held(node)) for node in others]
        running = begin(lab.ports[serial_of(0), "load"], 0, CLIENT, lab.hosts["one"])
        load = Load(lab, 3, 1)
        try:
            others[0].control("drain", "--node", "one")
            lab.until(lambda: len(lab.held(others[0]) | lab.held(others[1])) == DEVICES, "move of all")
            gained = [len(lab.held(node)) - count for node, count in zip(others, before, strict=True)]
            assert min(gained) > 0, gained  # how evenly is a matter of who was late
            # one after the other, each to where it was sent
            one.wait_event("link-down", len(moves))  # which is said later than the next node's link-up
            ends = one.events("link-down")
            assert {each["serial"] for each in ends} == moves
            assert {each["reason"] for each in ends} == {"lost"}
            for serial in moves:
                (away,) = (each for each in lab.agents[serial].events("state", state="away"))
                assert ", as it says" in away["detail"]
            lab.all_reach("two", "three")
            one.control("drain")  # once more is no other thing
            assert one.running
            assert running.recv(WORD) == (CLIENT << 32 | 1).to_bytes(WORD, "big")
        finally:
            load.end()
            running.close()
        assert one.wait() == 0
        assert not load.wrong, load.wrong
        print(load.outcomes)
        assert load.outcomes.get("whole", 0) > 0
