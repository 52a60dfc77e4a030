"""Send keyed, position-marked bytes over every carrier of revtunnel: is one wrong, is anything left behind?

`python -m benchmarks.soak` starts server, agent and the two ends of soak.c for each carrier in turn. First
the bytes: many connections at once, of 0 bytes to 256 MiB, that end in every order, are half-closed, cut, or
not read for a while. Then many short connections, opened and closed. Descriptors, pipes and timers of both
daemons are counted before and after. Any fault, or anything that is held afterwards and was not before, makes
the exit code 1; nothing else is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks import inside, ours
from benchmarks.load import CompilerMissing, compile_load
from benchmarks.ours import OURS, Rt1
from benchmarks.peers import PEERS, System, accepts, free_ports
from benchmarks.processes import Crew, CrewError, become_reaper, end_everything
from benchmarks.relay import EX_UNAVAILABLE, INTERRUPTED, Arguments, say
from benchmarks.standing import COUNTED, Standing, at_rest, back_to, standing

__all__ = ["CARRIERS", "Carrier", "main"]

GIB, MIB = 2**30, 2**20
SLOWEST = 5 * MIB  # bytes per second, both ways, below which a run is taken for stuck
WARM_SIZE = 64 * MIB  # enough for streams that the data planes take, whose threads begin with the first
WARM, BULK, SHORT = 0, 1 << 20, 1 << 21  # first connection numbers of the three runs of a carrier
SETTINGS = "[data]\nwarm_idle = 1 s\n"  # waiting data sockets are no leak, so they are let go before counting
Total = dict[str, float]  # what an end of soak.c says last; `sum` is text


@dataclass(frozen=True)
class Carrier:
    """What carries the streams.

    ``loose``: its wire has no half-close and no reset. ``keeps``: sockets that a daemon may keep for later.
    """

    name: str
    system: str  # as OURS calls it
    at_once: int = 48
    loose: bool = False
    keeps: int = 0
    plane: str = "auto"  # data_plane at both ends: native, where it was built

    def found(self) -> System | None:
        system = next((one for one in (*OURS, *PEERS) if one.name.lower() == self.system), None)
        return replace(system, plane=self.plane) if isinstance(system, Rt1) else system


CARRIERS = (
    Carrier("sockets", "revtunnel data sockets"),
    Carrier("sockets-python", "revtunnel data sockets", plane="python"),
    Carrier("sockets-tls", "revtunnel data sockets tls"),
    Carrier("sockets-tls-python", "revtunnel data sockets tls", plane="python"),
    Carrier("sockets-wss", "revtunnel data sockets wss"),
    Carrier("auto", "revtunnel auto"),
    Carrier("auto-tls", "revtunnel auto tls"),
    Carrier("link", "revtunnel rt1 link"),
    Carrier("link-tls", "revtunnel rt1 link tls"),
    Carrier("link-wss", "revtunnel rt1 link wss"),
    Carrier("legacy", "revtunnel legacy link", loose=True),
    Carrier("emo", "revtunnel emo", at_once=24, keeps=50),
    Carrier("direct", "direct"),  # no daemons at all: the soak itself
)


@dataclass
class Outcome:
    """One carrier: totals of both ends, what was held, and what is wrong."""

    carrier: str
    warm: list[Total] = field(default_factory=list)  # clients, before anything is counted
    bulk: Total = field(default_factory=dict)  # clients with many bytes
    short: Total = field(default_factory=dict)  # many clients
    service: Total = field(default_factory=dict)
    before: dict[str, Standing] = field(default_factory=dict)
    middle: dict[str, Standing] = field(default_factory=dict)
    after: dict[str, Standing] = field(default_factory=dict)
    channels: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Ends:
    """The program, the service that runs for one carrier, and its clients."""

    program: Path
    carrier: Carrier
    seed: int
    folder: Path
    outcome: Outcome

    @property
    def _number(self) -> int:
        return CARRIERS.index(self.carrier) + 1

    @contextlib.contextmanager
    def service(self, port: int) -> Iterator[Callable[[], None]]:
        """Serve; what is yielded ends it and takes its figures."""
        inner = self.folder / "service"
        inner.mkdir()
        with Crew(inner) as crew:
            words = [
                "service",
                "127.0.0.1",
                *map(str, (port, self._number, self.seed, int(self.carrier.loose))),
            ]
            process = crew.start("service", [self.program, *words], talks=True)
            crew.wait_until(lambda: accepts(port), "the service")
            yield lambda: self.outcome.service.update(self._finished(process, 60))

    def client(self, port: int, size: int, count: int, first: int) -> Total:
        """Run connections until `size` bytes or `count` of them were; their figures."""
        inner = self.folder / f"client-{first}"
        inner.mkdir()
        numbers = (
            port,
            self._number,
            self.seed,
            int(self.carrier.loose),
            size,
            count,
            self.carrier.at_once,
            first,
        )
        with Crew(inner) as crew:
            words = ["client", "127.0.0.1", *map(str, numbers)]
            process = crew.start("client", [self.program, *words], talks=True)
            return self._finished(process, 300 + size / SLOWEST + count / 20)

    def _finished(self, process: subprocess.Popen[bytes], patience: float) -> Total:
        try:
            text = process.communicate(timeout=patience)[0].decode()
        except subprocess.TimeoutExpired:
            raise CrewError(f"not finished within {patience:.0f} s") from None
        *faults, last = text.splitlines() or [""]
        self.outcome.faults += faults
        if process.returncode not in (0, 1) or not last.startswith("{"):
            raise CrewError(f"it ended with status {process.returncode}: {last}")
        figures: Total = json.loads(last)
        if figures["faults"] > len(faults):
            self.outcome.faults.append(f"{figures['faults'] - len(faults):.0f} faults more")
        return figures


def disagreements(clients: Sequence[Total], service: Total) -> Iterator[str]:
    """Name what the two ends tell differently: every stream that ended well did so for both."""

    def total(key: str) -> int:
        return int(sum(one[key] for one in clients))

    sums = sum(int(str(one["sum"]), 16) for one in clients) % 2**64, int(str(service["sum"]), 16)
    told = {
        "streams finished": (total("finished"), service["finished"]),
        "their numbers": sums,
        "their bytes to the device": (total("finished_out"), service["finished_in"]),
        "their bytes to the client": (total("finished_in"), service["finished_out"]),
        "cuts by the service": (total("cuts_seen"), service["cuts_made"]),
    }
    yield from (f"{what}: clients {a}, service {b}" for what, (a, b) in told.items() if a != b)
    seen = service["cuts_seen"] + service["headless"]
    if seen > total("cuts_made"):
        yield f"cuts by clients: {total('cuts_made')}, of which the service saw {seen:.0f}"


def soak(carrier: Carrier, program: Path, size: int, count: int, seed: int) -> Outcome:
    """All of one carrier. What goes wrong with its processes is a fault as well."""
    outcome = Outcome(carrier.name)
    system = carrier.found()
    assert system is not None
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        (folder / "revtunnel.ini.d").mkdir()
        (folder / "revtunnel.ini.d" / "soak.ini").write_text(SETTINGS)
        os.environ[inside.FOLDER] = name
        target = free_ports(1)[0]
        ends = Ends(program, carrier, seed, folder, outcome)
        try:
            with Crew(folder) as crew, ends.service(target) as stop_service:
                _runs(system, crew, ends, target, size, count)
                stop_service()
        except (CrewError, OSError, subprocess.TimeoutExpired, ValueError) as reason:
            outcome.faults.append(f"{type(reason).__name__}: {reason}")
        else:
            outcome.faults += [f"the ends disagree: {one}" for one in _told(outcome)]
    return outcome


def _told(outcome: Outcome) -> Iterator[str]:
    return disagreements([*outcome.warm, outcome.bulk, outcome.short], outcome.service)


def _runs(system: System, crew: Crew, ends: Ends, target: int, size: int, count: int) -> None:
    outcome, carrier = ends.outcome, ends.carrier
    (port,) = system.start(crew, target, 1)
    crew.wait_until(lambda: accepts(port), f"{system.name} at its front port")
    outcome.warm.append(ends.client(port, 0, 2 * carrier.at_once, WARM))
    outcome.warm.append(ends.client(port, WARM_SIZE, 0, WARM + (1 << 19)))
    outcome.before = at_rest(crew)
    say(f"  {carrier.name}: {size / GIB:.2f} GiB")
    outcome.bulk = ends.client(port, size, 0, BULK)
    outcome.middle = standing(crew)
    say(f"  {carrier.name}: {count} connections")
    outcome.short = ends.client(port, 0, count, SHORT)
    crew.check()
    outcome.after, outcome.channels, beyond = back_to(crew, outcome.before, carrier.keeps)
    outcome.faults += beyond


# ---- the command


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--gib", type=float, default=4.0, help="bytes over all carriers, both ways (4)")
    parser.add_argument("--connections", type=int, default=10_000, help="short ones of each carrier (10000)")
    names = ", ".join(carrier.name for carrier in CARRIERS)
    parser.add_argument(
        "--carriers", help=f"only these of {names}; without it all but direct", metavar="LIST"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other bytes and sizes (1)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    options = parser.parse_args(argv)
    if not 0.001 <= options.gib <= 1024 or not 1 <= options.connections <= 10**6 or options.seed < 0:
        parser.error("--gib from 0.001 to 1024, --connections from 1 to 1000000, --seed from 0")
    known = {carrier.name: carrier for carrier in CARRIERS}
    wanted = [name for name in known if name != "direct"]
    if options.carriers is not None:
        wanted = [name.strip() for name in options.carriers.split(",") if name.strip()]
    if not wanted or set(wanted) - set(known):
        parser.error(f"carriers are {names}")
    options.carriers = [known[name] for name in wanted]
    return options


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def tables(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The report: bytes and faults, then what was held before and after."""
    yield _row(
        "carrier",
        "MiB to device",
        "MiB to client",
        "MB/s",
        "connections",
        "cut",
        "short ones",
        "per s",
        "faults",
    )
    yield _row("---", *["---:"] * 8)
    for one in outcomes:
        if not one.service:
            yield _row(one.carrier, *["–"] * 7, len(one.faults))
            continue
        bulk, short = one.bulk, one.short
        cut = bulk["cuts_made"] + bulk["cuts_seen"] + short["cuts_made"] + short["cuts_seen"]
        moved = one.service["bytes"], sum(each["bytes"] for each in (*one.warm, bulk, short))
        rate = (bulk["bytes"] + bulk["sent"]) / bulk["seconds"] / 1e6
        per_second = short["connections"] / short["seconds"]
        figures = f"{moved[0] / MIB:.0f}", f"{moved[1] / MIB:.0f}", f"{rate:.0f}", bulk["connections"], cut
        yield _row(one.carrier, *figures, short["connections"], f"{per_second:.0f}", len(one.faults))
    yield ""
    yield _row(
        *("carrier", "role", "sockets", "pipes", "others", "threads", "timers", "watched"),
        *("MiB resident", "channels left"),
    )
    yield _row("---", "---", *["---:"] * 8)
    for one in outcomes:
        for role, now in one.after.items():
            was, half = one.before[role], one.middle[role]
            counts = (f"{getattr(was, name)} → {getattr(now, name)}" for name in COUNTED)
            memory = " → ".join(f"{each.memory:.0f}" for each in (was, half, now))
            yield _row(one.carrier, role, *counts, memory, one.channels if role == "server" else "")


