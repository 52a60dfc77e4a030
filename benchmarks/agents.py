"""Agents by the thousand in one process: each is a plain socket that says HELLO and answers PING.

`python -m benchmarks.agents --port P --count N [--first K] [--offer NAME=HOST:PORT] [--software TEXT]`
brings serials from plc-K on to a server on loopback, prints how many seconds that took once all are welcome,
and keeps them until it is ended. A link that the server ends is printed as well, and stays away.
"""

from __future__ import annotations

import argparse
import select
import socket
import struct
import sys
import time

from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.link.handshake import LISTEN
from revtunnel.link.hellos import AgentHello, encode_agent_hello
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame

__all__ = ["main"]

HEADER = struct.Struct("!HBB")  # payload bytes, command, channel
AT_ONCE = 200  # connections whose handshake is under way
NONCE = bytes(32)


class Herd:
    """All of them, on one epoll."""

    def __init__(self, port: int, serials: list[str], offers: tuple[Offer, ...], software: str) -> None:
        self.up = 0
        self.lost = 0
        self._port = port
        self._waiting = serials[::-1]
        self._offers = offers
        self._software = software
        self._poller = select.epoll()
        self._serials: dict[int, str] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._read: dict[int, bytes] = {}

    def turn(self) -> None:
        """Bring more of them as long as few are on their way; then what the server says."""
        while self._waiting and len(self._sockets) - self.up < AT_ONCE:
            self._connect(self._waiting.pop())
        for number, _ in self._poller.poll(0.5):
            self._readable(number)

    def close(self) -> None:
        """End all links."""
        for sock in self._sockets.values():
            sock.close()
        self._poller.close()

    def _connect(self, serial: str) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setblocking(False)
        number = sock.fileno()
        self._sockets[number], self._serials[number], self._read[number] = sock, serial, b""
        self._poller.register(number, select.EPOLLIN)
        sock.send(LISTEN)

    def _readable(self, number: int) -> None:
        sock = self._sockets[number]
        try:
            data = sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._poller.unregister(number)
            del self._sockets[number]
            sock.close()
            self.lost += 1
            print(f"lost {self._serials[number]}", flush=True)
            return
        data = self._read[number] + data
        while len(data) >= HEADER.size:
            size, command, _ = HEADER.unpack_from(data)
            end = HEADER.size + size
            if len(data) < end:
                break
            self._frame(sock, number, command, data[HEADER.size : end])
            data = data[end:]
        self._read[number] = data

    def _frame(self, sock: socket.socket, number: int, command: int, payload: bytes) -> None:
        if command == Command.PING:
            sock.send(encode_frame(Command.PONG, 0, payload))
        elif command == Command.HELLO and payload:
            self.up += 1
        elif command == Command.HELLO:
            hello = AgentHello(self._serials[number], NONCE, self._offers, self._software)
            sock.send(encode_agent_hello(hello))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--offer", type=parse_offer, action="append", default=[])
    parser.add_argument("--software", default="herd")
    options = parser.parse_args(argv)
    last = options.first + options.count
    serials = [f"plc-{number:05}" for number in range(options.first, last)]
    herd = Herd(options.port, serials, tuple(options.offer), options.software)
    begun, said = time.monotonic(), False
    while True:
        herd.turn()
        if not said and herd.up == options.count:
            said = True
            print(f"up {time.monotonic() - begun:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
