"""A hostile server speaks to our agent: whatever it asks for, nothing outside ``--local`` is ever dialled.

The server is bytes by hand, after docs/link-protocol. The canary is a listener that counts connections.
"""

import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support.daemons import Agent, Lab
from tests.support.services import Echo, Hanger
from tests.support.traffic import wait_until

pytestmark = pytest.mark.slow

CONNECT, CLOSE, DATA, LISTEN, HELLO, OPENED, RESET, PING, PONG = 1, 2, 3, 4, 0x10, 0x13, 0x14, 0x17, 0x18
NOT_ALLOWED = 4
LENIENT = {"link": {"glitches": 1_000_000, "legacy_glitches": 1_000_000}}


def frame(command: int, channel: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack("!HBB", len(payload), command, channel) + payload


def target(host: bytes, port: int) -> bytes:
    """CONNECT's payload."""
    return struct.pack("!H", len(host)) + host + struct.pack("!H", port)


class Hostile:
    """A server for one agent at a time; ``greet`` and then anything."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.link = socket.socket()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        self.listener.close()

    def greet(self, legacy: bool = False) -> None:
        """Take the agent and its LISTEN; become an rt1 server, or stay a legacy one."""
        self.listener.settimeout(20)
        self.link, _ = self.listener.accept()
        self.link.settimeout(20)
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert self.read() == (LISTEN, 0, b"")
        if not legacy:
            self.link.sendall(frame(HELLO, 1))
            assert self.read()[0] == HELLO
            self.link.sendall(frame(HELLO, 1, bytes((10, 1)) + b"x"))

    def exactly(self, size: int) -> bytes:
        """So many bytes; ConnectionError at the end."""
        data = b""
        while len(data) < size:
            data += (more := self.link.recv(size - len(data)))
            if not more:
                raise ConnectionError("the agent has left")
        return data

    def read(self) -> tuple[int, int, bytes]:
        """Command, channel and payload of the next frame; PINGs are answered."""
        while True:
            size, command, channel = struct.unpack("!HBB", self.exactly(4))
            payload = self.exactly(size)
            if command != PING:
                return command, channel, payload
            self.link.sendall(frame(PONG, 0, payload))

    def answer_to(self, channel: int) -> tuple[int, bytes]:
        """The next command for a channel, with its payload."""
        while True:
            command, number, payload = self.read()
            if number == channel and command in (OPENED, RESET, CLOSE):
                return command, payload


@contextlib.contextmanager
def canaries() -> Iterator[list[socket.socket]]:
    """Listeners that nobody may reach: IPv4 and IPv6 loopback, and a UNIX socket (in the abstract)."""
    with contextlib.ExitStack() as stack:
        four = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = four.getsockname()[1]
        found = [four, stack.enter_context(socket.create_server(("127.0.0.2", port)))]
        with contextlib.suppress(OSError):
            six = socket.create_server(("::1", port), family=socket.AF_INET6)
            found.append(stack.enter_context(six))
        for each in found:
            each.setblocking(False)
        yield found


def unreached(found: list[socket.socket]) -> None:
    """AssertionError when somebody connected to a canary."""
    for each in found:
        with pytest.raises(BlockingIOError):
            each.accept()


def spellings(port: int, allowed: int, path: str) -> Iterator[bytes]:
    """CONNECT payloads that name the canary, in all spellings that some resolver takes, or that are cut."""
    hosts = [
        "127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
        "127.0.0.1.", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\0", "127.0.0.1\n", "127.0.0.1%lo", "localhost",
        "LOCALHOST", "localhost.", "localhost\0.example", "::1", "[::1]", "::ffff:127.0.0.1", "::127.0.0.1",
        "::ffff:7f00:1", "0:0:0:0:0:0:0:1", "::1%lo", "fe80::1%lo", "0.0.0.0", "0", "", "::", "127.0.0.1:1",
        "10.41.51.152", "169.254.169.254", "metadata.google.internal", "ⅼocalhost", "１２７.0.0.1",
        f"127.0.0.1:{port}", f"127.0.0.1@{port}", "x" * 255, "127.0.0.1/", "//127.0.0.1", "unix:", "unix:/",
    ]  # fmt: skip
    for host in hosts:
        yield target(host.encode(), port)
        yield target(host.encode(), 0)
        yield target(host.encode(), port)[:-1]
        yield target(host.encode(), port) + b"\0"
        yield struct.pack("!H", 65535) + target(host.encode(), port)
    yield target(f"unix:{path}".encode(), 0)
    yield target(f"unix:{path}".encode(), port)
    yield target(f"unix:{path}/../{path}".encode(), 0)
    yield target(b"127.0.0.1", (allowed + 1) % 65536)
    yield b""


def fuzzed(port: int, seed: int, count: int) -> Iterator[bytes]:
    """CONNECT payloads near to one that would reach the canary, changed at random, seeded."""
    numbers = random.Random(seed)
    for _ in range(count):
        payload = bytearray(target(b"127.0.0.1", port))
        for _ in range(numbers.randint(0, 3)):
            at = numbers.randrange(len(payload))
            payload[at : at + numbers.randint(0, 2)] = numbers.randbytes(numbers.randint(0, 2))
            payload = payload or bytearray(b"\0")
        yield bytes(payload)


def agent_of(lab: Lab, server: Hostile, allowed: str, *options: str) -> Agent:
    """An agent that may dial ``allowed`` and nothing else."""
    return lab.add(
        Agent(
            lab.directory,
            "plc-7",
            [f"127.0.0.1:{server.port}"],
            {"it": allowed},
            settings=LENIENT,
            options=options,
        )
    ).start()


def test_f16_ten_thousand_connects_outside_the_list(lab: Lab) -> None:
    """Each is answered by RESET; the canary hears nothing; the listed target still works after them."""
    path = str(lab.directory / "canary.sock")
    with Hostile() as server, Echo() as echo, canaries() as found, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        unix.setblocking(False)
        port = found[0].getsockname()[1]
        agent_of(lab, server, echo.target)
        server.greet()
        payloads = [*spellings(port, echo.port, path), *fuzzed(port, 1, 10_000)]
        for start in range(0, len(payloads), 200):
            some = list(enumerate(payloads[start : start + 200], 1))
            server.link.sendall(b"".join(frame(CONNECT, number, payload) for number, payload in some))
            for number, payload in some:
                command, answer = server.answer_to(number)
                assert (command, answer[0]) == (RESET, NOT_ALLOWED), payload
            server.link.sendall(b"".join(frame(CLOSE, number) for number, _ in some))
        unreached([*found, unix])
        server.link.sendall(frame(CONNECT, 9, target(b"127.0.0.1", echo.port)) + frame(DATA, 9, b"hello"))
        assert server.answer_to(9) == (OPENED, b"")
        echo.record.wait_until(lambda: echo.received == 5, "the allowed target's bytes")
        assert echo.accepted == 1


def test_f16_a_legacy_server_reaches_nothing_either(lab: Lab) -> None:
    """Towards ``--legacy`` the answer is CLOSE, to every one of them."""
    with Hostile() as server, Echo() as echo, canaries() as found:
        port = found[0].getsockname()[1]
        agent_of(lab, server, echo.target, "--legacy")
        server.greet(legacy=True)
        payloads = [*spellings(port, echo.port, "/nowhere"), *fuzzed(port, 2, 2_000)]
        payloads = [payload for payload in payloads if len(payload) <= 259]  # more ends a legacy link
        for start in range(0, len(payloads), 200):
            some = list(enumerate(payloads[start : start + 200], 1))
            server.link.sendall(b"".join(frame(CONNECT, number, payload) for number, payload in some))
            for number, _ in some:
                assert server.answer_to(number)[0] == CLOSE
        unreached(found)
        server.link.sendall(frame(CONNECT, 9, target(b"127.0.0.1", echo.port)) + frame(DATA, 9, b"hello"))
        echo.record.wait_until(lambda: echo.received == 5, "the allowed target's bytes")
        assert echo.accepted == 1


def test_f19_a_flood_of_connects(lab: Lab) -> None:
    """To a listed target that hangs: a bounded number dials or waits, the rest is reset at once."""
    settings = {**LENIENT, "agent": {"dial": "1 s", "dials": 8, "dials_waiting": 20}}
    with Hostile() as server, Hanger() as hanger:
        agent = Agent(lab.directory, "plc-7", [f"127.0.0.1:{server.port}"], {"it": hanger.target}, settings)
        lab.add(agent).start()
        server.greet()
        wanted = target(b"127.0.0.1", hanger.port)
        server.link.sendall(b"".join(frame(CONNECT, number, wanted) for number in range(1, 256)))
        reasons = [server.read()[2][0] for _ in range(255 - 28)]
        assert set(reasons) == {5}
        assert agent.descriptors() < 40
        assert {server.read()[2][0] for _ in range(28)} <= {3, 5}


def test_f24_garbage_from_a_server_ends_the_link_only(lab: Lab) -> None:
    """Random bytes at every stage: the agent leaves, comes back, and never raises."""
    numbers = random.Random(24)
    with Hostile() as server, Echo() as echo:
        agent = Agent(
            lab.directory,
            "plc-7",
            [f"127.0.0.1:{server.port}"],
            {"it": echo.target},
            {"agent": {"retry_first": "0.1 s", "retry_most": "1 s"}},
        )
        lab.add(agent).start()
        for turn in range(12):
            server.greet(legacy=bool(turn % 2))  # odd: garbage instead of the handshake
            with contextlib.suppress(OSError):
                server.link.sendall(numbers.randbytes(20_000))
                server.link.shutdown(socket.SHUT_WR)
                while server.link.recv(65536):
                    pass
            server.link.close()
        server.greet()
        server.link.sendall(frame(CONNECT, 1, target(b"127.0.0.1", echo.port)))
        assert server.answer_to(1) == (OPENED, b"")


def test_glitches_end_the_link_and_the_agent_returns(lab: Lab) -> None:
    """With the shipped limit, a server that keeps on being odd is left after 100 oddities."""
    with Hostile() as server, Echo() as echo:
        agent = Agent(lab.directory, "plc-7", [f"127.0.0.1:{server.port}"], {"it": echo.target})
        lab.add(agent).start()
        server.greet()
        server.link.sendall(b"".join(frame(0x77, 0) for _ in range(150)))
        agent.wait_event("link-down", reason="protocol")
        server.link.close()
        server.greet()
        wait_until(lambda: len(agent.events("link-up")) == 2, "return")
