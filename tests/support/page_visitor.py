"""A person with a program for a browser, at the web pages of devices behind a real server.

::

    ana = Visitor(server, "ana", ("plc-7", "web"))
    page = ana.open("plc-7", "web")                      # a session, the word, and its cookie
    assert page.ask("GET", "/").status == 200
"""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from tests.support.daemons import Server
from tests.support.web_people import Person

__all__ = ["Opened", "Visitor"]


class Visitor(Person):
    """Somebody with a token, at a web listener."""

    def __init__(self, server: Server, name: str, *grants: tuple[str, str], port: int = 0) -> None:
        super().__init__(server, name, *grants)
        self.port = port or server.web_port

    def api(self, method: str, path: str, row: Any = None) -> tuple[int, Any]:
        """What the HTTP API answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, f"/api/v1{path}", None if row is None else json.dumps(row), headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, json.loads(data) if data else None

    def session(self, serial: str, *services: str) -> str:
        """One, started."""
        status, row = self.api("POST", "/my/sessions", {"device": serial, "services": list(services)})
        assert status == 200, row
        return str(row["session"])

    def url(self, session: str, service: str) -> str:
        """Where its page is opened, once."""
        status, row = self.api("POST", f"/my/sessions/{session}/page", {"service": service})
        assert status == 200, row
        return str(row["url"])

    def open(self, serial: str = "plc-7", service: str = "web") -> "Opened":
        """A session, and a browser in it."""
        session = self.session(serial, service)
        return Opened(session, self.url(session, service))


class Opened:
    """A browser that went where a page is opened: its place, its one cookie of ours, its answers."""

    def __init__(self, session: str, url: str) -> None:
        parts = urlsplit(url)
        self.session = session
        self.host = parts.netloc
        self.port = parts.port or 80
        self.entrance = f"{parts.path}?{parts.query}"
        self.cookie = ""
        self.entered = self.ask("GET", self.entrance)
        said = self.entered.getheader("Set-Cookie", "")
        self.attributes = said.partition(";")[2]
        self.cookie = said.partition(";")[0]

    def connection(self) -> http.client.HTTPConnection:
        """One that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        on: http.client.HTTPConnection | None = None,
        **more: str,
    ) -> http.client.HTTPResponse:
        """An answer, not read yet, on a connection of its own or ``on``; ``__`` in a name is a hyphen."""
        connection = on or self.connection()
        headers = {"Host": self.host, "Cookie": self.cookie}
        headers |= {name.replace("__", "-"): value for name, value in more.items()}
        said = {name: value for name, value in headers.items() if value}
        connection.request(method, path, body, said, encode_chunked=not isinstance(body, bytes | None))
        return connection.getresponse()

    def read(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, bytes]:
        """Status and body."""
        answer = self.ask(method, path, body, **more)
        return answer.status, answer.read()

    def raw(self, data: bytes) -> socket.socket:
        """A connection on which this was said; HOST and COOKIE stand for what they are."""
        sock = socket.create_connection(("127.0.0.1", self.port), 20)
        host, cookie = self.host.encode(), self.cookie.encode()
        sock.sendall(data.replace(b"HOST", host).replace(b"COOKIE", b"Cookie: " + cookie))
        return sock

    def said(self, data: bytes) -> bytes:
        """All that is answered to it, up to the end."""
        found = b""
        with self.raw(data) as sock:
            try:
                while piece := sock.recv(65536):
                    found += piece
            except ConnectionResetError:
                found += b"<reset>"
        return found
