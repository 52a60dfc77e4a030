"""Subscriptions: sets of prefixes, first and last of each, and who gets a topic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.systems.cameo.cameo_topics import REMEMBERED, Topics
from tests.support.depth import deep


def topics(most: int = 100, longest: int = 255) -> Topics[str]:
    """No subscriptions yet."""
    return Topics(most, longest)


def test_first_and_last_subscriber_of_a_prefix() -> None:
    """Publishers hear of a prefix once, and of its end once."""
    table = topics()
    assert table.subscribe("a", b"status") and not table.subscribe("b", b"status")
    assert not table.cancel("a", b"status") and table.cancel("b", b"status")
    assert len(table) == 0


def test_z7_duplicates_and_double_cancels_change_nothing() -> None:
    """A subscription is there or not: the subscriber counts, the relay does not."""
    table = topics()
    assert [table.subscribe("a", b"x"), table.subscribe("a", b"x")] == [True, False]
    assert [table.cancel("a", b"x"), table.cancel("a", b"x")] == [True, False]
    assert not table.cancel("stranger", b"x")
    assert table.leave("stranger") == []


def test_a_topic_goes_once_to_each_by_prefix() -> None:
    """Prefixes of every length, the empty one among them; several of one subscriber count once."""
    table = topics()
    for who, prefix in (("all", b""), ("a", b"st"), ("a", b"status"), ("b", b"stream:app"), ("c", b"z")):
        table.subscribe(who, prefix)
    assert table.match(b"status") == ("all", "a")
    assert table.match(b"stream:app") == ("all", "a", "b")
    assert table.match(b"s") == ("all",) and table.match(b"") == ("all",)
    assert table.of("a") == [b"st", b"status"] and list(table) == [b"", b"st", b"status", b"stream:app", b"z"]


def test_leaving_takes_everything_along() -> None:
    """The prefixes that nobody else has are named; others stay."""
    table = topics()
    for who, prefix in (("a", b"x"), ("a", b"y"), ("b", b"y")):
        table.subscribe(who, prefix)
    assert table.match(b"x1") == ("a",)
    assert table.leave("a") == [b"x"]
    assert (table.match(b"x1"), table.match(b"y"), table.of("a")) == ((), ("b",), [])


def test_z6_caps() -> None:
    """The number of topics of a subscriber and the length of one; what is there already is no offence."""
    table = topics(most=10_000)
    for number in range(10_000):
        table.subscribe("a", b"%d" % number)
    assert not table.subscribe("a", b"0")
    with pytest.raises(RemoteError, match="more than 10000 topics"):
        table.subscribe("a", b"one more")
    assert table.subscribe("b", b"one more")
    table.subscribe("b", b"x" * 255)
    with pytest.raises(RemoteError, match="topic of 1048576 bytes, limit 255"):
        table.subscribe("b", b"x" * 1048576)


def test_what_is_remembered_is_bounded() -> None:
    """A publisher that never says a topic twice does not fill the memory."""
    table = topics()
    table.subscribe("a", b"")
    for number in range(3 * REMEMBERED):
        assert table.match(b"%d" % number) == ("a",)
        assert len(table._remembered) <= REMEMBERED
    table.match(b"x" * 5000)
    assert b"x" * 5000 not in table._remembered


steps = st.lists(
    st.tuples(
        st.sampled_from(["subscribe", "cancel", "leave", "match"]),
        st.integers(0, 2),
        st.text("ab", max_size=3).map(str.encode),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=deep(150), deadline=None)
def test_against_a_plain_model(script: list[tuple[str, int, bytes]]) -> None:
    """A set of pairs, scanned whole, says the same."""
    table: Topics[int] = Topics(100, 255)
    model: set[tuple[int, bytes]] = set()
    for verb, who, prefix in script:
        wanted_before = {each for _, each in model}
        if verb == "match":
            assert set(table.match(prefix)) == {w for w, each in model if prefix.startswith(each)}
        elif verb == "leave":
            gone = table.leave(who)
            model = {pair for pair in model if pair[0] != who}
            assert set(gone) == wanted_before - {each for _, each in model}
        elif verb == "subscribe":
            model.add((who, prefix))
            assert table.subscribe(who, prefix) == (prefix not in wanted_before)
        else:
            model.discard((who, prefix))
            gone_now = prefix in wanted_before and prefix not in {each for _, each in model}
            assert table.cancel(who, prefix) == gone_now
        assert set(table) == {each for _, each in model} and len(table) == len(set(table))
