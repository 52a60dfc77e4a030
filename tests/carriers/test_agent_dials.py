"""Data sockets of an agent with either plane: the same words, bytes, facts and ends, whoever dials."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revtunnel.carriers.agent_data import AgentData
from revtunnel.carriers.agent_dials import LATE
from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.origin import encode_origin, origin_of
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Offer, Target
from revtunnel.sockets.ends import ends_with_reset
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.streams.commands import After, Command, encode_after
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.frames import encode_frame
from tests.support.agent_site import HOST, OPENED, AgentSite, agent_site, asks

LIMITS = AgentLimits(dial=0.1, connect=1.0)


@pytest.fixture(params=["python", "native"])
def plane(request: pytest.FixtureRequest) -> str:
    """Either, where it was built."""
    if request.param == "native" and find_pump() is None:
        pytest.skip("revtunnel._pump was not built")
    return str(request.param)


@pytest.fixture
def site(plane: str, no_leaks: None) -> Iterator[AgentSite]:
    with agent_site(plane) as site:
        yield site


def cut(end: socket.socket) -> None:
    """Reset it."""
    ends_with_reset(end)
    end.close()


@contextlib.contextmanager
def deaf_target() -> Iterator[Target]:
    """A target that does not answer: its backlog is full."""
    with socket.create_server((HOST, 0), backlog=0) as listener:
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield Target(HOST, listener.getsockname()[1])
        for each in fillers:
            each.close()


@pytest.fixture
def deaf(site: AgentSite) -> Iterator[Target]:
    """One that is on the list."""
    with deaf_target() as target:
        site.dialler.offer([Offer("deaf", target), Offer("it", site.target)])
        yield target


# -- what is opened


def test_a_question_and_its_answer(site: AgentSite) -> None:
    """With the bytes behind CONNECT; two facts, with exact counts; nothing stays."""
    end, service = site.opened(b"question")
    service.send(b"an answer")
    assert site.hear(end, 9) == b"an answer"
    end.shutdown(socket.SHUT_WR)
    assert site.loop.ending(service) == "end"
    service.close()
    assert site.loop.ending(end) == "end"
    (fact,) = site.ended()
    (opened,) = site.of(ChannelOpened)
    assert (opened.serial, opened.channel, opened.target) == ("plc-1", 256, str(site.target))
    assert opened.peer == fact.peer == site.link.peer and 0 <= opened.milliseconds < 20_000
    assert (fact.channel, fact.target, fact.reason, fact.detail) == (256, str(site.target), Ended.CLOSED, "")
    assert (fact.bytes_to_device, fact.bytes_to_client) == (8, 9)
    assert 0 <= fact.seconds < 20
    assert (site.data.count, site.data.running) == (0, 0)


def test_many_at_once(site: AgentSite) -> None:
    """More than are dialled at once, each with its own bytes."""
    count = 3 * LIMITS.data_dials
    site.want(count)
    ends = [site.accepted(site.server) for _ in range(count)]
    for number, end in enumerate(ends):
        site.hear(end, 20)
        end.send(site.connect + number.to_bytes(2, "big"))
    services = [site.accepted(site.services) for _ in range(count)]
    assert {site.hear(service, 2) for service in services} == {n.to_bytes(2, "big") for n in range(count)}
    for service in services:
        service.close()
    for end in ends:
        assert site.hear(end, 4) == OPENED
        assert site.loop.ending(end) == "end"
        end.close()
    assert {fact.reason for fact in site.ended(count)} == {Ended.CLOSED}
    assert sorted(fact.channel for fact in site.of(ChannelEnded)) == [*range(256, 256 + count)]


def test_a_service_that_speaks_first(site: AgentSite) -> None:
    """And ends its direction; the other goes on."""
    end, service = site.opened()
    service.send(b"SSH-2.0")
    service.shutdown(socket.SHUT_WR)
    assert site.hear(end, 7) == b"SSH-2.0"
    assert site.loop.ending(end) == "end"
    end.send(b"still here")
    assert site.hear(service, 10) == b"still here"
    end.close()
    assert site.loop.ending(service) == "end"
    (fact,) = site.ended()
    assert (fact.reason, fact.bytes_to_device, fact.bytes_to_client) == (Ended.CLOSED, 10, 7)


def test_first_bytes_beyond_one_reading(site: AgentSite) -> None:
    """All of them arrive, in order, whoever takes them how slowly."""
    said = bytes(range(256)) * 4000
    end = site.attached()
    rest = memoryview(site.connect + said)
    heard = bytearray()
    service: list[socket.socket] = []

    def moved() -> bool:
        nonlocal rest
        try:
            while rest:
                rest = rest[end.send(rest) :]
        except BlockingIOError:
            pass
        try:
            if not service:
                service.append(site.services.accept()[0])
                service[0].setblocking(False)
            heard.extend(service[0].recv(30_000))
        except BlockingIOError:
            pass
        return len(heard) == len(said)

    site.until(moved)
    assert heard == said
    cut(end)
    assert site.loop.ending(service[0]) == "reset"
    service[0].close()
    (fact,) = site.ended()
    assert fact.bytes_to_device == len(said)


@pytest.mark.parametrize(("side", "name"), [(0, "server"), (1, "service")])
def test_a_reset_of_one_side_is_one_for_the_other(site: AgentSite, side: int, name: str) -> None:
    """With the words of the relay."""
    both = site.opened(b"question")
    cut(both[side])
    assert site.loop.ending(both[not side]) == "reset"
    (fact,) = site.ended()
    assert (fact.reason, fact.detail) == (Ended.RESET_BY_PEER, f"{name}: reset the connection")
    assert len(site.of(ChannelOpened)) == 1


def test_a_stream_that_lives_is_known(site: AgentSite) -> None:
    """It is counted from the first, and one of the sockets after a while."""
    end, service = site.opened(b"question")
    assert (site.data.count, site.data.running) == (1, 1)
    site.until(lambda: len(site.data.sockets) == 1)
    assert (site.data.count, site.data.running, len(site.of(ChannelOpened))) == (1, 1, 1)
    (mine,) = site.data.sockets
    assert mine.used and mine.is_open
    mine.look()
    service.send(b"an answer")
    assert site.hear(end, 9) == b"an answer"
    mine.stop(Ended.LINK_LOST, "a test")
    assert site.loop.ending(end) == site.loop.ending(service) == "reset"
    (fact,) = site.ended()
    assert (fact.reason, fact.detail) == (Ended.LINK_LOST, "a test")
    assert (fact.bytes_to_device, fact.bytes_to_client) == (8, 9)


# -- what is refused


def test_a_target_that_is_not_on_the_list(site: AgentSite) -> None:
    """It is not dialled."""
    other = Target(HOST, site.port)
    end = site.attached()
    end.send(asks(other) + b"question")
    assert site.reset(end) == (Ended.NOT_ALLOWED, f"{other} is not on this agent's list")
    (fact,) = site.ended()
    assert (fact.reason, fact.target) == (Ended.NOT_ALLOWED, str(other))


def test_a_list_that_changes_has_the_last_word(site: AgentSite) -> None:
    """Of sockets that wait already, too."""
    end, service = site.opened()
    waits = site.attached()
    site.dialler.offer([])
    waits.send(site.connect)
    assert site.reset(waits)[0] is Ended.NOT_ALLOWED
    service.send(b"what runs goes on")
    assert site.hear(end, 17) == b"what runs goes on"
    site.dialler.offer([Offer("it", site.target)])
    site.opened(b"again")


@pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")
def test_lists_that_change_again_and_again_leave_nothing() -> None:
    """Targets are forgotten once no dial of theirs can be told any more."""
    with agent_site("native") as site:
        site.attached()
        for port in range(1, 200):
            site.dialler.offer([Offer("it", Target(HOST, port))])
            site.loop.advance(1.0)
        dials = site.data._dials
        assert dials is not None and len(dials._ids) == 1
        assert len(dials._targets) == 1 + len(dials._gone) <= site.limits.dial + LATE + 2


def accepted(listener: socket.socket) -> list[socket.socket]:
    """All that are connected."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listener.accept()[0])
    return found


