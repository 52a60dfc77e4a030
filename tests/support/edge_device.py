"""A ThingWorx device: what PTC's Edge C SDK does with a platform, on blocking sockets, with bytes of its own.

Nothing of the package is used: AlwaysOn and WebSocket are written out here, as the SDK has them. It masks
with zeros, answers no ping, never says more than one request at a time, and on its tunnels reads and writes
by turns. The end of a service is told with DISCONNECT, again and again until the platform has said
DISCONNECT; that of a tunnel with CANCEL, and its WebSocket then closed with 1000.

    with EdgeDevice(("127.0.0.1", port), key, "Robot1") as device:
        device.wait_until_bound()

Source: next/remote-sessions.md section 4; the public Edge C SDK 2.2.1 (twTunnelManager.c, twWebsocket.c).
"""

import base64
import contextlib
import hashlib
import json
import os
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Self

__all__ = ["Broken", "EdgeDevice", "Tunnel", "WebClient", "auth", "bind", "fields_of", "request"]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PATIENCE = 20.0  # seconds
Address = tuple[str, int]


class Broken(Exception):
    """The platform did what the SDK does not bear."""


class WebClient:
    """A WebSocket as the SDK's: no masks worth the name, no frame over ``frame`` bytes."""

    def __init__(self, sock: socket.socket, path: str, key: str, frame: int = 8192) -> None:
        self.sock = sock
        self.frame = frame
        self.largest = 0  # frame that came
        self._buffer = b""
        self._parts = b""
        self._lock = threading.Lock()
        sock.settimeout(PATIENCE)
        nonce = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {path} HTTP/1.1",
            "User-Agent: ThingWorx C SDK",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Host: 127.0.0.1",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {nonce.decode()}",
            f"Max-Frame-Size: {frame}",
            f"appKey: {key}",
            "Sec-WebSocket-Extensions: permessage-deflate",
        ]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.early = len(self._buffer)  # bytes in one reading with the answer, which the SDK drops
        self.answer = head.decode()
        accept = base64.b64encode(hashlib.sha1(nonce + GUID).digest()).decode()
        if " 101 " not in self.answer.split("\r\n")[0]:
            raise Broken(self.answer.split("\r\n")[0])
        assert f"sec-websocket-accept: {accept}".lower() in self.answer.lower()
        assert "extensions" not in self.answer.lower()

    def send(self, opcode: int, payload: bytes) -> None:
        """One frame."""
        size = len(payload)
        assert size <= self.frame
        head = (
            bytes((0x80 | opcode, 0x80 | size))
            if size < 126
            else struct.pack("!BBH", 0x80 | opcode, 254, size)
        )
        with self._lock:
            self.sock.sendall(head + b"\0\0\0\0" + payload)

    def receive(self) -> tuple[int, bytes]:
        """The next message, or control frame."""
        while True:
            self._need(2)
            first, size = self._buffer[0], self._buffer[1]
            at = 2
            if size == 126:
                self._need(4)
                size, at = int.from_bytes(self._buffer[2:4], "big"), 4
            elif size == 127:
                raise Broken("a frame of 64 KiB or more")
            if size > self.frame:
                raise Broken(f"a frame of {size} bytes, Max-Frame-Size {self.frame}")
            self._need(at + size)
            payload, self._buffer = self._buffer[at : at + size], self._buffer[at + size :]
            self.largest = max(self.largest, size)
            opcode = first & 15
            if opcode >= CLOSE:
                return opcode, payload
            self._parts += payload
            self._opcode = opcode or self._opcode
            if first & 0x80:
                whole, self._parts = self._parts, b""
                return self._opcode, whole

    @property
    def readable(self) -> bool:
        """Whether a frame begins to be there."""
        return bool(self._buffer or select.select([self.sock], [], [], 0)[0])

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise Broken("the platform hung up")
        self._buffer += data


# -- AlwaysOn


def string(text: str) -> bytes:
    """A string below 128 bytes, or a longer one."""
    data = text.encode()
    return (bytes((len(data),)) if len(data) < 128 else struct.pack("!I", 0x80000000 | len(data))) + data


def head(code: int, number: int, session: int, endpoint: int = 0) -> bytes:
    """A message's head."""
    return struct.pack("!BBIIIB", 1, code, number, endpoint, session, 0)


