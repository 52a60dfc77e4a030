"""Clients of a server driven at random, by a seed, against data sockets that the test brings and answers on.

What a client says before and after its CONNECT, what comes of that, who leaves, who is kicked; now and then
somebody lists all streams, or all ports are taken back. Alone it is a program, as dial_drive.py is:

    python -m tests.support.door_drive FILE SEED COUNT
"""

import contextlib
import random
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.python import log

from revtunnel.carriers.data_opening import AwaitConnect
from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.reasons import Ended
from revtunnel.streams.commands import Command, encode_reset, number_of
from revtunnel.streams.frames import encode_frame
from tests.support.data_world import HOST, SERIAL, DataWorld
from tests.support.pump_drive import Program, load_pump
from tests.support.traffic import reset

__all__ = ["DoorWorld", "drive", "short_connections"]

OPENED = encode_frame(Command.OPENED, 0)
FATES = ("end", "end", "end", "split", "client", "service", "refused", "retried", "garbage", "late")
FATES += ("leaver", "kick", "silent")
WORDS = {
    "end": "CLOSED",
    "split": "CLOSED",
    "refused": "REFUSED",
    "retried": "CLOSED",
    "garbage": "CLOSED",
    "late": "LINK_LOST",
    "leaver": "RESET_BY_PEER",
}


class _Link:
    """The link of a world, whose tickets and RECALLs are the test's."""

    def __init__(self, link: Any, want: Callable[[list[bytes]], None], recall: Callable[..., None]) -> None:
        self._link = link
        self.want, self.recall = want, recall

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


class Brought:
    """A data socket that the test has brought."""

    def __init__(self, world: "DoorWorld", ticket: bytes) -> None:
        self.number = number_of(ticket)
        self.sock = socket.create_connection((HOST, world.port))
        said = encode_frame(Command.ATTACH, 0, ticket)
        at = len(said) if self.number % 4 else self.number // 4 % len(said)
        self.sock.send(said[:at])
        if at < len(said):  # the rest comes once nobody can judge it at a glance
            world.reactor.callLater(0.002, self._rest, said[at:])
        self.sock.setblocking(False)
        others = said if at == len(said) else b"", said[:4] + bytes(16), b"GET / HTTP/1.1\r\n\r\n"
        if self.number % 5 == 0:  # somebody shows the same a little later, or something else
            with socket.create_connection((HOST, world.port)) as other:
                other.send(others[self.number % 3])
        self.opening = AwaitConnect()

    def _rest(self, said: bytes) -> None:
        with contextlib.suppress(OSError):  # it was closed meanwhile
            self.sock.send(said)

    def asked(self) -> bool | None:
        """Whether CONNECT has come; None: it has ended before."""
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return self.opening.receive(data) is not None if data else None


class DoorWorld(DataWorld):
    """``spare``: data sockets on which nobody was asked for; ``late``: what is recalled is under way."""

    def __init__(self, native: bool) -> None:
        self.native = native
        super().__init__(header=lambda *_: b"")  # type: ignore[arg-type, return-value]
        self.spare: list[Brought] = []
        self.late: set[int] = set()
        self.pool.link = _Link(self.pool.link, self._want, self._recall)  # type: ignore[assignment]

    def _want(self, tickets: list[bytes]) -> None:
        self.spare += [Brought(self, ticket) for ticket in tickets]

    def _recall(self, number: int, told: Callable[[bool], None]) -> None:
        told(number not in self.late)

    def asked(self) -> Iterator[Brought]:
        """Those on which a CONNECT has come since."""
        for each in [*self.spare]:
            asked = each.asked()
            if asked is not False:
                self.spare.remove(each)
            if asked is None:
                each.sock.close()
            elif asked:
                yield each

    def close(self) -> None:
        """Nothing is left, neither here nor in the plane."""
        self.until(lambda: not self.switchboard.clients, "the end of all clients")
        assert self.switchboard.streams.page() == []
        self.switchboard.doors.recall_all()
        assert self.switchboard.data.sockets == self.pool.core.warm == len(self.pool.spare)
        for each in self.spare:
            each.sock.close()


