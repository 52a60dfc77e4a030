"""How revtunnel is driven: its settings file, its two commands, and how its ports are found out.

All that the benchmark knows about revtunnel's command line is in this file.  Everything is on loopback and
without keys, or over mutual TLS with certificates of an authority made for the run.  The framed link carries
at most 255 channels, so `width` connections need several agents, each a device of its own serial with a
listener of its own; data sockets carry as many as are wanted.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import System, free_ports
from benchmarks.processes import Crew, CrewError

__all__ = ["CHANNELS_PER_LINK", "OURS", "RT1", "RUN", "SERVER", "SESSIONS", "Rt1", "listed"]

CHANNELS_PER_LINK = 255
RUN: list[str | Path] = [sys.executable, "-m", "revtunnel.daemons.run"]
CTL: list[str | Path] = [sys.executable, "-m", "revtunnel.ctl.ctl"]
CONNECT: list[str | Path] = [sys.executable, "-m", "revtunnel.connect.connect"]

SERVER = """\
[server]
state_directory = {folder}
[admin]
socket = {folder}/admin.sock
"""

RT1 = """\
[listener main]
address = 127.0.0.1:{port}
{more}
[limits]
clients_per_device = 4096
[pool default]
ranges = {first}-{last}
bind = 127.0.0.1
"""

AGENTS = """\
[web main]
agents = yes
address = 127.0.0.1:{port}
"""

LEGACY = """\
[listener old-{number}]
address = 127.0.0.1:{port}
kind = legacy
serial = old-{number}
probe = no
mappings = {client} -> 127.0.0.1:{target}
"""


EMO_SOCKETS = 500  # data sockets of one machine here
EMO = """\
[listener main]
address = 127.0.0.1:{port}
kind = emo
[emo]
sockets = {sockets}
[reservations]
{reservations}
"""


def _start_server(crew: Crew, text: str, plane: str = "auto") -> None:
    config = crew.folder / "revtunnel.ini"
    more = f"[server]\ndata_plane = {plane}\n"
    config.write_text(SERVER.format(folder=crew.folder).replace("[server]\n", more) + text)
    crew.start("server", [*RUN, "server", "--config", config])
    crew.wait_until((crew.folder / "admin.sock").exists, "the server's admin socket")


def listed(admin: Path) -> dict[str, int]:
    """Return serial -> client port, as the admin socket lists them; empty while it does not answer."""
    try:
        done = subprocess.run([*CTL, "--socket", admin, "ports", "--json"], capture_output=True, timeout=10)
        return {row["serial"]: row["port"] for row in json.loads(done.stdout)["ports"]}
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError, TypeError):
        return {}


@dataclass(frozen=True)
class Rt1(System):
    """Server and agents over rt1; `data` says what carries the channels, `tls` whether it is encrypted.

    With `web` the agents come by WebSocket over TLS, with keys; `plane` is data_plane at both ends.
    """

    data: str = "socket"
    tls: bool = False
    web: bool = False
    plane: str = "auto"

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        """One agent, or one for each 255 connections of `width` on links; the ports come from the pool."""
        return self._serve(crew, target, math.ceil(width / CHANNELS_PER_LINK) if self.data == "link" else 1)

    def _serve(self, crew: Crew, target: int, count: int, web: int = 0) -> list[int]:
        """A server, with a web listener where a port is given, and agents; their client ports."""
        port, *pool = free_ports(1 + count + 8, adjacent=True)
        serials = [f"plc-{number}" for number in range(1, count + 1)]
        more, server, lines = f"data = {self.data}", f"127.0.0.1:{port}", ""
        if self.web:
            (agents,) = free_ports(1)
            kept = [each for each in _tls_lines(crew).splitlines() if not each.startswith("authority")]
            more = "\n".join([AGENTS.format(port=agents) + more, *kept])
            server = f"wss://127.0.0.1:{agents}"
        if self.tls:
            lines = _tls_lines(crew)
            more += f"\n{lines}\n[authority]\ndirectory = {crew.folder}/authority"
        if web:
            kept = [line for line in lines.splitlines() if not line.startswith("authority")]
            more += WEB.format(port=web, tls="\n".join(kept))
        text = RT1.format(port=port, first=pool[0], last=pool[-1], more=more)
        _start_server(crew, text, self.plane)
        agents_ini = crew.folder / "agents.ini"
        agents_ini.write_text(f"[agent]\ndata_plane = {self.plane}\n")
        for serial in serials:
            local = ["--config", agents_ini, "--local", f"load=127.0.0.1:{target}"]
            trust = _certificate(crew, serial) if self.tls else _key(crew, serial) if self.web else []
            crew.start("agent", [*RUN, "agent", "--server", server, "--serial", serial, *local, *trust])
        ports: dict[str, int] = {}

        def all_listed() -> bool:
            ports.update(listed(crew.folder / "admin.sock"))
            return set(serials) <= set(ports)

        crew.wait_until(all_listed, "the agents' ports in `ports --json`")
        return [ports[serial] for serial in serials]


WEB = """
[web main]
address = 127.0.0.1:{port}
{tls}
"""


@dataclass(frozen=True)
class PersonsSession(Rt1):
    """As ``Rt1``, and a person's session by a web listener, whose local port is the front."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        web, front = free_ports(2)
        if width > CHANNELS_PER_LINK:
            raise CrewError(f"a session has {CHANNELS_PER_LINK} connections at most")
        self._serve(crew, target, 1, web)
        admin: list[str | Path] = ["--socket", crew.folder / "admin.sock"]
        token = _ctl(*admin, "user", "add", "ana").strip()
        _ctl(*admin, "grant", "ana", "*", "*")
        url = f"http{'s' if self.tls else ''}://127.0.0.1:{web}"
        person = ["env", f"XDG_CONFIG_HOME={crew.folder}", *CONNECT]
        trust = ["--ca", crew.folder / "server" / "authority.pem"] if self.tls else []
        done = subprocess.run([*person, "login", url, *trust], input=token, capture_output=True, text=True)
        if done.returncode:
            raise CrewError(f"revtunnel-connect login: {done.stderr.strip()}")
        crew.start("server", [*person, "--quiet", "--port", str(front), "plc-1/load"])
        return [front]


