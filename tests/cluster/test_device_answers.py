"""Devices and sessions of one node as others ask about them: who decides, and how long it is kept."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock

from revtunnel.cluster.device_answers import KEPT, OF_ONE, DeviceAnswers
from revtunnel.cluster.devices_of_nodes import FRESH, UNDECIDED, DevicesOfNodes
from revtunnel.cluster.directory import Directory, DirectoryAway
from revtunnel.cluster.node_records import Place
from revtunnel.fleet.device_consent import ConsentRequest, DeviceConsent
from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.fleet.fleet import Fleet
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.targets import Offer, Target
from revtunnel.process.admin.operation_form import Operation
from revtunnel.process.admin.refusals import Busy, Invalid, NotFound
from tests.fleet.test_device_consent import Link

ANA = ConsentRequest(bytes(range(16)).hex(), "ana", ("ssh",), "192.0.2.7")
SSH = Offer("ssh", Target("unix:/run/ssh", 0))


class Node:
    """One node with its devices. ``places`` says where those of others are, or raises."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name
        self.policy = "any"
        self.fleet: Fleet[Any] = Fleet(ServerLimits(), lambda fact: None)
        self.say = DeviceConsent(self.fleet, lambda serial: DeviceRecord(sessions=self.policy))
        self.answers = DeviceAnswers(self, self.say, clock.seconds)
        self.callers: dict[str, Node] = {}
        self.places: dict[str, str] = {}
        self.away = self.silent = False
        self.busy = 0  # calls, one more than are not answered
        self.said: list[tuple[bool, str]] = []
        told = cast(Directory, self), cast(Any, self.callers), self._ask_all, self.say
        self.say.nodes = self.others = DevicesOfNodes(clock, *told)

    def arrive(self, link: Any) -> None:
        """plc-7 is here."""
        self.fleet.arrive("plc-7", link, self.clock.seconds(), True, True, (SSH,), system="rt1")
        self.say.arrived("plc-7")

    def start(self) -> None:
        """A session of ours."""
        self.say.ask("plc-7", ANA, lambda yes, why: self.said.append((yes, why)))

    # -- as device_answers.DevicesHere

    def device_here(self, serial: str) -> DeviceElsewhere | None:
        device = self.fleet.get(serial)
        if device is None or not device.online:
            return None
        asks, refusal = self.say.asks(serial), self.say.refusal(serial)
        return DeviceElsewhere(serial, "", "rt1", "192.0.2.1:7", device.offers, True, asks, refusal)

    def devices_here(self, after: str, limit: int) -> list[DeviceElsewhere]:
        found = (self.device_here(each.serial) for each in self.fleet.here(None, after, limit))
        return [each for each in found if each is not None]

    # -- as its caller

    def call(self, operation: Operation, **arguments: Any) -> "Deferred[Any]":
        """As NodeCaller."""
        self.busy = max(0, self.busy - 1)
        if self.silent or self.busy:
            return fail(Busy("no answer within 1 s"))
        given = {name: value for name, value in arguments.items() if value is not None}
        return maybeDeferred(attrgetter(operation.method)(self), **given)

    def _ask_all(self, operation: Operation, **arguments: Any) -> "Deferred[Any]":
        name, node = next(iter(self.callers.items()))
        return node.call(operation, **arguments).addCallback(lambda found: {name: {"rows": found[0]}})

    # -- as its directory

    problem: str | None = None

    def find(self, serial: str) -> "Deferred[Place | None]":
        return fail(DirectoryAway("it is")) if self.away else succeed(self.known(serial))

    def known(self, serial: str) -> Place | None:
        return Place(self.places[serial], 1, "", 1) if serial in self.places else None

    def forget(self, serial: str, place: Place) -> None:
        self.places.pop(serial, None)


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """The first one's people want plc-7, which is at the second one by now."""
    clock = Clock()
    clock.advance(1000.0)
    one, two = Node(clock, "one"), Node(clock, "two")
    one.callers["two"], one.places["plc-7"] = two, "two"
    two.callers["one"] = one
    yield one, two
    assert clock.getDelayedCalls() == []


