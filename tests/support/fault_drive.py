"""Doors, dials and pairs of the data plane while a call of its C fails.

The rule that is checked: a program that sees an end of file has had every byte, else it sees a reset. When
all is over no descriptor and no piece of memory is left, and nothing was logged as an error. Alone it is a
program that takes a build with pump_faults.c from a file, and has some faults of a list, or all, or one::

    python -m tests.support.fault_drive FILE SEED [all | WHAT CALL ERRNO FIRST [EVERY]]
"""

import contextlib
import ctypes
import errno
import gc
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.python import log

from revtunnel.ground.limits import RelayLimits
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.relay import Relay
from revtunnel.streams.commands import Command
from tests.support.agent_site import FIRST, OPENED, agent_site
from tests.support.data_world import HOST, SERIAL
from tests.support.dial_drive import ATTACH
from tests.support.door_drive import OPENED as ANSWER
from tests.support.door_drive import DoorWorld
from tests.support.pump_drive import Drive, Program, load_pump, tcp_sockets

CALLS = ("memory", "recv", "send", "accept", "socket", "connect", "shutdown", "watch", "wait", "poll")
Begin = Callable[[], None]  # faults come from now on
SHORT = 0  # in place of an errno
COUNT = 8  # clients of a round
SIZES = (0, 1, 5_000, 300_000), (0, 7, 200_000)
LATE = 20.0  # seconds that a round may take


class Faults:
    """Of the build in a file: one plan at a time."""

    def __init__(self, file: str) -> None:
        self._library = ctypes.CDLL(file)

    def _number(self, name: str) -> Any:
        return ctypes.c_long.in_dll(self._library, name)

    def plan(self, call: str, error: int, first: int, every: int = 0) -> None:
        """From now on that call fails: the first-th from here, and each so many behind."""
        calls = (ctypes.c_long * len(CALLS)).in_dll(self._library, "faults_calls")
        self._number("faults_first").value = calls[CALLS.index(call)] + first
        self._number("faults_every").value = every
        ctypes.c_int.in_dll(self._library, "faults_error").value = error
        self._number("faults_made").value = 0
        self._number("faults_call").value = CALLS.index(call)

    def end(self) -> int:
        """No more of them; how many there were."""
        self._number("faults_call").value = -1
        return int(self._number("faults_made").value)

    def calls(self, call: str) -> int:
        """How often it was called."""
        return int((ctypes.c_long * len(CALLS)).in_dll(self._library, "faults_calls")[CALLS.index(call)])

    @property
    def live(self) -> int:
        """Pieces of memory."""
        return int(self._number("faults_live").value)


class Two:
    """A client and its service, and what they have heard of each other."""

    def __init__(self, client: Program) -> None:
        self.client = client
        self.service: Program | None = None

    def step(self) -> bool:
        """False: it is over, and both know."""
        both = [each for each in (self.client, self.service) if each is not None]
        for each in both:
            each.step()
        return not all(each.saw for each in both)

    def check(self) -> None:
        """AssertionError: a byte was wrong or is missing, and no reset said so."""
        client, service = self.client, self.service
        for one, other in ((client, service), (service, client)):
            if one is not None:
                said = other.said if other is not None else b""
                assert said.startswith(one.heard), "another byte"
                assert one.saw == "reset" or one.heard == said, (
                    f"{len(one.heard)} of {len(said)}, then an end"
                )
                one.sock.close()


def _until_over(running: list[Two], turn: Any, done: Any) -> None:
    late = time.monotonic() + LATE
    while running or not done():
        assert time.monotonic() < late, f"{len(running)} are not over"
        turn()
        for each in [*running]:
            if not each.step():
                running.remove(each)
                each.check()


def doors(seed: int, begin: Begin) -> None:
    """Clients at a port of a server, which the plane has."""
    pace = random.Random(seed)
    with DoorWorld(True) as world:
        for number in range(2):
            _clients(world, [number], pace)
        assert len(world.switchboard.doors) == 1
        world.until(lambda: len(world.pool.spare) > 1 and not world.pool.core.coming, "data sockets")
        begin()
        _clients(world, range(2, 2 + COUNT), pace)
        world.close()


