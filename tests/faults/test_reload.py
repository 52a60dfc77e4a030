"""SIGHUP with other listeners, mappings, reservations and ranges, while streams run through the daemons."""

import signal
import socket
import subprocess
from typing import Any

import pytest

from tests.support.daemons import Lab, Server
from tests.support.legacy_device import LegacyDevice
from tests.support.ports import free_ports
from tests.support.services import Echo
from tests.support.traffic import connect, end_of_new, read_exactly, wait_until

pytestmark = pytest.mark.slow


def reloaded(daemon: Any, count: int = 1) -> dict[str, Any]:
    """Send SIGHUP; what it said of the ``count``th reload."""
    daemon.signal(signal.SIGHUP)
    said: dict[str, Any] = daemon.wait_event("settings-reloaded", count)
    return said


def echoed(client: socket.socket, text: bytes = b"still here") -> None:
    """One more turn of a stream that runs."""
    client.sendall(text)
    assert read_exactly(client, len(text)) == text


def test_both_families_at_one_port(lab: Lab) -> None:
    """``address = 0.0.0.0:P, [::]:P`` starts, and agents come in by either."""
    server = lab.server()
    (port,) = free_ports(1)
    main = {
        "address": f"0.0.0.0:{port}, [::]:{port}",
        "allow_without_keys": "yes",
        "allow_plaintext": "yes",
    }
    server.write(**{"listener main": main})
    super(Server, server).start()
    with Echo() as echo:
        for serial, place in (("four", f"127.0.0.1:{port}"), ("six", f"[::1]:{port}")):
            lab.agent(server, serial, servers=[place], offers={"it": echo.target}).start()
            with connect(server.client_port(serial, "it")) as client:
                echoed(client)


@pytest.mark.parametrize("data", ["link", "socket"])
def test_listeners_come_and_go_under_running_streams(lab: Lab, data: str) -> None:
    """A new one takes agents; a removed one takes none, and who came by it goes on."""
    with Echo() as echo:
        server, _ = lab.pair({"listener main": {"data": data}}, it=echo.target)
        (more,) = free_ports(1)
        with connect(server.client_port("plc-7", "it")) as first:
            echoed(first)
            server.write(**{"listener more": {"address": f"127.0.0.1:{more}", "data": data}})
            said = reloaded(server)
            assert said["errors"] == said["needs_restart"] == [] and "[listener more]" in said["changed"]
            agent = lab.agent(server, "plc-8", servers=[f"127.0.0.1:{more}"], offers={"it": echo.target})
            agent.start()
            with connect(server.client_port("plc-8", "it")) as second:
                echoed(second)
                del server.settings["listener more"]
                server.write()
                assert reloaded(server, 2)["errors"] == []
                assert end_of_new(more) == "refused"
                echoed(second)
                with connect(server.client_port("plc-8", "it")) as later:
                    echoed(later)
                echoed(first)
        assert not server.events("link-down") and not server.events("channel-ended", reason="link-lost")


def test_a_listener_that_cannot_be_had(lab: Lab) -> None:
    """It is said, and all else is in force."""
    with Echo() as echo, socket.create_server(("127.0.0.1", 0)) as other:
        server, _ = lab.pair(it=echo.target)
        busy = other.getsockname()[1]
        server.write(**{"listener more": {"address": f"127.0.0.1:{busy}"}, "limits": {"clients": 1}})
        said = reloaded(server)
        assert {"[listener more]", "[limits] clients"} <= set(said["changed"])
        (error,) = said["errors"]
        assert f"127.0.0.1:{busy}" in error and "in use" in error
        other.close()
        assert reloaded(server, 2)["errors"] == []
        wait_until(lambda: end_of_new(busy) != "refused", "the listener")


def test_mappings_of_a_device_that_stays(lab: Lab) -> None:
    """A new one is reached, a removed one refuses, one that moved is at its new port; streams go on."""
    fixed, moved = free_ports(2)
    with Echo() as echo, Echo() as other:
        door = {
            "address": "127.0.0.1:0",
            "kind": "legacy",
            "serial": "old-1",
            "probe": "no",
            "mappings": f"{fixed} -> a={echo.target}, 0 -> b={echo.target}",
        }
        server = lab.server({"listener legacy": door}).start()
        with LegacyDevice(("127.0.0.1", server.ports[1])):
            gone = server.client_port("old-1", "b")
            with connect(server.client_port("old-1", "a")) as one, connect(gone) as two:
                echoed(one)
                echoed(two)
                mappings = f"{moved} -> a={echo.target}, 0 -> c={other.target}"
                server.write(**{"listener legacy": {"mappings": mappings}})
                said = reloaded(server)
                assert "[listener legacy] mappings" in said["changed"]
                assert said["needs_restart"] == said["errors"] == []
                server.wait_event("listener-opened", port=moved)
                with connect(moved) as client, connect(server.client_port("old-1", "c")) as third:
                    echoed(client)
                    echoed(third)
                assert end_of_new(fixed) == end_of_new(gone) == "refused"
                good = server.config.read_text()
                server.config.write_text(good.replace(f"{moved} -> a", f"{fixed} -> c"))
                (error,) = reloaded(server, 2)["errors"]
                assert error.startswith(f"{server.config}:") and "named c" in error
                with connect(moved) as client:
                    echoed(client)
                echoed(one)
                echoed(two)
        assert len(server.events("link-up")) == 1