class Client:
    """One client, and what shall become of it."""

    def __init__(self, world: DoorWorld, number: int, seed: int) -> None:
        self.world, self.number = world, number
        self.pace = random.Random(f"{seed} {number}")
        self.fate = self.pace.choice(FATES)
        self.when = self.pace.randint(0, 8)  # steps, until who leaves does so
        sizes = self.pace.choice((0, 1, 5_000, 300_000)), self.pace.choice((0, 7, 200_000))
        port = world.ports.of(SERIAL)[0].lease.port
        sock = socket.create_connection((HOST, port))
        sock.setblocking(False)
        self.origin = sock.getsockname()[1]
        self.program = Program(sock, f"client {number}", sizes[0], self.pace)
        self.service_size = sizes[1]
        self.service: Program | None = None
        self.channel = 0
        self.tries = 0
        self.was_late = False
        self.last: Brought | None = None
        if self.fate in ("late", "garbage") and not sizes[0]:
            self.fate = "end"
        if self.fate == "late" or self.pace.random() < 0.5:
            self.program._send(self.pace.choice((1, 100, 100_000)))

    def answer(self, brought: Brought) -> None:
        """It was asked for on this one."""
        self.tries, self.channel, self.last = self.tries + 1, brought.number, brought
        first = self.tries == 1
        if self.fate in ("leaver", "silent"):
            return
        with contextlib.suppress(ConnectionError):
            if first and self.fate == "late" and brought.opening.early:
                self.world.late.add(brought.number)
                self.was_late = True
            if first and self.fate in ("late", "retried"):
                brought.sock.close()
            elif first and self.fate == "garbage":
                brought.sock.send(
                    self.pace.choice((b"HTTP/1.1 200 OK\r\n", OPENED[:2] + b"\xff\xff", b"\0\0\x13\7"))
                )
                self._forget(brought)
            elif self.fate == "refused":
                reset = encode_frame(Command.RESET, 0, encode_reset(Ended.REFUSED, "nobody is there"))
                self._in_pieces(brought, reset)
                self._forget(brought)
            else:
                self._open(brought)

    def _open(self, brought: Brought) -> None:
        service = Program(brought.sock, f"service {self.number}", self.service_size, self.pace)
        service.heard += brought.opening.early
        self.service = service
        answer = OPENED
        if self.pace.random() < 0.3:
            answer += service.said[:1000]
            service.sent = len(answer) - len(OPENED)
        if self.fate == "split":
            self._in_pieces(brought, answer)
        else:
            brought.sock.send(answer)

    def _in_pieces(self, brought: Brought, data: bytes) -> None:
        at = self.pace.randrange(1, 4)
        brought.sock.send(data[:at])
        for _ in range(self.pace.randint(0, 3)):
            self.world.reactor.iterate(0.0005)
        brought.sock.send(data[at:])

    def _forget(self, brought: Brought) -> None:
        """The server cuts it, or it ends with its answer."""
        if self.pace.random() < 0.5:
            self.world.until(lambda: self._is_over(brought), "the end of a data socket")
        brought.sock.close()

    def _is_over(self, brought: Brought) -> bool:
        try:
            return not brought.sock.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def step(self) -> bool:
        """False: it is over, and both programs know."""
        client, service = self.program, self.service
        asked = self.tries > 0
        self.when -= asked
        if (
            self.when < 0
            and client.saw != "self"
            and (self.fate == "leaver" or (self.fate == "client" and service))
        ):
            client.reset()
        if self.when < 0 and self.fate == "silent" and service is None and self.last is not None:
            self._open(self.last)
        if self.when < 0 and self.fate == "service" and service is not None and service.saw != "self":
            service.reset()
        if self.when < 0 and self.fate == "kick" and service is not None:
            self.world.switchboard.close_channel(SERIAL, self.channel, "kicked")
            self.when = 1 << 30
        for each in (client, service):
            if each is not None and each.saw != "self":
                each.step()
        ended = self._ends()
        return not (ended and client.saw and (service is None or service.saw))

    def _ends(self) -> list[ChannelEnded]:
        peer = f"{HOST}:{self.origin}"
        return [fact for fact in self.world.of(ChannelEnded) if fact.peer == peer]

    def check(self) -> tuple[str, str]:
        """What became of it; AssertionError: a byte was wrong, or a fact."""
        client, service = self.program, self.service
        (end,) = self._ends()
        opened = [fact for fact in self.world.of(ChannelOpened) if fact.channel == end.channel]
        left = self.fate in ("client", "service", "kick")  # which may be before the answer was read
        assert len(opened) in ((0, 1) if left else (service is not None,)), (self.fate, opened, end)
        if self.last is not None:
            self.last.sock.close()
        client.sock.close()
        if service is not None and opened:
            assert client.said.startswith(service.heard) and service.said.startswith(client.heard)
            assert end.bytes_to_device >= len(service.heard) and end.bytes_to_client >= len(client.heard)
        elif service is None:
            assert not client.heard
        if end.reason is Ended.CLOSED:
            assert service is not None
            assert (end.bytes_to_device, end.bytes_to_client) == (len(client.said), len(service.said))
            assert client.saw == "self" or client.heard == service.said
            assert service.saw == "self" or service.heard == client.said
        word = WORDS.get(self.fate)
        if self.fate == "late" and not self.was_late:  # nothing was said with its first CONNECT
            word = "CLOSED"
        assert word in (None, end.reason.name), (self.fate, end)
        return self.fate, end.reason.name if word is not None and self.fate != "late" else ""


