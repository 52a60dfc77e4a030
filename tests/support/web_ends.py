"""Two joined WebSockets, shaken hands, over a socketpair, TCP or TLS; and an End that gives and takes little.

::

    client, server = join_upgraded(loop)                       # what a face is put on
    near, far = join_web_ends(loop, tls=True, texts="bytes")   # both as Ends
"""

import socket
from typing import Any

from twisted.internet.defer import Deferred
from websockets.datastructures import Headers
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI

from revtunnel.sockets.ends import End, PlainEnd, TlsEnd
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_halves import HalfClosingEnd
from revtunnel.sockets.ways.websocket_upgrade import (
    Request,
    Upgraded,
    UpgradeRequest,
    accept_end,
    connect_end,
)
from revtunnel.sockets.ways.websocket_wire import ClientEngine, ServerEngine, WebSocketLimits, logger
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop
from tests.support.throwaway_tls import contexts

__all__ = ["ASKED", "LIMITS", "SmallEnd", "anybody", "end_pair", "halves", "join_upgraded", "join_web_ends"]

LIMITS = WebSocketLimits()
ASKED = UpgradeRequest("gate.example", 2443, "/session/client/1", subprotocols=("revtunnel.session.1",))


def anybody(request: Request, offered: tuple[str, ...]) -> str:
    """A judge who lets everybody in, with the first subprotocol."""
    return offered[0] if offered else ""


class SmallEnd(End):
    """An End of another that reads and writes at most so many bytes a call."""

    __slots__ = ("inner", "most")

    def __init__(self, inner: End, most: int) -> None:
        super().__init__(inner.sock, inner.peer)
        self.inner = inner
        self.most = most

    @property
    def pending(self) -> bool:
        """As the other's."""
        return self.inner.pending

    def read_into(self, view: memoryview) -> int | None:
        """At most ``most`` bytes."""
        return self.inner.read_into(view[: self.most])

    def write(self, data: bytes | memoryview) -> int:
        """At most ``most`` bytes."""
        return self.inner.write(memoryview(data)[: self.most])

    def end_writing(self) -> bool:
        """As the other's."""
        return self.inner.end_writing()

    def close(self) -> None:
        """As the other's."""
        self.inner.close()

    def abort(self) -> None:
        """As the other's."""
        self.inner.abort()


def end_pair(tls: bool = False, tcp: bool = False, most: int = 0) -> tuple[End, End]:
    """Two joined ends, over TLS shaken; ``most``: bytes a call."""
    pair = tcp_pair() if tcp else socket.socketpair()
    ends: tuple[End, End] = PlainEnd(pair[0]), PlainEnd(pair[1])
    if tls:
        server, client = contexts()
        near = TlsEnd.connecting(client.getContext(), pair[0])
        far = TlsEnd.accepting(server.getContext(), pair[1])
        done = [False, False]
        while not all(done):
            done = [was or end.handshake() for was, end in zip(done, (near, far), strict=True)]
        ends = near, far
    return (SmallEnd(ends[0], most), SmallEnd(ends[1], most)) if most else ends


def join_upgraded(
    loop: Loop, asked: UpgradeRequest = ASKED, limits: WebSocketLimits = LIMITS, **how: Any
) -> tuple[Upgraded, Upgraded]:
    """A client and a server whose handshake is done; ``how`` as for ``end_pair``."""
    near, far = end_pair(**how)
    accepting = Deferred.fromCoroutine(accept_end(loop.reactor, far, anybody, limits))
    connecting = Deferred.fromCoroutine(connect_end(loop.reactor, near, asked, limits))
    return loop.wait(connecting), loop.wait(accepting)


def join_web_ends(
    loop: Loop, limits: WebSocketLimits = LIMITS, **options: Any
) -> tuple[WebSocketEnd, WebSocketEnd]:
    """A client's and a server's end; ``texts`` and ``clean`` are for both, the rest for ``end_pair``."""
    face = {name: options.pop(name) for name in ("texts", "clean") if name in options}
    client, server = join_upgraded(loop, limits=limits, **options)
    return (
        WebSocketEnd(loop.reactor, client, limits, **face),
        WebSocketEnd(loop.reactor, server, limits, **face),
    )


def halves(reactor: Any, near: End, far: End) -> tuple[HalfClosingEnd, HalfClosingEnd]:
    """Two joined ends as WebSockets whose directions end one by one; the handshake is left out."""
    request = Request("/link", Headers())
    client = ClientEngine(WebSocketURI(False, "gate.example", 80, "/link", ""), state=OPEN, logger=logger)
    server = ServerEngine(state=OPEN, logger=logger)
    return (
        HalfClosingEnd(reactor, Upgraded(near, client, "", request), LIMITS),
        HalfClosingEnd(reactor, Upgraded(far, server, "", request), LIMITS),
    )