def test_no_dial_begins_behind_a_list_that_allows_it_no_more(site: AgentSite) -> None:
    """Whoever asks meanwhile, and how fast: what is not connected when the list is taken never will be."""

    def ask(ends: list[socket.socket]) -> None:
        for end in ends:
            end.send(site.connect)

    for pause in (0.0, 0.0005):
        ends = [site.attached() for _ in range(20)]
        asking = threading.Thread(target=ask, args=(ends,))
        asking.start()
        time.sleep(pause)
        site.dialler.offer([])
        services = accepted(site.services)
        asking.join()
        site.loop.settle(quiet=0.03)
        assert accepted(site.services) == []
        heard = [site.hear(end, 4)[2] for end in ends]
        assert heard.count(Command.OPENED) == len(services)
        assert heard.count(Command.RESET) == len(ends) - len(services)
        for each in services:
            each.close()
        site.dialler.offer([Offer("it", site.target)])


def test_a_target_that_refuses(site: AgentSite) -> None:
    """In words, to the server and as a fact."""
    site.services.close()
    end = site.attached()
    end.send(site.connect + b"question")
    assert site.reset(end) == (Ended.REFUSED, f"{site.target} refused the connection")
    (fact,) = site.ended()
    assert (fact.reason, fact.detail) == (Ended.REFUSED, f"{site.target} refused the connection")
    assert site.of(ChannelOpened) == []
    assert site.data.recall(site.link, 256)


