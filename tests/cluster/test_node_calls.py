"""Calls from node to node: how long they can be made, and what is made of words of another version."""

from pathlib import Path

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from revtunnel.cluster.node_calls import answers_to
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.process_operations import PROCESS_OPERATIONS
from revtunnel.process.reporting import Reporter
from tests.support.nodes_world import NodesWorld

HOUR = 3600
PING = next(each for each in PROCESS_OPERATIONS if each.name == "Ping")


class _Operator(DaemonOperator):
    draining = False


def test_a_node_that_asks_nothing_for_an_hour_may_ask_then() -> None:
    """With an engine nodes call each other only where an operator wants something."""
    clock, transport = Clock(), StringTransport()
    answers = answers_to(clock, _Operator(clock, Reporter(), "one"), "two")
    answers.makeConnection(transport)
    clock.advance(HOUR)
    assert not transport.disconnecting and not transport.disconnected


def test_calls_go_on_when_their_channel_has_ended(tmp_path: Path) -> None:
    """The link is up: the next look makes another channel."""
    with NodesWorld(tmp_path, "one", "two", mesh=False) as nodes:
        cluster = nodes["one"].cluster
        first = cluster.callers["two"]
        first.transport.loseConnection()
        nodes.until(lambda: first.gone)
        cluster.look()
        nodes.until(lambda: not cluster.callers["two"].gone)
        answered: list[Row] = []
        cluster.callers["two"].call(PING).addCallback(answered.append)
        nodes.until(lambda: answered)
