"""Records and penalties with real daemons: a reload cuts what it allows no more, failures are paid for."""

import signal
import socket

import pytest

from tests.support.daemons import Lab, Server
from tests.support.services import Echo
from tests.support.traffic import connect, end_of, end_of_new, read_exactly

pytestmark = pytest.mark.slow


def echoed(client: socket.socket, words: bytes) -> None:
    """The client is served."""
    client.sendall(words)
    assert read_exactly(client, len(words)) == words


def reload(server: Server, count: int, **device: object) -> None:
    """Other records; ``count``: the how manieth reload it is."""
    server.settings["device plc-7"] = device
    server.write()
    server.signal(signal.SIGHUP)
    said = server.wait_event("settings-reloaded", count)
    assert said["errors"] == []
    assert any(name.startswith("[device plc-7]") for name in said["changed"])


@pytest.mark.parametrize("data", ["link", "socket"])
def test_a_reload_cuts_what_it_no_longer_allows(lab: Lab, data: str) -> None:
    """A target, then clients, then the device itself; each with its word, and back when it is allowed."""
    with Echo() as echo:
        offers = {"a": echo.target, "b": echo.target}
        server = lab.server({"listener main": {"address": "127.0.0.1:0", "data": data}}).start()
        lab.agent(server, offers=offers).start()
        ports = {name: server.client_port("plc-7", name) for name in offers}
        with connect(ports["a"]) as first, connect(ports["b"]) as second:
            echoed(first, b"here")
            echoed(second, b"here")
            reload(server, 1, targets="b")
            assert end_of(first) == "reset"
            assert server.wait_event("channel-ended")["reason"] == "not-allowed"
            echoed(second, b"still here")
            assert end_of_new(ports["a"]) == "refused"
            reload(server, 2, clients="10.0.0.0/8")
            assert end_of(second) == "reset"
        assert end_of_new(ports["a"]) == "reset"
        server.wait_event("client-refused", reason="not-allowed")
        assert server.control("device", "plc-7")["clients"] == ["10.0.0.0/8"]
        reload(server, 3, expires="2001-01-01")
        server.wait_event("link-down", reason="expired")
        server.wait_event("link-refused", reason="expired")
        reload(server, 4, expires="never", channels=1)
        server.wait_link("plc-7", 2)
        with connect(server.client_port("plc-7", "a")) as client:
            echoed(client, b"again")
            assert end_of_new(ports["b"]) == "reset"
            server.wait_event("client-refused", reason="too-many-clients")


def test_f24_failures_are_paid_for(lab: Lab) -> None:
    """Two who speak nonsense, and few from there are read then; a link that is up stays up."""
    with Echo() as echo:
        server, _ = lab.pair({"penalties": {"exempt": "192.0.2.1"}}, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        for _ in range(50):  # a try now and then is left to who owes too much
            assert end_of_new(server.port, b"GET / HTTP/1.1\r\n\r\n") != "still open"
            if server.events("link-refused", reason="penalty"):
                break
        assert server.wait_event("link-refused", reason="penalty")["serial"] == ""
        assert server.control("status")["penalties"] == 1
        with connect(port) as client:
            echoed(client, b"as ever")