Pair = tuple[Node, Node]


def test_a_device_is_known_for_seconds_and_by_what_its_node_said(nodes: Pair) -> None:
    """With its offers; one that left is asked for once more, and is nowhere then."""
    one, two = nodes
    link = object()
    two.arrive(link)
    found: list[Any] = []
    one.others.look("plc-7").addCallback(found.append)
    device = found.pop()
    assert (device.node, device.offers, device.free) == ("two", (SSH,), True)
    assert one.others.known("plc-7") == device
    assert not two.others.known("plc-7")
    one.others.page("", 10).addCallback(found.append)
    assert found.pop() == [device]
    one.clock.advance(FRESH)
    assert one.others.known("plc-7") is None
    one.away = True  # the directory: what is remembered has to do
    one.others.look("plc-7").addCallback(found.append)
    assert found.pop() == device
    two.fleet.leave("plc-7", link, 0.0)
    one.others.look("plc-7").addCallback(found.append)
    assert found.pop() is None and one.others.known("plc-7") is None and not one.places


def test_who_hangs_up_stops_no_call(nodes: Pair) -> None:
    """A directory or a node would take that for its own failing; what is said then is remembered."""
    one, two = nodes
    two.arrive(object())
    late: Deferred[Any] = Deferred()
    found, one.find = one.find("plc-7"), lambda serial: late  # type: ignore[method-assign]
    ends: list[Any] = []
    looking = one.others.look("plc-7")
    looking.addErrback(lambda failure: ends.append(failure.type))
    looking.cancel()
    assert ends == [CancelledError] and not late.called
    found.addCallback(late.callback)
    assert one.others.known("plc-7") is not None


def test_a_silent_node_is_no_answer(nodes: Pair) -> None:
    """What it said before stands for its seconds; that nobody knows is told in words, until it answers."""
    one, two = nodes
    two.arrive(object())
    found: list[Any] = []
    one.others.look("plc-7")
    assert one.others.undecided("plc-7") is None
    two.silent = True
    one.others.look("plc-7").addCallback(found.append)
    assert found == [None] and one.others.known("plc-7") is not None
    assert one.others.undecided("plc-7") == "two: no answer within 1 s"
    assert one.others.undecided("plc-8") is None
    two.silent = False
    one.others.look("plc-7")
    assert one.others.undecided("plc-7") is None


def test_a_node_that_is_busy_once_is_asked_once_more(nodes: Pair) -> None:
    """Its answer counts then."""
    one, two = nodes
    two.arrive(object())
    two.busy = 2
    found: list[Any] = []
    one.others.look("plc-7").addCallback(found.append)
    assert [each.node for each in found] == ["two"] and one.others.undecided("plc-7") is None


def test_a_session_is_let_in_once_its_node_has_said_yes(nodes: Pair) -> None:
    """Where nobody is asked that is at once; and only for the services that it was asked for."""
    one, two = nodes
    two.arrive(object())
    one.others.look("plc-7")
    assert one.say.asks("plc-7") and not one.say.refusal("plc-7")
    one.start()
    assert one.said == [(True, "")]
    assert two.answers.allows(ANA.session, "plc-7", "ssh")
    assert not two.answers.allows(ANA.session, "plc-7", "http")
    assert not two.answers.allows(ANA.session, "plc-8", "ssh")
    one.say.over(ANA.session)
    assert not two.answers.allows(ANA.session, "plc-7", "ssh")


