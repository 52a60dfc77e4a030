"""Pairs of sockets driven at random over a relay, by a seed: keyed bytes, half-closes, resets, cuts, kicks.

Alone it is a program, which takes the extension from a file, such as one built with a sanitizer:

    python -m tests.support.pump_drive FILE SEED COUNT
"""

import contextlib
import hashlib
import importlib.util
import random
import socket
import struct
import sys
from typing import Any

from twisted.internet.epollreactor import EPollReactor

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.ends import RECORD, End, PlainEnd, TlsEnd
from revtunnel.sockets.reactor_turn import shorten_turns
from revtunnel.sockets.relay import Relay
from tests.support.throwaway_tls import contexts

__all__ = ["KIB", "Drive", "Program", "load_pump", "tcp_sockets"]

KIB = 1024
RESET = struct.pack("ii", 1, 0)
_room = memoryview(bytearray(200 * KIB))


def tcp_sockets() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection over loopback, that does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for each in (ours, theirs):
        each.setblocking(False)
    return ours, theirs


def ends(tls: bool) -> tuple[End, End]:
    """The same with TLS on it, shaken, or without."""
    near, far = tcp_sockets()
    if not tls:
        return PlainEnd(near), PlainEnd(far)
    server, client = contexts()
    found = TlsEnd.connecting(client.getContext(), near), TlsEnd.accepting(server.getContext(), far)
    while not (found[0].handshake() & found[1].handshake()):
        pass
    return found


