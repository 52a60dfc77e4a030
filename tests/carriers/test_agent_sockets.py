"""One data socket of an agent, over a socketpair: asked for a target, joined to it, and every way it ends.

The service is another socketpair, given when the test says that the dial is done.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.carriers import agent_data
from revtunnel.carriers.agent_data import AgentData, AgentSocket
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, DataSocketsMissing
from revtunnel.ground.limits import AgentLimits, RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.streams.commands import (
    TICKET_SIZE,
    Command,
    decode_reset,
    encode_connect,
    encode_reset,
)
from revtunnel.streams.dialler import NotDialled
from revtunnel.streams.frames import encode_frame
from tests.carriers.test_agent_data import Link
from tests.support.epoll import Loop, own_reactor

TARGET = Target("10.0.0.5", 23)
SESSION = "ab" * 16
CONNECT = encode_frame(Command.CONNECT, 0, encode_connect(TARGET))
WITHIN = encode_frame(Command.WITHIN, 0, bytes.fromhex(SESSION))
OPENED = encode_frame(Command.OPENED, 0, b"")


class Desk:
    """An agent whose dials, to the server and to services, are the test's."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.link = Link()
        self.facts: list[Any] = []
        self.dials: list[tuple[Target, str, Deferred[End]]] = []
        self.cancelled = 0
        self.connects: list[Deferred[End]] = []
        self.data = AgentData(loop.reactor, AgentLimits(), self, self._connect, self.facts.append)  # type: ignore[arg-type]
        self.open: list[socket.socket] = []

    def pair(self) -> tuple[End, socket.socket]:
        """An end of the agent's, and what is behind it."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.settimeout(5)
        self.open.append(far)
        return PlainEnd(near), far

    def _connect(self, link: Any) -> "Deferred[End]":
        self.connects.append(Deferred())
        return self.connects[-1]

    def dial(self, target: Target, origin: object, session: str, first: object) -> "Deferred[End]":
        """As a Dialler."""
        dialling: Deferred[End] = Deferred(self._cancel)
        self.dials.append((target, session, dialling))
        return dialling

    def _cancel(self, dialling: object) -> None:
        self.cancelled += 1

    def attached(self) -> tuple[AgentSocket, socket.socket]:
        """A ticket came and was brought: the socket, and the server's side of it."""
        self.data.wanted(self.link, [bytes(TICKET_SIZE)])
        end, server = self.pair()
        self.connects[-1].callback(end)
        assert self.hear(server, 4 + TICKET_SIZE)[2] == Command.ATTACH
        (found,) = (each for each in self.data.sockets if each.end is end)
        return found, server

    def asked(self) -> tuple[AgentSocket, socket.socket]:
        """And asked for a target, for a session."""
        found, server = self.attached()
        server.send(WITHIN + CONNECT)
        self.loop.until(lambda: found.used, "CONNECT")
        return found, server

    def reached(self) -> tuple[socket.socket, socket.socket]:
        """And joined: the server's side, and the service's."""
        _, server = self.asked()
        end, service = self.pair()
        self.dials[-1][2].callback(end)
        assert self.hear(server, len(OPENED)) == OPENED
        return server, service

    def hear(self, side: socket.socket, size: int) -> bytes:
        """So many bytes."""
        found = bytearray()
        side.setblocking(False)

        def enough() -> bool:
            try:
                found.extend(side.recv(size - len(found)))
            except BlockingIOError:
                return False
            return len(found) == size

        self.loop.until(enough, f"{size} bytes")
        return bytes(found)

    def ended(self) -> tuple[Ended, str]:
        """The one channel that has ended."""
        self.loop.until(lambda: self._ends(), "the end of a channel")
        (fact,) = self._ends()
        return fact.reason, fact.detail

    def _ends(self) -> list[ChannelEnded]:
        return [fact for fact in self.facts if isinstance(fact, ChannelEnded)]

    def is_over(self, side: socket.socket) -> bool:
        """Whether the other side of it was closed; what is unread is thrown away."""
        side.setblocking(False)
        try:
            while side.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


@pytest.fixture
def desk(no_leaks: None) -> Iterator[Desk]:
    with own_reactor() as loop:
        desk = Desk(loop)
        yield desk
        desk.data.abort()
        loop.settle()
        for each in desk.open:
            each.close()
        for call in loop.reactor.getDelayedCalls():
            call.cancel()
        assert not desk.data.sockets


def test_a_stream_from_its_ticket_to_its_end(desk: Desk) -> None:
    """The session of its client is passed to the dial; both ways whole; both ends are facts."""
    server, service = desk.reached()
    target, session, _ = desk.dials[0]
    assert (target, session) == (TARGET, SESSION)
    server.send(b"question")
    assert desk.hear(service, 8) == b"question"
    service.send(b"answer")
    service.shutdown(socket.SHUT_WR)
    assert desk.hear(server, 6) == b"answer"
    server.shutdown(socket.SHUT_WR)
    assert desk.ended() == (Ended.CLOSED, "")
    opened, ended = desk.facts
    assert isinstance(opened, ChannelOpened) and opened.target == str(TARGET)
    assert (ended.bytes_to_device, ended.bytes_to_client) in ((8, 6), (6, 8))
    assert not desk.data.sockets and desk.data.running == 0


