"""What a start costs: CPU seconds until an agent is linked and rests, and the memory of it and its server.

Systems in turn within each pass, each started anew with nobody connected. CPU seconds rather than seconds,
for what else runs on the machine does not count in them. The last lines: how many modules our daemons import.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.ours import OURS, RUN
from benchmarks.peers import PEERS, System, accepts, free_ports
from benchmarks.processes import Crew, CrewError, become_reaper, end_everything

MIB = 2**20
COUNT = "import sys, revtunnel.daemons.{}; print(len(sys.modules))"


def started(system: System, folder: Path) -> dict[str, tuple[float, float]]:
    """Start one system, and end it: CPU seconds and proportional MiB by role."""
    with Crew(folder) as crew:
        (front,) = system.start(crew, free_ports(1)[0], 1)
        crew.wait_until(lambda: accepts(front), "the front port")
        crew.settle()
        used, held = crew.cpu(), crew.memory()
        return {role: (used[role], held[role].proportional / MIB) for role in used}


def modules(daemon: str) -> int:
    """How many modules a daemon of ours imports."""
    done = subprocess.run([sys.executable, "-c", COUNT.format(daemon)], capture_output=True, check=True)
    return int(done.stdout)


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table; 1 if a system did not start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args(argv)
    become_reaper()
    wanted = {"revtunnel data sockets", "revtunnel data sockets TLS", "rathole", "frp", "chisel", "bore"}
    systems = [each for each in (*PEERS, *OURS) if each.name in wanted and not each.missing()]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        for _ in range(options.passes):
            for system in systems:
                with tempfile.TemporaryDirectory() as folder:
                    for role, figures in started(system, Path(folder)).items():
                        found.setdefault((system.name, role), []).append(figures)
    except CrewError as error:
        print(f"{system.name}: {error}", file=sys.stderr)
        return 1
    finally:
        end_everything()
    print("| system | role | CPU s until it rests | memory MiB |\n|---|---|---|---|")
    for (name, role), rows in found.items():
        print(f"| {name} | {role} | {median(r[0] for r in rows):.2f} | {median(r[1] for r in rows):.0f} |")
    for daemon in ("agent", "server"):
        print(f"modules of {' '.join(map(str, RUN[1:]))} {daemon}: {modules(daemon)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
