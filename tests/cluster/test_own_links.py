"""What a node has told of its links, and what waits."""

from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.cluster.own_links import BATCH, OwnLink, OwnLinks
from tests.support.depth import deep


def link(number: int) -> OwnLink:
    """One that is up."""
    return OwnLink(number, "rt1", 0.0)


def test_the_latest_word_of_a_serial_waits() -> None:
    """A link that came and went is not told as here; a leave of an older one is nothing."""
    own = OwnLinks()
    own.arrived("a", link(1))
    own.arrived("a", link(2))
    assert not own.left("a", 1)
    assert own.take() == ({"a": link(2)}, True)
    assert own.left("a", 2)
    assert (own.take(), own.take_gone()) == (({}, False), {"a": 2})
    own.arrived("b", link(3))
    own.left("b", 3)
    own.arrived("b", link(4))
    assert (own.take()[0], own.take_gone()) == ({"b": link(4)}, {})


def test_news_go_before_what_is_said_again() -> None:
    """Which comes in batches, each serial once."""
    own = OwnLinks()
    for number in range(BATCH + 20):
        own.arrived(f"d{number}", link(number))
    own.take()
    own.take()
    own.assert_all()
    own.arrived("new", link(999))
    first, news = own.take()
    assert news and "new" in first and len(first) == BATCH
    rest, news = own.take()
    assert not news and len({*first, *rest}) == BATCH + 21 and len(rest) == 21


def test_one_that_moved_leaves_nothing_to_tell() -> None:
    """Its record is another's."""
    own = OwnLinks()
    own.arrived("a", link(1))
    own.take()
    assert not own.moved("a", 2)
    assert own.moved("a", 1)
    assert (own.take(), own.take_gone(), len(own)) == (({}, False), {}, 0)


@settings(max_examples=deep(100))
@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "leave", "tell", "lose", "again", "look"]), st.integers(0, 4)),
        max_size=60,
    )
)
def test_in_the_end_the_other_side_knows_what_is_here(steps: list[tuple[str, int]]) -> None:
    """Whatever comes, goes, and is not heard in between."""
    own, here, told, number = OwnLinks(), dict[str, int](), dict[str, int](), 0

    def tell(heard: bool) -> bool:
        gone = own.take_gone()
        links, _ = own.take()
        if heard:
            for serial, was in gone.items():
                if serial in told and told[serial] <= was:
                    del told[serial]
            told.update({serial: each.link for serial, each in links.items()})
        else:
            own.not_heard(links, gone)
        return bool(gone or links)

    for step, which in steps:
        serial = f"d{which}"
        if step == "arrive":
            number += 1
            here[serial] = number
            own.arrived(serial, link(number))
        elif step == "leave" and serial in here:
            own.left(serial, here.pop(serial))
        elif step in ("tell", "lose"):
            tell(step == "tell")
        elif step == "again":
            told.clear()
            own.assert_all()
        elif step == "look":
            own.look_again()
    while tell(True):
        pass
    assert told == here
