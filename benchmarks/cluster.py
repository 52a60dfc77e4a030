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
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.processes import become_reaper, end_everything, end_in_order
from tests.cluster.nodes_lab import NodesLab, nodes_lab
from tests.cluster.nodes_load import Load

__all__ = ["main"]


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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--clients", type=int, default=4, help="that have streams meanwhile")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    become_reaper()
    end_in_order()
    try:
        return _kills(options)
    except KeyboardInterrupt:
        return 130
    finally:
        end_everything()


def _kills(options: argparse.Namespace) -> int:
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
