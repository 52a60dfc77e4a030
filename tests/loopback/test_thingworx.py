"""ThingWorx devices at a real server: an app key, a device like others, ports, sessions, eight at once."""

import hashlib
import threading

import pytest

from tests.support.daemons import Lab, Server
from tests.support.edge_device import Broken, EdgeDevice
from tests.support.services import Echo
from tests.support.traffic import MIB, connect, wait_until
from tests.support.web_people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def edge_server(lab: Lab, **services: str) -> Server:
    """A server for Robot1, which has these."""
    found = [f"{name}={target}" for name, target in services.items()]
    settings = {
        "web main": {"address": "127.0.0.1:0"},
        "thingworx": {"enabled": "yes"},
        "device Robot1": {"services": found},
    }
    return lab.server(settings).start()


def edge_device(server: Server) -> EdgeDevice:
    """Robot1, with a new key."""
    key = server.control("enroll", "Robot1", "--app-key", "--replace")["key"]
    return EdgeDevice(("127.0.0.1", server.web_port), key, "Robot1")


def echoed(port: int, seed: bytes, size: int) -> bool:
    """Whether so many bytes come back as they went."""
    data = hashlib.shake_128(seed).digest(size)
    came = hashlib.sha256()
    with connect(port) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        while size:
            piece = sock.recv(65536)
            assert piece
            came.update(piece)
            size -= len(piece)
        sender.join()
    return came.digest() == hashlib.sha256(data).digest()


def test_a_device_like_any_other(lab: Lab) -> None:
    """Listed, with ports and channels; a megabyte both ways; eight at once; kicked and revoked."""
    with Echo() as echo:
        server = edge_server(lab, echo=echo.target, other="127.0.0.1:9")
        with edge_device(server) as device:
            device.wait_until_bound()
            port = server.client_port("Robot1", "echo")
            (row,) = server.control("devices")["devices"]
            assert (row["serial"], row["link"], row["online"]) == ("Robot1", "thingworx", True)
            assert row["software"] == "ThingWorx C SDK" and row["authenticated"]
            assert [target["name"] for target in row["targets"]] == ["echo", "other"]
            assert echoed(port, b"one", MIB)
            found: list[bool] = []
            threads = [
                threading.Thread(target=lambda at=at: found.append(echoed(port, b"%d" % at, 100_000)))
                for at in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert found == [True] * 8 and device.failures == []
            sock = connect(port)
            sock.sendall(b"here")
            assert sock.recv(4) == b"here"
            (channel,) = [each for each in server.control("channels")["channels"] if each["state"] == "open"][
                -1:
            ]
            assert (channel["carrier"], channel["target"]) == ("tunnel", "echo")
            server.control("revoke", "Robot1")
            with pytest.raises(ConnectionResetError):
                sock.recv(4)
            wait_until(lambda: device.stopping, "the end of the link")
        with pytest.raises(Broken, match="401"), device:
            pass


def test_other_services_come_with_a_reload(lab: Lab) -> None:
    """The port of a new one opens, that of an old one closes, while the device stays."""
    with Echo() as echo:
        server = edge_server(lab, old=echo.target)
        with edge_device(server) as device:
            device.wait_until_bound()
            server.client_port("Robot1", "old")
            server.write(**{"device Robot1": {"services": f"new={echo.target}"}})
            server.control("reload")
            port = server.client_port("Robot1", "new")
            assert echoed(port, b"new", 1000)
            server.wait_event("listener-closed", serial="Robot1", target="old")
            assert not device.stopping


def test_a_session_reaches_it(lab: Lab) -> None:
    """A person's raw WebSocket to its service, and what the audit has of it."""
    with Echo() as echo:
        server = edge_server(lab, echo=echo.target)
        with edge_device(server) as device:
            device.wait_until_bound()
            ana = Person(server, "ana", ("Robot1", "echo"))
            with ana.control() as control:
                started = control.ask("start", device="Robot1", services=["echo"])
                with ana.raw(started["session"], "echo", started["nonce"]) as web:
                    web.send(b"through three WebSockets" * 1000)
                    heard = b""
                    while len(heard) < 24_000:
                        heard += web.recv(timeout=20)  # type: ignore[operator]
                    assert heard == b"through three WebSockets" * 1000
            assert device.failures == []


def test_a_device_that_comes_back_is_served_again(lab: Lab) -> None:
    """Its power was lost; its ports stay its own."""
    with Echo() as echo:
        server = edge_server(lab, echo=echo.target)
        first = edge_device(server)
        with first:
            first.wait_until_bound()
            port = server.client_port("Robot1", "echo")
        with EdgeDevice(("127.0.0.1", server.web_port), first.key, "Robot1") as second:
            second.wait_until_bound()
            server.wait_link("Robot1", 2)
            assert server.client_port("Robot1", "echo") == port
            assert echoed(port, b"again", 10_000)