class Program:
    """A client or a service: it sends what its key says, ends, and may reset; it checks what it hears."""

    def __init__(self, sock: socket.socket, key: str, size: int, pace: random.Random) -> None:
        self.sock, self.pace = sock, pace
        self.said = hashlib.shake_256(key.encode()).digest(size)
        self.sent = 0
        self.heard = bytearray()
        self.ended = False  # it has ended its direction
        self.saw = ""  # end, or reset

    def step(self) -> None:
        """Send some, read some."""
        if self.pace.random() < 0.6:
            self._send(self.pace.randint(1, 200 * KIB))
        if self.pace.random() < 0.6:
            self._read(self.pace.randint(1, 200 * KIB))

    def _send(self, most: int) -> None:
        try:
            if self.sent < len(self.said):
                self.sent += self._give(most)
            elif not self.ended:
                self.ended = self._end()
        except BlockingIOError:
            pass
        except OSError:
            self.saw = self.saw or "reset"

    def _read(self, most: int) -> None:
        if self.saw:
            return
        try:
            data = self._take(most)
        except BlockingIOError:
            return
        except OSError:
            self.saw = "reset"
            return
        self.heard += data
        if not data:
            self.saw = "end"

    # -- by its socket; BlockingIOError: not now

    def _give(self, most: int) -> int:
        return self.sock.send(self.said[self.sent : self.sent + most])

    def _end(self) -> bool:
        self.sock.shutdown(socket.SHUT_WR)
        return True

    def _take(self, most: int) -> bytes:
        return self.sock.recv(most)

    def reset(self) -> None:
        """Cut it."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()
        self.saw = "self"


class EndProgram(Program):
    """The same by an end, plain or TLS."""

    def __init__(self, end: End, key: str, size: int, pace: random.Random) -> None:
        super().__init__(end.sock, key, size, pace)
        self.end = end
        self._unsent = b""
        self._rude = isinstance(end, TlsEnd) and pace.random() < 0.5

    def _give(self, most: int) -> int:
        self._unsent = self._unsent or self.said[self.sent : self.sent + most]
        taken = self.end.write(self._unsent)
        self._unsent = self._unsent[taken:]
        return taken

    def _end(self) -> bool:
        return self.end.end_writing()

    def _take(self, most: int) -> bytes:
        size = self.end.read_into(_room[: max(most, RECORD)])
        if size is None:
            raise BlockingIOError
        return bytes(_room[:size])

    def cut(self) -> None:
        """With a reset; or by a FIN where TLS owes a close_notify, with or without rubbish in front."""
        if not self._rude and self.saw != "self":
            self.reset()
        elif self._rude and not self.ended:
            self.sent, self.ended = len(self.said), True
            with contextlib.suppress(OSError):
                self.sock.send(self.pace.choice((b"", bytes(30))))
                self.sock.shutdown(socket.SHUT_WR)


class Pair:
    """A client and a service, the relay between them, and what shall become of it."""

    def __init__(self, reactor: Any, number: int, pace: random.Random, tls: tuple[bool, bool]) -> None:
        (client, near), (service, far) = ends(tls[0]), ends(tls[1])
        size = pace.choice((0, 1, 5_000, 300_000, 2_000_000))
        self.programs = [EndProgram(client, f"client {number}", size, pace)]
        self.programs.append(EndProgram(service, f"service {number}", pace.choice((0, 7, 700_000)), pace))
        self.fate = pace.choice(("end", "end", "end", "client", "service", "kick"))
        self.when = pace.randint(0, 12)  # steps
        self.ended: list[tuple[Ended, str]] = []
        self.relay = Relay(reactor, near, far, self._ended, RelayLimits())
        self.relay.start()

    def _ended(self, reason: Ended, detail: str) -> None:
        self.ended.append((reason, detail))

    def step(self) -> bool:
        """False: it is over, and both programs know."""
        self.when -= 1
        if self.when < 0 and self.fate in ("client", "service"):
            self.programs[self.fate == "service"].cut()
        elif self.when < 0 and self.fate == "kick":
            self.relay.abort(Ended.OPERATOR, "kicked")
        for each in self.programs:
            if each.saw != "self":
                each.step()
        return not (self.ended and all(each.saw for each in self.programs))

    def check(self) -> tuple[str, str]:
        """What became of it, for comparison; AssertionError: a byte was wrong, or an end."""
        ((reason, detail),) = self.ended
        client, service = self.programs
        assert client.said.startswith(service.heard)
        assert service.said.startswith(client.heard)
        assert self.relay.to_far >= len(service.heard) and self.relay.to_near >= len(client.heard)
        if reason is Ended.CLOSED:  # in spite of another fate, which came too late
            for each, other in ((client, service), (service, client)):
                assert each.saw == "self" or (each.saw == "end" and each.heard == other.said)
            assert (self.relay.to_far, self.relay.to_near) == (len(client.said), len(service.said))
        else:
            assert reason is (Ended.OPERATOR if self.fate == "kick" else Ended.RESET_BY_PEER)
            assert self.fate != "end"
            assert detail == "kicked" or detail.startswith("near: " if self.fate == "client" else "far: ")
        assert self.relay.held == 0
        for each in self.programs:
            each.sock.close()
        return self.fate, "ended" if reason is Ended.CLOSED else "cut"


class Drive:
    """Many pairs on one reactor; ``after`` as of DataPlane, None: Python moves all bytes."""

    def __init__(self, after: int | None, threaded: bool = True) -> None:
        self.reactor = EPollReactor()
        shorten_turns(self.reactor)
        self.plane = None if after is None else DataPlane(self.reactor, after, threaded)

    def run(
        self, seed: int, count: int, at_once: int = 8, tls: tuple[bool, bool] = (False, False)
    ) -> list[tuple[str, str]]:
        """What became of each pair."""
        pace = random.Random(seed)
        waiting, running, found = list(range(count)), [], {}
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                running.append((number, Pair(self.reactor, number, random.Random(pace.random()), tls)))
            self.reactor.iterate(0.0005)
            for number, pair in [*running]:
                if not pair.step():
                    running.remove((number, pair))
                    found[number] = pair.check()
        return [found[number] for number in range(count)]

    def close(self) -> None:
        """Nothing stays."""
        if self.plane is not None:
            assert len(self.plane) == 0
            self.plane.close()
        for reader in self.reactor.getReaders():
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        self.reactor._poller.close()


def load_pump(file: str) -> None:
    """Take the extension from a file."""
    spec = importlib.util.spec_from_file_location("revtunnel._pump", file)
    assert spec is not None and spec.loader is not None
    sys.modules["revtunnel._pump"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["revtunnel._pump"])


def _main(file: str, seed: int, count: int) -> None:
    load_pump(file)
    for after, tls in ((0, (False, False)), (3, (False, False)), (3, (True, False)), (0, (True, True))):
        drive = Drive(after)
        drive.run(seed, count, tls=tls)
        drive.close()
    print("ok")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
