"""The servers of an agent in turn, and what DNS lists under a name among them."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from revtunnel.ground.server_places import ServerPlace, parse_server_place
from revtunnel.link.server_rounds import ServerRounds
from revtunnel.sockets.ways.service_names import Found, Listed

ONE, TWO = parse_server_place("192.0.2.1:1"), parse_server_place("wss://gate.example")
SERVICE = parse_server_place("_revtunnel._tcp.Example.")


class Asked:
    """Rounds over a DNS that says what a test wants it to."""

    def __init__(self, *servers: ServerPlace) -> None:
        self.clock = Clock()
        self.answer: Found | OSError = Found(
            (Listed(0, 0, "a.example", 1), Listed(1, 0, "b.example", 2)), 60.0
        )
        self.names: list[str] = []
        self.rounds = ServerRounds(self.clock, servers, lambda: 0.0, self.look_up)

    async def look_up(self, reactor: Any, name: str) -> Found:
        self.names.append(name)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def next(self) -> str:
        """The next place, and the name that is wanted there, or what is wrong."""
        told: list[Any] = []
        Deferred.fromCoroutine(self.rounds.next()).addBoth(told.append)
        place = told[0]
        if not isinstance(place, ServerPlace):
            return str(place.value)
        return f"{place} {place.name}".strip()


def test_servers_in_turn() -> None:
    """Round after round."""
    asked = Asked(ONE, TWO)
    assert [asked.next() for _ in range(3)] == ["192.0.2.1:1", "wss://gate.example:443/link", "192.0.2.1:1"]
    assert not asked.rounds.over
    assert asked.next().startswith("wss:")
    assert asked.rounds.over
    asked.rounds.take([TWO])
    assert asked.next().startswith("wss:")
    assert asked.names == []


def test_a_name_stands_for_what_dns_lists() -> None:
    """In its place in the round, with its domain as the name that certificates must have."""
    asked = Asked(ONE, SERVICE, TWO)
    assert asked.next() == "192.0.2.1:1"
    assert [asked.next(), asked.next()] == ["a.example:1 example", "b.example:2 example"]
    assert asked.rounds.asked == SERVICE
    assert not asked.rounds.over
    assert asked.next().startswith("wss:")
    assert asked.rounds.over
    assert asked.names == ["_revtunnel._tcp.example"]
    assert [str(each) for each in asked.rounds.places] == [str(ONE), "a.example:1", "b.example:2", str(TWO)]


def test_what_dns_said_holds_for_its_time_and_the_round() -> None:
    """Then it is asked again, for the next round; after a link, for what is left of this one."""
    asked = Asked(SERVICE)
    assert asked.next() == "a.example:1 example"
    asked.clock.advance(61.0)
    assert asked.next() == "b.example:2 example"
    assert asked.next() == "a.example:1 example"
    assert len(asked.names) == 2
    asked.answer = Found((Listed(0, 0, "c.example", 3),), 0.0)
    asked.rounds.renew()
    assert asked.next() == "a.example:1 example"  # a link was short: what was said still holds
    asked.clock.advance(61.0)
    asked.rounds.renew()
    assert asked.next() == "c.example:3 example"
    assert asked.rounds.over


def test_a_time_of_nothing_holds_for_a_round() -> None:
    """So that all are tried."""
    asked = Asked(SERVICE)
    assert isinstance(asked.answer, Found)
    asked.answer = asked.answer._replace(ttl=0.0)
    assert [asked.next() for _ in range(4)] == ["a.example:1 example", "b.example:2 example"] * 2
    assert len(asked.names) == 2


def test_where_no_name_server_answers_what_was_said_holds_on() -> None:
    """What one says that does answer counts."""
    asked = Asked(SERVICE, ONE)
    answer, asked.answer = asked.answer, TimeoutError("no name server answered")
    assert [asked.next(), asked.next()] == ["no name server answered", "192.0.2.1:1"]
    asked.answer = answer
    assert [asked.next() for _ in range(3)] == ["a.example:1 example", "b.example:2 example", "192.0.2.1:1"]
    asked.answer = TimeoutError("no name server answered")
    asked.clock.advance(100.0)
    assert asked.next() == "a.example:1 example"
    asked.answer = ConnectionError("not offered")
    asked.rounds.renew()
    assert [asked.next(), asked.next()] == ["not offered", "192.0.2.1:1"]
    assert asked.rounds.places == [ONE]


def test_a_name_server_that_hangs_does_not_stand_in_the_way() -> None:
    """What was said last is taken then, too."""
    asked = Asked(SERVICE)
    assert asked.next() == "a.example:1 example"

    async def hang(reactor: Any, name: str) -> Found:
        return await Deferred()

    asked.rounds._look_up = hang
    asked.clock.advance(100.0)
    assert asked.next() == "b.example:2 example"
    told: list[Any] = []
    for known in (True, False):
        if not known:
            asked.rounds._found.clear()
            asked.rounds.take([])
            asked.rounds.take([SERVICE])
        Deferred.fromCoroutine(asked.rounds.next()).addBoth(told.append)
        asked.clock.advance(7.9)
        assert len(told) == 1 - known
        asked.clock.advance(0.2)
    assert str(told[0]) == "a.example:1"
    assert told[1].value.strerror == "no name server answered in 8 s"


def test_a_place_may_be_tried_before_all_others() -> None:
    """Once."""
    asked = Asked(ONE)
    asked.rounds.first(TWO)
    assert asked.next().startswith("wss:")
    assert asked.next() == "192.0.2.1:1"


@pytest.mark.parametrize(
    "text", ["_revtunnel._tcp.10.0.0.1", "_x._tcp.localhost", "_x._udp.example", "_x._tcp."]
)
def test_what_is_no_name_of_a_service(text: str) -> None:
    """An address has no records, and whoever dials this machine need no TLS."""
    with pytest.raises(ValueError, match=r"wanted|is not a host name"):
        parse_server_place(text)
