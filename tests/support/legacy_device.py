"""A model of the real ReadyAgent device, faults included: an independent program on plain sockets.

Rule of this file: nothing of the project is imported, and what the original does, right or wrong, is the
default; every fault is a switch. Source: wire/readyagent.md section 2, whose table the switches follow.

In a test::

    with LegacyDevice(("127.0.0.1", port)) as device:
        device.record.wait("frame", "CONNECT")

As a process, which ends with its link: ``python -m tests.support.legacy_device HOST:PORT [--no-echo-close]``
"""

import argparse
import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
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
from tests.support.services import Record, Running, hang_up

__all__ = ["LegacyDevice"]


@dataclass(eq=False)
class LegacyDevice(Running):
    """Dials ``server`` once, sends LISTEN, opens services as it is told.

    Attributes:
        echo_close: a CLOSE from the server is answered by one, ``echo_delay`` seconds later.
        refusal_delay: seconds from a refused connect to its CLOSE; the link is served meanwhile.
        blocking_connect: a connect holds up the whole link until the system gives up.
        skip_stray_payload: off, the payload of a CLOSE, a LISTEN or an unknown command stays in the stream.
        silent_on_malformed: a CONNECT that cannot be read gets no answer; off, it gets a CLOSE.
        stray_close_on_reuse: after a CONNECT on an id in use, the old one's CLOSE still comes.
        ignore_empty_data: a DATA of no bytes has no effect; off, it counts as any other.
        close_unknown_data: each DATA for an unknown id gets a CLOSE.
        half_close_is_close: a service's end of file closes both ways; off, it may still be written to.
        source: the address it comes from; empty: what the system takes.
        reconnects: a severed link is dialled again after 0.1 s.
        split_header_misparse: a header that arrives in two reads is taken as if zeros followed. Off:
            section 2 records no such device, and it corrupts any bulk.
        read_size: of one read from a service, and so of the largest DATA.
    """

    server: tuple[str, int]
    echo_close: bool = True
    echo_delay: float = 0.02
    refusal_delay: float = 0.04
    blocking_connect: bool = True
    skip_stray_payload: bool = False
    silent_on_malformed: bool = True
    stray_close_on_reuse: bool = True
    ignore_empty_data: bool = True
    close_unknown_data: bool = True
    half_close_is_close: bool = True
    source: str = ""
    reconnects: bool = False
    split_header_misparse: bool = False
    read_size: int = 65535
    record: Record = field(default_factory=Record, repr=False)

    def __post_init__(self) -> None:
        self.links: list[DeviceLink] = []
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def link(self) -> "DeviceLink":
        """The newest link."""
        return self.links[-1]

    def start(self) -> None:
        """Connect; ConnectionRefusedError and its like are the caller's, there is no second try."""
        self.tcp_remote_connect()

    def tcp_remote_connect(self) -> None:
        """The command: drop the link, if there is one, and open a new one."""
        if self.links:
            self.link.end()
        source = (self.source, 0) if self.source else None
        link = DeviceLink(self, socket.create_connection(self.server, source_address=source))
        with self._lock:
            if self._stopped:
                link.wire.close()
                return
            link.run()
            self.links.append(link)

    def stop(self) -> None:
        """Hang up."""
        with self._lock:
            self._stopped = True
        if self.links:
            self.link.end()

    def wait(self, timeout: float | None = None) -> None:
        """Until the link has ended."""
        self.link.thread.join(timeout)

    def link_lost(self) -> None:
        """The link's thread says that it ended; the original leaves it at that."""
        self.record.add("link lost")
        while self.reconnects and not self._stopped:
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                self.tcp_remote_connect()
                return


class _Opened:
    """One service: its socket, and what came for it before it was connected."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.early: list[bytes] = []
        self.lock = threading.Lock()
        self.told_to_close = False
        self.replaced = False

    def write(self, data: bytes) -> None:
        """Blocks while the service does not read."""
        with self.lock:
            if self.sock is None:
                self.early.append(data)
                return
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def connected(self, sock: socket.socket) -> None:
        """The service answered."""
        with self.lock:
            for data in self.early:
                with contextlib.suppress(OSError):
                    sock.sendall(data)
            self.sock = sock

    def close(self) -> None:
        """Hang up; the service's thread wakes."""
        if self.sock is not None:
            hang_up(self.sock)


