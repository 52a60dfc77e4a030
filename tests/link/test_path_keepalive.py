"""What is learned of a path that cuts what is silent, and what is not."""

import pytest

from revtunnel.link.path_keepalive import PathKeepalive


def learner(known: dict[str, float] | None = None) -> tuple[PathKeepalive, list[dict[str, float]]]:
    kept: list[dict[str, float]] = []
    return PathKeepalive(2.0, known or {}, kept.append), kept


def losses(paths: PathKeepalive, *silences: float, every: float = 25.0) -> list[float | None]:
    """One link after the other is lost."""
    return [
        paths.ended("gate:2065", "lost", silence, number * every) for number, silence in enumerate(silences)
    ]


def test_three_links_cut_after_the_same_silence() -> None:
    """Half of the shortest is borne, is kept, and is true of that path alone."""
    paths, kept = learner()
    assert losses(paths, 20.0, 20.3, 19.8) == [None, None, 9.9]
    assert (paths.of("gate:2065"), paths.of("other:2065")) == (9.9, None)
    assert kept == [{"gate:2065": 9.9}]


def test_a_path_that_drops_without_a_word() -> None:
    """Its links are silent after a question; it is asked sooner, and sooner again, down to the least."""
    paths, _ = learner()
    learned = []
    for asked_after in (25.0, 12.5, 6.2):
        for number in range(3):
            found = paths.ended("gate:2065", "silent", asked_after, number * 40.0)
        learned.append(found)
    assert learned == [12.5, 6.2, 3.1]
    assert losses(paths, 4.0, 4.0, 4.0)[-1] == 2.0
    assert losses(paths, 2.0, 2.0, 2.0)[-1] is None


@pytest.mark.parametrize(
    ("silences", "every"),
    [
        ((20.0, 0.5, 20.0, 20.0), 25.0),  # one was cut in the middle of something
        ((20.0, 5.0, 20.0, 9.0), 25.0),  # whenever
        ((20.0, 20.0, 20.0, 20.0), 86_400.0),  # a line that is renewed once a day
        ((1.0, 1.0, 1.0), 25.0),  # a server that falls at once
    ],
)
def test_other_losses_show_nothing(silences: tuple[float, ...], every: float) -> None:
    paths, kept = learner()
    assert set(losses(paths, *silences, every=every)) == {None}
    assert kept == []


def test_ends_on_purpose_show_nothing() -> None:
    paths, _ = learner()
    assert [paths.ended("gate:2065", "stopping", 20.0, 0.0) for _ in range(5)] == [None] * 5


def test_what_was_known_is_used() -> None:
    paths, _ = learner({"gate:2065": 9.9})
    assert paths.of("gate:2065") == 9.9


def test_probes_are_held_to_half_of_a_silence_that_cut_twice() -> None:
    """Once may be anything; and what its own question found, or an end on purpose, is nothing."""
    paths, kept = learner()
    assert paths.most("gate:2065", 60.0) == 60.0
    assert paths.probe_lost("gate:2065", "stopping", 60.0, 60.0, 0.0) is None
    assert paths.probe_lost("gate:2065", "lost", 60.0, 10.0, 0.0) is None  # in the middle of a silence
    assert paths.probe_lost("gate:2065", "lost", 60.0, 60.5, 0.0) is None
    assert paths.probe_lost("gate:2065", "lost", 60.0, 60.5, 86_400.0) is None  # a line renewed once a day
    assert paths.probe_lost("gate:2065", "silent", 60.0, 70.0, 86_500.0) == 30.0
    assert (paths.most("gate:2065", 60.0), paths.most("other:2065", 60.0)) == (30.0, 60.0)
    assert paths.of("gate:2065") is None
    assert kept == [{"gate:2065 probed": 30.0}]
    for _ in range(2):
        paths.probe_lost("gate:2065", "lost", 30.0, 30.0, 90_000.0)
    assert paths.most("gate:2065", 60.0) == 15.0