def auth(key: str) -> bytes:
    """AUTH, which is request 1."""
    return head(0x14, 1, 0xFFFFFFFF) + b"\1" + string("appKey") + string(key)


def bind(session: int, *names: str, number: int = 2, code: int = 0x0A) -> bytes:
    """BIND."""
    return head(code, number, session) + b"\0" + struct.pack("!H", len(names)) + b"".join(map(string, names))


def request(session: int, number: int, thing: str, service: str, **fields: str) -> bytes:
    """A POST with strings."""
    shape = b"".join(b"\1" + string(name) + b"\0\0\0\0" for name in fields)
    row = struct.pack("!H", len(fields)) + b"".join(b"\0" + string(value) for value in fields.values())
    table = b"\5" + shape + b"\0\1" + row + b"\0"
    return head(3, number, session) + b"\x0a" + string(thing) + b"\2" + string(service) + b"\0" + table


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        found, self.data = self.data[:size], self.data[size:]
        assert len(found) == size
        return found

    def string(self) -> str:
        size = self.take(1)[0]
        if size > 127:
            size = int.from_bytes(bytes((size & 127,)) + self.take(3), "big")
        return self.take(size).decode()


def fields_of(body: bytes) -> tuple[str, str, dict[str, Any]]:
    """Thing, service and parameters of a POST's body."""
    reader = _Reader(body)
    assert reader.take(1) == b"\x0a"
    thing = reader.string()
    assert reader.take(1) == b"\2"
    service = reader.string()
    assert reader.take(2) == b"\0\5"
    names = []
    while reader.take(1) == b"\1":
        names.append(reader.string())
        reader.string()
        reader.take(1 + 2)
    assert reader.take(3) == b"\1" + struct.pack("!H", len(names))
    found: dict[str, Any] = {}
    for name in names:
        kind = reader.take(1)[0]
        found[name] = reader.string() if kind == 0 else struct.unpack("!i", reader.take(4))[0]
    assert reader.data == b"\0"
    return thing, service, found


# -- the device


