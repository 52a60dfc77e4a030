"""A model of the real ReadyAgent server, faults included: an independent program on plain sockets.

Rule of this file: nothing of the project is imported, and what the original does, right or wrong, is the
default; every fault is a switch. Source: wire/readyagent.md section 3, whose sentences the switches follow.

In a test::

    with LegacyServer([(0, "10.41.51.152", 23)]) as server:
        ...dial server.port as a device; server.record.wait("listening")
        socket.create_connection(("127.0.0.1", server.client_ports[0]))

As a process: ``python -m tests.support.legacy_server --map 0=10.41.51.152:23 [--early-data ...]``; it prints
``device PORT`` and ``clients PORT`` for each mapping, and ends where the original exits.
"""

import argparse
import contextlib
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field

from tests.support.legacy_link import (
    CLOSE,
    CONNECT,
    DATA,
    LISTEN,
    NAMES,
    LinkSocket,
    add_switches,
    chosen_switches,
)
from tests.support.services import Record, Running, hang_up, reset

__all__ = ["LegacyServer"]

Mapping = tuple[int, str, int]  # port for clients (0: any), host and port that CONNECT names


@dataclass(eq=False)
class LegacyServer(Running):
    """Takes one device and, once it has sent LISTEN, clients.

    Attributes:
        device_port: where the device dials; 0 is any, ``port`` says which.
        one_device: the first device is the only one ever; others may connect and are not served.
        exact_listen: a first frame other than ``00 00 04 00`` ends the program.
        echo_close: a device's CLOSE for a known id is answered by one, even if that answers the server's own.
        late_data: after a client's end of file its DATA is still written to it, until the device's CLOSE.
        silent_wrap: an id that comes round again closes its old client without a word to the device.
        early_data: what a client sends in its first 0.2 s goes before its CONNECT. The original does so only
            now and then, so it is off.
        skip_stray_payload: off, the payload for a never-used id stays in the stream.
        hang_after_loss: after a severed link new clients are accepted and never served; off, reset.
        split_header_misparse: a header that arrives in two reads is taken as if zeros followed. Off:
            section 3 records no such server, and it corrupts any bulk.
        chunk: bytes of one read from a client, and so of the largest DATA.
        workers: threads; one serves the device, one each mapping, the others a client each; more wait.
        next_id: of the first client. After 255 comes 0.
    """

    mappings: list[Mapping]
    device_port: int = 0
    one_device: bool = True
    exact_listen: bool = True
    echo_close: bool = True
    late_data: bool = True
    silent_wrap: bool = True
    early_data: bool = False
    skip_stray_payload: bool = False
    hang_after_loss: bool = True
    split_header_misparse: bool = False
    chunk: int = 8188
    workers: int = 24
    next_id: int = 1
    record: Record = field(default_factory=Record, repr=False)

    def __post_init__(self) -> None:
        self.port = 0
        self.client_ports: list[int] = []
        self.wire: LinkSocket | None = None  # of the device that is served
        self.clients: dict[int, socket.socket] = {}
        self.exited = threading.Event()
        self._used: set[int] = set()
        self._unserved: list[socket.socket] = []
        self._listeners: list[socket.socket] = []
        self._listening = False
        self._slots = threading.Semaphore(max(1, self.workers - 1 - len(self.mappings)))
        self._lock = threading.Lock()

    def start(self) -> None:
        """Bind all, listen for the device."""
        self._device_listener = socket.create_server(("127.0.0.1", self.device_port))
        self.port = self._device_listener.getsockname()[1]
        for port, _, _ in self.mappings:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            self._listeners.append(listener)
            self.client_ports.append(listener.getsockname()[1])
        threading.Thread(target=self._accept_devices, daemon=True).start()

    def stop(self) -> None:
        """Close everything, as the program's end does."""
        hang_up(self._device_listener)
        for listener in self._listeners:
            hang_up(listener)
        if self.wire is not None:
            self.wire.close()
        self._drop_clients()
        for sock in self._unserved:
            sock.close()
        self.exited.set()

    # -- the device

    def _accept_devices(self) -> None:
        with contextlib.suppress(OSError):
            while not self.exited.is_set():
                sock, _ = self._device_listener.accept()
                self._device(LinkSocket(sock, self.split_header_misparse))
                if self.one_device:
                    return  # the listener stays open: others connect and wait for ever

    def _device(self, wire: LinkSocket) -> None:
        self.wire = wire
        if wire.header() != (0, LISTEN, 0) and self.exact_listen:
            self.record.add("exit")
            self.stop()
            return
        self._listen()
        self.record.add("listening")
        while (header := wire.header()) is not None:
            self._frame(wire, *header)
        wire.close()
        self.wire = None
        self._drop_clients()
        self.record.add("link lost")

    def _listen(self) -> None:
        if self._listening:
            return
        self._listening = True
        for listener, mapping in zip(self._listeners, self.mappings, strict=True):
            listener.listen(128)
            threading.Thread(target=self._accept_clients, args=(listener, mapping), daemon=True).start()

    def _frame(self, wire: LinkSocket, size: int, command: int, channel: int) -> None:
        self.record.add("frame", NAMES.get(command, f"0x{command:02x}"), channel, size)
        with self._lock:
            client = self.clients.get(channel)
        if client is None:
            self._unknown(wire, size, command, channel)
        elif command == DATA:
            self._to_client(wire, channel, client, wire.exactly(size))
        elif command == CLOSE:
            self._forget(channel, client)
            hang_up(client)
            if self.echo_close:
                wire.send(CLOSE, channel)
        elif self.skip_stray_payload:
            wire.exactly(size)

    def _unknown(self, wire: LinkSocket, size: int, command: int, channel: int) -> None:
        if channel in self._used or self.skip_stray_payload:
            wire.exactly(size)
        if command != CLOSE:
            wire.send(CLOSE, channel)

    def _to_client(self, wire: LinkSocket, channel: int, client: socket.socket, data: bytes) -> None:
        try:
            client.sendall(data)
        except OSError:
            if self._forget(channel, client):
                wire.send(CLOSE, channel)

    # -- clients

    def _accept_clients(self, listener: socket.socket, mapping: Mapping) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.wire is None:
                    self._turn_away(sock)
                    continue
                threading.Thread(target=self._client, args=(sock, mapping), daemon=True).start()

    def _turn_away(self, sock: socket.socket) -> None:
        if self.hang_after_loss:
            self._unserved.append(sock)
        else:
            reset(sock)
        self.record.add("unserved client")

    def _client(self, sock: socket.socket, mapping: Mapping) -> None:
        with self._slots:
            wire = self.wire
            if wire is None:
                sock.close()
                return
            channel = self._admit(wire, sock)
            self._open(wire, sock, channel, mapping)
            self._from_client(wire, sock, channel)

    def _admit(self, wire: LinkSocket, sock: socket.socket) -> int:
        """The next id, in use or not."""
        with self._lock:
            channel = self.next_id
            self.next_id = (channel + 1) % 256
            self._used.add(channel)
            old = self.clients.pop(channel, None)
            self.clients[channel] = sock
        self.record.add("client", channel)
        if old is not None:
            hang_up(old)
            if not self.silent_wrap:
                wire.send(CLOSE, channel)
        return channel

    def _open(self, wire: LinkSocket, sock: socket.socket, channel: int, mapping: Mapping) -> None:
        _, host, port = mapping
        if self.early_data:
            with contextlib.suppress(OSError):  # also when the client has been hung up meanwhile
                sock.settimeout(0.2)
                if data := sock.recv(self.chunk):
                    wire.send(DATA, channel, data)
            with contextlib.suppress(OSError):
                sock.settimeout(None)
        name = host.encode("ascii")
        wire.send(CONNECT, channel, struct.pack("!H", len(name)) + name + struct.pack("!H", port))

    def _from_client(self, wire: LinkSocket, sock: socket.socket, channel: int) -> None:
        """Client to device until the client ends; then CLOSE, unless the id is no longer this client's."""
        in_order = False
        with contextlib.suppress(OSError):
            while data := sock.recv(self.chunk):
                wire.send(DATA, channel, data)
            in_order = True
        with self._lock:
            current = self.clients.get(channel) is sock
        if not current:
            return
        if not (in_order and self.late_data):
            self._forget(channel, sock)
            hang_up(sock)
        self.record.add("client ended", channel)
        wire.send(CLOSE, channel)

    def _forget(self, channel: int, client: socket.socket) -> bool:
        """The id is this client's no more; False if it was not."""
        with self._lock:
            if self.clients.get(channel) is not client:
                return False
            del self.clients[channel]
            return True

    def _drop_clients(self) -> None:
        with self._lock:
            clients, self.clients = list(self.clients.values()), {}
        for client in clients:
            hang_up(client)


def _mapping(text: str) -> Mapping:
    listen, _, target = text.partition("=")
    host, _, port = target.rpartition(":")
    return int(listen), host, int(port)


def main(arguments: list[str]) -> None:
    """Run until the original would exit, or for ever."""
    parser = argparse.ArgumentParser(prog="legacy_server")
    parser.add_argument("--map", type=_mapping, action="append", required=True, help="PORT=HOST:PORT")
    add_switches(parser, LegacyServer)
    parsed = parser.parse_args(arguments)
    server = LegacyServer(parsed.map, **chosen_switches(parsed, LegacyServer))
    server.start()
    print(f"device {server.port}", flush=True)
    for port in server.client_ports:
        print(f"clients {port}", flush=True)
    server.exited.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
