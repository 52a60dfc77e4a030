"""How late are the parts of an MTConnect stream while the same machine is downloaded from at full speed?

`python -m benchmarks.emo` starts server, agent and an MTConnect-shaped service, lets one client watch
`/sample?interval=500` and another download a GiB, again and again; lateness is the time from a part's making
to its arrival, by the one monotonic clock of this machine.  Then it kills the server while it is being
downloaded from, and measures how soon a client is served again at the same port, with our agent and with a
model of the original client, which waits ten seconds.  Nothing is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import multiprocessing.connection
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ours import EMO, RUN, SERVER, listed
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything
from tests.support.emo_original import OriginalClient
from tests.support.mtconnect import MtConnect, parts

__all__ = ["main"]

GIB = 1 << 30
PATIENCE = 40.0  # seconds


def _serve(told: multiprocessing.connection.Connection) -> None:
    with MtConnect() as machine:
        told.send(machine.address[1])
        signal.pause()


def _download(port: int, total: multiprocessing.Value) -> None:  # type: ignore[valid-type]
    """A GiB, again and again."""
    buffer = bytearray(1 << 20)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"GET /download?size=%d HTTP/1.1\r\nHost: a machine\r\n\r\n" % GIB)
                while size := client.recv_into(buffer):
                    total.value += size  # type: ignore[attr-defined]
        except OSError:
            time.sleep(0.05)


@contextlib.contextmanager
def beside(work: object, *arguments: object) -> Iterator[None]:
    """A process that does it meanwhile."""
    process = multiprocessing.Process(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


class Machine:
    """A server of ours and one machine, whose port clients dial."""

    def __init__(self, crew: Crew, device: int, kind: str) -> None:
        self._crew = crew
        link, self.port = free_ports(2)
        self._config = crew.folder / "revtunnel.ini"
        fixed = f"mill-1/emo = {self.port}"
        text = EMO.format(port=link, sockets=50, reservations=fixed)
        self._config.write_text(SERVER.format(folder=crew.folder) + text)
        self.start_server()
        crew.wait_until((crew.folder / "admin.sock").exists, "the server's admin socket")
        self.original: OriginalClient | None = None
        if kind == "original":
            self.original = OriginalClient(("127.0.0.1", link), self.port, ("127.0.0.1", device))
            self.original.start()
        else:
            modern = "auto" if kind == "modern" else "no"
            place = ["--server", f"127.0.0.1:{link}", "--serial", "mill-1", "--modern", modern]
            words = ["--emo", *place, str(self.port), "127.0.0.1", str(device)]
            crew.start("agent", [*RUN, "agent", *words])
        crew.wait_until(lambda: bool(listed(crew.folder / "admin.sock")), "the machine's port")

    def start_server(self) -> None:
        """Run the server, also once more."""
        self.server = self._crew.start("server", [*RUN, "server", "--config", self._config])

    def answers(self) -> bool:
        """Whether a client gets an answer."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as client:
            client.settimeout(1)
            client.sendall(b"GET /probe HTTP/1.1\r\nHost: longer than a terminator\r\n\r\n")
            return client.recv(8) == b"HTTP/1.1"
        return False

    def seconds_until_it_answers(self) -> float:
        """From now."""
        begun = time.monotonic()
        while not self.answers():
            if time.monotonic() - begun > PATIENCE:
                raise TimeoutError(self._crew.last_words())
            time.sleep(0.01)
        return time.monotonic() - begun


def lateness(device: int, kind: str, load: bool, seconds: float, interval: int) -> str:
    """One row: milliseconds, and what was downloaded meanwhile."""
    total = multiprocessing.Value("Q", 0)
    with tempfile.TemporaryDirectory(prefix="emo-") as folder, Crew(Path(folder)) as crew:
        machine = Machine(crew, device, kind)
        machine.seconds_until_it_answers()
        loading = beside(_download, machine.port, total) if load else contextlib.nullcontext()
        with loading, socket.create_connection(("127.0.0.1", machine.port), 5) as watcher:
            watcher.settimeout(PATIENCE)
            watcher.sendall(b"GET /sample?interval=%d HTTP/1.1\r\n\r\n" % interval)
            begun = time.monotonic()
            found = parts(watcher, max(2, int(seconds * 1000 / interval)))
            took = time.monotonic() - begun
    late = sorted(each * 1000 for _, each in found)
    middle, p99 = late[len(late) // 2], late[min(len(late) - 1, int(len(late) * 0.99))]
    rate = total.value / took / 1e6
    return (
        f"| {kind} | {'yes' if load else 'no'} | {len(late)} | {middle:.2f} | {p99:.2f} | {late[-1]:.2f} "
        f"| {total.value / GIB:.1f} GiB, {rate:.0f} |"
    )


def comeback(device: int, kind: str, rounds: int) -> str:
    """One row: seconds from the new server's listening to an answer. Everything is new in each round."""
    found = []
    for _ in range(rounds):
        total = multiprocessing.Value("Q", 0)
        with tempfile.TemporaryDirectory(prefix="emo-") as folder, Crew(Path(folder)) as crew:
            machine = Machine(crew, device, kind)
            machine.seconds_until_it_answers()
            with beside(_download, machine.port, total):
                time.sleep(1 + random.random())
                machine.server.kill()
                machine.server.wait(PATIENCE)
                (crew.folder / "admin.sock").unlink(missing_ok=True)
                machine.start_server()
                while not (crew.folder / "admin.sock").exists():
                    time.sleep(0.005)
                found.append(machine.seconds_until_it_answers())
            if machine.original is not None:
                machine.original.stop()
    found.sort()
    return f"| {kind} | {rounds} | {found[len(found) // 2]:.2f} | {found[-1]:.2f} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emo", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each stream (60)")
    parser.add_argument("--interval", type=int, default=500, help="milliseconds between parts (500)")
    parser.add_argument("--rounds", type=int, default=5, help="restarts of the server for each machine (5)")
    parser.add_argument("--only-restarts", action="store_true", help="no streams")
    options = parser.parse_args(argv)
    become_reaper()
    here, there = multiprocessing.Pipe()
    try:
        with beside(_serve, there):
            device = here.recv()
            print("| wire | download | parts | late p50, ms | p99, ms | most, ms | downloaded, 10^6 B/s |")
            print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
            for kind in () if options.only_restarts else ("emo", "modern"):
                for load in (False, True):
                    row = lateness(device, kind, load, options.seconds, options.interval)
                    print(row, flush=True)
            print("\n| machine | restarts | listening to first answer, median s | most, s |")
            print("| --- | ---: | ---: | ---: |")
            for kind in ("emo", "modern", "original"):
                print(comeback(device, kind, options.rounds), flush=True)
    finally:
        end_everything()
    return 0


if __name__ == "__main__":
    sys.exit(main())
