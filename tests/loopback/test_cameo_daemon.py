"""revtunnel-cameo as a process: its manners, its admin socket, and clients far away behind the tunnel."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

zmq = pytest.importorskip("zmq", exc_type=ImportError)
from tests.support.cameo_site import SERVER, Backend, Relays, Sockets, ask  # noqa: E402
from tests.support.daemons import ROOT, Daemon, Lab  # noqa: E402
from tests.support.ports import free_ports  # noqa: E402
from tests.support.traffic import wait_until  # noqa: E402

pytestmark = pytest.mark.slow

TWISTD = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]


class TwistdRelays(Relays):
    """The relays under ``twistd -n``."""

    def command(self) -> list[str]:
        return [*TWISTD, "revtunnel-cameo", "--config", str(self.config)]


def control(relays: Relays, *words: str, status: int = 0) -> Any:
    """What ``revtunnelctl --json`` answers, with that exit status."""
    command = [sys.executable, "-m", "revtunnel.ctl.ctl", "--json", "--socket", str(relays.admin_socket)]
    done = subprocess.run(
        [*command, *words], env=relays.environment(), capture_output=True, text=True, timeout=90
    )
    assert done.returncode == status, done
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize("kind", [Relays, TwistdRelays], ids=["plain", "twistd"])
def test_requests_and_publications_and_a_stop_in_order(lab: Lab, kind: type[Relays]) -> None:
    """Both relays in one process; SIGTERM ends it with status 0, also with peers that stay."""
    relays = lab.add(kind(lab.directory)).start()
    with Sockets() as sockets, Backend(relays.ports[0]):
        client = sockets.make(zmq.REQ, relays.ports[0])
        assert ask(client, SERVER, b"x") == [b"x"]
        subscriber = sockets.make(zmq.SUB, relays.ports[1], SUBSCRIBE=b"")
        publisher = sockets.make(zmq.PUB, relays.ports[2])
        while not subscriber.poll(20):
            publisher.send_multipart([b"status", b"{}"])
        assert relays.stop() == 0
        assert not list(lab.directory.glob("twistd.*"))


def test_what_an_operator_sees(lab: Lab) -> None:
    """Status with the server's age and what went nowhere, peers with their messages, cut, log level."""
    relays = lab.add(Relays(lab.directory)).start()
    with Sockets() as sockets:
        waiting = sockets.make(zmq.REQ, relays.ports[0])
        waiting.send_multipart([SERVER, b"", b"x"])
        wait_until(
            lambda: control(relays, "status")["responder"]["waiting_clients"] == 1, "a client that waits"
        )
        assert control(relays, "status")["cameo_server"]["connected"] is False
        with Backend(relays.ports[0]):
            assert waiting.recv_multipart() == [SERVER, b"", b"x"]
            dealer = sockets.make(zmq.DEALER, relays.ports[0])
            dealer.send_multipart([b"", b"nobody", b"", b"x"])
            dealer.send_multipart([b"", SERVER, b"", b"x"])
            dealer.recv_multipart()
            row = control(relays, "status")
            assert row["state"] == "running" and row["connections"] == 3
            assert row["cameo_server"]["connected"] and row["cameo_server"]["seconds"] >= 0
            assert row["responder"]["dropped"] == {"unroutable": 1}
            assert row["responder"]["unroutable"] == {"nobody": 1}
            assert row["responder"]["messages"] == 5
            rows = control(relays, "peers")["peers"]
            found = {each["type"]: each for each in rows}
            assert found["ROUTER"]["identity"] == "0:0" and found["ROUTER"]["messages_to_peer"] == 2
            assert found["DEALER"]["messages_from_peer"] == 2 and found["DEALER"]["let_in"]
            assert control(relays, "cut", found["DEALER"]["peer"]) == {"cut": found["DEALER"]["peer"]}
            control(relays, "cut", "127.0.0.1:1", status=1)
            assert "has no devices" in control(relays, "devices", status=64)
            assert control(relays, "log-level", "error") == {"log_level": "error"}
            assert control(relays, "ping")["state"] == "running"
        control(relays, "drain")
        assert relays.wait() == 0


def test_settings_are_read_again(lab: Lab) -> None:
    """What can change live does, ports too; what cannot is named; wrong settings change nothing."""
    outside, *other_ports = free_ports(4)
    settings = {"cameo-outside web": {"responder": f"127.0.0.1:{outside}"}}
    relays = lab.add(Relays(lab.directory, settings)).start()
    with Sockets() as sockets, Backend(relays.ports[0]) as server:
        client = sockets.make(zmq.REQ, outside)
        assert ask(client, SERVER, b'{"type":3}') == [b'{"type":3}']
        relays.settings["cameo-outside web"]["requests"] = "read-only"
        ports = ", ".join(map(str, other_ports))
        relays.write(cameo={"topics": 5, "proxy_ports": ports, "log_format": "text"})
        row = control(relays, "reload")
        assert row["changed"] == ["[cameo] proxy_ports", "[cameo] topics", "[cameo-outside web] requests"]
        assert row["needs_restart"] == ["[cameo] log_format"] and row["errors"] == []
        assert ask(client, SERVER, b'{"type":14}') == [b'{"type":14}']  # who is here stays
        moved = sockets.make(zmq.REQ, other_ports[0])
        assert ask(moved, SERVER, b'{"type":14}') == [b'{"type":14}']
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relays.ports[0]), 5)
        later = sockets.make(zmq.REQ, outside)
        (answer,) = ask(later, SERVER, b'{"type":3}')
        assert json.loads(answer)["value"] == -1 and len(server.asked) == 3
        relays.write(cameo={"topics": "many"})
        assert control(relays, "reload", status=1)["errors"]
        relays.signal(signal.SIGHUP)
        relays.wait_event("settings-reloaded", 3)
        assert ask(later, SERVER, b'{"type":14}') == [b'{"type":14}']


