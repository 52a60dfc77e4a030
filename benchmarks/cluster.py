"""How soon are the devices of a node that was killed reached by the others?

`python -m benchmarks.cluster` starts an engine, three nodes and some agents that know all of them, lets
clients have streams of all devices at all nodes meanwhile, and kills one node after the other, each time
the one with most devices. A round's figure is the time from the kill until clients of both other nodes have
had all of a stream of every device. Any byte that is wrong, and any cut that looks like an end, is told and
ends it with 1; figures are not judged.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.processes import Crew, become_reaper
from tests.cluster.nodes_lab import NodesLab, nodes_lab
from tests.cluster.nodes_load import Load

__all__ = ["idle", "main"]

PATIENCE = 600.0  # seconds for anything


def _round(lab: NodesLab) -> float:
    """One kill, and the node back."""
    held = {name: len(lab.held(node)) for name, node in lab.nodes.items()}
    name = max(held, key=lambda each: held[each])
    others = [each for each in lab.nodes if each != name]
    lab.nodes[name].kill()
    begun = time.monotonic()
    lab.all_reach(*others)
    taken = time.monotonic() - begun
    lab.nodes[name].start()
    lab.all_reach(*lab.nodes)
    return taken


def idle(count: int, seconds: float) -> dict[str, float]:
    """What idle devices cost, spread over three nodes: figures of a device, by simulators that speak rt1."""
    more = {"limits": {"pending": 20000, "pending_per_source": 20000}, "server": {"log_level": "info"}}
    more["link"] = {"keepalive": 25, "busy_keepalive": 25}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        crew = stack.enter_context(Crew(folder))
        lab = stack.enter_context(nodes_lab(folder, 0, more))
        pids = [node.pid for node in lab.nodes.values()]
        before, kept = sum(map(_memory, pids)), lab.engine.memory()
        begun = time.monotonic()
        for number, node in enumerate(lab.nodes.values()):
            share = count // len(pids)
            words = ["--port", str(node.port), "--count", str(share), "--first", str(number * share)]
            crew.start("herd", [sys.executable, "-m", "benchmarks.agents", *words])
        logs = sorted(folder.glob("*-herd.log"))
        crew.wait_until(lambda: all("up " in log.read_text() for log in logs), f"{count} links", PATIENCE)
        figures = {"devices": float(count), "up_s": time.monotonic() - begun}
        said = "return #redis.call('KEYS', 'rt:*:dev:*')"
        crew.wait_until(lambda: lab.engine.ask("EVAL", said, "0") == f":{count}", "records", PATIENCE)
        figures["told_s"] = time.monotonic() - begun
        figures["node_kib"] = (sum(map(_memory, pids)) - before) / count / 1024
        figures["engine_bytes"] = (lab.engine.memory() - kept) / count
        used = sum(map(_cpu, pids)), _cpu(lab.engine.pid)
        time.sleep(seconds)
        figures["idle_core_percent_per_1000"] = (sum(map(_cpu, pids)) - used[0]) / seconds / count * 1e5
        figures["engine_core_percent"] = (_cpu(lab.engine.pid) - used[1]) / seconds * 100
        assert not any("lost" in log.read_text() for log in logs), "a node ended links"
    return figures


def _memory(pid: int) -> int:
    """Proportional memory, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _cpu(pid: int) -> float:
    """Seconds, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--clients", type=int, default=4, help="that have streams meanwhile")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument(
        "--idle", type=int, default=0, help="in place of it: so many simulated devices at rest"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="that they are watched at rest")
    options = parser.parse_args(argv)
    if options.idle:
        become_reaper()
        for key, value in idle(options.idle, options.seconds).items():
            print(f"{value:12.4g}  {key}")
        return 0
    taken: list[float] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # the daemons' logs, at the end
        lab = stack.enter_context(nodes_lab(Path(folder), options.devices))
        load = Load(lab, options.clients, seed=1)
        for number in range(options.kills):
            taken.append(_round(lab))
            print(f"{number + 1:3} {taken[-1]:6.2f} s", file=sys.stderr, flush=True)
        load.end()
    print(f"median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s")
    print(f"streams meanwhile: {load.outcomes}")
    for wrong in load.wrong:
        print(wrong)
    options.out.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine.describe(), "seconds": taken, "streams": load.outcomes, "wrong": load.wrong}
    (options.out / "cluster.json").write_text(json.dumps(told, indent=2) + "\n")
    return 1 if load.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
