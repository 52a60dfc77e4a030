"""Agents by the thousand in one process: each is a plain socket that says HELLO and answers PING.

`python -m benchmarks.agents --port P --count N [--first K] [--offer NAME=HOST:PORT] [--software TEXT]`
brings serials from plc-K on to a server on loopback, prints how many seconds that took once all are welcome,
and keeps them until it is ended. A link that the server ends is printed as well, and stays away; a try that
fails, such as one that took longer than an agent waits (10 s, then it resets), is printed and made again.

With `--again` it comes back as an agent of ours does (its back-off, its time limits), and whenever all are up
there is a line `all` and JSON: when each came up (CLOCK_MONOTONIC), the tries since the last such line, and
what those that failed met. `--sources` gives each an address of its own. Several `--port` are servers that
are tried in turn, from one to the next as agents of ours go. `--tls`: with certificates (agents_tls.py).
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import random
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

from benchmarks.agents_tls import Secured, trust
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.targets import parse_offer
from revtunnel.link.backoff import Backoff
from revtunnel.link.handshake import LISTEN
from revtunnel.link.hellos import AgentHello, ServerHello, decode_server_hello, encode_agent_hello
from revtunnel.link.link import probe
from revtunnel.link.path_signs import PathSigns
from revtunnel.sockets.tcp_info import segments
from revtunnel.streams.commands import Command, Feature
from revtunnel.streams.frames import encode_frame

__all__ = ["Herd", "arguments", "main", "returns"]

HEADER = struct.Struct("!HBB")  # payload bytes, command, channel
# connections whose handshake is under way: real agents have a processor each, these share one
AT_ONCE, AT_ONCE_TLS = 200, 40
NONCE = bytes(32)
BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT
LIMITS = AgentLimits()


def returns(log: Path) -> list[dict[str, Any]]:
    """What a process with `--again` has said each time that all were up."""
    lines = log.read_text().split("\n")[:-1]  # the last one may not be whole yet
    return [json.loads(line.removeprefix("all ")) for line in lines if line.startswith("all ")]


class Agent:
    """One of them."""

    def __init__(self, options: argparse.Namespace, number: int) -> None:
        self.serial = f"plc-{number:05}"
        self.up_since: float | None = None
        self.tried_at = 0.0
        self._ports: list[int] = options.port
        self._number, self._turn = number, 0
        self._tls: Path | None = options.tls
        self._source = f"127.{128 + (number >> 14)}.{number >> 7 & 127}.{1 + (number & 127)}"
        self._bound: bool = options.sources
        features = Feature(0) if options.asked else Feature.PROBES
        self._hello = AgentHello(
            self.serial, NONCE, tuple(options.offer), options.software, features=features
        )
        self._socket: socket.socket | None = None
        self._signs: PathSigns | None = None
        self._heard = 0.0
        self._backoff = Backoff(LIMITS, random.random)
        self._spread = 1.0
        self._lost_at: float | None = None

    def dial(self) -> socket.socket:
        """A connection that is on its way."""
        self.tried_at, self.up_since = time.monotonic(), None
        sock = self._socket = socket.socket()
        sock.setblocking(False)
        if self._bound:
            sock.setsockopt(socket.SOL_IP, BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self._source, 0))
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", self._ports[self._place()]))
        self._turn += 1
        return sock

    def _place(self) -> int:
        """Which server is next: each of them is first for as many agents, and half go the other way round."""
        count = len(self._ports)
        onward = 1 if self._number // count % 2 else -1
        return (self._number + onward * self._turn) % count

    def talk(self, sock: socket.socket) -> Generator[int]:
        """Its side of the connection, which it closes; yields what it waits for. OSError: it has ended."""
        try:
            yield select.EPOLLOUT
            if problem := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, "connect")
            end: socket.socket | Secured = sock
            if self._tls is not None:
                end = trust(self._tls).connect(sock, self.serial)
                yield from end.shake()
            end.send(LISTEN)
            data = b""
            while True:
                yield select.EPOLLIN
                with contextlib.suppress(BlockingIOError):
                    if not (more := end.recv(65536)):
                        raise ConnectionAbortedError("it was ended")
                    data = self._read(end, data + more)
        finally:
            sock.close()

    def _read(self, sock: socket.socket | Secured, data: bytes) -> bytes:
        while len(data) >= HEADER.size:
            size, command, _ = HEADER.unpack_from(data)
            end = HEADER.size + size
            if len(data) < end:
                break
            payload, data = data[HEADER.size : end], data[end:]
            if command == Command.PING:
                sock.send(encode_frame(Command.PONG, 0, payload))
            elif command == Command.HELLO and payload:
                self._up(decode_server_hello(payload))
            elif command == Command.HELLO:
                sock.send(encode_agent_hello(self._hello))
            self._heard = time.monotonic()
        return data

    def _up(self, hello: ServerHello) -> None:
        self.up_since, self._spread = time.monotonic(), hello.spread
        if Feature.PROBES in self._hello.features & hello.features:
            self._signs = PathSigns(hello.keepalive, hello.kernel_keepalive, self.up_since)
            probe(self._socket, self._signs.after)

    def look(self, now: float) -> None:
        """Let the silence grow that its kernel bears, as link/agent_link.py has it."""
        signs = self._signs if self.up_since is not None else None
        if signs is None or now < signs.due(self._heard):
            return
        if signs.counted(segments(self._socket), self._heard, now):
            probe(self._socket, signs.after)

    def away(self, error: OSError) -> float:
        """When it comes again; as link/uplink.py has it."""
        now, since = time.monotonic(), self.up_since
        self.up_since = None
        if since is not None:
            self._lost_at = now
            return now + self._backoff.after_loss(now - since, self._spread)
        if self._turn % len(self._ports):
            return now + min(LIMITS.retry_first, 0.1)
        reached = not isinstance(error, ConnectionRefusedError | TimeoutError)
        away = None if reached or self._lost_at is None else now - self._lost_at
        return now + self._backoff.after_failure(away)


class Herd:
    """All of them, on one epoll."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.up = 0
        self._again: bool = options.again
        self._at_once = AT_ONCE_TLS if options.tls else AT_ONCE
        self._poller = select.epoll()
        self._talks: dict[int, tuple[Agent, Generator[int]]] = {}
        agents = [Agent(options, number) for number in range(options.first, options.first + options.count)]
        self._due = [(0.0, number, agent) for number, agent in enumerate(agents)]
        self._swept = 0.0
        self._came: list[float] = []
        self._failed = Counter[str]()
        self._tries = 0

    def turn(self) -> None:
        """Let those come whose time it is, then hear what the server says."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            if len(self._talks) - self.up >= self._at_once:
                break
            self._dial(heapq.heappop(self._due)[2])
        for number, _ in self._poller.poll(0.05):
            self._step(number)
        if now - self._swept > 1.0:
            self._swept = now
            late = [n for n, (agent, _) in self._talks.items() if _is_late(agent, now)]
            for number in late:
                self._lost(number, TimeoutError("it took too long"))
            for agent, _ in self._talks.values():
                agent.look(now)

    def close(self) -> None:
        """End all links."""
        for _, talk in self._talks.values():
            talk.close()
        self._poller.close()

    def told(self) -> str:
        """What happened since this was asked last."""
        found = json.dumps({"came": self._came, "tries": self._tries, "failed": self._failed})
        self._came, self._tries, self._failed = [], 0, Counter()
        return found

    def _dial(self, agent: Agent) -> None:
        self._tries += 1
        sock = agent.dial()
        number, talk = sock.fileno(), agent.talk(sock)
        self._talks[number] = agent, talk
        self._poller.register(number, next(talk))

    def _step(self, number: int) -> None:
        agent, talk = self._talks[number]
        before = agent.up_since
        try:
            self._poller.modify(number, next(talk))
        except OSError as error:
            self._lost(number, error)
            return
        if before is None and agent.up_since is not None:
            self.up += 1
            self._came.append(agent.up_since)

    def _lost(self, number: int, error: OSError) -> None:
        agent, talk = self._talks.pop(number)
        was_up = agent.up_since is not None
        with contextlib.suppress(OSError):  # closed already
            self._poller.unregister(number)
        talk.close()
        if was_up:
            self.up -= 1
        else:
            self._failed[type(error).__name__] += 1
        if not self._again:
            print(f"{'lost' if was_up else 'failed'} {agent.serial}", repr(error), flush=True)
        if self._again or not was_up:
            heapq.heappush(self._due, (agent.away(error), id(agent), agent))


def _is_late(agent: Agent, now: float) -> bool:
    return agent.up_since is None and now - agent.tried_at > LIMITS.connect


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What a herd is told."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--offer", type=parse_offer, action="append", default=[])
    parser.add_argument("--software", default="herd")
    parser.add_argument("--sources", action="store_true")
    parser.add_argument("--tls", type=Path, metavar="DIRECTORY")
    parser.add_argument("--asked", action="store_true", help="by PING: no kernel of theirs probes the path")
    parser.add_argument("--again", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    herd = Herd(options)
    begun, was = time.monotonic(), 0
    while True:
        herd.turn()
        if herd.up == options.count and was < options.count:
            print(f"all {herd.told()}" if options.again else f"up {time.monotonic() - begun:.3f}", flush=True)
        was = herd.up


if __name__ == "__main__":
    sys.exit(main())
