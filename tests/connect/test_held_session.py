"""A session as the program holds it, beside a small real server: losses, other nonces, ends, who waits."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.connect import held_session
from revtunnel.connect.addressing import ServerAddress
from revtunnel.connect.dialling import DialWay
from revtunnel.connect.held_session import HeldSession
from revtunnel.connect.local_ports import LocalSocket
from revtunnel.connect.outcomes import DENIED, DONE, TRY_AGAIN, UNREACHABLE, Stop
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd
from revtunnel.systems.sessions.session_link import SUBPROTOCOL
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop
from tests.support.gate import Gate
from tests.support.world import Party


class Services:
    """Made for each connection; they read at once."""

    def __init__(self) -> None:
        self.made: list[Party] = []

    def buildProtocol(self, addr: Any) -> Party:
        """One more."""
        self.made.append(_Reading("service", "echo"))
        return self.made[-1]


class _Reading(Party):
    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.resumeProducing()


class Held:
    """A session at a gate, and what was told of it."""

    def __init__(self, loop: Loop, fresh: bool = True) -> None:
        self.loop = loop
        self.services = Services()
        self.gate = Gate(loop, {"plc-7": {"echo": (7, self.services)}})
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.session = self.gate.start("plc-7")
        self.fresh = 0
        way = DialWay(loop.reactor, ServerAddress("127.0.0.1", self.gate.port, False), {})

        async def dial(nonce: str) -> Any:
            return await way.upgrade(f"/session/client/{self.session}", SUBPROTOCOL, nonce)

        async def ask() -> str:
            self.fresh += 1
            return self.gate.nonce(self.session)

        self.held = HeldSession(loop.reactor, dial, ask if fresh else None, self, way.limits)
        self.ends: list[Stop] = []
        self.held.over.addBoth(self.ends.append)
        self.transports: list[EndTransport] = []

    def happened(self, event: str, **more: Any) -> None:
        """As ``Teller``."""
        self.events.append((event, more))

    def words(self) -> list[str]:
        """What was told."""
        return [event for event, _ in self.events]

    def start(self) -> dict[str, Any]:
        """It is up."""
        nonce = self.gate.nonce(self.session)
        said: dict[str, Any] = self.loop.wait(Deferred.fromCoroutine(self.held.start(nonce)))
        self.loop.until(lambda: self.held.link is not None and self.held.link.free, "HELLO")
        return said

    def program(self) -> Party:
        """One that comes to the local port."""
        near, far = tcp_pair()
        party = _Reading("program")
        self.transports.append(EndTransport(self.loop.reactor, PlainEnd(far), party))
        self.transports[-1].start()
        held = self.held
        held.give(LocalSocket(self.loop.reactor, PlainEnd(near), "echo", held.give, held.left))
        return party

    def end(self) -> Stop:
        """How it ended."""
        self.loop.until(lambda: self.ends, "the end")
        return self.ends[0]

    def close(self) -> None:
        """Let go of everything."""
        self.held.end()
        self.gate.close()
        for transport in self.transports:
            transport.abortConnection()
        self.loop.until(lambda: self.ends, "the end")
        self.loop.settle()


@pytest.fixture
def held(loop: Loop) -> Iterator[Held]:
    held = Held(loop)
    yield held
    held.close()


def echoed(held: Held, party: Party, data: bytes) -> None:
    """A program says something, and has it back."""
    party.say(data)
    held.loop.until(lambda: party.data.endswith(data), "an echo")


def test_it_comes_back_with_the_nonce_for_that(held: Held) -> None:
    """As often as it is cut; nobody is asked for another one; bytes are counted over all."""
    said = held.start()
    assert (said["device"], said["role"]) == ("plc-7", "owner")
    echoed(held, held.program(), b"hello")
    for count in (1, 2):
        held.gate.cut()
        held.loop.until(lambda count=count: held.words().count("back") == count, "back")  # type: ignore[misc]
        echoed(held, held.program(), b"again")
    assert held.words() == ["lost", "back", "lost", "back"]
    assert held.events[0][1]["channels"] == 1
    assert held.fresh == 0
    assert held.held.moved == (15, 15)


def test_a_program_that_comes_meanwhile_waits(held: Held) -> None:
    """Unread."""
    held.start()
    held.gate.refuse = 503
    held.gate.cut()
    held.loop.until(lambda: "lost" in held.words())
    program = held.program()
    program.say(b"early")
    held.loop.until(lambda: held.held._waiting)
    held.gate.refuse = 0
    held.loop.until(lambda: program.data == b"early")


def test_a_nonce_that_is_used_up_is_asked_for_anew(held: Held) -> None:
    """The server has forgotten the one for that; who is logged in gets another."""
    held.start()
    held.gate.sessions.clear()
    held.gate.cut()
    held.loop.until(lambda: "back" in held.words())
    assert held.fresh == 1


def test_who_was_handed_over_cannot_ask(loop: Loop) -> None:
    """The session is over for him."""
    held = Held(loop, fresh=False)
    held.start()
    held.gate.sessions.clear()
    held.gate.cut()
    assert held.end().status == DENIED
    held.close()


def test_a_session_that_has_ended_is_not_tried_again(held: Held) -> None:
    """410."""
    held.start()
    held.gate.refuse = 410
    held.gate.cut()
    stop = held.end()
    assert (stop.status, str(stop)[:5]) == (TRY_AGAIN, "ended")
    assert sum(path != "/control" for path, _ in held.gate.requests) == 2


def test_its_grace_is_over(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that wait are reset."""
    monkeypatch.setattr(held_session, "GRACE", 0.5)
    held.start()
    held.gate.refuse = 503
    held.gate.cut()
    program = held.program()
    stop = held.end()
    assert stop.status == UNREACHABLE
    assert "did not come back" in str(stop)
    held.loop.until(lambda: not program.here)
    assert program.was_reset
    late = held.program()
    held.loop.until(lambda: not late.here)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("idle", TRY_AGAIN),
        ("maximum", TRY_AGAIN),
        ("revoked", DENIED),
        ("owner", DONE),
        ("device-gone", TRY_AGAIN),
    ],
)
def test_the_servers_word_is_the_end(held: Held, word: str, status: int) -> None:
    """Whether a channel ran or not; it does not come back."""
    held.start()
    program = held.program()
    echoed(held, program, b"x")
    held.gate.end(Ended.OPERATOR, word)
    stop = held.end()
    assert (stop.status, str(stop)) == (status, f"{word}: a test")
    held.loop.until(lambda: not program.here)
    assert program.was_reset
    assert "lost" not in held.words()


