"""A node by itself: what it makes of a directory that is away, or says what nobody of us wrote."""

from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import fail

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Node
from tests.support.nodes_world import NodesWorld


def test_a_node_whose_address_is_none_keeps_no_other_from_being_dialled(tmp_path: Path) -> None:
    """Whoever writes into an engine may say anything."""
    with NodesWorld(tmp_path, "one", "two", mesh=False) as nodes:
        cluster = nodes["one"].cluster
        known = cluster.directory.nodes()
        cluster.directory.nodes = lambda: [Node("odd", 1, "nowhere"), *known]  # type: ignore[method-assign]
        assert [*cluster._places()] == ["one", "two"]


def test_a_node_that_has_stopped_joins_no_more(tmp_path: Path) -> None:
    """Also where it waited to try again."""
    with NodesWorld(tmp_path, "one", mesh=False) as nodes:
        node = nodes["one"]
        cluster = node.cluster
        cluster.settings = replace(cluster.settings, without_engine="wait")
        cluster.directory.start = lambda: fail(DirectoryAway("it is down"))  # type: ignore[method-assign]
        cluster._join()
        assert node.switchboard.not_yet
        cluster.stop()
        assert not [each for each in node.reactor.getDelayedCalls() if each.func == cluster._join]
