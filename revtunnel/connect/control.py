"""The program's side of ``/control``: questions and answers in JSON, one text message each.

The rules: at most 16 questions wait for an answer, each for a bounded time; what the server says unasked is
handed on; whatever breaks the form ends the connection. A refusal has the server's word.

Source: next/remote-sessions.md section 1; ours.
"""

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.connect.dialling import DialWay
from revtunnel.connect.outcomes import DENIED, TRY_AGAIN, UNREACHABLE, Stop
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_wire import WebSocketWire, close_words

__all__ = ["Control", "open_control"]

SUBPROTOCOL = "revtunnel.control.1"
MOST = 16_384  # bytes of a message
WAITING = 16  # questions without an answer
REVOKED = 4001  # close code
Said = dict[str, Any]


async def open_control(reactor: Any, way: DialWay, token: str, timeout: float) -> "Control":
    """Connect, and wait for the server's greeting. Stop: it does not let us in."""
    upgraded = await way.upgrade("/control", SUBPROTOCOL, token)
    control = Control(reactor, str(way.server), timeout)
    control.socket = WebSocketMessages(reactor, WebSocketWire(upgraded.engine, way.limits), control)
    EndTransport(reactor, upgraded.end, control.socket).start()
    try:
        await control.greeted.addTimeout(timeout, reactor, control.too_late)
    except BaseException:  # who asked has given up, too
        control.close()
        raise
    return control


class Control:
    """One connection; ``said`` is called with what the server says unasked."""

    socket: WebSocketMessages

    def __init__(self, reactor: Any, place: str, timeout: float) -> None:
        self.user = ""
        self.greeted: Deferred[None] = Deferred()
        self.said: Callable[[Said], None] = lambda said: None
        self._reactor = reactor
        self._place = place
        self._timeout = timeout
        self._asked: dict[int, Deferred[Said]] = {}
        self._last = 0
        self._over: Stop | None = None

    async def ask(self, word: str, **arguments: Any) -> Said:
        """The answer to a question. Stop: a refusal, or the connection is over."""
        if self._over is not None:
            raise self._over
        if len(self._asked) >= WAITING:
            raise Stop(TRY_AGAIN, f"{len(self._asked)} questions wait for an answer")
        self._last += 1
        answer: Deferred[Said] = Deferred()
        self._asked[self._last] = answer
        self.socket.send(json.dumps({"id": self._last, "ask": word, **arguments}))
        return await answer.addTimeout(self._timeout, self._reactor, self.too_late)

    def close(self) -> None:
        """End it in order; questions that wait are not answered."""
        self._over = self._over or Stop(UNREACHABLE, "closed")
        self.socket.close()

    # -- from its WebSocket

    def received(self, message: bytes | str) -> None:
        """A message."""
        try:
            said = json.loads(message) if len(message) <= MOST and isinstance(message, str) else None
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            self.socket.abort(1008, "JSON objects wanted")
            self.closed(1008, "it sent what is no JSON object")
        elif "say" in said:
            self._hear(said)
        elif isinstance(said.get("id"), int) and (asked := self._asked.pop(said["id"], None)):
            self._answer(asked, said)

    def may_send(self) -> None:
        """Nothing waits for it: so few questions fit."""

    def closed(self, code: int, reason: str) -> None:
        """It is over."""
        words = "the token is revoked" if code == REVOKED else close_words(code, reason)
        status = DENIED if code == REVOKED else UNREACHABLE
        self._over = self._over or Stop(status, f"{self._place}: {words}")
        waiting, self._asked = [*self._asked.values()], {}
        if not self.greeted.called:
            self.greeted.errback(self._over)
        for asked in waiting:
            if not asked.called:
                asked.errback(self._over)

    # -- inside

    def _hear(self, said: Said) -> None:
        if said["say"] == "hello":
            self.user = str(said.get("user", ""))
            if not self.greeted.called:
                self.greeted.callback(None)
        else:
            self.said(said)

    def _answer(self, asked: "Deferred[Said]", said: Said) -> None:
        error = said.get("error")
        if asked.called:  # too late
            return
        if isinstance(error, dict):
            asked.errback(Stop.by_word(str(error.get("word", "denied")), str(error.get("why", ""))))
        elif isinstance(said.get("ok"), dict):
            asked.callback(said["ok"])
        else:
            asked.errback(Stop(UNREACHABLE, f"{self._place}: an answer without ok and error"))

    def too_late(self, result: Any, seconds: float) -> Any:
        """A deadline has passed."""
        raise Stop(UNREACHABLE, f"{self._place}: no answer in {seconds:g} s")