def test_we_end_it(held: Held) -> None:
    """The server is told, and says so."""
    held.start()
    held.held.listening("echo", "127.0.0.1", 7)
    held.held.end()
    assert held.end().status == DONE
    assert held.gate.texts == [
        {"say": "listening", "service": "echo", "address": "127.0.0.1", "port": 7},
        {"say": "end"},
    ]


def test_what_our_own_end_cuts_is_not_told(held: Held) -> None:
    """ssh sends its ProxyCommand SIGHUP as it leaves, before the service has closed."""
    held.start()
    echoed(held, held.program(), b"x")
    link, channel = held.held.link, SimpleNamespace(target=Target("echo", 0))
    assert link is not None
    held.held.end()
    held.held.channel_ended(link, channel, Ended.OPERATOR, "owner")  # type: ignore[arg-type]
    assert held.end().status == DONE
    assert held.events == []


def test_more_than_may_wait_are_turned_away(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reset."""
    monkeypatch.setattr(held_session, "WAITING", 2)
    held.start()
    held.gate.refuse = 503
    held.gate.cut()
    held.loop.until(lambda: "lost" in held.words())
    parties = [held.program() for _ in range(3)]
    held.loop.until(lambda: not parties[2].here)
    assert [party.here for party in parties] == [True, True, False]
    held.gate.refuse = 0
    for party in parties[:2]:
        echoed(held, party, b"x")


def test_a_service_that_refuses_is_told(held: Held) -> None:
    """Its program sees a reset only."""
    held.start()
    held.gate.devices["plc-7"].clear()
    program = held.program()
    held.loop.until(lambda: not program.here)
    (event,) = held.events
    assert event[0] == "reset"
    assert (event[1]["service"], event[1]["word"]) == ("echo", "not-allowed")


def test_warnings_are_told(held: Held) -> None:
    """And commands that nobody knows are skipped."""
    held.start()
    held.gate.links[-1].say({"say": "warning", "seconds": 60, "why": "idle"})
    held.gate.links[-1].say({"say": "something new"})
    held.loop.until(lambda: held.events)
    assert held.events == [("warning", {"seconds": 60, "why": "idle"})]


def test_a_first_nonce_that_is_wrong(held: Held) -> None:
    """Is said at once."""
    with pytest.raises(Stop, match="401") as stop:
        held.loop.wait(Deferred.fromCoroutine(held.held.start("wrong")))
    assert stop.value.status == DENIED
