"""What every directory does: one suite for whatever keeps the records.

A test file for a directory has a fixture ``world`` that makes a ``World`` and imports this class:

    class TestLocal(DirectoryBehaviour): ...
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from revtunnel.cluster.directory import Directory
from revtunnel.cluster.node_records import Node


class World(Protocol):
    """One set of records, and the nodes that use it."""

    def view(self, name: str) -> Directory:
        """A node's view, not started; again with the same name: its next process."""

    def result(self, waited: "Deferred[Any]") -> Any:
        """What a Deferred comes to."""

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until this holds; fails after some seconds."""

    def die(self, view: Directory) -> None:
        """Its process is gone without a word, and the others have had the time to see it."""


class Told:
    """What a view has told its owner."""

    def __init__(self, view: Directory) -> None:
        self.moved: list[tuple[str, int]] = []
        self.usurped = 0
        view.moved = lambda serial, link: self.moved.append((serial, link))
        view.usurped = self._usurp

    def _usurp(self) -> None:
        self.usurped += 1


class DirectoryBehaviour:
    """The suite. ``world`` is a fixture of the file that runs it."""

    def started(self, world: World, *names: str) -> list[Directory]:
        """Views that have joined."""
        views = [world.view(name) for name in names]
        for view in views:
            world.result(view.start())
        return views

    def where(self, world: World, view: Directory, serial: str) -> tuple[str, int] | None:
        """Node and link of a serial, by the record."""
        place = world.result(view.find(serial))
        return None if place is None else (place.node, place.link)

    def test_what_arrives_is_found_by_all_until_it_leaves(self, world: World) -> None:
        """With its wire, and the address of its node."""
        one, two = self.started(world, "one", "two")
        one.arrived("d1", 1, "emo")
        world.until(lambda: self.where(world, two, "d1") == ("one", 1))
        place = world.result(two.find("d1"))
        assert (place.wire, place.address, place.epoch) == ("emo", one.me.address, one.me.epoch)
        assert self.where(world, one, "d1") == ("one", 1) and self.where(world, two, "d2") is None
        one.left("d1", 1)
        world.until(lambda: self.where(world, two, "d1") is None)

    def test_the_newest_link_stands_and_the_older_is_told(self, world: World) -> None:
        """Whoever leaves late takes nothing with it."""
        one, two = self.started(world, "one", "two")
        told = Told(one)
        one.arrived("d1", 7, "rt1")
        world.until(lambda: self.where(world, two, "d1") == ("one", 7))
        two.arrived("d1", 1, "rt1")
        world.until(lambda: told.moved == [("d1", 7)])
        assert self.where(world, one, "d1") == ("two", 1)
        one.left("d1", 7)
        one.arrived("d2", 8, "rt1")  # behind it
        world.until(lambda: self.where(world, two, "d2") == ("one", 8))
        assert self.where(world, one, "d1") == ("two", 1)

    def test_a_second_link_at_the_same_node_is_its_own_affair(self, world: World) -> None:
        """Nobody is told, and the older one's leave changes nothing."""
        one, two = self.started(world, "one", "two")
        told = Told(one)
        for link in (1, 2):
            one.arrived("d1", link, "rt1")
        one.left("d1", 1)
        two.arrived("d2", 1, "rt1")
        world.until(lambda: self.where(world, two, "d2") == ("two", 1))
        one.arrived("d2", 3, "rt1")
        world.until(lambda: self.where(world, two, "d2") == ("one", 3))
        world.until(lambda: self.where(world, two, "d1") == ("one", 2))
        assert told.moved == []

    def test_the_devices_of_a_node_that_died_are_nowhere(self, world: World) -> None:
        """Nor are those of its earlier life, once it lives again."""
        one, two = self.started(world, "one", "two")
        one.arrived("d1", 1, "rt1")
        world.until(lambda: self.where(world, two, "d1") is not None)
        world.die(one)
        world.until(lambda: self.where(world, two, "d1") is None)
        assert two.known("d1") is None
        (again,) = self.started(world, "one")
        assert again.me.epoch > one.me.epoch
        assert self.where(world, two, "d1") is None
        again.arrived("d1", 1, "rt1")
        world.until(lambda: self.where(world, two, "d1") == ("one", 1))

    def test_a_node_that_leaves_takes_its_devices_with_it(self, world: World) -> None:
        """At once, and others see that it is not up."""
        one, two = self.started(world, "one", "two")
        one.arrived("d1", 1, "rt1")
        world.until(lambda: self.where(world, two, "d1") is not None)
        world.result(one.stop())
        world.until(lambda: self.where(world, two, "d1") is None)
        world.until(lambda: [each.name for each in two.nodes() if each.state != "away"] == ["two"])

    def test_a_node_that_joins_tells_what_it_has(self, world: World) -> None:
        """Also what came before it could."""
        (one,) = self.started(world, "one")
        late = world.view("late")
        late.mine = lambda: [("d1", 4, "rt1", 10.0), ("d2", 5, "emo", 0.5)]
        world.result(late.start())
        world.until(lambda: self.where(world, one, "d1") == ("late", 4))
        world.until(lambda: self.where(world, one, "d2") == ("late", 5))

    def test_what_was_found_is_known_until_it_is_forgotten_or_moves(self, world: World) -> None:
        """What is known is never younger than the record, and never of a node that is gone."""
        one, two = self.started(world, "one", "two")
        assert two.known("d1") is None
        one.arrived("d1", 1, "rt1")
        world.until(lambda: self.where(world, two, "d1") == ("one", 1))
        place = two.known("d1")
        assert place is not None and place.node == "one"
        two.arrived("d1", 1, "rt1")

        def is_known_there() -> bool:
            place = one.known("d1")
            return place is not None and place.node == "two"

        world.until(lambda: self.where(world, one, "d1") == ("two", 1))
        world.until(is_known_there)

    def test_nodes_say_of_themselves(self, world: World) -> None:
        """By name, with what they have."""
        one, two = self.started(world, "one", "two")
        one.say("draining", 3, 4)

        def seen() -> list[Node]:
            return [each for each in two.nodes() if each.name == "one"]

        world.until(lambda: [each.state for each in seen()] == ["draining"])
        assert [(each.devices, each.clients, each.epoch) for each in seen()] == [(3, 4, one.me.epoch)]
        assert [each.name for each in one.nodes()] == ["one", "two"]
        assert one.problem is None

    def test_a_name_is_of_one_process(self, world: World) -> None:
        """The later one has it, and the earlier one is told."""
        (one,) = self.started(world, "one")
        told = Told(one)
        (heir,) = self.started(world, "one")
        world.until(lambda: told.usurped == 1)
        one.arrived("d1", 1, "rt1")
        heir.arrived("d2", 1, "rt1")
        world.until(lambda: self.where(world, heir, "d2") is not None)
        assert self.where(world, heir, "d1") is None
