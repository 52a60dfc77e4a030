"""Models of the original EMO client and server, faults included: independent programs on plain sockets.

Rule of this file: nothing of the project is imported, threads block as the originals' do, and what the
original does, right or wrong, is the default; every fault is a switch.

Source: wire/emo.md sections 1 and 2.
"""

import contextlib
import queue
import re
import socket
import threading
from dataclasses import dataclass, field

from tests.support.services import Record, Running, hang_up

__all__ = ["TERMINATOR", "OriginalClient", "OriginalServer"]

TERMINATOR = b"\0\0\0\0\0" + b"1818df499987fab124fac0cfc9edb83fa5578c36"
READ = 1440
FIRST = re.compile(rb"[CP]\d{6}\n")


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes; OSError at an end before them."""
    found = b""
    while len(found) < size:
        more = sock.recv(size - len(found))
        if not more:
            raise ConnectionError("the other side has ended")
        found += more
    return found


def _no_delay(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class _Unwrapper:
    """One direction out of a data socket, with the original's two faults: it holds back and stops at NULs."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is passed on, and whether the terminator came."""
        self._held += data
        end = self._held.find(TERMINATOR)
        if end >= 0:
            passed, self._held = self._held[:end], self._held[end + len(TERMINATOR) :]
            return passed, True
        nul = self._held.find(b"\0")
        if nul >= 0 or len(self._held) < len(TERMINATOR):
            return b"", False
        passed, self._held = self._held, b""
        return passed, False


def _copy_in(source: socket.socket, output: socket.socket | None) -> bool:
    """From a data socket until its terminator; False: it was lost. Without a sink all is dropped."""
    unwrapper = _Unwrapper()
    ended = False
    while not ended:
        try:
            data = source.recv(READ)
        except OSError:
            return False
        if not data:
            return False
        passed, ended = unwrapper.feed(data)
        with contextlib.suppress(OSError):
            if output is not None and passed:
                output.sendall(passed)
    with contextlib.suppress(OSError):
        if output is not None:
            output.shutdown(socket.SHUT_WR)
    return True


def _copy_out(source: socket.socket, output: socket.socket) -> None:
    """From a program to its end of file, and the terminator behind it."""
    with contextlib.suppress(OSError):
        while data := source.recv(READ):
            output.sendall(data)
    with contextlib.suppress(OSError):
        output.sendall(TERMINATOR)


@dataclass(eq=False)
class OriginalClient(Running):
    """Registers ``port`` at ``server`` and serves ``device``.

    Attributes:
        heartbeat: answers PING; off, the client of the show: an unknown letter costs it the next command.
        deaf: after a device that refused it hears no command until the server's terminator.
        reconnects: tries again after ``pause`` seconds.
    """

    server: tuple[str, int]
    port: int
    device: tuple[str, int]
    heartbeat: bool = True
    deaf: bool = True
    reconnects: bool = True
    pause: float = 10.0
    host: str = "127.0.0.1"
    record: Record = field(default_factory=Record, repr=False)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._command: socket.socket | None = None
        self._sockets: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        self.hang_up()

    def hang_up(self) -> None:
        """Lose the command socket."""
        if self._command is not None:
            hang_up(self._command)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._serve()
            except OSError as error:
                self.record.add("lost", str(error))
            for sock in self._sockets.values():
                hang_up(sock)
            self._sockets.clear()
            if not self.reconnects or self._stopped.wait(self.pause):
                return

    def _connect(self, first: bytes) -> socket.socket:
        sock = _no_delay(socket.create_connection(self.server, 10, (self.host, 0)))
        sock.settimeout(None)
        sock.sendall(first)
        return sock

    def _serve(self) -> None:
        self._command = command = self._connect(b"C%06d\n" % self.port)
        self.record.add("registered")
        command.settimeout(30)
        while True:
            got = read_exactly(command, 8)
            self.record.add("command", got)
            self._obey(command, got)

    def _obey(self, command: socket.socket, got: bytes) -> None:
        letter = got[:1]
        if letter == b"C":
            self._stream(int(got[1:7]))
        elif got == b"PING   \n" and self.heartbeat:
            self._say(b"PONG   \n")
        elif letter == b"T":
            sock = self._sockets.pop(int(got[1:7]), None)
            if sock is not None:
                hang_up(sock)
            self._say(b"S" + got[1:])
        elif letter == b"F":
            raise ConnectionError("refused")
        else:  # whatever it is, up to the next line feed is gone
            while command.recv(1) not in (b"\n", b""):
                pass

    def _say(self, data: bytes) -> None:
        assert self._command is not None
        with self._lock:
            self._command.sendall(data)

    def _stream(self, index: int) -> None:
        data = self._sockets.get(index)
        if data is None:
            data = self._sockets[index] = self._connect(b"P%06d\n" % self.port)
            self.record.add("data socket", index)
        try:
            device = _no_delay(socket.create_connection(self.device, 10))
        except OSError:
            self.record.add("device refused", index)
            data.sendall(TERMINATOR)
            self._say(b"S%06d\n" % index)
            if self.deaf:
                _copy_in(data, None)
            else:
                threading.Thread(target=_copy_in, args=(data, None), daemon=True).start()
            return
        device.settimeout(None)
        threading.Thread(target=self._relay, args=(index, data, device), daemon=True).start()

    def _relay(self, index: int, data: socket.socket, device: socket.socket) -> None:
        out = threading.Thread(target=_copy_out, args=(device, data), daemon=True)
        out.start()
        in_order = _copy_in(data, device)
        if not in_order:
            hang_up(device)
        out.join()
        device.close()
        if in_order:
            with contextlib.suppress(OSError):
                self._say(b"S%06d\n" % index)
        self.record.add("stream over", index, in_order)


