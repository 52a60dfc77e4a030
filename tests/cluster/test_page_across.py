"""The page of one node in a real browser, at a device of another node: its terminal, typed into and read."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster.nodes_lab import NAMES, Nodes
from tests.loopback.test_web_page import Telnet, into_terminal, logged_in, sound
from tests.support.chromium import CHROMIUM, Chromium
from tests.support.daemons import laboratory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
    pytest.mark.skipif(find_spec("argon2") is None, reason="argon2-cffi is not here: no page is served"),
]


@pytest.fixture
def machine() -> Iterator[Telnet]:
    """The device's console."""
    with Telnet() as machine:
        yield machine


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path, machine: Telnet) -> Iterator[Nodes]:
    """Two, of so many processes each, and the device at the first."""
    more = {"web main": {"address": "127.0.0.1:0"}, "server": {"workers": request.param}}
    with laboratory(tmp_path) as lab:
        nodes = Nodes(lab, tmp_path, {"plc-7": {"console": machine.target}}, more, NAMES[:2])
        nodes.start()
        yield nodes


def test_a_terminal_of_a_device_at_the_other_node(nodes: Nodes, machine: Telnet, tmp_path: Path) -> None:
    """What is typed gets there and is answered; the session's end is told at the person's node."""
    first, second = nodes.nodes.values()
    assert (nodes.held(first), nodes.held(second)) == ({"plc-7"}, set())
    with Chromium(tmp_path) as browser:
        page = logged_in(browser, second, "ana")
        second.control("grant", "ana", "plc-7", "console")
        page.click("plc-7")
        page.go(str(page.wait_for("document.querySelector('td a[target=_blank]')?.href", "its terminal")))
        page.wait("h1", "plc-7/console")
        page.click("Connect")
        page.wait("header .mark.good", "connected")
        page.wait(".xterm-rows", "machine")
        into_terminal(page, "status")
        page.wait(".xterm-rows", "> STATUS")
        page.screenshot(tmp_path / "terminal.png")
        page.click("End session")
        page.wait("header .mark.off", "over")
        second.wait_event("session-ended", serial="plc-7")
        sound(page)
