"""Calls from node to node: how long they can be made, and what is made of words of another version."""

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from revtunnel.cluster.cluster_system import merged
from revtunnel.cluster.node_calls import NodeCaller, answers_to
from revtunnel.cluster.node_operations import NODE_DEVICES, NODE_LOAD
from revtunnel.process.admin.admin_boxes import packed, written
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import Operation, Row
from revtunnel.process.admin.process_operations import PROCESS_OPERATIONS
from revtunnel.process.admin.refusals import OperatorError
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


ODD = [
    *(b"", b"{", b"7", b"null", b'"x"', b"[1]", b"[[1, 2]]", b"[" * 60_000, b'{"a": ' * 9_000, b"\xff"),
    *(b"1" * 50_000, b'{"epoch": ' + b"9" * 50_000 + b"}"),
]


@pytest.mark.parametrize("operation", [NODE_LOAD, NODE_DEVICES, PING], ids=lambda each: each.name)
@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_answer_that_makes_no_sense_fails_its_call_at_once(operation: Operation, odd: bytes) -> None:
    """In words, and that call alone."""
    caller, transport = NodeCaller(Clock()), StringTransport()
    caller.makeConnection(transport)
    failed, good = list[Failure](), list[Row]()
    caller.call(operation).addErrback(failed.append)
    caller.call(NODE_LOAD).addCallback(good.append)
    name = b"row" if operation is NODE_LOAD else b"rows" if operation is NODE_DEVICES else b"version"
    caller.dataReceived(packed({b"_answer": b"1", **({name: odd} if operation is not PING else {})}))
    assert failed[0].check(OperatorError) and not caller.gone and not transport.disconnecting
    caller.dataReceived(packed({b"_answer": b"2", b"row": b"{}"}))
    assert good == [{}]


def test_rows_that_lack_what_they_are_known_by_are_none() -> None:
    """Of another version they may have more, and lack the rest."""
    caller, found = NodeCaller(Clock()), list[Any]()
    caller.makeConnection(StringTransport())
    for tag, rows in enumerate(([{"serial": 5}], [{}], [{"serial": "a", "more": [1]}]), 1):
        caller.call(NODE_DEVICES).addBoth(found.append)
        caller.dataReceived(packed(written({"_answer": b"%d" % tag, "rows": json.dumps(rows)})))
    assert [isinstance(each, Failure) for each in found] == [True, True, False]


def test_rows_of_an_odd_node_spoil_no_listing() -> None:
    """Of devices; what is missing counts as least."""
    good = {"serial": "a", "online": True, "links_total": 1, "since": "2026"}
    odd = [
        {"serial": "a", "online": "", "since": 7},
        {"serial": "b", "since": {}},
        {"serial": "c", "since": 1},
    ]
    rows, _ = merged([([good], None), (odd, None), ([{"serial": "c"}], None)], 10)
    assert [row["serial"] for row in rows] == ["a", "b", "c"] and rows[0] is good


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
