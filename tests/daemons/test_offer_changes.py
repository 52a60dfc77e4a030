"""Offers of an agent that change while its link is up: ports, streams, and an operator's wishes."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.daemons.offer_changes import WAIT, OfferChanges
from revtunnel.ground.facts import LinkUp
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.link.mux import OffersAsked
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound
from revtunnel.streams.offer_messages import Answer
from tests.support.world import CONSOLE, WEB, World

SSH = parse_offer("ssh=10.0.0.5:22")


def said(world: World, *offers: Offer) -> None:
    """The agent offers these from now on, and dials nothing else."""
    agent = world.agents["plc-1"]
    agent.dialler.offer(offers)
    assert agent.link.offer(offers) is (world.wire == "rt1")
    world.pump()


def where(world: World) -> dict[str, int]:
    """The open ports of the device, by target."""
    return {port.lease.target: port.lease.port for port in world.ports.of("plc-1")}


def changes(world: World) -> OfferChanges:
    """What operators ask."""
    return world.switchboard.offer_changes


def outcome(deferred: "Deferred[Any]") -> list[Any]:
    """What a call came to, once it has."""
    found: list[Any] = []
    deferred.addBoth(lambda result: found.append(getattr(result, "value", result)))
    return found


def answers(world: World, answer: Answer, *offers: Offer) -> list[OffersAsked]:
    """The agent says this, and these, to whatever it is asked: what that was."""
    asked: list[OffersAsked] = []

    def answered(link: Any, what: OffersAsked) -> None:
        asked.append(what)
        link.offer(offers, answer)

    world.agents["plc-1"].link.offers_asked = answered
    return asked


def test_ports_come_and_go_and_streams_stay() -> None:
    """One link all the time; the port that stays is the same one."""
    world = World()
    world.add_service(SSH)
    client, service = world.talk("console")
    said(world, WEB, SSH)
    assert where(world) == {"web": 20001, "ssh": 20002}
    client.say(b"still here")
    world.pump()
    assert service.data == b"still here"
    world.talk("ssh")
    said(world, WEB, SSH, CONSOLE)
    assert where(world) == {"web": 20001, "ssh": 20002, "console": 20000}
    world.talk("console")
    assert len(world.of(LinkUp)) == 1
    world.finish()


def test_a_service_that_leads_elsewhere() -> None:
    """Its port stays, and the next client gets to the new place."""
    world = World()
    other = Offer("web", parse_offer("x=10.0.0.9:80").target)
    world.add_service(Offer("elsewhere", other.target))
    before, service = world.talk("web")
    said(world, CONSOLE, other)
    client = world.client(name="web")
    client.say(b"new")
    before.say(b"old")
    world.pump()
    assert (world.services["elsewhere"][0].data, service.data) == (b"new", b"old")
    assert where(world) == {"console": 20000, "web": 20001}
    world.finish()


def test_a_legacy_link_has_no_word_for_it() -> None:
    """What its server maps is its server's."""
    world = World("legacy")
    said(world, CONSOLE)
    assert set(where(world)) == {"console", "web"}
    world.finish()


def test_an_operator_has_offers_added_and_taken_away() -> None:
    """The answer is the client port, which is open then."""
    world = World()
    asked = answers(world, Answer(True), CONSOLE, WEB, SSH)
    done = outcome(changes(world).add("plc-1", "ssh=10.0.0.5:22", "root"))
    assert done == []
    world.pump()
    assert done == [20002] and where(world)["ssh"] == 20002
    answers(world, Answer(True), CONSOLE)
    done = outcome(changes(world).remove("plc-1", "web", "root"))
    world.pump()
    assert done == [None] and where(world) == {"console": 20000}
    assert [str(each.change) for each in asked] == ["ssh=10.0.0.5:22"]
    world.finish()


def test_a_no_of_the_agent_is_the_operators_answer() -> None:
    """With its words."""
    world = World()
    answers(world, Answer(False, "10.0.0.5:22 is not in remote_offers"), CONSOLE, WEB)
    done = outcome(changes(world).add("plc-1", "ssh=10.0.0.5:22", "root"))
    world.pump()
    assert isinstance(done[0], Conflict) and "not in remote_offers" in str(done[0])
    world.finish()


def test_one_wish_at_a_time_and_not_for_ever() -> None:
    """A second one has to wait; one that is not answered, or whose link goes, has failed."""
    world = World()
    for lost in (False, True):
        done = outcome(changes(world).remove("plc-1", "web", "root"))
        with pytest.raises(Busy, match="under way"):
            changes(world).remove("plc-1", "web", "root")
        if lost:
            world.link_pairs()[0].reset()
            world.pump()
        else:
            world.advance(WAIT)
        assert isinstance(done[0], Busy) and "did not answer" in str(done[0])
    world.advance(15.0)
    assert set(where(world)) == {"console", "web"}
    world.finish()


def test_what_cannot_be_asked_is_refused_at_once() -> None:
    """No offer, no device, an agent that has not said that it may be asked."""
    world = World("legacy")
    with pytest.raises(Invalid):
        changes(world).add("plc-1", "ssh=nowhere", "root")
    with pytest.raises(Invalid):
        changes(world).remove("plc-1", "", "root")
    with pytest.raises(NotFound):
        changes(world).add("plc-9", "10.0.0.5:22", "root")
    with pytest.raises(Conflict, match="remote_offers"):
        changes(world).add("plc-1", "10.0.0.5:22", "root")
    world.finish()