def _clients(world: DoorWorld, numbers: Iterable[int], pace: random.Random) -> None:
    """From their beginning to their end."""
    by_port, running = {}, []
    for number in numbers:
        sock = socket.create_connection((HOST, world.ports.of(SERIAL)[0].lease.port))
        sock.setblocking(False)
        two = Two(Program(sock, f"client {number}", pace.choice(SIZES[0]), pace))
        two.client._send(pace.choice((1, 100_000)))
        by_port[sock.getsockname()[1]] = two
        running.append(two)

    def turn() -> None:
        world.reactor.iterate(0.0005)
        for brought in world.asked():
            origin = brought.opening.origin
            two = by_port.get(origin.client_port) if origin is not None else None
            if two is None or two.client.saw:
                brought.sock.close()
                continue
            try:
                brought.sock.send(ANSWER)
            except ConnectionError:  # it was given up meanwhile: there is another
                brought.sock.close()
                continue
            world.late.add(brought.number)
            key = f"service {brought.number}"
            two.service = Program(brought.sock, key, pace.choice(SIZES[1]), pace)
            two.service.heard += brought.opening.early

    _until_over(running, turn, lambda: not world.switchboard.clients)


def dials(seed: int, begin: Begin) -> None:
    """Data sockets of an agent."""
    pace = random.Random(seed)
    with agent_site("native") as site:
        begin()
        by_number: dict[int, Two] = {}
        coming: list[socket.socket] = []
        running: list[Two] = []
        unknown: list[socket.socket] = []
        site.want(COUNT)

        def turn() -> None:
            site.loop.reactor.iterate(0.0005)
            for listener, into in ((site.server, coming), (site.services, unknown)):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        into.append(listener.accept()[0])
                        into[-1].setblocking(False)
            for each in [*coming]:
                with contextlib.suppress(BlockingIOError):
                    frame = _taken(each, ATTACH)
                    coming.remove(each)
                    if len(frame) < ATTACH:
                        each.close()
                        continue
                    number = int.from_bytes(frame[4:8], "big")
                    asked = site.connect + number.to_bytes(4, "big")
                    client = Asking(each, f"client {number}", pace.choice(SIZES[0]), pace)
                    by_number[number] = two = Two(client)
                    running.append(two)
                    with contextlib.suppress(ConnectionError):
                        each.send(asked + client.said[:10])
                        client.sent = len(client.said[:10])
            for each in [*unknown]:
                with contextlib.suppress(BlockingIOError):
                    mark = _taken(each, 4)
                    unknown.remove(each)
                    if len(mark) < 4:
                        each.close()
                        continue
                    number = int.from_bytes(mark, "big")
                    by_number[number].service = Program(
                        each, f"service {number}", pace.choice(SIZES[1]), pace
                    )

        _until_over(running, turn, lambda: site.data.count == 0 and not coming and not unknown)
        assert site.next == FIRST + COUNT


class Asking(Program):
    """A client that hears OPENED before all else, or RESET and then an end."""

    opened = False

    def step(self) -> None:
        super().step()
        if not self.opened and self.heard[: len(OPENED)] == OPENED:
            self.opened = True
            del self.heard[: len(OPENED)]
        elif not self.opened and self.saw:
            assert OPENED.startswith(self.heard) or self.heard[2:3] == bytes((Command.RESET,))
            self.heard.clear()
            self.saw = "reset"


def _taken(end: socket.socket, size: int) -> bytes:
    """So many bytes at once; none: it is over before. BlockingIOError: not yet."""
    over = select.poll()
    over.register(end, select.POLLRDHUP)
    try:
        if len(end.recv(size, socket.MSG_PEEK)) == size:
            return end.recv(size)
    except ConnectionError:
        return b""
    if over.poll(0):
        return b""
    raise BlockingIOError


