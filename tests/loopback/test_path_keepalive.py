"""A proxy in the test cuts what is silent: the agent finds out, stays up from then on, and remembers."""

import json
import select
import socket
import threading

import pytest

from tests.support.daemons import Lab
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

CUT = 2.0  # seconds


class CuttingProxy:
    """Joins each connection to a port, and cuts both after ``CUT`` seconds without a byte."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._to)) as far:
            while ready := select.select([near, far], [], [], CUT)[0]:
                for each in ready:
                    data = each.recv(65536)
                    if not data:
                        return
                    (far if each is near else near).sendall(data)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def test_a_path_that_cuts_what_is_silent(lab: Lab) -> None:
    """Said once; from then on the link lives, a silent client on it too, and so it does after a restart."""
    with Echo() as echo:
        server = lab.server().start()
        proxy = CuttingProxy(server.port)
        keys = {"agent": {"keepalive_least": "0.3 s", "retry_first": "0.1 s", "retry_most": "1 s"}}
        agent = lab.agent(
            server, offers={"echo": echo.target}, servers=[f"127.0.0.1:{proxy.port}"], settings=keys
        ).start()
        said = agent.wait_event("state", state="keepalive")["detail"]
        assert said.startswith(f"127.0.0.1:{proxy.port} cuts what is silent for ")
        ups = len(agent.events("link-down")) + 1
        server.wait_link("plc-7", ups)
        with connect(server.client_port("plc-7", "echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            client.settimeout(4 * CUT)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(10)
            client.sendall(b"still")
            assert read_exactly(client, 5) == b"still"
        assert len(agent.events("link-up")) == ups
        assert len(agent.events("state", state="keepalive")) == 1
        kept = json.loads((lab.directory / "agent-plc-7.state" / "plc-7.paths.json").read_text())
        assert list(kept) == [f"127.0.0.1:{proxy.port}"]
        agent.stop()
        agent.start()
        with connect(server.client_port("plc-7", "echo")) as client:
            client.settimeout(4 * CUT)
            with pytest.raises(TimeoutError):
                client.recv(1)
        assert agent.events("link-down") == []
        proxy.close()