ORIGIN = encode_frame(Command.ORIGIN, 0, encode_origin(origin_of(HOST, 1234, HOST, 80)))


@pytest.mark.parametrize(
    "pieces",
    [
        lambda connect: [connect[:1], connect[1:]],
        lambda connect: [connect[:-1], connect[-1:]],
        lambda connect: [ORIGIN + connect],
        lambda connect: [ORIGIN, connect],
    ],
)
def test_a_beginning_that_is_not_one_connect(site: AgentSite, pieces: Callable[[bytes], list[bytes]]) -> None:
    """In pieces, or behind where the client comes from: it is opened all the same."""
    end = site.attached()
    for piece in pieces(site.connect):
        end.send(piece)
        site.loop.settle(quiet=0.03)
    service = site.accepted(site.services)
    assert site.hear(end, 4) == OPENED
    end.send(b"question")
    assert site.hear(service, 8) == b"question"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", OPENED, b"\0\x04\x01\x01\0\0\0\x50"])
def test_what_has_no_place_on_a_data_socket(site: AgentSite, said: bytes) -> None:
    """It is cut, and nothing is said of it."""
    end = site.attached()
    end.send(said)
    assert site.loop.ending(end) == "reset"
    assert site.facts == []


def test_a_session_of_nobody(site: AgentSite) -> None:
    """What needs consent is asked of the dialler."""
    end = site.attached()
    end.send(encode_frame(Command.WITHIN, 0, bytes(range(16))) + site.connect)
    assert site.reset(end) == (Ended.NOT_ALLOWED, "no session is allowed here")


def test_a_spare_socket_that_ends(site: AgentSite) -> None:
    """It is forgotten, and was not opened."""
    for how in (socket.socket.close, cut):
        how(site.attached())
    site.until(lambda: site.data.count == 0)
    assert site.facts == []
    assert [site.data.recall(site.link, number) for number in (256, 257, 258)] == [True, True, False]


def test_a_client_that_has_gone_behind_its_connect(site: AgentSite) -> None:
    """Its first bytes may be with the service, or not; both ends are over."""
    end = site.attached()
    end.send(site.connect + b"question")
    cut(end)
    (fact,) = site.ended()
    assert fact.reason is Ended.RESET_BY_PEER
    assert fact.detail.startswith("server: ")


def test_no_connection_comes_of_a_ticket(site: AgentSite) -> None:
    """The server does not listen any more."""
    site.server.close()
    site.want(3)
    assert site.missing().detail == f"{HOST}:{site.port}: refused the connection"
    assert site.data.count == 0


def test_no_more_sockets_than_the_limit(plane: str) -> None:
    """What is beyond is said."""
    with agent_site(plane, AgentLimits(data_most=3)) as site:
        site.want(5)
        assert site.missing().detail == "3 data sockets are the limit here"
        assert [site.accepted(site.server) for _ in range(3)]
        site.loop.settle(quiet=0.03)
        with pytest.raises(BlockingIOError):
            site.server.accept()


# -- a target that does not answer


def test_a_target_that_does_not_answer(plane: str, no_leaks: None) -> None:
    """In time."""
    with agent_site(plane, LIMITS) as site, deaf_target() as target:
        site.dialler.offer([Offer("deaf", target)])
        end = site.attached()
        end.send(asks(target) + b"question")
        assert site.reset(end) == (Ended.TIMED_OUT, f"{target} did not answer in time")
        (fact,) = site.ended()
        assert fact.seconds >= 0.1


