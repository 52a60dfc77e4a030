"""One link, kept up: servers in turn, how long the agent stays away, and how it stops in every stage."""

from dataclasses import replace
from itertools import pairwise

import pytest

from revtunnel.ground.facts import LinkDown, LinkUp, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace, parse_server_place
from revtunnel.sockets.ways.service_names import Found, Listed
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused
from tests.support.reactor import HANGS
from tests.support.world import LINK_PORT, SERVER, WIRES, World

LIMITS = AgentLimits(retry_first=1.0, retry_most=60.0)


def lonely(servers: list[ServerPlace] | None = None, random: float = 1.0) -> World:
    """A world whose agent dials; nobody listens but where a test says."""
    world = World(agent=LIMITS, start=False)
    world.reactor.at(SERVER, LINK_PORT).stop()  # type: ignore[union-attr]
    world.pump()
    agent = world.agents["plc-1"]
    agent.random = random
    agent.uplink.change(servers or [ServerPlace(SERVER, LINK_PORT)], LIMITS)
    return world


def listen(world: World, host: str = SERVER, port: int = LINK_PORT) -> None:
    """The server is there."""
    world.reactor.serve(host, port, world.switchboard.agents("rt1-0"))


def dials(world: World, seconds: float) -> list[float]:
    """When the agent dials within so many seconds."""
    times = []
    known = len(world.reactor.dialled)
    end = world.reactor.seconds() + seconds
    while world.reactor.seconds() < end:
        world.advance(0.05)
        times += [round(world.reactor.seconds(), 1)] * (len(world.reactor.dialled) - known)
        known = len(world.reactor.dialled)
    return times


def test_the_back_off_doubles_up_to_its_limit() -> None:
    """With a random of 1: 1, 2, 4, ... 60 seconds between tries."""
    world = lonely()
    world.agents["plc-1"].uplink.start()
    times = [0.0, *dials(world, 200.0)]
    gaps = [round(after - before) for before, after in pairwise(times)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60]
    away = [fact for fact in world.agents["plc-1"].facts if isinstance(fact, ServerState)]
    assert len(away) == 9
    assert f"{SERVER}:{LINK_PORT}" in away[0].detail
    assert "next try in 1.0 s" in away[0].detail
    world.finish()


def test_full_jitter() -> None:
    """Half the random, half the wait; a random of 0 waits not at all, and yet lets the reactor turn."""
    world = lonely(random=0.5)
    world.agents["plc-1"].uplink.start()
    # an address is not looked up, so the first dial is at 0 and refused at once
    assert dials(world, 18.0) == [0.5, 1.5, 3.5, 7.5, 15.5]
    world.finish()


def test_servers_are_tried_in_turn() -> None:
    """The next one soon, the next round after the back-off; the one that answers serves."""
    servers = [ServerPlace(f"192.0.2.{number}", LINK_PORT) for number in (1, 2, 3)]
    world = lonely(servers)
    listen(world, "192.0.2.3")
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.advance(0.9)
    assert [host for host, _ in world.reactor.dialled] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert agent.link.mux is not None
    world.finish()


def test_a_round_of_servers_counts_once() -> None:
    """With two servers that refuse, the back-off doubles a round, not a try."""
    world = lonely([ServerPlace("192.0.2.1", LINK_PORT), ServerPlace("192.0.2.2", LINK_PORT)])
    world.agents["plc-1"].uplink.start()
    times = [0.0, *dials(world, 20.0)]
    gaps = [round(after - before) for before, after in pairwise(times[0::2])]
    assert gaps == [1, 2, 4, 8]
    world.finish()


def test_a_server_that_hangs_is_given_up() -> None:
    """After ``connect`` seconds, in the lookup or in the connect."""
    world = lonely()
    world.reactor.faults[SERVER, LINK_PORT] = HANGS
    world.agents["plc-1"].uplink.start()
    world.advance(10.5)
    assert world.reactor.dialling == 0
    assert len([f for f in world.agents["plc-1"].facts if isinstance(f, ServerState)]) == 1
    world.finish()