def test_an_unused_socket_that_its_server_closes_is_no_channel(desk: Desk) -> None:
    """Nothing is said of it."""
    _, server = desk.attached()
    server.close()
    desk.loop.until(lambda: not desk.data.sockets)
    assert desk.facts == []


def test_bytes_before_opened_wait_for_the_target(desk: Desk) -> None:
    """A client's first bytes are there before the target has answered; they are the first that it gets."""
    _, server = desk.asked()
    server.send(b"first")
    desk.loop.settle()
    assert desk.facts == [] and desk.cancelled == 0
    end, service = desk.pair()
    desk.dials[0][2].callback(end)
    assert desk.hear(server, len(OPENED)) == OPENED
    server.send(b", then")
    assert desk.hear(service, 11) == b"first, then"


def test_a_server_that_goes_while_its_target_is_dialled_ends_the_dial(desk: Desk) -> None:
    """The client has left."""
    _, server = desk.asked()
    server.close()
    assert desk.ended()[0] is Ended.RESET_BY_PEER
    assert desk.cancelled == 1


def test_a_server_that_has_gone_when_its_target_answers(desk: Desk) -> None:
    """Found out by OPENED, which nobody takes: the service is reset, and the channel is over."""
    found, server = desk.asked()
    desk.loop.reactor.removeReader(found)  # nobody has told us yet
    server.close()
    end, service = desk.pair()
    desk.dials[0][2].callback(end)
    assert desk.ended() == (Ended.RESET_BY_PEER, "server: reset the connection")
    assert desk.is_over(service)


def test_a_target_that_is_not_reached_is_a_reset_with_its_word(desk: Desk) -> None:
    """And the socket ends in order behind it."""
    _, server = desk.asked()
    desk.dials[0][2].errback(NotDialled(Ended.REFUSED, "nobody listens"))
    assert desk.ended() == (Ended.REFUSED, "nobody listens")
    wanted = encode_frame(Command.RESET, 0, encode_reset(Ended.REFUSED, "nobody listens"))
    answer = desk.hear(server, len(wanted))
    assert answer == wanted and decode_reset(answer[4:])[0] is Ended.REFUSED
    assert server.recv(1) == b""


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "dialled for"])
def test_a_session_that_the_site_takes_back_ends_its_streams(desk: Desk, joined: bool) -> None:
    """Those of that session, and no others; a dial under way as well."""
    server = desk.reached()[0] if joined else desk.asked()[1]
    _, other = desk.attached()
    desk.data.end_session("cd" * 16, "not this one")
    assert not desk.is_over(server)
    desk.data.end_session(SESSION, "the site said no")
    assert desk.ended() == (Ended.NOT_ALLOWED, "the site said no")
    assert desk.is_over(server) and not desk.is_over(other)
    assert desk.cancelled == (0 if joined else 1)


def test_a_lost_link_takes_what_carries_nothing(desk: Desk) -> None:
    """Sockets that wait, tickets, dials for them; streams only where the path is dead."""
    joined, _ = desk.reached()
    _, unused = desk.attached()
    desk.data.wanted(desk.link, [bytes(TICKET_SIZE)] * (desk.data.limits.data_dials + 5))
    cancelled: list[object] = []
    for each in desk.connects[2:]:
        each.addErrback(cancelled.append)
    desk.data.link_gone(desk.link, dead=False)
    assert desk.is_over(unused) and not desk.is_over(joined)
    assert not desk.data._tickets and not desk.data._connecting
    desk.data.link_gone(desk.link, dead=True)
    assert desk.ended()[0] is Ended.LINK_LOST and desk.is_over(joined)


def test_a_drain_waits_for_streams_and_takes_no_ticket(desk: Desk) -> None:
    """What waits is closed at once, a socket that is on its way does not come."""
    server, service = desk.reached()
    _, unused = desk.attached()
    desk.data.wanted(desk.link, [bytes(TICKET_SIZE)])
    done: list[None] = []
    desk.data.drain().addCallback(done.append)
    assert desk.is_over(unused) and not desk.data._connecting and not done
    desk.data.wanted(desk.link, [bytes(TICKET_SIZE)])
    assert len(desk.connects) == 3
    server.close()
    service.close()
    desk.loop.until(lambda: done, "the end of the drain")


def test_a_server_that_is_silent_twice_ends_its_stream(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look may have come at a bad moment."""
    server, service = desk.reached()
    silence = [0.0]
    monkeypatch.setattr(agent_data, "silence", lambda sock: silence[0])
    for silence[0] in (agent_data.DEAD, 0.0, agent_data.DEAD):
        desk.loop.advance(agent_data.LOOK)
        desk.loop.settle()
    assert not desk.is_over(server)
    desk.loop.advance(agent_data.LOOK)
    assert desk.ended()[0] is Ended.LINK_LOST
    assert desk.is_over(server) and desk.is_over(service)


def test_other_limits_hold_from_the_next_ticket_on(desk: Desk) -> None:
    """What runs goes on."""
    server, service = desk.reached()
    desk.data.take(AgentLimits(data_most=1), RelayLimits())
    desk.data.wanted(desk.link, [bytes(TICKET_SIZE)])
    assert len(desk.connects) == 1  # one is there already
    assert [type(fact) for fact in desk.facts] == [ChannelOpened, DataSocketsMissing]
    server.send(b"still here")
    assert desk.hear(service, 10) == b"still here"