class DeviceLink:
    """One link of a device, with its services by id."""

    def __init__(self, device: LegacyDevice, sock: socket.socket) -> None:
        self.device = device
        self.wire = LinkSocket(sock, device.split_header_misparse)
        self.services: dict[int, _Opened] = {}
        self.thread = threading.Thread(target=self._read, daemon=True)
        self._dialling: set[socket.socket] = set()
        self._ended = False
        self._handlers: dict[int, Callable[[int, int], None]] = {
            CONNECT: self._connect,
            CLOSE: self._close,
            DATA: self._data,
            LISTEN: self._stray,
        }

    def run(self) -> None:
        """LISTEN, then read."""
        self.wire.send(LISTEN, 0)
        self.thread.start()

    def end(self) -> None:
        """Hang up everything."""
        self._ended = True
        self.wire.close()
        for sock in list(self._dialling):
            hang_up(sock)
        for service in list(self.services.values()):
            service.close()
        if self.thread is not threading.current_thread():
            self.thread.join(10)

    def _read(self) -> None:
        while (header := self.wire.header()) is not None:
            size, command, channel = header
            self.device.record.add("frame", NAMES.get(command, f"0x{command:02x}"), channel, size)
            self._handlers.get(command, self._stray)(channel, size)
        self.wire.close()
        services, self.services = list(self.services.values()), {}
        for service in services:
            service.close()
        if not self._ended:
            self.device.link_lost()

    def _stray(self, channel: int, size: int) -> None:
        if self.device.skip_stray_payload:
            self.wire.exactly(size)

    def _close(self, channel: int, size: int) -> None:
        self._stray(channel, size)
        service = self.services.pop(channel, None)
        if service is not None:
            service.told_to_close = True
            service.close()

    def _data(self, channel: int, size: int) -> None:
        data = self.wire.exactly(size)
        service = self.services.get(channel)
        if not size:
            self.device.record.add("empty DATA", channel)
        if not size and self.device.ignore_empty_data:
            return
        if service is not None:
            service.write(data)
        elif self.device.close_unknown_data:
            self.wire.send(CLOSE, channel)

    def _connect(self, channel: int, size: int) -> None:
        target = self._target(self.wire.exactly(size))
        if target is None:
            self.device.record.add("malformed CONNECT", channel)
            if not self.device.silent_on_malformed:
                self.wire.send(CLOSE, channel)
            return
        old = self.services.get(channel)
        service = self.services[channel] = _Opened()
        if old is not None:
            old.replaced = True
            old.close()
        worker = threading.Thread(target=self._serve, args=(channel, service, target), daemon=True)
        if self.device.blocking_connect:
            sock = self._dial(target)
            worker = threading.Thread(target=self._pump, args=(channel, service, sock), daemon=True)
        worker.start()

    @staticmethod
    def _target(payload: bytes) -> tuple[str, int] | None:
        if len(payload) < 2:
            return None
        (length,) = struct.unpack_from("!H", payload)
        if len(payload) < 2 + length + 2:
            return None
        (port,) = struct.unpack_from("!H", payload, 2 + length)
        return payload[2 : 2 + length].decode("latin-1"), port

    def _dial(self, target: tuple[str, int]) -> socket.socket | None:
        """The connected socket, or None: refused, unknown name, or hung up while waiting."""
        try:
            found = socket.getaddrinfo(*target, type=socket.SOCK_STREAM) if target[0] else []
        except (OSError, UnicodeError):
            return None
        for family, kind, _, _, address in found:
            sock = socket.socket(family, kind)
            self._dialling.add(sock)
            try:
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError:
                sock.close()
            finally:
                self._dialling.discard(sock)
        return None

    def _serve(self, channel: int, service: _Opened, target: tuple[str, int]) -> None:
        self._pump(channel, service, self._dial(target))

    def _pump(self, channel: int, service: _Opened, sock: socket.socket | None) -> None:
        """Service to server, until the service ends; then the one CLOSE of this service."""
        if sock is None:
            self.device.record.add("refused", channel)
            time.sleep(self.device.refusal_delay)
            self._gone(channel, service)
            return
        service.connected(sock)
        self.device.record.add("connected", channel)
        if self.services.get(channel) is not service:
            service.close()  # closed by the server before it was there
        with contextlib.suppress(OSError):
            while data := sock.recv(self.device.read_size):
                self.wire.send(DATA, channel, data)
        self._gone(channel, service)

    def _gone(self, channel: int, service: _Opened) -> None:
        device = self.device
        if service.told_to_close or service.replaced:
            time.sleep(device.echo_delay)
            if device.echo_close if service.told_to_close else device.stray_close_on_reuse:
                self.wire.send(CLOSE, channel)
        else:
            if self.services.get(channel) is service and (device.half_close_is_close or service.sock is None):
                del self.services[channel]
            self.wire.send(CLOSE, channel)
        if service.told_to_close or service.replaced or device.half_close_is_close:
            service.close()
        device.record.add("service ended", channel)


def main(arguments: list[str]) -> None:
    """Run until the link ends; events go to standard output, one a line."""
    parser = argparse.ArgumentParser(prog="legacy_device")
    parser.add_argument("server", help="HOST:PORT")
    add_switches(parser, LegacyDevice)
    parsed = parser.parse_args(arguments)
    host, _, port = parsed.server.rpartition(":")
    device = LegacyDevice((host, int(port)), **chosen_switches(parsed, LegacyDevice))
    device.start()
    print("linked", flush=True)
    device.wait()
    print("link lost", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
