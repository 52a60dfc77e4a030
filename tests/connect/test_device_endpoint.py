"""A device as a Twisted endpoint, beside a small real server: what a Protocol of others sees of it."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    TimeoutError,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs

from revtunnel.connect.addressing import ServerAddress
from revtunnel.connect.device_endpoint import DeviceAddress, DeviceEndpoint
from revtunnel.connect.logins import KeptLogin, Logins, place_of
from tests.support.epoll import Loop
from tests.support.gate import TOKEN, Gate
from tests.support.world import Party

MIB = 1 << 20


class Services:
    """A factory; ``quick`` as a Party's, and they read at once unless ``deaf``."""

    def __init__(self, quick: str = "echo", deaf: bool = False) -> None:
        self.quick = quick
        self.deaf = deaf
        self.made: list[Party] = []

    def buildProtocol(self, addr: Any) -> Party:
        """One more."""
        self.made.append(_Reading("service", self.quick))
        self.made[-1].deaf = self.deaf  # type: ignore[attr-defined]
        return self.made[-1]


class _Reading(Party):
    deaf = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.resumeProducing()
        if self.deaf:
            self.transport.pauseProducing()


class Plain(Protocol):
    """As most are: not half-closeable."""

    transport: Any

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: type[BaseException] | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.lost is None
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        assert self.lost is None
        self.lost = reason.type


class Pulled:
    """A producer that gives a piece when it is asked."""

    def __init__(self, consumer: Any, pieces: int) -> None:
        self.left = pieces
        self._consumer = consumer
        consumer.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """One piece."""
        self.left -= 1
        self._consumer.write(bytes(1000))
        if not self.left:
            self._consumer.unregisterProducer()

    def stopProducing(self) -> None:
        """It is over."""


class Desk:
    """Somebody with a login, and a gate with services."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.loop = loop
        self.services = {
            "echo": Services(),
            "reply": Services("reply"),
            "still": Services(""),
            "deaf": Services("close", deaf=True),
        }
        self.gate = Gate(loop, {"plc-7": {name: (7, made) for name, made in self.services.items()}})
        logins = Logins(place_of({"XDG_CONFIG_HOME": str(directory)}))
        logins.keep(ServerAddress("127.0.0.1", self.gate.port, False), KeptLogin(TOKEN))

    def endpoint(self, target: str, **more: Any) -> DeviceEndpoint:
        return DeviceEndpoint(self.loop.reactor, "plc-7", target, **more)

    def connect(self, target: str, kind: Any = Plain) -> Any:
        """A Protocol that is connected."""
        return self.loop.wait(self.endpoint(target).connect(Factory.forProtocol(kind)))

    def refused(self, target: str, **more: Any) -> str:
        """What the error says."""
        with pytest.raises(ConnectError) as caught:
            self.loop.wait(self.endpoint(target, **more).connect(Factory.forProtocol(Plain)))
        return str(caught.value)

    def service(self, name: str) -> Party:
        """The newest connection of a service."""
        self.loop.until(lambda: self.services[name].made, f"a connection of {name}")
        return self.services[name].made[-1]


@pytest.fixture
def desk(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("REVTUNNEL_TOKEN", raising=False)
    desk = Desk(loop, tmp_path)
    yield desk
    desk.gate.close()


def test_a_string_is_an_endpoint(loop: Loop) -> None:
    """With what belongs to it, in either form."""
    text = r"revtunnel:serial=plc\:7:target=http:server=https\://gate\:1:ca=/x:timeout=5"
    found: Any = clientFromString(loop.reactor, text)
    assert found._address == DeviceAddress("plc:7", "http")
    assert (found._server, found._ca, found._timeout) == ("https://gate:1", "/x", 5.0)
    short: Any = clientFromString(loop.reactor, "revtunnel:plc-7:http")
    assert short._address == DeviceAddress("plc-7", "http")
    for wrong in ("plc 7:http", "plc-7:http:timeout=0", "plc-7:http:timeout=nan"):
        with pytest.raises(ValueError, match=r"plc 7|timeout="):
            clientFromString(loop.reactor, f"revtunnel:{wrong}")


def test_bytes_both_ways_and_an_end_in_order(desk: Desk) -> None:
    """Addresses are the device's; the session ends with the connection."""
    plain = desk.connect("echo")
    assert plain.transport.getPeer() == plain.transport.getHost() == DeviceAddress("plc-7", "echo")
    plain.transport.writeSequence([b"hel", b"lo"])
    desk.loop.until(lambda: plain.data == b"hello")
    plain.transport.loseConnection()
    assert plain.transport.disconnecting
    desk.loop.until(lambda: plain.lost)
    assert plain.lost is ConnectionDone
    desk.loop.until(lambda: desk.gate.over)
    assert {"say": "end"} in desk.gate.texts
    assert [word["ask"] for word in desk.gate.asked] == ["start"]