def test_n32_a_server_whose_name_hangs_is_given_up() -> None:
    """And tried again when the name is known."""
    world = lonely([ServerPlace("server.example", LINK_PORT)])
    names = world.reactor.names
    names.held.add("server.example")
    names.answers["server.example"] = [SERVER]
    listen(world)
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.advance(10.5)
    assert agent.uplink.link is None
    names.held.clear()
    names.release()
    world.advance(5.0)
    assert agent.link.mux is not None
    world.finish()


def test_after_a_loss_the_return_is_spread() -> None:
    """U(0, spread) for the first try, whatever the back-off had been."""
    world = World(agent=LIMITS)
    world.listener(hello=replace(world.listener().hello, spread=10.0))
    world.link_pairs()[0].reset()
    world.advance(20.0)  # now with the spread of 10 s
    agent = world.agents["plc-1"]
    world.advance(100.0)
    agent.random = 0.7
    world.link_pairs()[0].reset()
    world.pump()
    at = world.reactor.seconds()
    assert dials(world, 15.0) == [pytest.approx(at + 7.0, abs=0.2)]
    world.finish()


def test_the_back_off_starts_over_only_after_a_stable_minute() -> None:
    """Links that come up and are lost again do not make a flood."""
    world = World(agent=LIMITS)
    agent = world.agents["plc-1"]
    agent.random = 1.0
    gaps = []
    for _ in range(5):
        before = world.reactor.seconds()
        world.link_pairs()[0].reset()
        world.pump()
        while not world.link_pairs():
            world.advance(0.1)
        gaps.append(round(world.reactor.seconds() - before))
    assert gaps == [1, 2, 4, 8, 16]
    world.advance(61.0)
    before = world.reactor.seconds()
    world.link_pairs()[0].reset()
    world.advance(1.2)
    assert len(world.link_pairs()) == 1
    world.finish()


def test_a_server_that_says_stay_away_is_obeyed() -> None:
    """retry-after of a refusal, too."""
    world = World()
    world.switchboard.set_limits(replace(world.switchboard.limits, retry_after=40))
    world.switchboard.drain()
    world.pump()
    assert world.link_pairs() == []
    known = len(world.reactor.dialled)
    world.advance(39.0)
    assert len(world.reactor.dialled) == known
    world.advance(5.0)
    assert len(world.reactor.dialled) > known
    agent = world.agents["plc-1"]
    assert agent.links[-1].up_since is None
    world.finish()


@pytest.mark.parametrize(("more", "away"), [((), 41.0), (("192.0.2.9",), 1.0)])
def test_where_there_are_other_servers_nobody_waits_for_one_that_stops(
    more: tuple[str, ...], away: float
) -> None:
    """How long it asks its agents to stay away is about itself."""
    world = lonely([ServerPlace(host, LINK_PORT) for host in (SERVER, *more)])
    listen(world)
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.advance(0.1)
    world.switchboard.set_limits(replace(world.switchboard.limits, retry_after=40))
    world.switchboard.drain()
    world.pump()
    assert dials(world, 42.0)[0] == pytest.approx(away, abs=0.2)
    world.finish()


@pytest.mark.parametrize("words", ["a restarting server", "one that says no", "one that says when"])
def test_how_long_at_most(words: str) -> None:
    """A server that had us lately is looked for every 10 s; who says no gets a minute, or what he says."""
    world = World(agent=LIMITS)
    agent = world.agents["plc-1"]
    agent.random = 1.0
    world.advance(61.0)
    world.reactor.at(SERVER, LINK_PORT).stop()  # type: ignore[union-attr]
    world.pump()
    if words != "a restarting server":
        error = HandshakeRefused(429, words, retry_after=20 if words == "one that says when" else 0)
        world.reactor.faults[SERVER, LINK_PORT] = error
    world.link_pairs()[0].reset()
    world.advance(1.0)
    gaps = [round(after - before) for before, after in pairwise(dials(world, 300.0))]
    longest = {"a restarting server": 10, "one that says no": 60, "one that says when": 21}[words]
    assert gaps[-3:] == [longest] * 3
    assert max(gaps) == longest
    world.finish()