def test_exit_status(lab: Lab) -> None:
    """64 for wrong usage, 78 for wrong settings, 1 for a port that is taken, 0 for --check-config."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "revtunnel.daemons.run", "cameo", *words]
        environment = Daemon(lab.directory, "none").environment()
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, cwd=ROOT)

    assert call("--nonsense").returncode == 64
    assert call("--proxy-ports", "1, 2").returncode == 64
    broken = lab.directory / "broken.ini"
    broken.write_text("[cameo]\nmessage = 1\n[cameo-outside web]\nadvertise = 1:2\n")
    done = call("--config", str(broken))
    assert done.returncode == 78 and "broken.ini:2" in done.stderr and "broken.ini:3" in done.stderr
    done = call("--config", str(ROOT / "etc" / "revtunnel.ini"), "--check-config")
    assert done.returncode == 0 and "10000, 10001, 10002" in done.stdout
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = ", ".join(map(str, [taken, *free_ports(2)]))
        done = call("--proxy-ports", ports, "--admin-socket", str(lab.directory / "a.sock"))
        assert done.returncode == 1 and "in use" in done.stderr and "Traceback" not in done.stderr


def test_many_sites_behind_one_public_address(lab: Lab) -> None:
    """Two sites with the same ports: agents offer the first two, clients are told the public ones."""
    server = lab.server().start()
    sites = []
    for name in ("north", "south"):
        inner = free_ports(2)
        settings = {
            "cameo-outside public": {
                "responder": f"127.0.0.1:{inner[0]}",
                "subscriber": f"127.0.0.1:{inner[1]}",
                "advertise": "10000:21000, 10001:21001" if name == "north" else "10000:22000, 10001:22001",
                "requests": "read-only",
            }
        }
        relays = lab.add(Relays(lab.directory, settings, name)).start()
        offers = {"rep": f"127.0.0.1:{inner[0]}", "pub": f"127.0.0.1:{inner[1]}"}
        lab.agent(server, name, offers=offers).start()
        sites.append((name, relays, 21000 if name == "north" else 22000))
    for name, relays, public in sites:
        with Sockets() as sockets, Site(relays.ports[0]):
            client = sockets.make(zmq.REQ, server.client_port(name, "rep"))
            for kind, port in ((36, public), (17, public + 1)):
                (answer,) = ask(client, SERVER, b'{"type":%d}' % kind)
                assert json.loads(answer) == {"message": "OK", "value": port}
            (answer,) = ask(client, SERVER, b'{"type":4}')
            assert json.loads(answer)["value"] == -1
            subscriber = sockets.make(zmq.SUB, server.client_port(name, "pub"), SUBSCRIBE=b"status")
            publisher = sockets.make(zmq.PUB, relays.ports[2])
            while not subscriber.poll(20):
                publisher.send_multipart([b"status", name.encode()])
            assert subscriber.recv_multipart() == [b"status", name.encode()]
            inside = sockets.make(zmq.REQ, relays.ports[0])
            (answer,) = ask(inside, SERVER, b'{"type":36}')
            assert json.loads(answer)["value"] == 10000


def test_a_stranger_behind_the_tunnel_cannot_become_the_server(lab: Lab) -> None:
    """Its agent dials from this machine, and all the same it holds no name, and nobody hears it."""
    (outside,) = free_ports(1)
    relays = lab.add(
        Relays(lab.directory, {"cameo-outside web": {"responder": f"127.0.0.1:{outside}"}})
    ).start()
    server, _ = lab.pair(rep=f"127.0.0.1:{outside}")
    with Sockets() as sockets:
        intruder = sockets.make(zmq.ROUTER, server.client_port("plc-7", "rep"), SERVER)
        relays.wait_event("peer-refused", reason="name-not-allowed")
        with Backend(relays.ports[0]):
            client = sockets.make(zmq.REQ, relays.ports[0])
            assert ask(client, SERVER, b"x") == [b"x"]
            assert not intruder.poll(300)


class Site(Backend):
    """A CAMEO server that is asked for the ports of its proxies: 10000 and 10001, whatever they are."""

    ANSWERS = {36: 10000, 17: 10001}

    def answer_to(self, parts: list[bytes]) -> list[bytes]:
        port = self.ANSWERS[json.loads(parts[0])["type"]]
        return [json.dumps({"message": "OK", "value": port}).encode()]
