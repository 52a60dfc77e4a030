"""The directory that asks every node: who stands when two have a serial, what is known, who is silent."""

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.mesh_directory import MeshDirectory
from revtunnel.cluster.node_records import Node
from revtunnel.process.admin.operation_form import Operation
from revtunnel.process.admin.refusals import Busy


class Line:
    """A caller that reaches another directory at once, or not at all."""

    def __init__(self, clock: Clock, me: str, other: MeshDirectory) -> None:
        self.dead = False
        self._clock = clock
        self._me = me
        self._other = other

    def call(self, operation: Operation, **arguments: Any) -> "Deferred[Any]":
        """As NodeCaller."""
        if self.dead:
            return fail(Busy("no answer within 1 s"))
        by = {"by": f"node {self._me}"} if operation.named else {}
        return maybeDeferred(getattr(self._other, operation.method), **arguments, **by)


class Mesh:
    """Some nodes, each with a line to each other one."""

    def __init__(self, *names: str) -> None:
        self.clock = Clock()
        self.lines: dict[str, dict[str, Any]] = {name: {} for name in names}
        self.at = {
            name: MeshDirectory(
                self.clock, Node(name, 7, f"{name}:2066"), set(names) - {name}, self.lines[name]
            )
            for name in names
        }
        self.moved: list[tuple[str, str, int]] = []
        for name, directory in self.at.items():
            directory.moved = lambda serial, link, name=name: self.moved.append((name, serial, link))  # type: ignore[misc]
        for name in names:
            self.join(name)

    def join(self, *names: str) -> None:
        """Lines from and to these nodes, and what they tell then."""
        for name in names:
            for other in self.at:
                if other != name:
                    self.lines[name][other] = Line(self.clock, name, self.at[other])
                    self.lines[other][name] = Line(self.clock, other, self.at[name])

    def part(self, name: str) -> None:
        """It has no link to the others any more, nor they to it."""
        self.lines[name].clear()
        for lines in self.lines.values():
            lines.pop(name, None)

    def found(self, at: str, serial: str) -> Any:
        """Where a node finds a serial."""
        places: list[Any] = []
        self.at[at].find(serial).addBoth(places.append)
        return places[0]


@pytest.fixture
def mesh() -> Mesh:
    """Three nodes."""
    return Mesh("a", "b", "c")


def test_every_node_is_asked_and_the_answer_remembered(mesh: Mesh) -> None:
    """Until the device moves, is not there, or its node is gone."""
    mesh.at["b"].arrived("d1", 4, "emo")
    mesh.clock.advance(0.1)
    place = mesh.found("a", "d1")
    assert (place.node, place.link, place.wire) == ("b", 4, "emo")
    assert mesh.at["a"].known("d1") == place and mesh.at["c"].known("d1") is None
    mesh.at["a"].forget("d1", place._replace(node="c"))
    assert mesh.at["a"].known("d1") == place
    mesh.at["a"].forget("d1", place)
    assert mesh.at["a"].known("d1") is None
    mesh.found("a", "d1")
    mesh.at["b"].left("d1", 3)  # an older link
    assert mesh.found("a", "d1") == place
    mesh.part("b")
    assert mesh.at["a"].known("d1") is None and mesh.found("a", "d1") is None
    assert [each.state for each in mesh.at["a"].nodes()] == ["up", "away", "up"]


def test_the_younger_link_stands(mesh: Mesh) -> None:
    """The older one's node is told, and remembers its place no longer."""
    mesh.at["a"].arrived("d1", 1, "rt1")
    mesh.clock.advance(5)
    assert mesh.found("c", "d1").node == "a"
    mesh.at["b"].arrived("d1", 1, "rt1")
    mesh.clock.advance(0.1)
    assert mesh.moved == [("a", "d1", 1)]
    assert mesh.at["c"].known("d1") is None and mesh.found("c", "d1").node == "b"


@pytest.mark.parametrize("first", ["a", "b"])
def test_of_two_of_one_age_the_greater_name_stands(first: str, mesh: Mesh) -> None:
    """Whichever was told first, one link ends and one stays."""
    second = "b" if first == "a" else "a"
    mesh.at[first].arrived("d1", 1, "rt1")
    mesh.clock.advance(0.3)
    mesh.at[second].arrived("d1", 9, "rt1")
    mesh.clock.advance(0.1)
    mesh.clock.advance(0)
    assert {(name, serial) for name, serial, _ in mesh.moved} == {("a", "d1")}


@pytest.mark.parametrize("apart", [0.9, 0.999, 1.0, 1.001, 1.1])
@pytest.mark.parametrize("younger", ["a", "b"])
def test_two_that_tell_each_other_at_once_end_one_link(younger: str, apart: float, mesh: Mesh) -> None:
    """Each measures an age of its own, a little later than it was: around a second that is two verdicts."""
    older = "b" if younger == "a" else "a"
    mesh.part("a")
    mesh.at[older].arrived("d1", 1, "rt1")
    mesh.clock.advance(apart)
    mesh.at[younger].arrived("d1", 2, "rt1")
    mesh.clock.advance(0.1)
    here = {name: mesh.at[name]._here["d1"] for name in ("a", "b")}
    mesh.join("a")
    said = {name: {"d1": round(mesh.clock.seconds() - here[name][2], 3)} for name in here}
    mesh.clock.advance(0.002)  # on their way, both
    stays = {
        "a": mesh.at["a"].node_came(json.dumps(said["b"]), "node b"),
        "b": mesh.at["b"].node_came(json.dumps(said["a"]), "node a"),
    }
    for name, other in (("a", "b"), ("b", "a")):
        mesh.at[other]._stayed({"d1": here[other][0]}, stays[name])
    mesh.clock.advance(0.1)
    assert len({name for name, _, _ in mesh.moved}) == 1, mesh.moved


def test_nodes_that_meet_again_tell_each_other_what_they_have(mesh: Mesh) -> None:
    """Of a device that changed sides meanwhile the older link ends."""
    mesh.at["a"].arrived("d1", 1, "rt1")
    mesh.clock.advance(1)
    mesh.part("a")
    mesh.clock.advance(5)
    for number in range(200):
        mesh.at["b"].arrived(f"d{number}", number, "rt1")
    mesh.clock.advance(5)
    assert mesh.moved == []
    mesh.join("a")
    mesh.at["b"].came_up("a")
    mesh.clock.advance(0)
    assert mesh.moved == [("a", "d1", 1)]


def test_a_node_that_does_not_answer_leaves_the_question_open(mesh: Mesh) -> None:
    """It is not "nowhere"."""
    mesh.lines["a"]["b"].dead = True
    error = mesh.found("a", "d1").value
    assert isinstance(error, DirectoryAway) and "no answer within 1 s" in str(error)


def test_a_node_says_what_it_has(mesh: Mesh) -> None:
    """Others show it as they heard it last."""
    mesh.at["b"].say("draining", 3, 4)
    mesh.at["a"].look()
    (node,) = (each for each in mesh.at["a"].nodes() if each.name == "b")
    assert (node.state, node.devices, node.clients, node.epoch) == ("draining", 3, 4, 7)
