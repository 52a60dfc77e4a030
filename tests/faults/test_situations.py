"""Situations that users of tunnels report, one test each, named after what they would say.

Those in memory are quick and drive the clock; those that need sockets and processes are slow. What to look at
in the field stands in docs/operations.rst, "When something is wrong".
"""

from revtunnel.ground.facts import LinkDown
from tests.support.world import World

# -- the path falls silent


def test_the_first_client_after_the_path_fell_silent_is_reset_within_20_s() -> None:
    """Its CONNECT is unanswered as DATA would be: the link is given up as early, for the next one."""
    world = World()
    world.advance(60.0)
    world.link_pairs()[0].sever()
    client = world.client()
    world.advance(21.0)
    assert client.was_reset
    assert [fact.reason for fact in world.of(LinkDown)] == ["silent"]
    world.finish()


def test_an_agent_whose_opened_is_lost_leaves_the_silent_path_within_20_s() -> None:
    """The path falls silent between CONNECT and OPENED: the agent has something unanswered, too."""
    world = World()
    world.advance(60.0)
    world.client()
    while not world.reactor.dialling:
        world.reactor.turn()
    world.link_pairs()[0].sever()
    world.advance(21.0)
    (down,) = (fact for fact in world.agents["plc-1"].facts if isinstance(fact, LinkDown))
    assert down.reason == "silent"
    world.finish()