@dataclass(eq=False)
class OriginalServer(Running):
    """Command and data sockets on one port; applications on the ports that clients register.

    Attributes:
        heartbeat: sends PING at the registration and every 10 s.
        crossing: arriving data sockets go to whoever waits, of whatever machine.
    """

    heartbeat: bool = True
    crossing: bool = True
    record: Record = field(default_factory=Record, repr=False)

    def __post_init__(self) -> None:
        self.port = 0
        self._listener: socket.socket | None = None
        self._arrived: queue.Queue[socket.socket] = queue.Queue()
        self._of_port: dict[int, queue.Queue[socket.socket]] = {}
        self._machines: dict[int, _Machine] = {}

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            hang_up(self._listener)
        for machine in [*self._machines.values()]:
            machine.stop()
        self._machines.clear()

    def drop_machines(self) -> None:
        """Lose every command socket and what belongs to it."""
        for machine in [*self._machines.values()]:
            machine.stop()
        self._machines.clear()

    def arrived(self, port: int) -> "queue.Queue[socket.socket]":
        """Where data sockets of a port are waited for."""
        return self._arrived if self.crossing else self._of_port.setdefault(port, queue.Queue())

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock = _no_delay(listener.accept()[0])
            except OSError:
                return
            self._greet(sock)  # whoever connects meanwhile waits

    def _greet(self, sock: socket.socket) -> None:
        sock.settimeout(3)
        try:
            first = read_exactly(sock, 8)
        except OSError:
            self.record.add("too little")
            sock.close()
            return
        if not FIRST.fullmatch(first):
            self.record.add("garbage", first)
            sock.close()
            return
        sock.settimeout(None)
        port = int(first[1:7])
        if first[:1] == b"P":
            self.record.add("data socket", port)
            self.arrived(port).put(sock)
        else:
            self._register(port, sock)

    def _register(self, port: int, sock: socket.socket) -> None:
        try:
            applications = socket.create_server(("127.0.0.1", port))
        except OSError:
            sock.sendall(b"F0000001\n")
            sock.close()
            return
        old = self._machines.pop(port, None)
        if old is not None:
            old.stop()
        machine = self._machines[port] = _Machine(self, port, sock, applications)
        self.record.add("registered", port)
        machine.start()


class _Machine:
    """One registered port."""

    def __init__(
        self, server: OriginalServer, port: int, command: socket.socket, applications: socket.socket
    ) -> None:
        self._server = server
        self._port = port
        self._command = command
        self._applications = applications
        self._sockets: dict[int, socket.socket] = {}
        self._idle: list[int] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Serve commands and applications."""
        for target in (self._commands, self._accept):
            threading.Thread(target=target, daemon=True).start()

    def stop(self) -> None:
        """Close everything of it."""
        hang_up(self._applications)
        hang_up(self._command)
        for sock in self._sockets.values():
            hang_up(sock)

    def _say(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._command.sendall(data)

    def _commands(self) -> None:
        if self._server.heartbeat:
            self._say(b"PING   \n")
        self._command.settimeout(10)
        held, silent = b"", 0
        while True:
            try:
                more = self._command.recv(1024)
            except TimeoutError:
                silent += 1
                if silent == 3 or not self._server.heartbeat:
                    continue
                self._say(b"PING   \n")
                continue
            except OSError:
                more = b""
            if not more:
                self._server.record.add("command socket lost", self._port)
                self.stop()
                return
            silent, held = 0, held + more
            while len(held) >= 8:
                self._take(held[:8])
                held = held[8:]

    def _take(self, command: bytes) -> None:
        self._server.record.add("command", command)
        if command[:1] == b"S":
            self._idle.append(int(command[1:7]))
        elif command[:1] == b"T":
            sock = self._sockets.pop(int(command[1:7]), None)
            if sock is not None:
                hang_up(sock)

    def _accept(self) -> None:
        while True:
            try:
                application = _no_delay(self._applications.accept()[0])
            except OSError:
                return
            threading.Thread(target=self._serve, args=(application,), daemon=True).start()

    def _serve(self, application: socket.socket) -> None:
        with self._lock:
            index = self._idle.pop() if self._idle else 0
            known = index != 0
            if not known:
                index = next(n for n in range(1, 51) if n not in self._sockets)
                self._sockets[index] = self._command  # a place holder
        self._say(b"C%06d\n" % index)
        if not known:
            try:
                self._sockets[index] = self._server.arrived(self._port).get(timeout=30)
            except queue.Empty:
                application.close()
                return
        data = self._sockets[index]
        inward = threading.Thread(target=_copy_in, args=(data, application), daemon=True)
        inward.start()
        _copy_out(application, data)
        inward.join()
        application.close()
        self._server.record.add("application over", self._port, index)