def test_an_announced_wait_ends_early_when_somebody_knows_better() -> None:
    """The network has changed, say; an agent that is up, or stops, is not disturbed."""
    world = World()
    agent = world.agents["plc-1"]
    agent.uplink.hurry()
    world.switchboard.set_limits(replace(world.switchboard.limits, retry_after=400))
    world.switchboard.drain()
    world.pump()
    known = len(world.reactor.dialled)
    world.advance(10.0)
    assert len(world.reactor.dialled) == known
    agent.uplink.hurry()
    world.pump()
    assert len(world.reactor.dialled) == known + 1
    agent.uplink.stop(1.0)
    agent.uplink.hurry()
    world.advance(500.0)
    assert len(world.reactor.dialled) == known + 1
    world.finish()


@pytest.mark.parametrize("stage", ["lookup", "connect", "waiting", "up", "not started"])
def test_stop_in_every_stage(stage: str) -> None:
    """The Deferred fires, and no timer, dial or socket is left."""
    world = lonely([ServerPlace("server.example", LINK_PORT)])
    agent = world.agents["plc-1"]
    names = world.reactor.names
    names.answers["server.example"] = [SERVER]
    if stage == "lookup":
        names.held.add("server.example")
    if stage == "connect":
        world.reactor.faults[SERVER, LINK_PORT] = HANGS
    if stage == "up":
        listen(world)
    if stage != "not started":
        agent.uplink.start()
    world.advance(0.5)
    stopped: list[object] = []
    agent.uplink.stop(5.0).addCallback(stopped.append)
    world.pump()
    assert stopped == [None]
    world.advance(1.0)
    names.release()
    world.pump()
    assert world.reactor.getDelayedCalls() == []
    assert world.reactor.dialling == 0
    assert world.reactor.sockets == 0
    world.finish()


@pytest.mark.parametrize("stage", ["connect", "waiting", "up", "stopping"])
def test_abort_in_every_stage(stage: str) -> None:
    """At once, for good: running channels are reset and nothing comes back."""
    world = World() if stage in ("up", "stopping") else lonely()
    agent = world.agents["plc-1"]
    stopped: list[object] = []
    if stage in ("up", "stopping"):
        client, service = world.talk()
    else:
        if stage == "connect":
            world.reactor.faults[SERVER, LINK_PORT] = HANGS
        agent.uplink.start()
        world.pump()
    if stage == "stopping":
        agent.uplink.stop(20.0).addCallback(stopped.append)
        world.pump()
    agent.uplink.abort()
    known = len(world.reactor.dialled)
    world.advance(30.0)
    assert len(world.reactor.dialled) == known
    assert agent.uplink.link is None
    assert world.reactor.dialling == 0
    assert world.link_pairs() == []
    if stage in ("up", "stopping"):
        assert client.was_reset
        assert service.was_reset
    assert stopped == ([None] if stage == "stopping" else [])
    world.finish()


def test_stop_twice() -> None:
    """Both are told."""
    world = World()
    client, _ = world.talk()
    stopped: list[int] = []
    for number in (1, 2):
        world.agents["plc-1"].uplink.stop(5.0).addCallback(lambda _, n=number: stopped.append(n))
    client.abort()
    world.pump()
    assert stopped == [1, 2]
    world.finish()


def test_other_servers_from_the_next_try_on() -> None:
    """The link that is up stays."""
    world = World()
    listen(world, "192.0.2.9")
    agent = world.agents["plc-1"]
    agent.uplink.change([ServerPlace("192.0.2.9", LINK_PORT)], LIMITS)
    world.advance(10.0)
    assert world.reactor.dialled == [(SERVER, LINK_PORT)]
    world.link_pairs()[0].reset()
    world.advance(10.0)
    assert world.reactor.dialled[-1] == ("192.0.2.9", LINK_PORT)
    world.finish()


@pytest.mark.parametrize("wire", WIRES)
def test_n21_the_server_is_gone_and_back(wire: str) -> None:
    """Facts in order: up, down, away, up; clients work again on the same port."""
    world = World(wire)
    port = world.port()
    world.link_pairs()[0].reset()
    world.advance(15.0)
    kinds = [type(fact) for fact in world.agents["plc-1"].facts]
    assert kinds == [LinkUp, LinkDown, ServerState, LinkUp]
    assert world.port() == port
    client, service = world.talk()
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    world.finish()


