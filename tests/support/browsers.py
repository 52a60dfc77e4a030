"""A browser at the pages of a server: its cookie, and the word that changes want."""

import http.client
import json
import ssl
from typing import Any

from tests.support.daemons import Server

__all__ = ["Browser"]


class Browser:
    """Keeps a cookie and the word for changes."""

    def __init__(self, server: Server, authority: str = "") -> None:
        self.server = server
        self.context = ssl.create_default_context(cafile=authority) if authority else None
        self.cookie = self.word = ""

    def open(self) -> http.client.HTTPConnection:
        """A connection, which is one answer."""
        if self.context is not None:
            return http.client.HTTPSConnection("localhost", self.server.web_port, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.server.web_port)

    def ask(self, method: str, path: str, row: Any = None, **headers: str) -> tuple[int, Any]:
        """Status, and what was answered."""
        said = {"Cookie": self.cookie, "X-CSRF-Token": self.word, **headers}
        body = None if row is None else json.dumps(row)
        if body is not None:
            said["Content-Type"] = "application/json"
        connection = self.open()
        connection.request(method, path, body, {name: value for name, value in said.items() if value})
        answer = connection.getresponse()
        data = answer.read()
        if cookie := answer.getheader("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        connection.close()
        found = json.loads(data) if data.startswith((b"{", b"[")) else data
        if isinstance(found, dict) and "csrf" in found:
            self.word = found["csrf"]
        return answer.status, found
