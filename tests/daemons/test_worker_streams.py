"""The streams of one worker as its parent knows them: by facts, by listings, and at its death."""

from collections.abc import Callable, Iterable

from twisted.internet.task import Clock

from revtunnel.daemons.worker_streams import WorkerStreams
from revtunnel.ground.facts import ChannelOpened
from revtunnel.ground.reasons import Ended
from revtunnel.streams.running import Running


class Carried:
    """A carrier that only counts."""

    at_once = True

    def __init__(self, streams: WorkerStreams, serial: str) -> None:
        self.serial = serial
        self.on_rest: Callable[[], None] | None = None
        self._streams = streams

    @property
    def running(self) -> int:
        return len(self._streams.of(self))

    def rows(self) -> Iterable[Running]:
        return self._streams.of(self).values()

    def open(self, client: object) -> str:
        return ""

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        return False

    def end_streams(self, reason: Ended, detail: str) -> bool:
        return False

    def close(self) -> None:
        """Nothing."""

    drain = close


def opened(streams: WorkerStreams, number: int, serial: str = "plc-7") -> None:
    streams.opened(ChannelOpened(serial, number, "ssh", "192.0.2.1:5", 1.0))


def test_streams_come_and_go_by_facts_and_listings_replace_them() -> None:
    """What is told last counts."""
    clock = Clock()
    streams = WorkerStreams(clock)
    carrier = Carried(streams, "plc-7")
    streams.came(carrier)
    opened(streams, 256)
    opened(streams, 3)
    assert (len(streams), carrier.running) == (2, 2)
    assert {row.number: row.carrier for row in streams.rows()} == {256: "socket", 3: "link"}
    streams.ended("plc-7", 3)
    streams.ended("plc-7", 3)
    streams.ended("plc-9", 1)
    assert carrier.running == 1
    row = next(iter(streams.rows()))._replace(bytes_to_client=77, number=300)
    streams.take((row,))
    assert [each.bytes_to_client for each in carrier.rows()] == [77]


def test_the_newest_carrier_has_them_and_an_older_one_rests() -> None:
    """One whose link is gone rests with its last stream, or when its device is back."""
    streams = WorkerStreams(Clock())
    rested: list[str] = []
    first, second = Carried(streams, "plc-7"), Carried(streams, "plc-7")
    streams.came(first)
    opened(streams, 256)
    first.on_rest = lambda: rested.append("first")
    streams.left(first)
    assert first.running == 1
    streams.came(second)
    assert rested == ["first"] and (first.running, second.running) == (0, 1)
    second.on_rest = lambda: rested.append("second")
    streams.left(second)
    streams.ended("plc-7", 256)
    assert rested == ["first", "second"]
    assert len(streams) == 0


def test_a_worker_that_dies_ends_every_stream_by_name() -> None:
    """With its time, and the bytes that were told last."""
    clock = Clock()
    streams = WorkerStreams(clock)
    opened(streams, 256)
    opened(streams, 257, "plc-9")
    clock.advance(2.5)
    lost = sorted(streams.lost(), key=lambda fact: fact.serial)
    assert [(fact.serial, fact.channel, fact.seconds) for fact in lost] == [
        *(("plc-7", 256, 2.5), ("plc-9", 257, 2.5)),
    ]
    assert {fact.reason for fact in lost} == {Ended.LINK_LOST}