def begin(site: AgentSite, deaf: Target, running: int = 1) -> socket.socket:
    """A socket whose target is being dialled, as so many are then."""
    end = site.attached()
    end.send(asks(deaf) + b"question")
    site.until(lambda: site.data.running == running)
    return end


@pytest.mark.parametrize("how", [socket.socket.close, cut])
def test_the_server_gives_up_while_it_is_dialled(
    site: AgentSite, deaf: Target, how: Callable[[socket.socket], None]
) -> None:
    """The dial is given up, too."""
    how(begin(site, deaf))
    (fact,) = site.ended()
    assert (fact.reason, fact.detail[:8]) == (Ended.RESET_BY_PEER, "server: ")
    assert (site.data.count, site.data.running) == (0, 0)


def test_what_is_being_dialled_can_be_taken_back(site: AgentSite, deaf: Target) -> None:
    """Its target has had nothing, and never will."""
    end = begin(site, deaf)
    assert site.data.recall(site.link, 256)
    assert site.loop.ending(end) == "reset"
    (fact,) = site.ended()
    assert (fact.reason, fact.detail) == (Ended.LINK_LOST, "the server has tried another data socket")


def test_a_dead_link_gives_up_what_is_being_dialled(site: AgentSite, deaf: Target) -> None:
    """As a stream."""
    end = begin(site, deaf)
    site.data.link_gone(site.link, dead=True)
    assert site.loop.ending(end) == "reset"
    (fact,) = site.ended()
    assert (fact.reason, fact.detail) == (Ended.LINK_LOST, "the link is silent")


def test_a_lost_link_leaves_what_is_being_dialled(site: AgentSite, deaf: Target) -> None:
    """It has its socket; the agent that leaves ends it."""
    begin(site, deaf)
    site.data.link_gone(site.link, dead=False)
    assert site.data.running == 1
    site.data.abort()
    (fact,) = site.ended()
    assert (fact.reason, fact.detail) == (Ended.LINK_LOST, "the agent stops")


def test_dials_in_flight_have_one_limit(plane: str, no_leaks: None) -> None:
    """One here, one there; the third waits for its turn."""
    with agent_site(plane, AgentLimits(dials=2)) as site, deaf_target() as target:
        site.dialler.offer([Offer("deaf", target)])
        for _ in range(3):
            begin(site, target, site.data.running + 1)
        site.loop.settle(quiet=0.03)
        theirs = site.dialler._dialling, len(site.dialler._waiting), site.dialler.elsewhere
        assert theirs == ((2, 1, 0) if plane == "python" else (1, 1, 1))


def test_an_agent_that_may_dial_one_at_a_time(plane: str) -> None:
    """Python dials it."""
    with agent_site(plane, AgentLimits(dials=1)) as site:
        _, service = site.opened(b"question")
        assert site.dialler.elsewhere == 0
        service.send(b"answer")


@pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")
def test_of_two_agents_in_a_process_one_has_the_plane(no_leaks: None) -> None:
    """What one allows is never dialled for the other."""
    with agent_site("native") as site:
        other = AgentData(
            site.loop.reactor, site.limits, Dialler(site.loop.reactor, site.limits, ()), site._connect, print
        )
        other.use_plane(site.plane, lambda link: (HOST, site.port))
        other.wanted(site.link, [bytes(16)])
        end = site.accepted(site.server)
        site.hear(end, 20)
        end.send(site.connect)
        assert site.reset(end)[0] is Ended.NOT_ALLOWED
        other.abort()


# -- what the link and the daemon say


def test_what_happened_a_moment_ago_is_told_to_who_asks(site: AgentSite) -> None:
    """One that has just begun, and one that has ended since."""
    site.opened()
    for each in site.opened():
        each.close()
    site.data.settle()
    assert {fact.channel for fact in site.of(ChannelOpened)} == {256, 257}
    assert site.data.running >= 1


def test_a_link_that_goes_has_its_streams_told_first(site: AgentSite) -> None:
    """So that the fact of its end is the last of it."""
    end, _ = site.opened()
    site.data.link_gone(site.link, dead=False)
    assert [fact.channel for fact in site.of(ChannelOpened)] == [256]
    cut(end)
    assert site.ended()[0].reason is Ended.RESET_BY_PEER


