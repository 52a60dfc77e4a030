"""AWS's localproxy, either mode and each version of its wire, on blocking sockets; and the real program.

The models speak as 3.3.1 was seen to: a source offers subprotocol 3.0 whatever it speaks, V1 names no
service, only V3 has numbers of connections; a source that loses its local program says RESET, and so does a
destination whose service ends. WebSocket messages are of any size, for they are one byte stream.

Source: next/remote-sessions.md section 5.
"""

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from revtunnel.systems.sessions.localproxy import (
    LocalproxyDecoder,
    LocalproxyMessage,
    LocalproxyType,
    encode_localproxy,
)

__all__ = ["Destination", "RealLocalproxy", "Source", "open_tunnel"]

T, M = LocalproxyType, LocalproxyMessage
PATIENCE = 20.0  # seconds


def open_tunnel(
    port: int, mode: str, token: str, client_token: str = "", offers: int = 3
) -> ClientConnection:
    """The WebSocket; ``offers``: the version that its subprotocol names."""
    headers = {"access-token": token} | ({"client-token": client_token} if client_token else {})
    more: dict[str, Any] = {"legacy": True, "compression": None, "max_size": None, "proxy": None}
    return connect(
        f"ws://127.0.0.1:{port}/tunnel?local-proxy-mode={mode}",
        additional_headers=headers,
        subprotocols=[f"aws.iot.securetunneling-{offers}.0"],  # type: ignore[list-item]
        **more,
    )


