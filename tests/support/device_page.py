"""The web server of a device: what such pages do, and what a bad one tries; with ``context`` by HTTPS.

Rule of this file: the standard library's server, one thread a connection, and the ``websockets`` package for
WebSockets; what came is in ``record``. What the library would not send is written by hand.

Source: RFC 9110, RFC 9112.
"""

import contextlib
import hashlib
import json
import ssl
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.support.services import Record, Running, pseudo_random, reset

__all__ = ["BLOB", "MIB", "DevicePage"]

MIB = 1024 * 1024
BLOB = 50 * MIB
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>press 7</title>
<style>body { font: 16px sans-serif; margin: 2em }</style>
<h1>Press 7</h1><p id="user">nobody</p><p id="socket">no socket</p><p id="tried">nothing tried</p>
<form method="post" action="/login"><input name="user" value="op"><button>Log in</button></form>
<script src="/script"></script></html>"""
_SCRIPT = b"""
const put = (id, text) => (document.getElementById(id).textContent = text);
put("user", document.cookie || "no cookie seen");
const web = new WebSocket(location.origin.replace("http", "ws") + "/ws");
web.onopen = () => web.send("hello");
web.onmessage = ({ data }) => put("socket", data);
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def do_GET(self) -> None:
        """Any method."""
        path = urlsplit(self.path).path.strip("/").replace("-", "_")
        self.server.record.add("asked", self.command, self.path)
        work = getattr(self, f"at_{path or 'page'}", None)
        if work is None:
            self.say(404, b"no such thing")
        else:
            work()

    do_HEAD = do_POST = do_PUT = do_OPTIONS = do_DELETE = do_GET

    def say(
        self, status: int, body: bytes = b"", *headers: tuple[str, str], kind: str = "text/plain"
    ) -> None:
        """An answer of known length."""
        self.send_response(status)
        for each in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(*each)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def raw(self, *pieces: bytes) -> None:
        """Bytes, and the end of the connection."""
        for each in pieces:
            self.wfile.write(each)
        self.close_connection = True

    def body(self) -> Any:
        """Of a request, piece by piece."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while (line := self.rfile.readline().strip()) != b"":
                self.server.record.add("trailer", line.decode())
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left and (data := self.rfile.read(min(left, 65536))):
                left -= len(data)
                yield data

    # -- what a page does

    def at_page(self) -> None:
        self.say(200, _PAGE, kind="text/html; charset=utf-8")

    def at_script(self) -> None:
        self.say(200, _SCRIPT, kind="text/javascript")

    def at_login(self) -> None:
        list(self.body())
        cookies = "sid=secret; Path=/; HttpOnly; Domain=localhost", "seen=op; Path=/; SameSite=Lax"
        self.say(303, b"", *(("Set-Cookie", each) for each in cookies), ("Location", "/"))

    def at_fields(self) -> None:
        """What came, as JSON."""
        self.say(200, json.dumps([*self.headers.items()]).encode(), kind="application/json")

    def at_digest(self) -> None:
        """Size and hash of a body."""
        seen, size = hashlib.sha256(), 0
        if self.headers.get("Expect"):
            self.server.record.add("expected", self.headers["Expect"])  # the library has said 100 already
        for data in self.body():
            seen.update(data)
            size += len(data)
        self.say(200, json.dumps([size, seen.hexdigest()]).encode())

    def at_blob(self) -> None:
        """50 MiB, or a range of it; as a browser's player asks."""
        if said := self.headers.get("Range"):
            first, last = (int(each) for each in said.removeprefix("bytes=").split("-"))
            span = f"bytes {first}-{last}/{BLOB}"
            self.say(206, next(pseudo_random(BLOB))[first : last + 1], ("Content-Range", span))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(BLOB))
        self.end_headers()
        sent = 0
        for data in pseudo_random(BLOB) if self.command != "HEAD" else ():
            self.wfile.write(data)
            sent += len(data)
            self.server.record.add("sent", sent // MIB)

    def at_chunked(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        self.wfile.write(head + b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\nSet-Cookie: a=b\r\n\r\n")

    def at_until_close(self) -> None:
        self.raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"to the end")

    def at_events(self) -> None:
        """Server-sent events, each when the test says so."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        self.close_connection = True
        number = 0
        while not self.server.over.is_set():
            number += 1
            self.server.go[self.path].acquire()
            self.wfile.write(b"data: %d\n\n" % number)
            self.server.record.add("event", number)

    def at_hang(self) -> None:
        """No answer; says when its caller has gone."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.server.record.add("hung up", self.path)

    def at_ws(self) -> None:
        """A WebSocket that says everything in capitals."""
        engine = ServerProtocol()
        lines = f"GET {self.path} HTTP/1.1\r\n{self.headers}".replace("\r\n", "\n").replace("\n", "\r\n")
        engine.receive_data(lines.encode())
        while True:
            for event in engine.events_received():
                if isinstance(event, Request):
                    engine.send_response(engine.accept(event))
                elif event.data and event.opcode in (1, 2):
                    engine.send_text(event.data.upper())
            for data in engine.data_to_send():
                self.connection.sendall(data) if data else self.connection.shutdown(1)
            came = self.connection.recv(65536)
            if not came:
                break
            engine.receive_data(came)
        self.close_connection = True
        self.server.record.add("socket over")

    def at_shout(self) -> None:
        """Another protocol than WebSocket."""
        head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n"
        self.wfile.write(head + b"LOUD ")
        while data := self.connection.recv(65536):
            self.wfile.write(data.upper())
        self.raw(b"OVER")

    def at_redirect(self) -> None:
        host = self.headers["Host"]
        self.say(302, b"", ("Location", f"http://{host}/fields?a=1#b"), ("Refresh", f"5; url=//{host}/"))

    # -- what a bad one tries

    def at_toss(self) -> None:
        names = "__Host-Http-rt-page", "__host-http-RT-page", "__Host-rt", "rt-page", "good"
        cookies = [f"{name}=evil; Path=/; Secure" for name in names]
        cookies += ["=__Host-Http-rt-page=evil", "__Host-Http-rt-page", "a=1; Domain=pages.localhost"]
        harm = ("Strict-Transport-Security", "max-age=99; includeSubDomains"), ("Clear-Site-Data", '"*"')
        more = ("Alt-Svc", 'h3=":443"'), ("Content-Security-Policy", "default-src 'self'"), ("X-Html", "<b>&")
        self.say(200, b"", *(("Set-Cookie", each) for each in cookies), *harm, *more)

    def at_large_head(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nX-Large: " + b"x" * MIB + b"\r\nContent-Length: 0\r\n\r\n")

    def at_two_lengths(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    def at_split(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: b=c\r\nContent-Length: 0\r\n\r\n")

    def at_no_http(self) -> None:
        self.raw(b"SSH-2.0-x\r\n")

    def at_short(self) -> None:
        """Less than it said, in order."""
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    def at_cut(self) -> None:
        """An answer to the end of file that does not come in order."""
        self.raw(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)
        self.wfile.flush()
        self.server.go[self.path].acquire()
        reset(self.connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.record = Record()
        self.go: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))
        self.over = threading.Event()
        self.context = context

    def get_request(self) -> Any:
        sock, address = super().get_request()
        self.record.add("connected")
        if self.context is not None:
            sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who hangs up is no fault."""


class DevicePage(Running):
    """One; ``go`` lets the next event, or a cut, happen."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._server = _Server(context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.record = self._server.record

    @property
    def target(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self._server.server_port}"

    def go(self, path: str) -> None:
        """What was asked for by this path goes on by one step."""
        self._server.go[path].release()

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve nobody any more."""
        if not self._server.over.is_set():
            self._server.over.set()
            for each in self._server.go.values():
                each.release(100)
            self._server.shutdown()
            self._server.server_close()
