"""How revtunnel is driven: its settings file, its two commands, and how its ports are found out.

All that the benchmark knows about revtunnel's command line is in this file.  Everything is on loopback and
without keys.  The framed link carries at most 255 channels, so `width` connections need several agents, each
a device of its own serial with a listener of its own.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import System, free_ports
from benchmarks.processes import Crew

__all__ = ["CHANNELS_PER_LINK", "OURS", "RT1", "RUN", "SERVER", "listed"]

CHANNELS_PER_LINK = 255
RUN: list[str | Path] = [sys.executable, "-m", "revtunnel.services.run"]
CTL: list[str | Path] = [sys.executable, "-m", "revtunnel.services.ctl"]

SERVER = """\
[server]
state_directory = {folder}
[admin]
socket = {folder}/admin.sock
"""

RT1 = """\
[listener main]
address = 127.0.0.1:{port}
[pool default]
ranges = {first}-{last}
bind = 127.0.0.1
"""

LEGACY = """\
[listener old-{number}]
address = 127.0.0.1:{port}
kind = legacy
serial = old-{number}
probe = no
mappings = {client} -> 127.0.0.1:{target}
"""


def _absent() -> str:
    try:
        found = all(
            importlib.util.find_spec(f"revtunnel.services.{name}")
            for name in ("run", "ctl", "server", "agent")
        )
    except ModuleNotFoundError:
        found = False
    return "" if found else "revtunnel.services has no server and agent yet"


def _start_server(crew: Crew, text: str) -> None:
    config = crew.folder / "revtunnel.ini"
    config.write_text(SERVER.format(folder=crew.folder) + text)
    crew.start("server", [*RUN, "server", "--config", config])
    crew.wait_until((crew.folder / "admin.sock").exists, "the server's admin socket")


def listed(admin: Path) -> dict[str, int]:
    """Return serial -> client port, as the server's admin door lists them; empty while it does not answer."""
    try:
        done = subprocess.run([*CTL, "--socket", admin, "ports", "--json"], capture_output=True, timeout=10)
        return {row["serial"]: row["port"] for row in json.loads(done.stdout)["ports"]}
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError, TypeError):
        return {}


@dataclass(frozen=True)
class Rt1Link(System):
    """Server and agent over the rt1 link."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        """One agent for each 255 connections of `width`; the ports come from the server's pool."""
        count = math.ceil(width / CHANNELS_PER_LINK)
        port, *pool = free_ports(1 + count + 8, adjacent=True)
        _start_server(crew, RT1.format(port=port, first=pool[0], last=pool[-1]))
        serials = [f"plc-{number}" for number in range(1, count + 1)]
        for serial in serials:
            local = f"load=127.0.0.1:{target}"
            crew.start(
                "agent",
                [*RUN, "agent", "--server", f"127.0.0.1:{port}", "--serial", serial, "--local", local],
            )
        ports: dict[str, int] = {}

        def alllisted() -> bool:
            ports.update(listed(crew.folder / "admin.sock"))
            return set(serials) <= set(ports)

        crew.wait_until(alllisted, "the agents' ports in `ports --json`")
        return [ports[serial] for serial in serials]


@dataclass(frozen=True)
class LegacyLink(System):
    """Our agent in legacy mode at legacy listeners of our server, each with one mapping and no probe."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        count = math.ceil(width / CHANNELS_PER_LINK)
        ports = free_ports(2 * count)
        listeners, clients = ports[:count], ports[count:]
        sections = [
            LEGACY.format(number=number, port=port, client=client, target=target)
            for number, (port, client) in enumerate(zip(listeners, clients, strict=True), 1)
        ]
        _start_server(crew, "".join(sections))
        for number, port in enumerate(listeners, 1):
            crew.start("agent", self._agent(number, port, target))
        return clients

    def _agent(self, number: int, port: int, target: int) -> list[str | Path]:
        serial, local = f"old-{number}", f"load=127.0.0.1:{target}"
        server = f"127.0.0.1:{port}"
        return [*RUN, "agent", "--legacy", "--server", server, "--serial", serial, "--local", local]


OURS: tuple[System, ...] = (
    Rt1Link("revtunnel rt1 link", "ours", _absent),
    LegacyLink("revtunnel legacy link", "ours", _absent),
)