def pairs(seed: int, begin: Begin) -> None:
    """Pairs that a relay hands over."""
    pace = random.Random(seed)
    drive = Drive(0)
    begin()
    running, relays = [], []
    for number in range(COUNT):
        (client, near), (service, far) = tcp_sockets(), tcp_sockets()
        two = Two(Program(client, f"client {number}", pace.choice(SIZES[0]), pace))
        two.service = Program(service, f"service {number}", pace.choice(SIZES[1]), pace)
        relay = Relay(drive.reactor, PlainEnd(near), PlainEnd(far), lambda *_: None, RelayLimits())
        relay.start()
        relays.append(relay)
        running.append(two)
    _until_over(running, lambda: drive.reactor.iterate(0.0005), lambda: all(each.over for each in relays))
    drive.close()


WHAT = {"doors": doors, "dials": dials, "pairs": pairs}


def _descriptors() -> int:
    """But for those that listeners have in reserve."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            found += os.readlink(f"/proc/self/fd/{each}") != os.devnull
    return found


class Rounds:
    """One after the other, in one process."""

    def __init__(self, file: str, seed: int) -> None:
        load_pump(file)
        self.faults = Faults(file)
        self.seed = seed
        self.wrong: list[Any] = []
        log.addObserver(lambda event: self.wrong.append(event) if event["isError"] else None)
        for what in WHAT.values():  # what stays for good is there behind that
            what(seed, lambda: None)
        gc.collect()
        gc.freeze()
        self._check((), 0)

    def run(self, what: str, call: str, error: int, first: int, every: int = 0) -> bool:
        """Whether it came to that fault: of the calls that have that number from the beginning of a round."""
        gc.collect()
        before = _descriptors(), self.faults.live
        about = what, call, errno.errorcode.get(error, "SHORT"), first, every
        try:
            WHAT[what](self.seed, lambda: self.faults.plan(call, error, first, every))
        except BaseException:
            print(about, file=sys.stderr)
            raise
        made = self.faults.end()
        self._check(about, *before)
        return made > 0

    def _check(self, about: Any, *before: int) -> None:
        gc.collect()
        after = _descriptors(), self.faults.live
        if before[1:]:
            assert after == before, (about, before, after)
        for event in self.wrong:
            print(about, log.textFromEventDict(event), file=sys.stderr)
        assert not self.wrong, about


FAULTS = {
    "memory": (errno.ENOMEM,),
    "recv": (SHORT, errno.EINTR, errno.ECONNRESET),
    "send": (SHORT, errno.EINTR, errno.EPIPE, errno.ENOBUFS),
    "accept": (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.EINTR, errno.EPERM),
    "socket": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS),
    "connect": (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINTR, errno.EAGAIN),
    "shutdown": (errno.ENOTCONN,),
    "watch": (errno.ENOSPC, errno.ENOMEM),
    "wait": (errno.EINTR,),
    "poll": (errno.EINTR, errno.ENOMEM),
}


def some(rounds: Rounds, seed: int) -> None:
    """Of each call one fault somewhere; no memory at every fifth place where some is taken."""
    pace = random.Random(seed)
    rounds.run("doors", "accept", errno.EPERM, 1, 1)  # for good: Python has the port back
    for what in WHAT:
        first = 1 + seed % 5
        while rounds.run(what, "memory", errno.ENOMEM, first):
            first += 5
        for call, errors in FAULTS.items():
            rounds.run(what, call, pace.choice(errors), pace.randint(1, 8), pace.choice((0, 0, 2, 7)))


def every(rounds: Rounds) -> None:
    """Each fault of the list at each place."""
    for what in WHAT:
        for call, errors in FAULTS.items():
            for error in errors:
                first = 1
                while rounds.run(what, call, error, first):
                    first += 1


def _main(file: str, seed: str, *one: str) -> None:
    rounds = Rounds(file, int(seed))
    if one == ("all",):
        every(rounds)
    elif one:
        rounds.run(one[0], one[1], *map(int, one[2:]))
    else:
        some(rounds, int(seed))
    print("ok")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 7, 8):
        sys.exit(__doc__)
    _main(*sys.argv[1:])