def _soaked(options: argparse.Namespace, carriers: list[Carrier], program: Path) -> Iterator[Outcome]:
    say(f"  seed {options.seed}")
    for carrier in carriers:
        size = int(options.gib * GIB / len(carriers))
        outcome = soak(carrier, program, size, options.connections, options.seed)
        for line in outcome.faults:
            say(f"  {carrier.name}: {line}")
        yield outcome


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = arguments(argv)
    carriers = [one for one in options.carriers if (system := one.found()) and not system.missing()]
    for one in options.carriers:
        if one not in carriers:
            say(f"  {one.name}: not here")
    try:
        program = compile_load(name="soak")
    except CompilerMissing as reason:
        say(str(reason))
        return EX_UNAVAILABLE
    ours.RUN[:] = [sys.executable, "-m", "benchmarks.inside"]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupt)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    become_reaper()
    outcomes: list[Outcome] = []
    try:
        outcomes.extend(_soaked(options, carriers, program))
    except KeyboardInterrupt:
        say("interrupted: the carriers before that are told")
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        end_everything()
    print(json.dumps([asdict(one) for one in outcomes]) if options.json else "\n".join(tables(outcomes)))
    if any(one.faults for one in outcomes) or not outcomes:
        return 1
    return 0 if len(outcomes) == len(carriers) else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