class Tunnel(threading.Thread):
    """One tunnel: its WebSocket and the service, by turns."""

    def __init__(self, device: "EdgeDevice", fields: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.fields = fields
        self.tid = str(fields["tid"])
        self.told = threading.Event()  # DISCONNECT
        self.completed = threading.Event()  # CompleteTunnel
        self.drops = False  # at the service's end, without a word
        self.early = 0
        self.sent = 0  # bytes to the platform
        self.received = 0

    def run(self) -> None:
        device = self.device
        chunk = int(self.fields["chunksize"])
        sock = device.dial()
        try:
            web = WebClient(sock, f"/Thingworx/WSTunnelServer/{self.tid}", device.key, chunk * 4 // 3)
        except (Broken, OSError) as error:
            device.failures.append(f"tunnel: {error}")
            device.command(self.tid, "CANCEL")
            sock.close()
            return
        self.early = web.early
        place = json.loads(str(self.fields["connection"]))
        try:
            service: socket.socket | None = socket.create_connection((place["host"], place["port"]), 5)
        except OSError:
            service = None
        try:
            self._pump(web, service, chunk - 16)
        except (Broken, OSError) as error:
            device.failures.append(f"tunnel: {error}")
        finally:
            if service is not None:
                service.close()
            device.command(self.tid, "CANCEL")
            with contextlib.suppress(OSError):
                web.send(CLOSE, b"\x03\xe8Normal Close Tunnel stopped by edge")
            sock.close()
            device.tunnels.pop(self.tid, None)

    def _pump(self, web: WebClient, service: socket.socket | None, most: int) -> None:
        while not (self.completed.is_set() or self.told.is_set() or self.device.stopping):
            sockets = [web.sock] if service is None else [web.sock, service]
            ready = select.select(sockets, [], [], 0.01)[0]
            if service is None:
                self.device.command(self.tid, "DISCONNECT")
            elif service in ready:
                try:
                    data = service.recv(most)
                except OSError:
                    data = b""
                if data:
                    web.send(TEXT, base64.b64encode(data))
                    self.sent += len(data)
                elif self.drops:
                    web.sock.close()
                    return
                else:
                    service.close()
                    service = None
            while web.readable:
                opcode, payload = web.receive()
                if opcode == CLOSE:
                    return
                if opcode != TEXT:
                    raise Broken(f"opcode {opcode} on a tunnel")
                data = base64.b64decode(payload, validate=True)
                if len(data) > most + 16:
                    raise Broken(f"{len(data)} bytes at once")
                self.received += len(data)
                if service is None:
                    return
                service.sendall(data)


class EdgeDevice:
    """One device and its link; ``dial`` makes a connection to the platform, TLS included."""

    def __init__(
        self, address: Address, key: str, serial: str, dial: Callable[[], socket.socket] | None = None
    ) -> None:
        self.key = key
        self.serial = serial
        self.session = 0
        self.stopping = False
        self.failures: list[str] = []
        self.answers: dict[int, tuple[int, bytes]] = {}  # to its requests: code and body
        self.bound = threading.Event()
        self.tunnels: dict[str, Tunnel] = {}
        self.started: list[dict[str, Any]] = []  # what each StartTunnel said
        self.refuses = False  # every StartTunnel
        self.drops = False  # every tunnel, when its service ends
        self.dial = dial or (lambda: socket.create_connection(address, PATIENCE))
        self._numbers = 2
        self._asking = threading.Lock()
        self._answered: queue.Queue[int] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.web: WebClient | None = None

    def __enter__(self) -> Self:
        self.web = WebClient(self.dial(), "/Thingworx/WS", self.key)
        self.web.send(BINARY, auth(self.key))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, as a device does that loses its power."""
        self.stopping = True
        if self.web is not None:
            with contextlib.suppress(OSError):
                self.web.sock.shutdown(socket.SHUT_RDWR)
            self.web.sock.close()
        self._thread.join(PATIENCE)
        for tunnel in [*self.tunnels.values()]:
            tunnel.join(PATIENCE)

    def wait_until_bound(self) -> None:
        """It is a device of the platform."""
        assert self.bound.wait(PATIENCE), self.failures

    def ask(self, message: bytes) -> int:
        """Say a request, and wait for its answer: the code."""
        number = int.from_bytes(message[2:6], "big")
        with self._asking:
            assert self.web is not None
            with contextlib.suppress(OSError):
                self.web.send(BINARY, message)
            while number not in self.answers and not self.stopping:
                with contextlib.suppress(queue.Empty):
                    self._answered.get(timeout=0.1)
            return self.answers.get(number, (0, b""))[0]

    def number(self) -> int:
        """Of one more request."""
        self._numbers += 1
        return self._numbers

    def command(self, tid: str, command: str) -> int:
        """TunnelCommandFromEdge."""
        fields = {"tid": tid, "command": command}
        return self.ask(request(self.session, self.number(), self.serial, "TunnelCommandFromEdge", **fields))

    def _run(self) -> None:
        try:
            while not self.stopping:
                assert self.web is not None
                opcode, payload = self.web.receive()
                if opcode == BINARY:
                    self._take(payload)
                elif opcode == CLOSE:
                    raise Broken(f"closed: {payload[:2].hex()} {payload[2:]!r}")
        except (Broken, OSError) as error:
            if not self.stopping:
                self.failures.append(str(error))
        self.stopping = True

    def _take(self, message: bytes) -> None:
        version, code, number, _, session, parts = struct.unpack_from("!BBIIIB", message)
        body = message[15:]
        assert (version, parts) == (1, 0)
        if code >= 0x40:
            self.answers[number] = code, body
            self._answered.put(number)
            if number == 1 and code == 0x40:
                self.session = session
                assert self.web is not None
                self.web.send(BINARY, bind(session, self.serial))
            elif number == 2 and code == 0x40:
                self.bound.set()
            return
        assert (code, session) == (3, self.session)
        thing, service, fields = fields_of(body)
        assert thing == self.serial
        answer = self._serve(service, fields)
        assert self.web is not None
        self.web.send(BINARY, head(answer, number, session) + b"\0\xff")

    def _serve(self, service: str, fields: dict[str, Any]) -> int:
        tunnel = self.tunnels.get(str(fields["tid"]))
        if service == "StartTunnel":
            self.started.append(fields)
            if self.refuses:
                return 0xA0
            made = self.tunnels[str(fields["tid"])] = Tunnel(self, fields)
            made.drops = self.drops
            made.start()
            return 0x40
        if tunnel is None:
            return 0x80
        if service == "TunnelCommandToEdge" and fields["command"] == "DISCONNECT":
            tunnel.told.set()
        elif service == "CompleteTunnel":
            assert fields["peer_name"]
            tunnel.completed.set()
        return 0x40