def drive(native: bool, seed: int, count: int, at_once: int = 8) -> list[tuple[str, str]]:
    """What became of each client."""
    pace = random.Random(seed)
    wrong: list[Any] = []
    log.addObserver(lambda event: wrong.append(event) if event["isError"] else None)
    waiting, found = list(range(count)), {}
    running: dict[int, Client] = {}
    with DoorWorld(native) as world:
        while waiting or running:
            while waiting and len(running) < at_once:
                client = Client(world, waiting.pop(0), seed)
                running[client.origin] = client
            world.reactor.iterate(0.0005)
            for brought in world.asked():
                origin = brought.opening.origin
                if origin is None:  # its client has been cut meanwhile
                    brought.sock.close()
                    continue
                assert origin.client == HOST and origin.server_port == world.ports.of(SERIAL)[0].lease.port
                running[origin.client_port].answer(brought)
            for client in [*running.values()]:
                if not client.step():
                    del running[client.origin]
                    found[client.number] = client.check()
            if pace.random() < 0.02:
                world.switchboard.streams.page()
            if pace.random() < 0.005:
                world.switchboard.doors.recall_all()
        world.close()
    assert not wrong
    return [found[number] for number in range(count)]


def short_connections(rounds: int, count: int) -> Iterator[int]:
    """So many at a time: a byte there, a byte back; every third is reset."""
    with DoorWorld(True) as world:
        for done in range(rounds):
            left, running = count, {}
            world.facts.clear()
            while left or running or len(world.of(ChannelEnded)) < count:
                while left and len(running) < 16:
                    left -= 1
                    client = world.client()
                    client.send(b"?")
                    running[client.getsockname()[1]] = client
                world.reactor.iterate(0.0005)
                for brought in world.asked():
                    assert brought.opening.origin is not None
                    client = running.pop(brought.opening.origin.client_port)
                    if left % 3 == 0:
                        reset(client)
                    client.close()
                    with contextlib.suppress(ConnectionError):
                        brought.sock.send(OPENED + b"!")
                    brought.sock.close()
            yield done
        world.close()


def _main(file: str, seed: int, count: int) -> None:
    load_pump(file)
    drive(True, seed, count)
    print("ok")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
