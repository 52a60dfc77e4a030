"""Who watches a session in a browser: he sees what its owner sees there, and nothing of his gets anywhere.

The rules: a terminal has one source, the owner's newest connection to a service; what the service said there
of late is kept, so that who comes sees a screen, and goes to all who watch as it comes. One who does not keep
up is ended, and holds up nobody. A screen (RFB) cannot be joined in the middle: who watches has a connection
of its own, of which keys and pointers are dropped (rfb_watching.py).

To him: binary messages are the terminal's bytes; texts are JSON, ``{"live": whether the owner is there}`` and
``{"size": [columns, rows]}`` where that is known. Whatever he says ends it.

Source: issue 13, "Share a session"; ours.
"""

import errno
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire, close_code
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.raw_end import RawEnd
from revtunnel.systems.sessions.remote_sessions import Came
from revtunnel.systems.sessions.rfb_watching import RfbWatching
from revtunnel.systems.sessions.session_seats import HOW_ENDED

__all__ = ["Screens", "Terminal", "WatchLine", "WatchingEnd"]

KEPT = 16 * 1024  # bytes of a terminal that are kept for who comes: some screens full
BEHIND = 1024 * 1024  # bytes that one who watches may be behind
PIECE = 64 * 1024  # bytes of one message
ANEW = b"\x1bc"  # a terminal's reset: what comes is of another connection


class Terminal:
    """One service of a session, as its owner sees it."""

    def __init__(self) -> None:
        self.users = 0
        self._kept: deque[bytes] = deque()
        self._size = 0  # bytes that are kept
        self._shape: list[int] | None = None
        self._source: object = None
        self._watchers: dict[WatchLine, None] = {}

    def begin(self) -> tuple[Callable[[bytes], None], Callable[[], None]]:
        """The owner has a new connection: what is told its bytes, and that it is over."""
        self._source = source = object()
        self._kept.clear()
        self._size = 0
        for each in [*self._watchers]:
            each.see(ANEW)
            each.say({"live": True})

        def said(data: bytes) -> None:
            if self._source is source:
                self._said(data)

        def over() -> None:
            if self._source is source:
                self._source = None
                for each in [*self._watchers]:
                    each.say({"live": False})

        return said, over

    def shaped(self, columns: int, rows: int) -> None:
        """The owner's window has this size."""
        self._shape = [columns, rows]
        for each in [*self._watchers]:
            each.say({"size": self._shape})

    def _said(self, data: bytes) -> None:
        self._kept.append(data[-KEPT:])
        self._size += len(self._kept[-1])
        while self._size - len(self._kept[0]) >= KEPT:
            self._size -= len(self._kept.popleft())
        for each in [*self._watchers]:
            each.see(data)

    def watch(self, watcher: "WatchLine") -> None:
        """Somebody looks from now on."""
        self._watchers[watcher] = None
        watcher.say({"live": self._source is not None})
        if self._shape is not None:
            watcher.say({"size": self._shape})
        watcher.see(b"".join(self._kept))

    def leave(self, watcher: "WatchLine") -> None:
        """He does no more."""
        self._watchers.pop(watcher, None)


class Screens:
    """The terminals of all sessions, each as long as somebody fills or watches it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Terminal] = {}

    def __len__(self) -> int:
        return len(self._found)

    def enter(self, session: str, service: str) -> Terminal:
        """The terminal, for one more."""
        found = self._found.setdefault((session, service), Terminal())
        found.users += 1
        return found

    def begin(
        self, session: str, service: str
    ) -> tuple[Terminal, Callable[[bytes], None], Callable[[], None]]:
        """The owner's newest connection: the terminal, what is told its bytes, and that it is over."""
        terminal = self.enter(session, service)
        told, over = terminal.begin()

        def leave() -> None:
            over()
            self.leave(session, service)

        return terminal, told, leave

    def leave(self, session: str, service: str) -> None:
        """One less."""
        found = self._found[session, service]
        found.users -= 1
        if not found.users:
            del self._found[session, service]


class WatchLine:
    """The connection of one who watches a terminal."""

    socket: WebSocketMessages

    def __init__(self, live: LiveSessions, came: Came, peer: str, screens: Screens, service: str) -> None:
        self.peer = peer
        self.over = False
        self._live = live
        self._came = came
        self._screens = screens
        self._service = service
        self._terminal = screens.enter(came.session.id, service)

    def open(self, reactor: Any, upgraded: Upgraded, limits: WebSocketLimits) -> None:
        """Begin to look."""
        wire = WebSocketWire(upgraded.engine, replace(limits, queue=BEHIND))
        self.socket = WebSocketMessages(reactor, wire, self)
        EndTransport(reactor, upgraded.end, self.socket).start()
        self._live.attach(self._came.session, self._came.seat, self)
        if not self.over:
            self._terminal.watch(self)

    def see(self, data: bytes) -> None:
        """What the terminal shows."""
        for start in range(0, len(data), PIECE):
            self._send(data[start : start + PIECE])

    # -- as a Line

    def moved(self) -> tuple[int, int]:
        return 0, 0

    def connections(self) -> int:
        return 0

    def say(self, said: dict[str, Any]) -> None:
        self._send(json.dumps(said))

    def end(self, word: str, detail: str) -> None:
        self._gone()
        self.socket.close(close_code(HOW_ENDED.get(word, Ended.OPERATOR)), word)

    def look(self, now: float) -> None:
        """Nothing: its socket has its own signs of life."""

    # -- as the owner of its socket

    def received(self, message: bytes | str) -> None:
        self._cut(Ended.NOT_ALLOWED, "who watches says nothing")

    def may_send(self) -> None:
        """Nothing: who was behind is gone."""

    def closed(self, code: int, reason: str) -> None:
        self._leave()

    # -- inside

    def _send(self, message: bytes | str) -> None:
        if not self.over and not self.socket.send(message):
            self._cut(Ended.STALLED, "it does not keep up")

    def _cut(self, ended: Ended, detail: str) -> None:
        self._leave()
        self.socket.abort(close_code(ended), f"{ended.word}: {detail}")

    def _leave(self) -> None:
        if not self.over:
            self._gone()
            self._live.left(self._came.session, self._came.seat)

    def _gone(self) -> None:
        if not self.over:
            self.over = True
            self._terminal.leave(self)
            self._screens.leave(self._came.session.id, self._service)


class WatchingEnd(RawEnd):
    """A connection to a screen whose keys and pointers are dropped."""

    __slots__ = ("_rfb",)

    def __init__(self, reactor: Any, upgraded: Upgraded, limits: WebSocketLimits) -> None:
        self._rfb = RfbWatching()
        super().__init__(reactor, upgraded, limits)

    def read_into(self, view: memoryview) -> int | None:
        """As ``End`` says."""
        size = super().read_into(view)
        if not size:
            return size
        try:
            passed = self._rfb.take(bytes(view[:size]))
        except ValueError as error:
            self.because(Ended.NOT_ALLOWED, str(error))
            raise ConnectionAbortedError(errno.EPROTO, str(error)) from None
        if not passed:
            self.reads_when_writable = True  # others first; then what comes behind it
            return None
        view[: len(passed)] = passed
        return len(passed)

    def write(self, data: bytes | memoryview) -> int:
        """As ``End`` says."""
        taken = super().write(data)
        self._rfb.heard(bytes(data[: min(taken, 12)]))
        return taken