class _Model:
    """A WebSocket, its messages, and a thread that reads them."""

    def __init__(self, web: ClientConnection, version: int) -> None:
        self.web = web
        self.version = version
        self.services: tuple[str, ...] = ()
        self.closed: ConnectionClosed | None = None
        self.seen: list[LocalproxyMessage] = []
        self._decoder = LocalproxyDecoder()
        self._changed = threading.Condition()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        self.wait(lambda: self.services, "SERVICE_IDS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the WebSocket."""
        self.web.close()
        self._thread.join(PATIENCE)

    def wait(self, true: Callable[[], Any], what: str) -> Any:
        """Until it is so."""
        with self._changed:
            assert self._changed.wait_for(true, PATIENCE), f"waited for {what}"
            return true()

    def say(self, kind: LocalproxyType, service: str, stream: int, number: int, data: bytes = b"") -> None:
        """One message, with the fields of its version."""
        name = service if self.version > 1 else ""
        wire = encode_localproxy(M(kind, stream, data, name, (), number if self.version == 3 else 0))
        with self._lock, contextlib.suppress(ConnectionClosed):
            self.web.send(wire[:3])
            self.web.send(wire[3:])

    def took(self, message: LocalproxyMessage) -> None:
        """A message came."""

    def over(self) -> None:
        """The WebSocket is over."""

    def _run(self) -> None:
        try:
            while True:
                data = self.web.recv()
                assert isinstance(data, bytes)
                for message in self._decoder.receive(data):
                    with self._changed:
                        self.seen.append(message)
                        if message.type == T.SERVICE_IDS:
                            self.services = message.names
                        else:
                            self.took(message)
                        self._changed.notify_all()
        except ConnectionClosed as closed:
            with self._changed:
                self.closed = closed
                self.over()
                self._changed.notify_all()


class Source(_Model):
    """A localproxy in source mode; a connection is a number that ``open`` gives."""

    def __init__(self, web: ClientConnection, version: int = 3) -> None:
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self._where: dict[int, tuple[str, int, int]] = {}
        self._streams: dict[str, int] = {}
        self._numbers = 0
        super().__init__(web, version)

    def open(self, service: str) -> int:
        """A connection; before version 3 it ends the one before."""
        self._numbers += 1
        fresh = service not in self._streams or self.version < 3
        if fresh:
            self._streams[service] = self._streams.get(service, 0) + 1
        where = service, self._streams[service], self._numbers
        with self._changed:
            self._where[self._numbers] = where
            self.received[self._numbers] = bytearray()
        self.say(T.STREAM_START if fresh else T.CONNECTION_START, *where)
        return self._numbers

    def send(self, number: int, data: bytes) -> None:
        """Bytes of the local program."""
        for at in range(0, len(data), 60_000):
            self.say(T.DATA, *self._where[number], data[at : at + 60_000])

    def reset(self, number: int) -> None:
        """The local program has gone."""
        self.say(T.CONNECTION_RESET if self.version == 3 else T.STREAM_RESET, *self._where[number])

    def expect(self, number: int, size: int) -> bytes:
        """What has come, once so much has, or the connection has ended."""
        self.wait(lambda: len(self.received[number]) >= size or number in self.ended, f"{size} bytes")
        return bytes(self.received[number])

    def expect_end(self, number: int) -> bytes:
        """All that came, once it has ended."""
        self.wait(lambda: number in self.ended, "its end")
        return bytes(self.received[number])

    def took(self, message: LocalproxyMessage) -> None:
        for number, (service, stream, own) in self._where.items():
            key = (message.service, message.stream, message.number)
            mine = (service if self.version > 1 else "", stream, own if self.version == 3 else 0)
            if message.type == T.SESSION_RESET:
                self.ended.add(number)
            elif key == mine and message.type == T.DATA:
                self.received[number] += message.data
            elif key == mine and message.type in (T.STREAM_RESET, T.CONNECTION_RESET):
                self.ended.add(number)


class Destination(_Model):
    """A localproxy in destination mode, which dials ``targets`` by service."""

    def __init__(self, web: ClientConnection, version: int, targets: dict[str, tuple[str, int]]) -> None:
        self.targets = targets
        self._sockets: dict[tuple[str, int, int], socket.socket | None] = {}
        self._streams: dict[str, int] = {}
        super().__init__(web, version)

    def took(self, message: LocalproxyMessage) -> None:
        key = message.service, message.stream, message.number
        if message.type == T.STREAM_START and self._streams.setdefault(key[0], key[1]) != key[1] and key[2]:
            self._streams[key[0]] = 0  # as 3.3.1: the stream that runs is ended, and the new one not begun
        elif message.type in (T.STREAM_START, T.CONNECTION_START):
            threading.Thread(target=self._serve, args=(key,), daemon=True).start()
            self._changed.wait_for(lambda: key in self._sockets, PATIENCE)
        elif message.type == T.DATA and self._sockets.get(key) is not None:
            with contextlib.suppress(OSError):
                self._sockets[key].sendall(message.data)  # type: ignore[union-attr]
        elif message.type in (T.STREAM_RESET, T.CONNECTION_RESET):
            self._drop(key)
        elif message.type == T.SESSION_RESET:
            self.over()

    def over(self) -> None:
        for key in [*self._sockets]:
            self._drop(key)

    def _drop(self, key: tuple[str, int, int]) -> None:
        sock = self._sockets.get(key)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, key: tuple[str, int, int]) -> None:
        service, stream, number = key
        try:
            sock: socket.socket | None = socket.create_connection(
                self.targets[service or next(iter(self.targets))], PATIENCE
            )
        except OSError:
            sock = None
        with self._changed:
            self._sockets[key] = sock
            self._changed.notify_all()
        if sock is not None:
            with contextlib.suppress(OSError):
                while data := sock.recv(60_000):
                    self.say(T.DATA, service or "", stream, number, data)
            sock.close()
        self.say(T.CONNECTION_RESET if self.version == 3 else T.STREAM_RESET, service or "", stream, number)


class RealLocalproxy:
    """The program itself; ``binary`` is its path, ``authority`` the file that has the server's authority."""

    def __init__(
        self, binary: str, directory: Path, port: int, authority: list[str], token: str, *options: str
    ) -> None:
        self.directory = directory
        trusted = directory / "trusted"
        trusted.mkdir(exist_ok=True)
        for at, file in enumerate(authority):
            (trusted / f"{at}.pem").write_bytes(Path(file).read_bytes())
        subprocess.run(["openssl", "rehash", str(trusted)], check=True)
        environment = {**os.environ, "AWSIOT_TUNNEL_ACCESS_TOKEN": token}
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            environment.pop(name, None)
        self.log = directory / f"localproxy-{options[1]}-{port}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *(binary, "-e", f"localhost:{port}", "-c", str(trusted), "-b", "127.0.0.1", "-v", "5"),
                    *options,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=directory,
                env=environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        crashed = self.process.poll()
        self.process.terminate()
        self.process.wait(10)
        print(f"{self.log.name}: ended with {crashed}" if crashed is not None else "")
        if kind is not None:
            print(self.log.read_text(errors="replace")[-4000:])
