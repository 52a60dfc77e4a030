"""Bytes through a tunnel that are checked one by one, and words for how a connection ended.

Rule of this file: plain blocking sockets, nothing of the project. Every stream is a pattern that depends on
its seed and on the place in it, and the receiver compares each byte as it comes: a byte that is lost, doubled
or another stream's names the stream and the offset. That says more than a hash, and costs less.
"""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable

from tests.support.services import Service, reset

__all__ = [
    "MIB",
    "Beside",
    "Patterned",
    "Reader",
    "connect",
    "end_of",
    "end_of_new",
    "exchange",
    "in_thread",
    "leave_with_reset",
    "question",
    "read_exactly",
    "read_pattern",
    "send_pattern",
    "stands_still",
    "wait_until",
]

MIB = 1024 * 1024
BLOCK = 65536
_STAMP = struct.Struct("!IIQ")  # seed, 0, number of the block
_BODY = random.Random(4711).randbytes(BLOCK - _STAMP.size)
_WANTED = struct.Struct("!IQQ")  # seed, bytes to the service, bytes to the client
PATIENCE = 90.0  # seconds without a byte after which a test gives up


def _block(seed: int, number: int) -> bytes:
    return _STAMP.pack(seed, 0, number) + _BODY


def send_pattern(
    sock: socket.socket, seed: int, size: int, sent: Callable[[int], None] = lambda size: None
) -> None:
    """Send the first ``size`` bytes of a pattern, telling ``sent`` of each block."""
    for number in range(-(-size // BLOCK)):
        block = _block(seed, number)[: size - number * BLOCK]
        sock.sendall(block)
        sent(len(block))


class Reader:
    """Compares what arrives with the pattern of ``seed``; ``got`` counts what was right."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.got = 0

    def take(self, data: bytes | memoryview) -> None:
        """AssertionError with the offset where the bytes are others."""
        while data:
            number, at = divmod(self.got, BLOCK)
            wanted = memoryview(_block(self.seed, number))[at : at + len(data)]
            piece = data[: len(wanted)]
            assert piece == wanted, f"stream {self.seed} is wrong between {self.got} and +{len(wanted)}"
            self.got += len(wanted)
            data = data[len(wanted) :]


def read_pattern(sock: socket.socket, reader: Reader, most: int | None = None) -> int:
    """Read to end of file, or ``most`` bytes, comparing; how many came."""
    buffer = bytearray(4 * BLOCK)
    view = memoryview(buffer)
    start = reader.got
    while most is None or reader.got - start < most:
        left = len(buffer) if most is None else min(len(buffer), most - (reader.got - start))
        size = sock.recv_into(view[:left])
        if not size:
            break
        reader.take(view[:size])
    return reader.got - start


class Patterned(Service):
    """A service that takes and gives patterns as its client asks; ``taken`` has what came, by seed."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        self.taken: dict[int, int] = {}
        self.wrong: list[str] = []

    def serve(self, sock: socket.socket, number: int) -> None:
        """One question (``question``), then both directions at once."""
        asked = b""
        while len(asked) < _WANTED.size:
            asked += (more := sock.recv(_WANTED.size - len(asked)))
            if not more:
                return
        seed, to_device, to_client = _WANTED.unpack(asked)
        sender = in_thread(self._send, sock, seed, to_client)
        reader = Reader(seed)
        try:
            if to_device:
                read_pattern(sock, reader, to_device)
        except AssertionError as problem:
            self.wrong.append(str(problem))
        finally:
            self.taken[seed] = reader.got
            sender.join(PATIENCE)
            self.record.add("answered", seed)
        with contextlib.suppress(OSError):  # the client closes first: no unread byte makes a RST
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(PATIENCE)
            sock.recv(1)

    def _send(self, sock: socket.socket, seed: int, size: int) -> None:
        with contextlib.suppress(OSError):
            send_pattern(sock, seed + (1 << 31), size, lambda size: self._count(sent=size))


def question(seed: int, to_device: int, to_client: int) -> bytes:
    """What asks a ``Patterned`` service for a stream; its answers are the pattern ``seed + 2**31``."""
    return _WANTED.pack(seed, to_device, to_client)


def exchange(port: int, seed: int, to_device: int, to_client: int, host: str = "127.0.0.1") -> None:
    """Talk to a ``Patterned`` service through ``port``: both directions at once, all compared.

    Raises:
        AssertionError: a byte of the answer is wrong, or some are missing.
    """
    with connect(port, host) as sock:
        sock.sendall(question(seed, to_device, to_client))
        sender = in_thread(send_pattern, sock, seed, to_device)
        got = read_pattern(sock, Reader(seed + (1 << 31)))
        sender.join(PATIENCE)
        assert got == to_client, f"stream {seed} ended after {got} of {to_client} bytes"


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes, fewer only at the end. (MSG_WAITALL does nothing for a socket with a time-out.)"""
    found = b""
    while len(found) < size and (more := sock.recv(size - len(found))):
        found += more
    return found


def connect(port: int, host: str = "127.0.0.1", patience: float = PATIENCE) -> socket.socket:
    """A client's connection."""
    sock = socket.create_connection((host, port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(patience)
    return sock


def end_of(sock: socket.socket, patience: float = 20.0) -> str:
    """How a connection ends, whatever is still to be read: ``reset``, ``end of file`` or ``still open``."""
    sock.settimeout(patience)
    try:
        while sock.recv(BLOCK):
            pass
    except TimeoutError:
        return "still open"
    except OSError:
        return "reset"
    return "end of file"


def end_of_new(port: int, words: bytes = b"", host: str = "127.0.0.1") -> str:
    """What happens to a new client that says ``words`` and waits: as ``end_of``, or ``refused``."""
    try:
        with connect(port, host) as sock:
            sock.sendall(words)
            return end_of(sock)
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):  # so early that connect itself was told
        return "reset"


class Beside(threading.Thread):
    """Work beside the test; ``problem`` is what it raised, which is for the test to look at."""

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        super().__init__(daemon=True)
        self.problem: Exception | None = None
        self._work = work
        self._arguments = arguments

    def run(self) -> None:
        """Called by ``start``."""
        try:
            self._work(*self._arguments)
        except Exception as problem:
            self.problem = problem


def in_thread(work: Callable[..., object], *arguments: object) -> Beside:
    """Run it beside the test."""
    thread = Beside(work, *arguments)
    thread.start()
    return thread


def wait_until(true: Callable[[], object], what: str, patience: float = 40.0, every: float = 0.02) -> None:
    """Return when ``true()``; AssertionError with ``what`` when that never comes."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, f"no {what} in {patience:g} s"
        time.sleep(every)


def stands_still(service: Patterned) -> None:
    """Return when the service has sent nothing for a second: everything is full."""
    last = -1

    def stopped() -> bool:
        nonlocal last
        held, last = last == service.sent, service.sent
        return held and service.sent > 0

    wait_until(stopped, "standstill", 60.0, every=1.0)


def leave_with_reset(sock: socket.socket) -> None:
    """As a client whose program was killed by its user's impatience: RST."""
    reset(sock)
