"""Calls from node to node: the operations of the admin socket, as boxes on one channel of a link.

Who is dialled asks, by a channel to ``@calls``; who has dialled answers as its admin socket would, to a
caller who may do everything, for a node's certificate has said who it is. The rules: a call that is not
answered within ``PATIENCE`` has failed, and at once where nothing can be made of its answer; one that a node
does not know is refused in words, so that nodes of two versions talk.

Source: process/admin/admin_boxes.py; next/cluster.md section 4; ours.
"""

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from revtunnel.cluster.directory import PATIENCE
from revtunnel.cluster.named_targets import CALLS
from revtunnel.cluster.peer_hub import PeerServerLink
from revtunnel.process.admin.admin import STALLED, AdminFactory, AdminProtocol
from revtunnel.process.admin.admin_boxes import packed, read, refusal_of, unpacked, written
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.callers import Caller
from revtunnel.process.admin.operation_form import ROW, ROWS, CallerRole, Operation, Row
from revtunnel.process.admin.refusals import Busy, OperatorError
from revtunnel.streams.channel_transport import ChannelTransport

__all__ = ["NodeAnswers", "NodeCaller", "answers_to", "call_by"]

MOST = 4 * 1024 * 1024  # bytes of an answer


class NodeAnswers(AdminProtocol):
    """Answers one node, which may be silent as long as its link is up."""

    times = {"reading": STALLED}

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        self.leave()

    def writeConnectionLost(self) -> None:
        """The transport says the rest."""


class _Nodes(AdminFactory):
    """Every node is an operator, and none is one too many."""

    def role_of(self, caller: Caller) -> CallerRole:
        return CallerRole.OPERATOR

    def enter(self, protocol: AdminProtocol) -> bool:
        return True


def answers_to(clock: IReactorTime, operator: Any, node: str) -> NodeAnswers:
    """Who answers the calls of a node."""
    caller = Caller(-1, f"node {node}")
    return NodeAnswers(_Nodes(clock, operator, AdminSettings(), lambda transport: caller))


class NodeCaller(Protocol):
    """Asks one node, as long as the link to it is up."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._received = bytearray()
        self._tag = 0
        self._asked: dict[bytes, tuple[Operation, Deferred[Row]]] = {}
        self.gone = False

    def call(self, operation: Operation, **arguments: Any) -> "Deferred[Row]":
        """One call and its answer; of a listing ``rows``, read, and ``after``.

        Fails with one of refusals.py: Busy also when there is no answer in time, or the node is gone.
        """
        if self.gone:
            return fail(Busy("the node is gone"))
        self._tag += 1
        tag = b"%d" % self._tag
        answered: Deferred[Row] = Deferred()
        self._asked[tag] = operation, answered
        assert self.transport is not None
        self.transport.write(packed(written({"_command": operation.name, "_ask": tag, **arguments})))

        def late(result: Any, seconds: float) -> Any:
            self._asked.pop(tag, None)
            return Failure(Busy(f"no answer within {seconds:g} s"))

        return answered.addTimeout(PATIENCE, self._clock, late)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        try:
            while (box := unpacked(self._received, MOST)) is not None:
                self._answered(box)
        except ValueError:
            self._end()

    def readConnectionLost(self) -> None:
        self._end()

    def writeConnectionLost(self) -> None:
        """The transport says the rest."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        asked, self._asked = self._asked, {}
        for _, answered in asked.values():
            answered.errback(Busy("the node is gone"))

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _answered(self, box: Mapping[bytes, bytes]) -> None:
        tag = box.get(b"_answer") or box.get(b"_error") or b""
        operation, answered = self._asked.pop(tag, (None, None))
        if operation is None or answered is None:
            return  # it came too late
        if b"_answer" not in box:
            answered.errback(refusal_of(operation, box))
            return
        try:
            row = _read(operation, box)
        except (OperatorError, ValueError, TypeError, LookupError, RecursionError) as error:
            answered.errback(Busy(f"the answer to {operation.name} makes no sense: {str(error)[:80]!a}"))
        else:
            answered.callback(row)


def call_by(link: PeerServerLink) -> NodeCaller | None:
    """A caller of the node that has dialled us; None: no channel is free."""
    assert link.mux is not None
    channel = link.mux.connect(CALLS, link.clock.seconds())
    if channel is None:
        return None
    caller = NodeCaller(link.clock)
    ChannelTransport(link, channel, caller, lambda: None).start()
    link.flush()
    return caller


def _read(operation: Operation, box: Mapping[bytes, bytes]) -> Row:
    answer = read(operation.answer, box)
    if operation.answer is ROW:
        row = json.loads(answer["row"])
        if not isinstance(row, dict):
            raise ValueError("no row")
        return row
    if operation.answer is ROWS:
        rows = json.loads(answer["rows"])
        keys = [row[name] for row in rows for name in operation.key]
        if not isinstance(rows, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("no rows")
        return {"rows": rows, "after": answer["after"]}
    return answer