def test_devices_of_a_shared_listener(lab: Lab) -> None:
    """One that comes into the table is let in; one that is taken out goes on until its link ends."""
    with Echo() as echo:
        shared = {
            "address": "127.0.0.1:0",
            "kind": "legacy",
            "probe": "no",
            "mappings": f"0 -> a={echo.target}",
        }
        device = {"listener": "fleet", "source": "127.0.0.1"}
        server = lab.server({"listener fleet": shared, "legacy-device old-1": device}).start()
        with LegacyDevice(("127.0.0.1", server.ports[1])), connect(server.client_port("old-1", "a")) as one:
            echoed(one)
            del server.settings["legacy-device old-1"]
            server.write(**{"legacy-device old-2": device})
            said = reloaded(server)
            assert {"[legacy-device old-1]", "[legacy-device old-2]"} <= set(said["changed"])
            assert said["needs_restart"] == said["errors"] == []
            with LegacyDevice(("127.0.0.1", server.ports[1])):
                with connect(server.client_port("old-2", "a")) as two:
                    echoed(two)
                with connect(server.client_port("old-1", "a")) as three:
                    echoed(three)
                echoed(one)


def test_reservations_and_ranges(lab: Lab) -> None:
    """What they do not give moves, with its stream untouched; the other port is the same socket."""
    with Echo() as echo:
        server, _ = lab.pair(a=echo.target, b=echo.target)
        before, stays = server.client_port("plc-7", "a"), server.client_port("plc-7", "b")
        (fixed,) = free_ports(1)
        with connect(before) as one, connect(stays) as two:
            echoed(one)
            server.write(
                reservations={"plc-7/a": fixed}, **{"pool default": {"ranges": f"{stays}-{stays + 9}"}}
            )
            said = reloaded(server)
            assert {"[reservations] plc-7/a", "[pool default] ranges"} <= set(said["changed"])
            server.wait_event("listener-opened", port=fixed)
            with connect(fixed) as client:
                echoed(client)
            assert end_of_new(before) == "refused"
            assert server.client_port("plc-7", "b") == stays
            assert len(server.events("listener-opened", port=stays)) == 1
            echoed(one)
            echoed(two)


# -- the agent's services


def offering(lab: Lab, server: Server, services: dict[str, str], **more: str) -> Any:
    """An agent whose services stand in its file, where a reload finds others."""
    listed = ", ".join(f"{name}={target}" for name, target in services.items())
    settings = {"agent": {"local": listed, **more}}
    return lab.agent(server, offers={}, settings=settings)


@pytest.mark.parametrize("data", ["link", "socket"])
def test_services_come_and_go_under_running_streams(lab: Lab, data: str) -> None:
    """A new one is reached and a removed one is not, by one and the same link; what ran to it goes on."""
    with Echo() as echo, Echo() as other:
        server = lab.server({"listener main": {"data": data}}).start()
        agent = offering(lab, server, {"a": echo.target, "b": echo.target}).start()
        stays, gone = server.client_port("plc-7", "a"), server.client_port("plc-7", "b")
        with connect(stays) as one, connect(gone) as two:
            echoed(one)
            echoed(two)
            agent.write(agent={"local": f"a={echo.target}, c={other.target}"})
            said = reloaded(agent)
            assert said["errors"] == said["needs_restart"] == []
            assert said["changed"] == ["[agent] local: removed b", "[agent] local: added c"]
            with connect(server.client_port("plc-7", "c")) as three:
                echoed(three)
            assert end_of_new(gone) == "refused"
            with connect(stays) as again:
                echoed(again)
            echoed(one)
            echoed(two)
            agent.write(agent={"local": "a=nowhere"})
            assert reloaded(agent, 2)["errors"]
            echoed(two)
        assert len(server.events("link-up")) == 1


def test_an_operator_changes_what_an_agent_offers(lab: Lab) -> None:
    """What the agent allows, and nothing else; after its restart its settings hold again."""
    with Echo() as echo, Echo() as other:
        server = lab.server().start()
        agent = offering(lab, server, {"a": echo.target}, remote_offers=other.target).start()
        with connect(server.client_port("plc-7", "a")) as one:
            echoed(one)
            answer = server.control("offer", "plc-7", f"b={other.target}")
            assert answer["port"] == server.client_port("plc-7", "b")
            with connect(answer["port"]) as two:
                echoed(two)
                assert server.control("unoffer", "plc-7", "a")["unoffered"] == "a"
                server.wait_event("listener-closed", serial="plc-7", target="a")
                echoed(one)
                with pytest.raises(subprocess.CalledProcessError):
                    server.control("offer", "plc-7", "c=127.0.0.1:1")
        assert agent.stop() == 0
        agent.start()
        server.wait_link("plc-7", 2)
        with connect(server.client_port("plc-7", "a")) as three:
            echoed(three)
        seen = server.events("listener-opened", target="b") + server.events("listener-closed", target="b")
        assert len(seen) == 2