def _tls_lines(crew: Crew) -> str:
    """Make an authority and the server's certificate; the lines of its listener."""
    _ctl("ca", "init", "--dir", crew.folder / "authority")
    return "tls = yes\n" + _ctl(
        "ca", "issue-server", "--dir", crew.folder / "authority", "--out", crew.folder / "server", "127.0.0.1"
    )


def _certificate(crew: Crew, serial: str) -> list[str | Path]:
    """Have the server make a device's certificate; the agent's arguments."""
    out = crew.folder / serial
    _ctl("--socket", crew.folder / "admin.sock", "enroll", serial, "--out", out)
    files = {
        "--certificate": f"{serial}.pem",
        "--certificate-key": f"{serial}.key",
        "--authority": "authority.pem",
    }
    return [word for option, name in files.items() for word in (option, out / name)]


def _key(crew: Crew, serial: str) -> list[str | Path]:
    """Have the server make a device's key; the agent's arguments."""
    file = crew.folder / f"{serial}.key"
    _ctl("--socket", crew.folder / "admin.sock", "enroll", serial, "--key", "--out", file)
    return ["--key-file", file, "--authority", crew.folder / "authority" / "authority.pem"]


def _ctl(*words: str | Path) -> str:
    done = subprocess.run([*CTL, *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CrewError(f"revtunnelctl {words[0]}: {done.stderr.strip()}")
    return done.stdout


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


@dataclass(frozen=True)
class EmoMachines(System):
    """Our two ends over the wire of EMO itself; with 50 data sockets each, width would need many machines."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        count = math.ceil(width / EMO_SOCKETS)
        port, *clients = free_ports(1 + count)
        fixed = [f"mill-{number}/emo = {client}" for number, client in enumerate(clients, 1)]
        _start_server(crew, EMO.format(port=port, sockets=EMO_SOCKETS, reservations="\n".join(fixed)))
        config = crew.folder / "machine.ini"
        config.write_text(f"[emo]\nsockets = {EMO_SOCKETS}\n")
        for number, client in enumerate(clients, 1):
            place = ["--server", f"127.0.0.1:{port}", "--serial", f"mill-{number}", str(client)]
            words = ["--emo", "--modern", "no", *place, "127.0.0.1", str(target)]
            crew.start("agent", [*RUN, "agent", "--config", config, *words])
        crew.wait_until(lambda: len(listed(crew.folder / "admin.sock")) == count, "the machines' ports")
        return clients


OURS: tuple[System, ...] = (
    Rt1("revtunnel auto", "ours", str, data="auto"),
    Rt1("revtunnel auto TLS", "ours", str, data="auto", tls=True),
    Rt1("revtunnel data sockets", "ours", str),
    Rt1("revtunnel data sockets python", "ours", str, plane="python"),
    Rt1("revtunnel data sockets TLS", "ours", str, tls=True),
    Rt1("revtunnel data sockets TLS python", "ours", str, tls=True, plane="python"),
    Rt1("revtunnel rt1 link", "ours", str, data="link"),
    Rt1("revtunnel rt1 link TLS", "ours", str, data="link", tls=True),
    Rt1("revtunnel data sockets wss", "ours", str, web=True),
    Rt1("revtunnel rt1 link wss", "ours", str, data="link", web=True),
    LegacyLink("revtunnel legacy link", "ours", str),
    EmoMachines("revtunnel EMO", "ours", str),
)

SESSIONS: tuple[System, ...] = (
    PersonsSession("revtunnel session", "ours", str, tls=True),
    PersonsSession("revtunnel session link", "ours", str, data="link", tls=True),
    PersonsSession("revtunnel session plain", "ours", str),
)
