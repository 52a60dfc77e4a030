"""An MTConnect-shaped service: probe, current, and samples as a stream of parts that never ends by itself.

Rule of this file: what a client sees of a real agent (HTTP/1.1, chunked ``multipart/x-mixed-replace``, parts
with Content-length on time, ``Connection: close``), and no more of the standard than that.

Source: wire/emo.md section 4.
"""

import socket
import time
from urllib.parse import parse_qs, urlsplit

from tests.support.services import Service

__all__ = ["MtConnect", "document", "parts"]

BOUNDARY = "8fdc42a4bd3a5a2c"
BLOCK = bytes(range(256)) * 256  # of a download


def document(kind: str, sequence: int) -> bytes:
    """An XML document that names its number and the time of its making (monotonic, in microseconds)."""
    made = int(time.monotonic() * 1e6)
    head = f'<?xml version="1.0" encoding="UTF-8"?><MTConnect{kind} sequence="{sequence}" made="{made}">'
    return (head + f"<Position>{sequence * 7 % 360}.000</Position></MTConnect{kind}>\n").encode()


class MtConnect(Service):
    """GET /probe, /current, /sample?interval=MS[&count=N], /download?size=N."""

    def serve(self, sock: socket.socket, number: int) -> None:
        """Requests of one connection, one after the other."""
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                more = sock.recv(4096)
                if not more:
                    return
                held += more
            head, _, held = held.partition(b"\r\n\r\n")
            if not self._answer(sock, head.split(b" ", 2)[1].decode("ascii")):
                return

    def _answer(self, sock: socket.socket, path: str) -> bool:
        """Whether the connection stays for another request."""
        parsed = urlsplit(path)
        asked = {name: values[-1] for name, values in parse_qs(parsed.query).items()}
        self.record.add("asked", parsed.path)
        if parsed.path == "/sample" and "interval" in asked:
            self._stream(sock, int(asked["interval"]) / 1000, int(asked.get("count", 1 << 30)))
            return False
        if parsed.path == "/download":
            self._download(sock, int(asked["size"]))
            return False
        known = {"/probe": "Devices", "/current": "Streams", "/sample": "Streams"}.get(parsed.path)
        body = document(known, 1) if known else b"<Error/>\n"
        status = "200 OK" if known else "404 Not Found"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        return True

    def _stream(self, sock: socket.socket, interval: float, count: int) -> None:
        kind = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
        sock.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        due = time.monotonic()
        for sequence in range(1, count + 1):
            body = document("Streams", sequence)
            part = (
                f"--{BOUNDARY}\r\nContent-type: text/xml\r\nContent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            due += interval
            time.sleep(max(0.0, due - time.monotonic()))
        sock.sendall(b"0\r\n\r\n")

    def _download(self, sock: socket.socket, size: int) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        for start in range(0, size, len(BLOCK)):
            sock.sendall(BLOCK[: size - start])


def parts(sock: socket.socket, count: int) -> list[tuple[int, float]]:
    """(number, seconds from its making to its arrival) of so many parts, read as they come."""
    held, found = b"", []
    while len(found) < count:
        data = sock.recv(65536)
        if not data:
            raise AssertionError(f"the stream ended after {len(found)} of {count} parts")
        held += data
        while (end := held.find(b"</MTConnectStreams>")) >= 0:
            text, held = held[:end].decode(), held[end + 19 :]
            made = int(text.rpartition('made="')[2].partition('"')[0]) / 1e6
            number = int(text.rpartition('sequence="')[2].partition('"')[0])
            found.append((number, time.monotonic() - made))
    return found[:count]
