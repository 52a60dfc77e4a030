"""What may become a WebSocket at a web listener: a route for each kind, chosen by how its path begins.

::

    class Echo:
        prefix, browsers = "/echo/", False

        def judge(self, call, offered):             # refuse, or name the subprotocol; "": none
            if "echo.1" not in offered:
                raise HandshakeRefused(400, "subprotocol echo.1 wanted")
            call.found = call.path.removeprefix("/echo/")
            return "echo.1"

        def opened(self, call, upgraded):           # the connection is the route's own from now on
            ...

    listener.routes.append(Echo())

The rules: ``judge`` is asked when all else about a request is right, and may use up what it was shown. If the
connection is lost before the answer was taken, ``call.undo`` is called in place of ``opened``, exactly one of
the two. A prefix that ends with a slash stands for all behind it, another one
for itself; the longest that fits is asked. A page of another origin never gets here, one of ours only where
the route has ``browsers``.

Source: next/remote-sessions.md sections 1 and 2; ours.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from revtunnel.sockets.ways.websocket_upgrade import Request, Upgraded

__all__ = ["WebCall", "WebRoute", "bearer", "route_of"]


@dataclass(slots=True)
class WebCall:
    """One request for a WebSocket. ``peer`` is HOST:PORT of the client, as a PROXY header names it."""

    request: Request
    path: str  # without the query, as it was sent: nothing is decoded
    query: str
    peer: str
    secure: bool  # over TLS of ours
    origin: str | None  # of the page that asks; None: a program
    listener: str
    reason: str = ""  # ``judge`` may name a refusal for counters and log; "": its status does
    found: Any = None  # the route's
    undo: Callable[[], None] | None = field(default=None, repr=False)


class WebRoute(Protocol):
    """One kind of WebSocket."""

    prefix: str
    browsers: bool  # whether pages of ours may ask

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        """Which of the offered subprotocols is spoken, "" for none.

        Raises:
            HandshakeRefused: with the HTTP status and a sentence, which the other side is told. 401, 403 and
                410 cost its address a penalty.
        """

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        """The handshake is done, and the connection is the route's: it ends it, whatever happens."""


def route_of(routes: Iterable[WebRoute], path: str) -> WebRoute | None:
    """Who is asked for a path."""
    found = [each for each in routes if _fits(each.prefix, path)]
    return max(found, key=lambda each: len(each.prefix), default=None)


def bearer(request: Request) -> str:
    """The credentials of ``Authorization: Bearer``; "" where there are none, or more than one."""
    said = request.headers.get_all("Authorization")
    scheme, _, text = said[0].partition(" ") if len(said) == 1 else ("", "", "")
    return text.strip() if scheme.lower() == "bearer" else ""


def _fits(prefix: str, path: str) -> bool:
    return path.startswith(prefix) if prefix.endswith("/") else path == prefix