def test_what_is_recalled(site: AgentSite) -> None:
    """A socket that waits is closed; one that was opened may have given its target all."""
    waits = site.attached()
    end, service = site.opened(b"question")
    service.close()
    end.close()
    site.opened()
    assert [site.data.recall(site.link, number) for number in (256, 257, 258)] == [True, False, False]
    assert site.loop.ending(waits) == "end"
    assert site.data.recall(site.link, 256)
    assert not site.data.recall(site.new_link(), 256)
    site.until(lambda: site.data.count == 1)


@pytest.mark.parametrize("dead", [False, True])
def test_a_link_that_goes(site: AgentSite, dead: bool) -> None:
    """Its spare sockets go with it; its streams if its path is dead; those of another link never."""
    other = site.new_link()
    theirs, mine = site.attached(other), site.attached()
    end, service = site.opened()
    site.data.link_gone(site.link, dead)
    assert site.loop.ending(mine) == "end"
    if dead:
        assert site.loop.ending(end) == site.loop.ending(service) == "reset"
    else:
        service.send(b"still here")
        assert site.hear(end, 10) == b"still here"
        service.close()
        end.close()
    (fact,) = site.ended()
    assert fact.reason is (Ended.LINK_LOST if dead else Ended.CLOSED)
    theirs.send(site.connect)
    site.accepted(site.services)


def test_an_agent_that_drains(site: AgentSite) -> None:
    """Spare sockets are closed, tickets are not taken; the last stream ends it."""
    waits = site.attached()
    end, service = site.opened()
    drained: list[Any] = []
    site.data.drain().addCallback(drained.append)
    assert site.loop.ending(waits) == "end"
    site.want()
    site.loop.settle(quiet=0.03)
    assert not drained
    service.send(b"still here")
    assert site.hear(end, 10) == b"still here"
    end.close()
    service.close()
    site.until(lambda: drained)
    (fact,) = site.ended()
    assert fact.reason in (Ended.CLOSED, Ended.RESET_BY_PEER)


def test_an_agent_that_drains_is_not_done_before_all_is_told(site: AgentSite) -> None:
    """What ends and what runs are told at once: only the last end counts."""
    refused = site.attached()
    end, service = site.opened()
    drained: list[Any] = []
    site.data.drain().addCallback(drained.append)
    assert not drained
    for each in (end, service):
        each.close()
    refused.close()
    site.until(lambda: drained)
    assert site.data.running == 0 and len(site.ended()) == 1


def test_an_agent_that_has_nothing_to_drain(site: AgentSite) -> None:
    """At once."""
    drained: list[Any] = []
    site.data.drain().addCallback(drained.append)
    assert drained == [None]


def test_an_agent_that_stops(site: AgentSite) -> None:
    """All is reset, and told."""
    site.opened()
    end, _ = site.opened()
    waits = site.attached()
    site.data.abort()
    assert (site.data.count, site.data.running) == (0, 0)
    assert site.loop.ending(end) == "reset"
    assert site.loop.ending(waits) == "end"
    assert {(fact.reason, fact.detail) for fact in site.ended(2)} == {(Ended.LINK_LOST, "the agent stops")}


def test_sockets_that_wait_for_long(site: AgentSite) -> None:
    """They are looked at, and serve all the same."""
    end = site.attached()
    site.loop.advance(5.0)
    site.loop.settle(quiet=0.03)
    end.send(site.connect)
    site.accepted(site.services)
    assert site.hear(end, 4) == OPENED


def test_a_dial_after_another_waits_for_it_whoever_has_that(site: AgentSite) -> None:
    """A device that takes one connection never sees two, also where the plane has the one before."""
    end, service = site.opened(b"one")
    following = site.attached()
    after = encode_frame(Command.AFTER, 0, encode_after(After((site.next - 2,), 20.0)))
    following.send(after + site.connect + b"two")
    until = time.monotonic() + 0.3
    site.until(lambda: time.monotonic() > until)
    with pytest.raises(BlockingIOError):
        site.services.accept()
    end.close()
    assert site.loop.ending(service) == "end"
    service.close()
    second = site.accepted(site.services)
    assert site.hear(second, 3) == b"two"
