"""Samples for charts: an hour of the server, devices while somebody looks."""

import pytest

from revtunnel.process.admin.refusals import NotFound
from revtunnel.process.web.series import DEVICES, KEPT, LOOKS, STEP
from tests.support.desk import Desk


def test_an_hour_and_no_more() -> None:
    """One sample in ten seconds."""
    desk = Desk()
    desk.advance(STEP)
    row = desk.ask("GET", "/api/v1/series", desk.person("rita", "reader")).row
    assert (row["step"], row["series"]["devices"]) == (STEP, [1, 1])
    assert row["until"] == "2027-01-15T08:00:10Z"
    for _ in range(KEPT):
        desk.advance(STEP)
    assert len(desk.web.series.series()["series"]["devices"]) == KEPT
    desk.web.series.stop()


def test_a_device_is_sampled_while_somebody_looks() -> None:
    """From the first look on, and for a while behind the last; a person may not."""
    desk = Desk()
    series = desk.web.series
    with pytest.raises(NotFound):
        series.series("plc-9")
    assert series.series("plc-1")["series"]["online"] == [1]
    desk.switchboard.kick("plc-1", "a test", 3600)
    desk.advance(STEP)
    assert series.series("plc-1")["series"]["online"] == [1, 0]
    desk.advance(LOOKS + 2 * STEP)
    assert not series._devices
    assert desk.ask("GET", "/api/v1/series?serial=plc-1", desk.person("ana")).status == 403
    series._of_device = lambda serial: {"online": 1}
    for number in range(DEVICES + 1):
        series.series(f"plc-{number}")
    assert (len(series._devices), "plc-0" in series._devices) == (DEVICES, False)
    series.stop()
