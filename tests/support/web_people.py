"""People at a real server: tokens and grants by revtunnelctl, WebSockets by the ``websockets`` package.

::

    ana = Person(server, "ana", ("plc-7", "echo,blob"))     # made, granted, with a token
    with ana.control() as control:
        started = control.ask("start", device="plc-7", services=["echo"])
        with ana.raw(started["session"], "echo", started["nonce"]) as web: ...
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.daemons import Server

__all__ = ["ConnectionClosed", "Control", "Person", "code_of"]

PATIENCE = 30.0  # seconds for an answer, or for the close that comes


class Control:
    """A ``/control`` connection."""

    def __init__(self, web: ClientConnection) -> None:
        self.web = web
        self.hello = json.loads(web.recv(timeout=PATIENCE))
        self._number = 0

    def answer(self, ask: str, **arguments: Any) -> dict[str, Any]:
        """The whole answer."""
        self._number += 1
        self.web.send(json.dumps({"id": self._number, "ask": ask, **arguments}))
        answer: dict[str, Any] = json.loads(self.web.recv(timeout=PATIENCE))
        assert answer["id"] == self._number
        return answer

    def ask(self, ask: str, **arguments: Any) -> dict[str, Any]:
        """What it is answered, when it is."""
        answer = self.answer(ask, **arguments)
        assert "ok" in answer, answer
        found: dict[str, Any] = answer["ok"]
        return found

    def start(self, *services: str, device: str = "plc-7", **more: Any) -> tuple[str, str]:
        """A session, and the nonce that lets its owner in."""
        started = self.ask("start", device=device, services=list(services), **more)
        return started["session"], started["nonce"]


class Person:
    """A user with a token, and a grant of everything for each device and its services."""

    def __init__(self, server: Server, name: str, *grants: tuple[str, str]) -> None:
        self.server = server
        self.name = name
        self.token = server.control("user", "add", name)["token"]
        self.grants = [self.grant(*each) for each in grants]

    def grant(self, device: str, services: str, actions: str = "list,start,end,share") -> str:
        """Let them; the id of the grant."""
        made = self.server.control("grant", self.name, device, services, "--actions", actions)
        return str(made["grant"])

    def open(self, path: str, token: str = "", **more: Any) -> ClientConnection:
        """A WebSocket."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        more.setdefault("proxy", None)
        port = more.pop("port", self.server.web_port)
        scheme = "wss" if "ssl" in more else "ws"
        more |= {"additional_headers": headers, "compression": None, "max_size": None}
        return connect(f"{scheme}://127.0.0.1:{port}{path}", **more)

    @contextlib.contextmanager
    def control(self, **more: Any) -> Iterator[Control]:
        """The lasting connection."""
        with self.open("/control", self.token, subprotocols=["revtunnel.control.1"], **more) as web:
            yield Control(web)

    def raw(self, session: str, service: str, nonce: str, **more: Any) -> ClientConnection:
        """One connection to one service."""
        return self.open(f"/session/raw/{session}/{service}", nonce, **more)


def code_of(web: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close that comes, whatever comes before it."""
    try:
        while True:
            web.recv(timeout=PATIENCE)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "cut without a close"
        return closed.rcvd.code, closed.rcvd.reason
