"""Nodes with their engine, as processes of a crew: how they are set up, and where clients come in.

Rule of this file: settings and starting only. A node has an address of its own for clients, so that a client
port has one number at all of them, and the role ``node-NAME`` in its crew.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine import Engine
from benchmarks.ours import CTL, RUN, listed
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, CrewError
from tests.support.throwaway_tls import Issuer

__all__ = ["NAMES", "NodesCrew"]

NAMES = ("one", "two", "three")
PORTS = 8  # client ports
START = 120.0  # seconds
SETTINGS = """\
[server]
state_directory = {folder}/{name}.state
log_level = warn
workers = {workers}
data_plane = {plane}
[admin]
socket = {folder}/{name}.sock
[cluster]
node = {name}
address = 127.0.0.1:{door}
engine = redis://127.0.0.1:{engine}
[listener main]
address = 127.0.0.1:{port}
{tls}
[listener nodes]
kind = nodes
address = 127.0.0.1:{door}
tls = yes
certificate = {certificate}
certificate_key = {key}
authority = {authority}
data = {data}
[limits]
herd_spread = {spread}
[penalties]
exempt =
[pool default]
nodes = all
ranges = {ports}
bind = {host}
clients = any
"""


class NodesCrew:
    """So many nodes, started; ``tls``: the lines of their listener for agents that say so."""

    def __init__(
        self,
        crew: Crew,
        names: Sequence[str] = NAMES,
        workers: int = 1,
        plane: str = "auto",
        tls: str = "",
        spread: float = 1.0,
        data: str = "auto",
    ) -> None:
        self.crew = crew
        self.names = tuple(names)
        self.engine = Engine(crew)
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.hosts = {name: f"127.77.0.{number}" for number, name in enumerate(names, 1)}
        issuer = Issuer(crew.folder, "nodes authority")
        first, *others = free_ports(PORTS, adjacent=True)
        told = {"folder": crew.folder, "engine": self.engine.port, "authority": issuer.file, "tls": tls}
        told |= {
            "workers": workers,
            "plane": plane,
            "data": data,
            "spread": spread,
            "ports": f"{first}-{others[-1]}",
        }
        for name, door in zip(names, free_ports(len(names)), strict=True):
            mine = issuer.node(name, file=f"node-{name}")
            files = {"certificate": mine.certificate_file, "key": mine.key_file}
            places = {"name": name, "door": door, "port": self.ports[name], "host": self.hosts[name]}
            self._config(name).write_text(SETTINGS.format(**told, **files, **places))
        for name in names:
            crew.start(f"node-{name}", [*RUN, "server", "--config", self._config(name)])
        sockets = [crew.folder / f"{name}.sock" for name in names]
        crew.wait_until(lambda: all(each.exists() for each in sockets), "the nodes", START)
        crew.wait_until(lambda: all(self._linked(name) for name in names), "links of the nodes", START)

    def _config(self, name: str) -> Path:
        return self.crew.folder / f"{name}.ini"

    def agent(self, name: str, serial: str, target: int, words: Sequence[str | Path] = ()) -> int:
        """A device at this node that offers a service of this machine: its port, open at all nodes."""
        words = ["--serial", serial, "--local", f"load=127.0.0.1:{target}", *words]
        self.crew.start("agent", [*RUN, "agent", "--server", f"127.0.0.1:{self.ports[name]}", *words])
        found: dict[str, int] = {}

        def is_open() -> bool:
            seen = [listed(self.crew.folder / f"{each}.sock").get(serial) for each in self.names]
            if (port := seen[0]) is not None:
                found[serial] = port
            return None not in seen

        self.crew.wait_until(is_open, f"the port of {serial}", START)
        return found[serial]

    def ask_engine(self, script: str) -> int:
        """A number that a script finds there."""
        return int(self.engine.ask("EVAL", f'"{script}"', "0").splitlines()[0].removeprefix(":"))

    def certificate(self, serial: str) -> list[str | Path]:
        """The arguments of an agent whose certificate agents_tls.authority has made, if one was."""
        files = {"certificate": f"{serial}.pem", "certificate-key": f"{serial}.key"}
        files["authority"] = "test-authority.pem"
        there = (self.crew.folder / files["certificate"]).exists()
        return [w for o, f in files.items() for w in (f"--{o}", self.crew.folder / f)] if there else []

    def _linked(self, name: str) -> bool:
        """Whether it has links to all others."""
        try:
            rows = self._control(name, "nodes")["nodes"]
        except CrewError:  # it is busy
            return False
        return len(rows) == len(self.hosts) and all(row["linked"] for row in rows)

    def links(self, name: str) -> int:
        """How many devices are at this node."""
        return int(self._control(name, "status")["devices"])

    def _control(self, name: str, *words: str) -> Any:
        command = [*CTL, "--socket", self.crew.folder / f"{name}.sock", "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise CrewError(f"node {name}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def kill(self, name: str) -> None:
        """As the death of its machine, but for its connections, which the kernel resets."""
        self.crew.kill(f"node-{name}")
        self.names = tuple(each for each in self.names if each != name)
