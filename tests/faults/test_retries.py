"""What fails for an outside reason comes back by itself: real ports, a real disk, real processes."""

import contextlib
import os
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.support.daemons import Lab, Server
from tests.support.services import Echo
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

PATIENCE = 90.0  # seconds: a try may be a minute away on a machine that was slow before


def problems(server: Server) -> list[str]:
    """What the server says that it tries again."""
    return list(server.control("status")["problems"])


def well_again(server: Server, what: str) -> None:
    """Wait until it is, which status says too; one line of the log is its begin and one its end."""
    server.wait_until(lambda: server.events("trouble-over", what=what), f"{what} is well", PATIENCE)
    assert problems(server) == []
    assert [each["event"] for each in server.all_events() if each.get("what") == what] == [
        "trouble",
        "trouble-over",
    ]


def test_a_reserved_port_comes_back_when_the_other_program_has_gone(lab: Lab) -> None:
    """Nobody has to kick, reload or restart anything."""
    with Echo() as echo:
        server = lab.server()
        low = int(str(server.settings["pool default"]["ranges"]).partition("-")[0])
        server.write(reservations={"plc-7/it": low})
        with socket.create_server(("127.0.0.1", low)):
            server.start()
            lab.agent(server, offers={"it": echo.target}).start()
            server.wait_link("plc-7")
            assert str(low) in server.wait_event("listener-refused", serial="plc-7")["detail"]
        server.wait_until(lambda: server.events("listener-opened", port=low), "the port", PATIENCE)
        with connect(low) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
        assert len(server.events("listener-refused")) == 1


def test_a_web_listener_waits_for_its_port(lab: Lab) -> None:
    """Agents have their server meanwhile."""
    with Echo() as echo, socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = lab.server({"web main": {"address": f"127.0.0.1:{port}"}}).start()
        lab.agent(server, offers={"it": echo.target}).start()
        server.wait_link("plc-7")
        what = f"[web main] 127.0.0.1:{port}"
        assert problems(server) == [f"{what}: Address already in use"]
        other.close()
        well_again(server, what)
        with connect(port) as browser:
            browser.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_exactly(browser, 8) == b"HTTP/1.1"


def test_cccp_waits_for_its_ports(lab: Lab) -> None:
    """Those of devices and that of its API."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        devices, http = (each.getsockname()[1] for each in (one, two))
        server = lab.server(
            {
                "cccp": {"enabled": "yes", "http": f"127.0.0.1:{http}"},
                "cccp-project main": {"address": f"127.0.0.1:{devices}", "ranges": "9000-9009"},
            }
        ).start()
        assert len(problems(server)) == 2
        one.close()
        two.close()
        server.wait_until(lambda: len(server.events("trouble-over")) == 2, "both ports", PATIENCE)
    for port in (devices, http):
        connect(port).close()
    assert problems(server) == []


def test_what_could_not_be_saved_survives_a_kill_once_it_is_well(lab: Lab) -> None:
    """A lease that was made while another program held the state file, without any change behind it."""
    with Echo() as echo:
        server = lab.server().start()
        file = Path(str(server.settings["server"]["state_directory"])) / "revtunnel.db"
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            agent = lab.agent(server, offers={"it": echo.target}).start()
            port = server.client_port("plc-7", "it")
            server.wait_event("trouble", what="state file")
            assert problems(server) == ["state file: database is locked"]
            other.execute("COMMIT")
        well_again(server, "state file")
        server.kill()
        agent.stop()
        server.start()
        (row,) = server.control("ports")["ports"]
        assert (row["port"], row["serial"]) == (port, "plc-7")


def test_the_admin_socket_comes_back_when_it_was_taken_away(lab: Lab) -> None:
    """As by a program that tidies /run."""
    server = lab.server().start()
    server.admin_socket.unlink()
    well_again(server, "admin socket")


def test_certificates_that_were_written_one_after_the_other(lab: Lab) -> None:
    """The reload between them is finished by itself."""
    issuer = Issuer(lab.directory)
    made = issuer.server("127.0.0.1")
    tls = {"tls": "yes", "certificate": made.certificate_file, "certificate_key": made.key_file}
    server = lab.server({"listener main": {**tls, "authority": issuer.file}}).start()
    key = lab.directory / "before.key"
    shutil.copy(made.key_file, key)
    issuer.server("127.0.0.1")
    new_key = Path(made.key_file).read_bytes()
    Path(made.key_file).write_bytes(key.read_bytes())
    os.kill(server.pid, 1)
    assert server.wait_event("settings-reloaded")["errors"]
    Path(made.key_file).write_bytes(new_key)
    well_again(server, "settings")
    assert "[listener main] certificate files" in server.wait_event("settings-reloaded", 2)["changed"]
