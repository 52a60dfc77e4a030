"""Agents that end by themselves, as processes: when, and with which status."""

import pytest

from tests.support.daemons import Lab
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

SOON = {"agent": {"retry_first": "0.1 s", "retry_most": "1 s"}}


def test_a_client_came_and_has_gone(lab: Lab) -> None:
    """The time begins when the last one has gone; status 0."""
    with Echo() as echo:
        server = lab.server().start()
        options = ["--idle-end", "2"]
        agent = lab.agent(server, offers={"echo": echo.target}, options=options).start()
        with connect(server.client_port("plc-7", "echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            agent.wait_event("channel-opened")
            assert agent.running
        assert agent.wait() == 0
        assert agent.events("state", state="ending")[0]["detail"] == "no client for 2 s: done"
        assert server.wait_event("link-down")["reason"] == "lost"


def test_no_client_came(lab: Lab) -> None:
    """Status 75."""
    server = lab.server().start()
    agent = lab.agent(server, offers={"it": "127.0.0.1:9"}, options=["--once", "--idle-end", "1"]).start()
    assert agent.wait() == 75


def test_once_does_not_come_back(lab: Lab) -> None:
    """Its link ends, and so does it."""
    server = lab.server().start()
    agent = lab.agent(server, offers={"it": "127.0.0.1:9"}, options=["--once"], settings=SOON).start()
    server.wait_link("plc-7")
    server.kill()
    assert agent.wait() == 75
    assert len(agent.events("link-up")) == 1


def test_no_server(lab: Lab) -> None:
    """Each is tried once; status 69."""
    server = lab.server().start()
    server.stop()
    places = [f"127.0.0.1:{server.port}", f"localhost:{server.port}"]
    agent = lab.agent(server, offers={"it": "127.0.0.1:9"}, options=["--once"], servers=places, settings=SOON)
    agent.start(wait=False)
    assert agent.wait() == 69
    assert len(agent.events("state", state="away")) == 2
