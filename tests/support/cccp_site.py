"""revtunnel-cccp as a process, with plain sockets as devices and clients and an HTTP client as the caller."""

import http.client
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.daemons import Daemon, Settings, ini, merged
from tests.support.ports import port_block

__all__ = [
    "Caller",
    "CccpDaemon",
    "closed",
    "connect",
    "refused",
    "turned_away",
]


class Caller:
    """Whoever asks the API at a port."""

    def __init__(self, api_port: int) -> None:
        self.port_of_api = api_port

    @property
    def api_port(self) -> int:
        """Where it asks."""
        return self.port_of_api

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | None = None,
        **query: Any,
    ) -> tuple[int, Any]:
        """One request: status, and the body as a value (None without one)."""
        status, text, _ = self.ask_raw(path, method, headers, body, **query)
        return status, json.loads(text) if text else None

    def ask_raw(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | None = None,
        **query: Any,
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request: status, body as it came, headers in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=20)
        target = f"{path}?{urlencode(query)}" if query else path
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}

    def on(self, serial: str, **query: Any) -> int:
        """Start a proxy that must start: its port."""
        status, row = self.ask("/on", serial=serial, **query)
        assert (status, list(row)) == (200, ["host", "port"]), row
        return int(row["port"])

    def status(self, serial: str) -> tuple[bool, bool, int] | None:
        """The three values of /status; None: 404."""
        status, row = self.ask("/status", serial=serial)
        if status == 404:
            return None
        assert (status, list(row)) == (200, ["device_connected", "client_connected", "transferred"])
        return row["device_connected"], row["client_connected"], row["transferred"]


class CccpDaemon(Daemon, Caller):
    """One daemon with one project; ports are in ``ranges`` of the settings."""

    def __init__(self, directory: Path, settings: Settings | None = None, name: str = "cccp") -> None:
        super().__init__(directory, name)
        self.config = directory / f"{name}.ini"
        self.admin_socket = directory / f"{name}.sock"
        self.settings = merged(
            {
                "cccp": {
                    "http": "127.0.0.1:0",
                    "state_directory": directory / f"{name}-state",
                    "admin_socket": self.admin_socket,
                    "log_format": "json",
                    "log_level": "debug",
                },
                "cccp-project main": {"address": "127.0.0.1:0", "ranges": port_block(50), "quarantine": "0"},
            },
            settings or {},
        )
        self.config.write_text(ini(self.settings))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "revtunnel.daemons.run", "cccp", "--config", str(self.config)]

    def ready(self) -> bool:
        return bool(self.events("state", state="ready"))

    def _places(self) -> list[tuple[str, int]]:
        detail = self.wait_event("state", state="ready")["detail"].partition(" at ")[2]
        return [(host, int(port)) for host, _, port in (each.rpartition(":") for each in detail.split(", "))]

    @property
    def device_port(self) -> int:
        """Where devices register."""
        return self._places()[0][1]

    @property
    def api_port(self) -> int:
        """Where callers ask."""
        return self._places()[-1][1]

    def until_status(self, serial: str, wanted: tuple[bool, bool, int] | None) -> None:
        """Wait until /status says so."""
        self.wait_until(lambda: self.status(serial) == wanted, f"status {wanted} of {serial}")

    def device(self, serial: str, payload: bytes = b"") -> socket.socket:
        """A device that has registered."""
        before = len(self.events("device-registered", serial=serial))
        device = connect(self.device_port)
        device.sendall(serial.encode() + b"\r" + payload)
        self.wait_event("device-registered", before + 1, serial=serial)
        return device


def connect(port: int, source: str = "") -> socket.socket:
    """A client at 127.0.0.1, or at another address of this machine."""
    found = socket.create_connection(("127.0.0.1", port), 20, (source, 0) if source else None)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def closed(sock: socket.socket, patience: float = 20.0) -> str:
    """How the other side ended it, without a byte before: "end" or "reset"."""
    sock.settimeout(patience)
    try:
        data = sock.recv(1)
    except ConnectionError:
        return "reset"
    assert data == b"", data
    return "end"


def turned_away(port: int, source: str = "") -> str:
    """As ``closed`` of a new client; one that is reset early hears of it from connect itself."""
    try:
        with connect(port, source) as client:
            return closed(client)
    except ConnectionResetError:
        return "reset"


def refused(port: int, patience: float = 5.0) -> bool:
    """Whether nobody listens there (any more)."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            connect(port).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.02)
    return False