OTHERS = [f"192.0.2.{number}" for number in (7, 8, 9)]


def sent(place: str, *servers: str, retry_after: int = 0) -> World:
    """A world whose agent knows more servers, and was sent to a place by the first."""
    world = lonely([ServerPlace(host, LINK_PORT) for host in (SERVER, *servers)])
    for host in (SERVER, *OTHERS):
        listen(world, host)
    world.agents["plc-1"].uplink.start()
    world.advance(2.0)
    world.server_link().goaway(GoAway.STOPPING, retry_after, "the node stops", place)
    return world


def dialled(world: World) -> list[str]:
    """Hosts, without the first."""
    return [host for host, _ in world.reactor.dialled][1:]


def words(world: World, state: str) -> list[str]:
    """What its agent says of a state."""
    facts = world.agents["plc-1"].facts
    return [fact.detail for fact in facts if isinstance(fact, ServerState) and fact.state == state]


def test_an_agent_goes_where_it_is_sent() -> None:
    """At once, and past those that come before; then its list goes on."""
    world = sent(f"192.0.2.9:{LINK_PORT}", *OTHERS, retry_after=600)
    world.pump()
    assert dialled(world) == ["192.0.2.9"]
    assert words(world, "away")[0].endswith(
        "the node stops; to 192.0.2.9:2065, as it says; next try in 0.0 s"
    )
    world.advance(2.0)
    world.link_pairs()[0].reset()
    world.advance(2.0)
    assert dialled(world) == ["192.0.2.9", "192.0.2.7"]
    world.finish()


def test_where_it_is_sent_may_be_nobody() -> None:
    """Then it goes on with its list."""
    world = sent(f"192.0.2.9:{LINK_PORT}", *OTHERS)
    world.reactor.at("192.0.2.9", LINK_PORT).stop()  # type: ignore[union-attr]
    world.advance(2.0)
    assert dialled(world) == ["192.0.2.9", "192.0.2.7"]
    assert world.agents["plc-1"].link.mux is not None
    world.finish()


def test_it_is_not_sent_from_one_to_the_next_for_ever() -> None:
    """Where a server does not keep it for a second its own list counts."""
    world = sent(f"192.0.2.9:{LINK_PORT}", *OTHERS)
    world.pump()
    world.server_link().goaway(GoAway.OVERLOADED, 0, "", f"192.0.2.8:{LINK_PORT}")
    world.advance(1.0)
    assert dialled(world) == ["192.0.2.9", "192.0.2.7"]
    world.advance(2.0)
    world.server_link().goaway(GoAway.OVERLOADED, 0, "", f"192.0.2.9:{LINK_PORT}")
    world.pump()
    assert dialled(world) == ["192.0.2.9", "192.0.2.7", "192.0.2.9"]
    world.finish()


def test_two_servers_that_send_it_to_each_other_do_not_have_it_for_ever() -> None:
    """Each keeps it for a second: a few times it goes, then more and more seldom, until one is stable."""
    world = sent(f"192.0.2.9:{LINK_PORT}", "192.0.2.9")
    begun, tries = world.reactor.seconds(), list[float]()
    count = len(dialled(world))
    while world.reactor.seconds() < begun + 1800:
        world.advance(1.5)
        if len(dialled(world)) > count and world.agents["plc-1"].link.mux is not None:
            tries.append(world.reactor.seconds() - begun)
            other = SERVER if dialled(world)[-1] == "192.0.2.9" else "192.0.2.9"
            count = len(dialled(world))
            world.server_link().goaway(GoAway.STOPPING, 0, "the node stops", f"{other}:{LINK_PORT}")
    assert len(tries) < 150 and sum(each < 60 for each in tries) > 3
    while world.agents["plc-1"].uplink.link is None:
        world.advance(1.0)
    world.advance(100.0)
    place = SERVER if dialled(world)[-1] == "192.0.2.9" else "192.0.2.9"
    world.server_link().goaway(GoAway.STOPPING, 0, "the node stops", f"{place}:{LINK_PORT}")
    world.pump()
    assert dialled(world)[-1] == place
    world.finish()


