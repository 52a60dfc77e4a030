"""Small TCP services on loopback, each with one behaviour that a tunnel has to carry.

Rule of this file: plain blocking sockets and threads, nothing of the project and nothing of Twisted, so that
what is measured against them is measured from outside. Each is started by ``with``, listens on a free port
of 127.0.0.1, and keeps counters. ``Record`` is shared with the models of the legacy device and server.
"""

import contextlib
import hashlib
import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

__all__ = [
    "Banner",
    "BlackHole",
    "Echo",
    "HalfCloseFirst",
    "Hanger",
    "Kept",
    "LogOutput",
    "OneAtATime",
    "Record",
    "Refuser",
    "ReplyAfterEof",
    "Resetter",
    "Running",
    "Service",
    "Source",
    "digest_of",
    "hang_up",
    "pseudo_random",
    "reset",
]

BLOCK = 65536
HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds until an event is in a record


def pseudo_random(size: int, seed: int = 0) -> Iterator[bytes]:
    """``size`` bytes in blocks of at most 64 KiB, the same for the same seed."""
    numbers = random.Random(seed)
    while size > 0:
        yield numbers.randbytes(min(BLOCK, size))
        size -= BLOCK


def digest_of(size: int, seed: int = 0) -> str:
    """SHA-256, in hex, of what ``pseudo_random`` gives."""
    digest = hashlib.sha256()
    for block in pseudo_random(size, seed):
        digest.update(block)
    return digest.hexdigest()


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def hang_up(sock: socket.socket) -> None:
    """Close so that a thread that waits on it wakes up."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


class Record:
    """Events in the order in which they happened, to be waited for from the test."""

    def __init__(self) -> None:
        self.events: deque[tuple[object, ...]] = deque(maxlen=10_000)  # the newest; ``count`` knows all
        self._counts: Counter[tuple[object, ...]] = Counter()
        self._changed = threading.Condition()

    def add(self, *event: object) -> None:
        """Keep one event."""
        with self._changed:
            self.events.append(event)
            self._counts.update(event[:size] for size in range(len(event) + 1))
            self._changed.notify_all()

    def count(self, *start: object) -> int:
        """How many events begin with ``start``."""
        with self._changed:
            return self._counts[start]

    def wait(self, *start: object, count: int = 1, timeout: float = PATIENCE) -> None:
        """Return when ``count`` events begin with ``start``; AssertionError after ``timeout`` seconds."""
        self.wait_until(lambda: self.count(*start) >= count, f"{count} x {start}", timeout)

    def wait_until(self, true: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Return when ``true()``; it is asked after every event and every 50 ms."""
        end = time.monotonic() + timeout
        with self._changed:
            while not true():
                if time.monotonic() > end:
                    raise AssertionError(f"no {what} in {timeout} s; seen: {list(self.events)[-50:]}")
                self._changed.wait(0.05)


class Running:
    """Something with ``start`` and ``stop`` that ``with`` may hold."""

    def start(self) -> None:
        """Run."""
        raise NotImplementedError

    def stop(self) -> None:
        """End; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class Service(Running):
    """A listener that gives every connection a thread, and the thread's socket to ``serve``."""

    def __init__(self, host: str = HOST) -> None:
        self.host = host
        self.port = 0
        self.record = Record()  # ("accepted", n), ("end of file", n), ("ended", n), ("failed", n, error)
        self.accepted = 0
        self.received = 0  # bytes, all connections
        self.sent = 0
        self.digests: dict[int, str] = {}  # SHA-256 in hex of all received, by connection, at end of file
        self.open: dict[int, socket.socket] = {}
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    @property
    def target(self) -> str:
        """The written form of the address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def start(self) -> None:
        """Listen and accept."""
        self._listener = self.listen()
        self.port = self._listener.getsockname()[1]
        self._run(self._accept, self._listener)

    def listen(self) -> socket.socket:
        """The listening socket."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.create_server((self.host, 0), family=family, backlog=1024)

    def stop(self) -> None:
        """Close the listener and every connection, wait for the threads."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        hang_up(listener)
        with self._lock:
            still_open = list(self.open.values())
        for sock in still_open:
            hang_up(sock)
        for thread in self._threads:
            thread.join(10)

    def serve(self, sock: socket.socket, number: int) -> None:
        """One connection; it is closed when this returns."""
        raise NotImplementedError

    def read_to_end(self, sock: socket.socket, number: int) -> bytes:
        """Read, count and hash to end of file; the digest."""
        digest = hashlib.sha256()
        while data := sock.recv(BLOCK):
            self._count(received=len(data))
            digest.update(data)
        self.digests[number] = digest.hexdigest()
        self.record.add("end of file", number)
        return digest.digest()

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Send all and count."""
        sock.sendall(data)
        self._count(sent=len(data))

    def _count(self, received: int = 0, sent: int = 0) -> None:
        with self._lock:
            self.received += received
            self.sent += sent

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self.accepted += 1
                    number = self.accepted
                    self.open[number] = sock
                self.record.add("accepted", number)
                self._run(self._connection, sock, number)

    def _connection(self, sock: socket.socket, number: int) -> None:
        try:
            self.serve(sock, number)
        except OSError as problem:
            self.record.add("failed", number, type(problem).__name__)
        finally:
            with self._lock:
                self.open.pop(number, None)
            sock.close()
            self.record.add("ended", number)


class Echo(Service):
    """Sends back what it reads; closes after end of file."""

    def serve(self, sock: socket.socket, number: int) -> None:
        """Echo."""
        while data := sock.recv(BLOCK):
            self._count(received=len(data))
            self.send(sock, data)
        self.record.add("end of file", number)