def test_the_services_end_of_file_is_the_end_of_a_plain_protocol(desk: Desk) -> None:
    """Behind all its bytes, though they are more than a window; and what we wrote still gets there."""
    plain = desk.connect("still")
    service = desk.service("still")
    plain.transport.pauseProducing()
    plain.transport.write(b"last words")
    service.say_more(2 * MIB)
    service.finish()
    desk.loop.settle(lambda: len(service.data))
    assert (len(plain.data), plain.lost) == (0, None)
    plain.transport.resumeProducing()
    desk.loop.until(lambda: plain.lost)
    assert (plain.data, plain.lost) == (service.sent, ConnectionDone)
    assert service.data == b"last words"


def test_a_service_that_does_not_end_is_reset(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while in which it can take our last bytes."""
    monkeypatch.setattr("revtunnel.connect.device_transport.FLUSH", 0.1)
    plain = desk.connect("still")
    service = desk.service("still")
    plain.transport.write(b"x")
    plain.transport.loseConnection()
    service.say(b"y")
    desk.loop.until(lambda: plain.lost and not service.here)
    assert (plain.lost, service.was_reset, service.data, plain.data) == (ConnectionAborted, True, b"x", b"")


def test_halves_end_by_themselves(desk: Desk) -> None:
    """A half-closeable Protocol sends its end of file and gets the answer to it."""
    party = desk.connect("reply", lambda: Party("client"))
    party.say(b"question")
    party.finish()
    desk.loop.until(lambda: not party.here)
    assert party.data == desk.service("reply").sent
    assert party.events.index("write side closed") < party.events.index("end of file")
    assert not party.was_reset


@pytest.mark.parametrize("how", ["gate", "service", "session"])
@pytest.mark.parametrize("kind", [Plain, lambda: Party("client")])
def test_a_cut_is_never_an_end_in_order(desk: Desk, how: str, kind: Any) -> None:
    """Whoever cuts; it does not come back."""
    party = desk.connect("still", kind)
    service = desk.service("still")
    service.say(b"half of a")
    desk.loop.until(lambda: party.data == b"half of a")
    {
        "gate": desk.gate.cut,
        "service": service.abort,
        "session": lambda: desk.gate.end(desk_end(), "revoked"),
    }[how]()
    desk.loop.until(lambda: party.lost)
    assert party.lost is ConnectionLost
    desk.loop.settle()
    assert len(desk.gate.links) == 1


def desk_end() -> Any:
    """By an operator."""
    from revtunnel.ground.reasons import Ended

    return Ended.OPERATOR


def test_an_abort_is_a_reset_for_the_service(desk: Desk) -> None:
    """And a ConnectionAborted here."""
    plain = desk.connect("still")
    service = desk.service("still")
    plain.transport.abortConnection()
    desk.loop.until(lambda: plain.lost and not service.here)
    assert plain.lost is ConnectionAborted
    assert service.was_reset


def test_what_the_protocol_does_not_take_the_service_keeps(desk: Desk) -> None:
    """Its producer is stopped before a window and what lies in sockets is over; later all is there."""
    party = desk.connect("still", lambda: Party("client"))
    service = desk.service("still")
    party.stop_reading()
    while not service.full:
        service.say_more(64 * 1024)
        desk.loop.settle()
        assert len(service.sent) < 32 * MIB
    assert not party.data
    party.read_on()
    desk.loop.until(lambda: party.data == service.sent)
    assert not service.full


def test_what_the_service_does_not_take_our_producer_keeps(desk: Desk) -> None:
    """The same the other way."""
    party = desk.connect("deaf", lambda: Party("client"))
    service = desk.service("deaf")
    while not party.full:
        party.say_more(64 * 1024)
        desk.loop.settle()
        assert len(party.sent) < 32 * MIB
    service.read_on()
    desk.loop.until(lambda: not party.full and service.data == party.sent)


def test_producers_of_both_kinds(desk: Desk) -> None:
    """One that is asked for each piece is asked as long as there is room; the end waits for it."""
    plain = desk.connect("deaf")
    service = desk.service("deaf")
    producer = Pulled(plain.transport, 4000)
    with pytest.raises(RuntimeError, match="cannot be registered"):
        plain.transport.registerProducer(producer, True)
    plain.transport.loseConnection()
    desk.loop.settle(lambda: producer.left)
    assert producer.left > 0
    service.read_on()
    desk.loop.until(lambda: plain.lost)
    assert (producer.left, len(service.data), plain.lost) == (0, 4_000_000, ConnectionDone)
    late = Party("late")
    plain.transport.registerProducer(late, True)
    plain.transport.unregisterProducer()


def test_a_bug_of_the_protocol_ends_its_connection_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, as by Twisted."""
    bugs: list[Any] = []
    monkeypatch.setattr("revtunnel.connect.device_transport.log.err", lambda *about: bugs.append(about))
    plain = desk.connect("echo")
    plain.dataReceived = lambda data: 1 / 0
    plain.transport.write(b"x")
    desk.loop.until(lambda: plain.lost)
    assert (plain.lost, len(bugs)) == (ConnectionAborted, 1)


def test_a_refusal_says_who_refuses(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server, service, login; the session does not stay."""
    assert "plc-7/other: not-allowed: other is not a service of this session" in desk.refused("other")
    desk.loop.until(lambda: desk.gate.over)
    desk.gate.refusals["start"] = {"word": "denied", "why": "no grant"}
    assert "plc-7/echo: denied: no grant" in desk.refused("echo")
    assert "no login for https://other:443" in desk.refused("echo", server="other")
    monkeypatch.setenv("REVTUNNEL_TOKEN", "another")
    assert "no such token" in desk.refused("echo")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    assert "no login: run revtunnel-connect login" in desk.refused("echo")


def test_a_try_that_fails_leaves_no_error_unheard(desk: Desk) -> None:
    """Whatever it fails at: the caller is told, and nobody's log."""
    with capturedLogs() as logged:
        desk.gate.refuse = 503
        assert "503" in desk.refused("echo")
        assert "in 0.0001 s" in desk.refused("echo", timeout=0.0001)
        desk.gate.refuse = 0
        assert "not-allowed" in desk.refused("other")
        desk.loop.settle()
        gc.collect()
    assert [event for event in logged if event.get("log_failure")] == []


def test_a_factory_that_makes_nothing(desk: Desk) -> None:
    """Is an error, and the session ends."""
    factory: Any = Factory()
    factory.buildProtocol = lambda addr: None
    with pytest.raises(ConnectError, match="no Protocol"):
        desk.loop.wait(desk.endpoint("echo").connect(factory))
    desk.loop.until(lambda: desk.gate.over)


def test_who_waits_too_long_or_gives_up_leaves_nothing(desk: Desk) -> None:
    """No connection stays."""
    desk.gate.greets = False
    assert "plc-7/echo: no answer in 0.2 s" in desk.refused("echo", timeout=0.2)
    tried: Deferred[Any] = desk.endpoint("echo").connect(Factory.forProtocol(Plain))
    count = len(desk.gate.controls)
    desk.loop.until(lambda: len(desk.gate.controls) > count)
    tried.cancel()
    with pytest.raises(CancelledError):
        desk.loop.wait(tried)
    with pytest.raises(TimeoutError):
        desk.loop.wait(desk.endpoint("echo", timeout=0.2).connect(Factory.forProtocol(Plain)))
