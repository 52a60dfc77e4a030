"""Facts: each one exported, named by a word of its own, and plain enough for JSON."""

import json
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from revtunnel.ground import facts
from revtunnel.ground.facts import Fact, Severity
from revtunnel.ground.reasons import Ended

KINDS = [
    value
    for value in vars(facts).values()
    if isinstance(value, type) and issubclass(value, Fact) and value is not Fact
]
SAMPLES: dict[Any, Any] = {
    str: "plc-7",
    int: 7,
    float: 0.25,
    bool: True,
    Ended: Ended.TIMED_OUT,
    tuple[str, ...]: ("one", "two"),
}


def sample(kind: type[Fact]) -> Fact:
    """A fact of this kind, every field filled."""
    hints = get_type_hints(kind)
    return kind(**{field.name: SAMPLES[hints[field.name]] for field in fields(kind)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_json(kind: type[Fact]) -> None:
    """Each fact has its word first, then all its fields, and survives JSON."""
    row = sample(kind).row()
    assert list(row) == ["event", *(field.name for field in fields(kind))]
    assert row["event"] == kind.word
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}
    assert json.loads(json.dumps(row)) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_a_fact_is_frozen(kind: type[Fact]) -> None:
    """What happened does not change; a fact may be shared between log, counters and watchers."""
    fact = sample(kind)
    with pytest.raises(AttributeError):
        setattr(fact, fields(kind)[0].name, "other")
    assert fact == sample(kind) and hash(fact) == hash(sample(kind))


def test_every_kind_is_exported_and_nothing_else() -> None:
    """``__all__`` is the whole catalogue, in order, and every name in it exists."""
    assert facts.__all__ == sorted(facts.__all__)
    assert set(facts.__all__) == {kind.__name__ for kind in KINDS} | {"Fact", "Report", "Severity"}
    assert all(hasattr(facts, name) for name in facts.__all__)


def test_every_kind_has_a_word_of_its_own() -> None:
    """No two kinds share a word, none forgot to choose one; words are lower case with dashes."""
    words = [kind.word for kind in KINDS]
    assert len(set(words)) == len(words)
    assert Fact.word not in words
    assert all(word.replace("-", "").isalpha() and word == word.lower() for word in words)


def test_every_kind_says_how_loud_it_is() -> None:
    """A severity of the log's own, never another value; data about a channel is no alarm."""
    assert all(isinstance(kind.severity, Severity) for kind in KINDS)
    assert facts.ChannelOpened.severity is Severity.DEBUG
    assert facts.LinkRefused.severity is Severity.WARN


def test_a_reason_is_shown_as_its_word() -> None:
    """``Ended`` travels as the word that operators read, not as a number."""
    fact = facts.ChannelEnded("plc-7", 3, "10.0.0.1:23", "[::1]:4000", Ended.TIMED_OUT, "", 1.5, 10, 20)
    assert fact.row()["reason"] == "timed-out"
    assert facts.Fact().row() == {"event": "fact"}