def test_a_site_is_asked_by_its_own_node(nodes: Pair) -> None:
    """Its answer is asked for until it is there; it is told of the end; a yes that is taken back ends it."""
    one, two = nodes
    link = Link()
    two.arrive(link)
    one.others.look("plc-7")
    one.start()
    assert link.said == [ANA] and one.said == [] and not two.answers.allows(ANA.session, "plc-7", "ssh")
    two.say.consented("plc-7", ANA.session, True, "")
    one.clock.advance(UNDECIDED)
    assert one.said == [(True, "")] and two.answers.allows(ANA.session, "plc-7", "ssh")
    two.say.consented("plc-7", ANA.session, False, "enough")
    one.others.refresh()
    assert one.said == [(True, ""), (False, "enough")]
    one.say.over(ANA.session)
    assert link.said == [ANA, ANA.session]


def test_what_the_device_s_node_refuses_ends_a_session_that_runs(nodes: Pair) -> None:
    """By its record, which is another now."""
    one, two = nodes
    two.arrive(object())
    one.others.look("plc-7")
    one.start()
    two.policy = "no"
    one.others.refresh()
    assert one.said[1:] == [(False, "the record of plc-7 has sessions = no")]
    assert not two.answers.allows(ANA.session, "plc-7", "ssh")
    one.say.over(ANA.session)


def test_a_session_whose_node_died_is_forgotten(nodes: Pair) -> None:
    """Its site hears that it is over; one that is asked for again stays."""
    one, two = nodes
    link = Link()
    two.arrive(link)
    one.others.look("plc-7")
    one.start()
    two.say.consented("plc-7", ANA.session, True, "")
    one.clock.advance(KEPT - UNDECIDED)
    two.answers.look()
    one.others.refresh()
    one.clock.advance(KEPT - 1.0)
    two.answers.look()
    assert two.answers.allows(ANA.session, "plc-7", "ssh")
    one.clock.advance(1.0)
    two.answers.look()
    assert not two.answers.allows(ANA.session, "plc-7", "ssh") and link.said == [ANA, ANA.session]


def test_a_device_that_comes_to_the_session_s_own_node_is_asked_there(nodes: Pair) -> None:
    """And one that cannot be asked there, but was elsewhere, has no session."""
    one, two = nodes
    two.arrive(Link())
    one.others.look("plc-7")
    one.start()
    two.say.consented("plc-7", ANA.session, True, "")
    one.clock.advance(UNDECIDED)
    link = Link()
    one.arrive(link)
    assert link.said == [ANA] and one.say.away() == []
    one.arrive(object())
    assert one.said == [(True, ""), (False, "plc-7 cannot be asked any more")]
    one.say.over(ANA.session)


def test_a_session_that_began_here_goes_with_its_device_to_another_node(nodes: Pair) -> None:
    """Nobody was asked for it until now; its node hears of it by the next look."""
    one, two = nodes
    here = object()
    one.arrive(here)
    one.start()
    assert one.said == [] and one.say.away() == []
    one.fleet.leave("plc-7", here, 0.0)
    two.arrive(object())
    one.others.refresh()
    assert one.said == [(True, "")] and two.answers.allows(ANA.session, "plc-7", "ssh")
    one.say.over(ANA.session)


def test_what_is_asked_wrongly_or_too_often_is_refused(nodes: Pair) -> None:
    """Also a node is held to the form, and to the number of sessions of one device."""
    _, two = nodes
    two.arrive(object())
    with pytest.raises(NotFound):
        two.answers.device("plc-8")
    for wrong in (
        "",
        "{",
        "[]",
        '["x", "ana", ["ssh"], ""]',
        f'["{ANA.session}", "ana", [], ""]',
        "[" * 50_000,
    ):
        if wrong:
            with pytest.raises(Invalid):
                two.answers.device("plc-7", wrong)
    for number in range(OF_ONE + 1):
        row = two.answers.device("plc-7", f'["{number:032x}", "ana", ["ssh"], ""]')
    assert (row["yes"], row["why"]) == (False, f"{OF_ONE} sessions of other nodes run")
    two.answers.over(f"{0:032x}")
    assert two.answers.device("plc-7", f'["{OF_ONE:032x}", "ana", ["ssh"], ""]')["yes"]
    for call in (two.answers.proxy, two.answers.proxy_off):
        with pytest.raises(NotFound):
            call("plc-7")
