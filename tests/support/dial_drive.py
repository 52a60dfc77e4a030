"""Data sockets of an agent driven at random, by a seed: what each is asked, who leaves, what is recalled.

Alone it is a program, which takes the extension from a file, such as one built with a sanitizer:

    python -m tests.support.dial_drive FILE SEED COUNT
"""

import contextlib
import random
import socket
import sys
from collections.abc import Iterator

from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Offer, Target
from revtunnel.sockets.ends import ends_with_reset
from revtunnel.streams.commands import TICKET_SIZE, Command
from tests.support.agent_site import FIRST, HOST, OPENED, AgentSite, agent_site, asks
from tests.support.pump_drive import Program, load_pump

__all__ = ["drive", "short_connections"]

FATES = (
    "end",
    "end",
    "end",
    "end",
    "server",
    "service",
    "refused",
    "forbidden",
    "garbage",
    "spare",
    "recall",
)
CLOSED_PORT = Target(HOST, 1)  # nobody listens there
ATTACH = 4 + TICKET_SIZE


class Service(Program):
    """What a target says and hears; the first bytes are the number of its client."""

    def number(self) -> int | None:
        """It, once it is there."""
        with contextlib.suppress(BlockingIOError):
            data = self.sock.recv(4)
            if len(data) == 4:
                return int.from_bytes(data, "big")
            self.saw = "end"
        return None


class Channel:
    """One data socket at the server, and what shall become of it."""

    def __init__(self, site: AgentSite, number: int, seed: int) -> None:
        self.site, self.number = site, number
        self.pace = random.Random(f"{seed} {number}")
        self.fate = self.pace.choice(FATES)
        self.when = self.pace.randint(0, 8)  # steps, until who leaves does so
        self.sizes = self.pace.choice((0, 1, 5_000, 300_000)), self.pace.choice((0, 7, 200_000))
        self.early = self.pace.choice((0, 0, 10, 100_000))
        self.client: Program | None = None
        self.service: Service | None = None
        self.recalled: bool | None = None

    def begin(self, sock: socket.socket) -> None:
        """It is attached: ask, or what else comes of it."""
        self.client = Program(sock, f"client {self.number}", self.sizes[0], self.pace)
        mark = self.number.to_bytes(4, "big")
        early = self.client.said[: self.early]
        asked = {
            "garbage": b"\r\n\r\nGET /",
            "spare": b"",
            "refused": asks(CLOSED_PORT) + b"first bytes",
            "forbidden": asks(Target(HOST, 2)) + b"first bytes",
        }.get(self.fate, self.site.connect + mark + early)
        if self.fate == "spare":
            self.client.reset() if self.when % 2 else sock.close()
            self.client.saw = "self"
            return
        at = (
            self.pace.randrange(1, min(len(asked), len(self.site.connect))) if self.pace.random() < 0.2 else 0
        )
        with contextlib.suppress(ConnectionError):  # it was garbage that early
            if at:
                sock.send(asked[:at])
                for _ in range(self.pace.randint(0, 3)):
                    self.site.loop.reactor.iterate(0.0005)
            self.client.sent = max(0, at + sock.send(asked[at:]) - len(self.site.connect) - 4)

    def step(self) -> bool:
        """False: it is over, and both programs know."""
        if self.client is None:
            return True
        self.when -= 1
        if self.when < 0 and self.fate == "recall" and self.recalled is None:
            self.recalled = self.site.data.recall(self.site.link, self.number)
        if self.when < 0 and self.fate == "server" and self.client.saw != "self":
            self.client.reset()
        if self.when < 0 and self.fate == "service" and self.service and self.service.saw != "self":
            self.service.reset()
        for each in (self.client, self.service):
            if each is not None and each.saw != "self":
                each.step()
        if self.fate in ("garbage", "spare") or self.recalled:
            return not self.client.saw
        is_over = any(fact.channel == self.number for fact in self.site.of(ChannelEnded))
        return not (is_over and self.client.saw and (self.service is None or self.service.saw))

    def check(self) -> tuple[str, str]:
        """What became of it; AssertionError: a byte was wrong, or a fact."""
        assert self.client is not None
        ends = [fact for fact in self.site.of(ChannelEnded) if fact.channel == self.number]
        opened = [fact for fact in self.site.of(ChannelOpened) if fact.channel == self.number]
        heard = bytes(self.client.heard)
        for each in (self.client, self.service):
            if each is not None:
                each.sock.close()
        if self.fate in ("garbage", "spare"):
            assert not (ends or opened or heard)
            return self.fate, ""
        if self.recalled:
            assert not opened and not heard
            assert all(fact.reason is Ended.LINK_LOST for fact in ends)
            return self.fate, ""
        (end,) = ends
        if self.fate in ("refused", "forbidden"):
            assert not opened and heard[2:3] in (b"", bytes((Command.RESET,)))  # a reset may overtake it
            return self.fate, end.reason.name
        if opened and heard:
            assert heard.startswith(OPENED)
        if self.service is not None:
            self._check_bytes(heard[len(OPENED) :], end)
        assert self.fate not in ("end", "recall") or end.reason is Ended.CLOSED, end
        return self.fate, end.reason.name if self.fate == "end" else ""

    def _check_bytes(self, heard: bytes, end: ChannelEnded) -> None:
        assert self.client is not None and self.service is not None
        assert self.service.said.startswith(heard)
        assert self.client.said.startswith(self.service.heard)
        assert end.bytes_to_device >= len(self.service.heard)
        assert end.bytes_to_client >= len(heard)
        if end.reason is Ended.CLOSED:
            assert (end.bytes_to_device, end.bytes_to_client) == (
                4 + len(self.client.said),
                len(self.service.said),
            )
            assert self.client.saw == "self" or heard == self.service.said
            assert self.service.saw == "self" or self.service.heard == self.client.said


