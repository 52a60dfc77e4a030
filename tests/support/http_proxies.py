"""A small HTTP proxy on loopback with the manners, good and bad, that proxies have.

Rule of this file: as in services.py: plain blocking sockets and threads, nothing of the project.

::

    with HttpProxy(hosts={"gate.test": ("127.0.0.1", port)}, credentials="me:s3cret") as proxy:
        ...
        proxy.record.wait("CONNECT", "gate.test:2065")
"""

import base64
import contextlib
import socket
import threading
from collections.abc import Mapping

from tests.support.services import Service, hang_up

__all__ = ["REALM", "HttpProxy"]

REALM = "plant 4"
OK = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 a-test\r\n\r\n"
ANSWERS = {
    "forbids": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "endless": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000,
    "half": b"HTTP/1.1 200 OK\r\n",
}


class HttpProxy(Service):
    """Answers CONNECT. Records ("CONNECT", "host:port"), and ("refused", why) where it connects nobody.

    ``manner``: "connects"; "splits" its head into single bytes; "waits" for the server's first bytes and
    sends them with its head in one segment; "silent"; or one of ANSWERS. ``hosts``: names that only it knows.
    """

    def __init__(
        self,
        manner: str = "connects",
        hosts: Mapping[str, tuple[str, int]] | None = None,
        credentials: str = "",
    ) -> None:
        super().__init__()
        self.manner = manner
        self.hosts = dict(hosts or {})
        self.credentials = credentials

    @property
    def url(self) -> str:
        """As settings and environment want it."""
        return f"http://{self.target}"

    def serve(self, sock: socket.socket, number: int) -> None:
        """One request."""
        head = self._head(sock)
        where = head.split()[1].decode() if head.startswith(b"CONNECT ") else ""
        self.record.add("CONNECT", where)
        wanted = b"Proxy-Authorization: Basic " + base64.b64encode(self.credentials.encode())
        if self.credentials and wanted not in head.split(b"\r\n"):
            self.record.add("refused", "authentication")
            sock.sendall(f'HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm="{REALM}"\r\n\r\n'.encode())
        elif self.manner == "silent":
            self.read_to_end(sock, number)
        elif self.manner in ANSWERS:
            self.record.add("refused", self.manner)
            with contextlib.suppress(OSError):
                sock.sendall(ANSWERS[self.manner])
        else:
            self._connect(sock, where)

    def _head(self, sock: socket.socket) -> bytes:
        """The request, read byte by byte so that nothing behind it is touched."""
        head = b""
        while not head.endswith(b"\r\n\r\n") and (byte := sock.recv(1)):
            head += byte
        return head

    def _connect(self, sock: socket.socket, where: str) -> None:
        host, _, port = where.rpartition(":")
        far = socket.create_connection(self.hosts.get(host, (host.strip("[]"), int(port))), 10)
        far.settimeout(None)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with far:
            if self.manner == "waits":
                sock.sendall(OK + far.recv(1000))
            else:
                size = 1 if self.manner == "splits" else len(OK)
                for at in range(0, len(OK), size):
                    sock.sendall(OK[at : at + size])
            back = threading.Thread(target=self._pass_on, args=(far, sock), daemon=True)
            back.start()
            self._pass_on(sock, far)
            back.join(10)

    @staticmethod
    def _pass_on(near: socket.socket, far: socket.socket) -> None:
        """One direction; a reset of one side is one of the other."""
        try:
            while data := near.recv(65536):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            hang_up(near)
            hang_up(far)
