"""Which of two words about a device stands, and which are void."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.cluster.node_records import NODE_NAME, Node, Place, is_void, newer

NAMES = st.sampled_from(("one", "two", "three"))
PLACES = st.builds(
    Place, NAMES, st.integers(1, 3), st.just(""), st.integers(1, 4), st.integers(0, 3), st.just("rt1")
)


@given(st.lists(PLACES, min_size=2, max_size=4))
def test_all_nodes_decide_alike(places: list[Place]) -> None:
    """In whatever order the words come, one stands, and it has the greatest fence."""
    ends = set()
    for order in permutations(places):
        standing: Place | None = None
        for place in order:
            standing = newer(standing, place)
        assert standing is not None
        ends.add(standing)
    (standing,) = ends
    assert standing.fence == max(place.fence for place in places)


@given(PLACES, st.integers(1, 3), st.sampled_from(("up", "draining", "away")))
def test_what_a_node_said_in_an_earlier_life_is_void(place: Place, epoch: int, state: str) -> None:
    """And so is what a node said that is gone."""
    nodes = {"one": Node("one", epoch, state=state)}
    lives = place.node == "one" and place.epoch == epoch and state != "away"
    assert is_void(place, nodes) is not lives


def test_names_of_nodes() -> None:
    """They are in certificates and in listings."""
    for name in ("gate-1", "a", "gate-1.2", "a" * 32):
        assert NODE_NAME.fullmatch(name)
    for name in ("", "Gate", "-a", "a-", "a" * 33, "a/b", "a\n"):
        assert not NODE_NAME.fullmatch(name)


def test_a_node_of_another_version_may_say_more_or_less_of_itself() -> None:
    """What is not known of it is left."""
    told = {"name": "one", "epoch": "18446744073709551615", "state": "draining", "load": 0.5}
    assert Node.told(told) == Node("one", 2**64 - 1, state="draining")


@pytest.mark.parametrize(
    "more",
    [{"epoch": "x"}, {"epoch": None}, {"name": "A b"}, {"devices": "many"}, {"clients": []}, {"agents": 5}],
)
def test_what_no_node_says_of_itself_makes_none(more: dict[str, Any]) -> None:
    """Said as ValueError."""
    with pytest.raises(ValueError, match="no node"):
        Node.told({"name": "one", "epoch": "1", **more})
    with pytest.raises(ValueError, match="no node"):
        Node.told({"name": "one"})