class Kept(Service):
    """Echoes, and keeps how each connection ended."""

    def serve(self, sock: socket.socket, number: int) -> None:
        """To its end."""
        try:
            while data := sock.recv(65536):
                sock.sendall(data)
            self.record.add("end", "end of file")
        except OSError:
            self.record.add("end", "reset")


class LogOutput(Service):
    """Reads to end of file, counts and hashes, says nothing."""

    def serve(self, sock: socket.socket, number: int) -> None:
        """Swallow."""
        self.read_to_end(sock, number)


class Source(Service):
    """Sends ``size`` pseudo-random bytes whose SHA-256 is ``digest``, then closes."""

    def __init__(self, size: int, seed: int = 0, host: str = HOST) -> None:
        super().__init__(host)
        self.size = size
        self.seed = seed

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what every client gets."""
        return digest_of(self.size, self.seed)

    def serve(self, sock: socket.socket, number: int) -> None:
        """Send all; then wait for the client's end of file, so that unread input makes no RST."""
        for block in pseudo_random(self.size, self.seed):
            self.send(sock, block)
        sock.shutdown(socket.SHUT_WR)
        self.read_to_end(sock, number)


class ReplyAfterEof(Service):
    """Reads to end of file; answers the SHA-256 (32 bytes) of all it read and ``size`` further bytes."""

    def __init__(self, size: int = 1_000_000, seed: int = 1, host: str = HOST) -> None:
        super().__init__(host)
        self.size = size
        self.seed = seed

    def serve(self, sock: socket.socket, number: int) -> None:
        """Answer late."""
        self.send(sock, self.read_to_end(sock, number))
        for block in pseudo_random(self.size, self.seed):
            self.send(sock, block)


class HalfCloseFirst(Service):
    """Sends ``greeting``, shuts down its writing side, then reads on to end of file."""

    def __init__(self, greeting: bytes = b"that was all", host: str = HOST) -> None:
        super().__init__(host)
        self.greeting = greeting

    def serve(self, sock: socket.socket, number: int) -> None:
        """Half-close first."""
        self.send(sock, self.greeting)
        sock.shutdown(socket.SHUT_WR)
        self.read_to_end(sock, number)


class BlackHole(Service):
    """Accepts and never reads; ``buffer`` limits what the kernel takes for it (bytes, 0 is the system's)."""

    def __init__(self, buffer: int = 0, host: str = HOST) -> None:
        super().__init__(host)
        self.buffer = buffer
        self._stopping = threading.Event()

    def listen(self) -> socket.socket:
        """As other services; the buffer's size is inherited by accepted sockets."""
        listener = super().listen()
        if self.buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        return listener

    def serve(self, sock: socket.socket, number: int) -> None:
        """Hold it."""
        self._stopping.wait()

    def stop(self) -> None:
        """Let go of all."""
        self._stopping.set()
        super().stop()


class Resetter(Service):
    """Reads ``after`` bytes (0: none), sends ``first``, then closes with a RST."""

    def __init__(self, after: int = 0, first: bytes = b"", host: str = HOST) -> None:
        super().__init__(host)
        self.after = after
        self.first = first

    def serve(self, sock: socket.socket, number: int) -> None:
        """Read, send, reset."""
        missing = self.after
        while missing and (data := sock.recv(missing)):
            self._count(received=len(data))
            missing -= len(data)
        if self.first:
            self.send(sock, self.first)
        reset(sock)


class Banner(Service):
    """Speaks first: sends ``text``, then echoes."""

    def __init__(self, text: bytes = b"220 ready\r\n", host: str = HOST) -> None:
        super().__init__(host)
        self.text = text

    def serve(self, sock: socket.socket, number: int) -> None:
        """Greet and echo."""
        self.send(sock, self.text)
        Echo.serve(self, sock, number)  # type: ignore[arg-type]


class OneAtATime(Service):
    """As a PLC: echoes to one connection, and resets whoever comes before that one is closed."""

    def __init__(self, host: str = HOST) -> None:
        super().__init__(host)
        self.refused = 0
        self._taken = threading.Lock()

    def serve(self, sock: socket.socket, number: int) -> None:
        """Echo, or refuse."""
        if not self._taken.acquire(blocking=False):
            self.refused += 1
            reset(sock)
            return
        try:
            while data := sock.recv(BLOCK):
                self.send(sock, data)
        finally:  # before it is closed, which is when the other side may come again
            self._taken.release()


class Refuser(Service):
    """A port of its own that refuses: bound, so that nobody else gets it, and never listening."""

    def start(self) -> None:
        """Bind."""
        self._listener = socket.socket()
        self._listener.bind((self.host, 0))
        self.port = self._listener.getsockname()[1]


class Hanger(Service):
    """A listener whose backlog is full: a connect is neither answered nor refused."""

    def __init__(self, host: str = HOST) -> None:
        super().__init__(host)
        self._fillers: list[socket.socket] = []

    def start(self) -> None:
        """Listen with the smallest backlog and fill it."""
        self._listener = socket.socket()
        self._listener.bind((self.host, 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        for _ in range(16):
            filler = socket.socket()
            filler.settimeout(0.2)
            self._fillers.append(filler)
            try:
                filler.connect(self.address)
            except TimeoutError:
                return
        raise RuntimeError("this system's backlog does not fill")

    def stop(self) -> None:
        """Close it and what filled it."""
        for filler in self._fillers:
            filler.close()
        super().stop()
