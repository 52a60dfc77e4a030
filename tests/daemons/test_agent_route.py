"""Agents at /link: who gets a WebSocket, what each subprotocol is for, and what is refused on it."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from revtunnel.daemons.agent_route import AgentRoute
from revtunnel.ground.facts import LinkRefused
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.server_places import DATA, LINK
from revtunnel.link.link_websockets import dial_websocket
from revtunnel.sockets.ends import End
from revtunnel.sockets.opening import open_end
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_halves import HalfClosingEnd
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from tests.support.data_world import DataWorld
from tests.support.session_room import call_of


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataWorld]:
    """A server and its agent, by WebSocket."""
    monkeypatch.setattr(DataWorld, "web", True)
    with DataWorld() as world:
        yield world


def opened(world: DataWorld, subprotocol: str, path: str = "/link") -> "Deferred[End]":
    """A WebSocket of somebody else's."""
    place = world.place._replace(path=path)
    stage = dial_websocket(world.reactor, place, subprotocol, 10.0)
    return open_end(world.reactor, place.host, place.port, 10.0, [stage])


def route_of(world: DataWorld) -> AgentRoute:
    """As the server has it."""
    return AgentRoute(world.reactor, world.switchboard, WebSocketLimits())


def refusal(world: DataWorld, *offered: str) -> tuple[int, str, str]:
    """Status, word and sentence."""
    call = call_of("/link")
    with pytest.raises(HandshakeRefused) as refused:
        route_of(world).judge(call, offered)
    return refused.value.status, call.reason, refused.value.why


def test_each_subprotocol_has_its_end(world: DataWorld) -> None:
    """A link's is one stream that ends with a close, a data socket's has two ends of file."""
    assert route_of(world).judge(call_of("/link"), ("x", LINK)) == LINK
    assert route_of(world).judge(call_of("/link"), (DATA,)) == DATA
    ends = [world.loop.wait(opened(world, each)) for each in (LINK, DATA)]
    assert [type(each) for each in ends] == [WebSocketEnd, HalfClosingEnd]
    world.until(lambda: len(world.switchboard.admission.strangers) == 2)
    assert {each.subprotocol for each in world.switchboard.admission.strangers} == {LINK, DATA}
    for end in ends:
        end.abort()


def test_who_is_refused(world: DataWorld) -> None:
    """Without a subprotocol of ours, where no agents are let in, and while nobody is."""
    assert refusal(world, "revtunnel.session.1")[0] == 400
    board = world.switchboard
    board.set_limits(replace(ServerLimits(), pending=0))
    assert refusal(world, LINK) == (503, "overloaded", "no agents are let in now: overloaded")
    board.set_limits(ServerLimits())
    board.admission.draining = True
    assert refusal(world, DATA)[:2] == (503, "stopping")
    del board.listeners["web main"]
    assert refusal(world, LINK) == (404, "", "nothing is here")


def test_an_agent_whose_address_owes_too_much_has_its_try(world: DataWorld) -> None:
    """The web listener has taken it; no other is taken for /link."""
    access, now = world.switchboard.access, world.reactor.seconds()
    access.penalties.exempt = ()
    for _ in range(4):
        access.failed("127.0.0.1:1", "denied", "", False, now)
    assert [access.stranger("127.0.0.1:2", now) == "" for _ in range(5)] == [True] * 4 + [False]
    assert route_of(world).judge(call_of("/link"), (LINK,)) == LINK


@pytest.mark.parametrize(
    ("subprotocol", "frame"),
    [
        (LINK, encode_frame(Command.ATTACH, 0, bytes(16))),
        (DATA, encode_frame(Command.LISTEN, 0, b"plc-1")),
        (LINK, encode_frame(Command.ENROLL, 0, bytes(40))),
    ],
    ids=["ticket on a link", "link on a data socket", "enrolment"],
)
def test_what_has_no_place_on_it(world: DataWorld, subprotocol: str, frame: bytes) -> None:
    """A link has no half-close, a data socket none for a close; and nobody is enrolled over the web."""
    end = world.loop.wait(opened(world, subprotocol))
    end.write(frame)
    world.until(lambda: world.of(LinkRefused), "a refusal")
    assert world.of(LinkRefused)[-1].reason == "protocol"
    end.abort()


def test_another_path_is_no_server(world: DataWorld) -> None:
    """In words that an operator of the device can use."""
    failed: list[str] = []
    opened(world, LINK, "/other").addErrback(lambda failure: failed.append(str(failure.value)))
    world.until(lambda: failed, "a refusal")
    assert "404 Not Found: nothing is here: no agents are let in at /other" in failed[0]


def test_a_cut_is_noticed_and_the_agent_comes_back(world: DataWorld) -> None:
    """The same device, by the same way."""
    first = world.switchboard.fleet.get("plc-1")
    assert first is not None and first.link is not None
    link = first.link
    link.transport.getHandle().shutdown(socket.SHUT_RDWR)
    world.until(lambda: link not in world.switchboard.links, "the end of the link")
    world.until(lambda: len(world.switchboard.links) == 1, "another link")