class Drive:
    """``count`` data sockets of one agent, some at a time."""

    def __init__(self, site: AgentSite, seed: int, count: int) -> None:
        self.site = site
        self.channels = [Channel(site, FIRST + number, seed) for number in range(count)]
        self.coming: list[socket.socket] = []  # at the server, before ATTACH
        self.unknown: list[Service] = []
        site.dialler.offer([Offer("it", site.target), Offer("closed", CLOSED_PORT)])

    def run(self, at_once: int = 12) -> list[tuple[str, str]]:
        """What became of each."""
        waiting, running = [*self.channels], []
        while waiting or running:
            count = min(len(waiting), at_once - len(running))
            self.site.want(count) if count else None
            running += waiting[:count]
            del waiting[:count]
            self.site.loop.reactor.iterate(0.0005)
            self._attach()
            self._serve()
            running = [each for each in running if each.step()]
        site = self.site
        site.until(lambda: site.data.count == 0)
        return [each.check() for each in self.channels]

    def _attach(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.coming.append(self.site.server.accept()[0])
                self.coming[-1].setblocking(False)
        for each in [*self.coming]:
            with contextlib.suppress(BlockingIOError):
                frame = each.recv(ATTACH)
                assert len(frame) == ATTACH and frame[2] == Command.ATTACH
                self.coming.remove(each)
                self.channels[int.from_bytes(frame[4:8], "big") - FIRST].begin(each)

    def _serve(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = self.site.services.accept()[0]
                sock.setblocking(False)
                self.unknown.append(Service(sock, "", 0, random.Random(0)))
        for each in [*self.unknown]:
            try:
                number = each.number()
            except OSError:  # cut before it heard who it is
                each.saw = "reset"
                number = None
            if each.saw:
                each.sock.close()
                self.unknown.remove(each)
            if number is not None:
                self.unknown.remove(each)
                channel = self.channels[number - FIRST]
                channel.service = Service(
                    each.sock, f"service {number}", channel.sizes[1], random.Random(number)
                )


def drive(plane: str, seed: int, count: int) -> list[tuple[str, str]]:
    """What became of so many sockets of an agent."""
    with agent_site(plane) as site:
        return Drive(site, seed, count).run()


def short_connections(times: int, count: int, at_once: int = 50) -> Iterator[None]:
    """So many, some at once: a byte there, a byte back, both ends of file; every third is reset instead.

    Nothing but the plane's thread serves them meanwhile.
    """
    with agent_site("native") as site:
        for listener in (site.server, site.services):
            listener.settimeout(10)
        for _ in range(times):
            for _ in range(count // at_once):
                _some(site, at_once)
            site.facts.clear()
            yield


def _some(site: AgentSite, count: int) -> None:
    site.want(count)
    ends = [site.server.accept()[0] for _ in range(count)]
    for end in ends:
        assert len(end.recv(ATTACH, socket.MSG_WAITALL)) == ATTACH
        end.send(site.connect + b"?")
    for number, end in enumerate(ends):
        service = site.services.accept()[0]
        assert service.recv(1) == b"?"
        service.send(b"!")
        assert end.recv(5, socket.MSG_WAITALL) == OPENED + b"!"
        if number % 3 == 0:
            ends_with_reset(end)
        end.close()
        service.close()
    site.until(lambda: site.data.count == 0)


def _main(file: str, seed: int, count: int) -> None:
    load_pump(file)
    drive("native", seed, count)
    print("ok")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