def test_it_does_not_go_to_whom_it_does_not_know() -> None:
    """And says so."""
    world = sent(f"192.0.2.9:{LINK_PORT}", "192.0.2.7")
    world.advance(2.0)
    assert dialled(world) == ["192.0.2.7"]
    (said,) = words(world, "follow")
    assert said.endswith("sends us to 192.0.2.9:2065: it is none of our servers, and follow = configured")
    world.finish()


def test_who_is_refused_in_the_handshake_may_be_sent_on() -> None:
    """To a node that takes agents."""
    world = lonely([ServerPlace(host, LINK_PORT) for host in (SERVER, *OTHERS)])
    for host in (SERVER, *OTHERS):
        listen(world, host)
    world.switchboard.not_yet = "the node stops"
    world.switchboard.elsewhere = lambda: f"192.0.2.9:{LINK_PORT}"
    world.agents["plc-1"].uplink.start()
    world.pump()
    assert [host for host, _ in world.reactor.dialled] == [SERVER, "192.0.2.9"]
    world.switchboard.not_yet = ""  # it is refused there too, and goes on with its list
    world.advance(0.2)
    assert dialled(world) == ["192.0.2.9", "192.0.2.7"]
    assert world.agents["plc-1"].link.mux is not None
    world.finish()


def test_of_a_name_the_address_that_says_no_is_tried_last() -> None:
    """Also where one that stops asks those who know no other server to stay away."""
    world = lonely([ServerPlace("server.example", LINK_PORT)])
    world.reactor.names.answers["server.example"] = [SERVER, *OTHERS[:2]]
    listen(world)
    listen(world, OTHERS[0])
    listen(world, OTHERS[1])
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.advance(2.0)
    for _ in range(3):
        world.server_link().goaway(GoAway.STOPPING, 600, "")
        world.advance(2.0)
    hosts = [host for host, _ in world.reactor.dialled]
    assert hosts == [SERVER, *OTHERS[:2], SERVER]
    world.server_link().goaway(GoAway.STOPPING, 0, "", f"{OTHERS[1]}:{LINK_PORT}")
    world.pump()
    assert world.reactor.dialled[-1] == (OTHERS[1], LINK_PORT)
    world.finish()


@pytest.mark.parametrize(("lived", "then"), [(2.0, "two"), (61.0, "one")])
def test_a_server_of_a_name_that_does_not_keep_it_is_not_the_only_one(lived: float, then: str) -> None:
    """The next one that DNS lists is tried; after a stable minute DNS is asked anew."""

    async def look_up(reactor: object, name: str) -> Found:
        listed = Listed(0, 0, "one.example", LINK_PORT), Listed(1, 0, "two.example", LINK_PORT)
        return Found(listed, 0.0)

    world = lonely([parse_server_place("_revtunnel._tcp.example")])
    world.agents["plc-1"].uplink.rounds._look_up = look_up
    world.reactor.names.answers |= {"one.example": [OTHERS[0]], "two.example": [OTHERS[1]]}
    for host in OTHERS:
        listen(world, host)
    world.agents["plc-1"].uplink.start()
    world.advance(lived)
    world.link_pairs()[0].reset()
    world.advance(2.0)
    assert world.agents["plc-1"].link.place[0].host == f"{then}.example"
    world.finish()


def test_a_name_without_servers_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, and with the waits of any failure; all of its servers are tried."""
    answers: list[Found | OSError] = [
        TimeoutError("no name server answered"),
        Found((Listed(0, 0, "one.example", 7), Listed(1, 0, "two.example", LINK_PORT)), 60.0),
    ]

    async def look_up(reactor: object, name: str) -> Found:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    world = lonely([parse_server_place("_revtunnel._tcp.example")])
    world.agents["plc-1"].uplink.rounds._look_up = look_up
    world.reactor.names.answers |= {"one.example": ["192.0.2.5"], "two.example": [OTHERS[0]]}
    listen(world, OTHERS[0])
    world.agents["plc-1"].uplink.start()
    world.pump()
    assert words(world, "away") == ["_revtunnel._tcp.example: no name server answered; next try in 1.0 s"]
    world.advance(2.0)
    assert [host for host, _ in world.reactor.dialled] == ["192.0.2.5", OTHERS[0]]
    assert world.agents["plc-1"].link.place[0].name == "example"
    world.finish()
