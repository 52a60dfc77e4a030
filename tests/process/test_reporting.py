"""Where facts go: a line each, as many as a flood leaves, and to whoever watches."""

from pathlib import Path

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from revtunnel.ground.facts import ChannelEnded, Fact
from revtunnel.ground.reasons import Ended
from revtunnel.process.reporting import Reporter
from tests.process.test_logs import Desk


def ended(serial: str = "plc-1", reason: Ended = Ended.CLOSED) -> Fact:
    """What is said of most connections."""
    return ChannelEnded(serial, 256, "ssh", "192.0.2.1:1", reason, "", 0.1, 1, 1)


def test_a_line_of_a_flood_is_counted_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who watches has every fact; the lines are those that the log would have printed, and its summary."""
    desk = Desk(tmp_path / "log", "text")
    globalLogPublisher.addObserver(desk.observer)
    made, watched = [], []
    monkeypatch.setattr(ChannelEnded, "row", lambda fact: made.append(1) or Fact.row(fact))
    reporter = Reporter(desk.observer.admits)
    reporter.watch(watched.append)
    try:
        for _ in range(30):
            reporter(ended())
        reporter(ended("plc-2"))
        reporter(ended(reason=Ended.REFUSED))
        desk.clock.advance(60.0)
        desk.observer.summarise()
        desk.observer.set_level("warn")
        reporter(ended("plc-3"))
    finally:
        globalLogPublisher.removeObserver(desk.observer)
    lines = [line.split(" ", 2)[2] for line in desk.lines()]
    assert len(watched) == 33 and len(made) == 12
    assert [line.split()[0] for line in lines] == ["channel-ended"] * 12 + ["suppressed"]
    assert "reason=refused" in lines[11]
    assert lines[12] == "suppressed of=channel-ended more=20 reason=closed serial=plc-1"
    desk.close()


def test_without_a_log_of_ours_every_fact_is_given_to_twisteds() -> None:
    """Which prints what it likes."""
    events: list[dict[str, object]] = []
    globalLogPublisher.addObserver(events.append)
    try:
        for _ in range(20):
            Reporter()(ended())
    finally:
        globalLogPublisher.removeObserver(events.append)
    found = [each for each in events if each.get("event") == "channel-ended"]
    assert len(found) == 20 and "log_admitted" not in found[0]
    assert found[0]["log_level"] is LogLevel.info
