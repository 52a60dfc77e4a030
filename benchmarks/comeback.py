"""How soon is a device reachable again after its server was restarted?

`python -m benchmarks.comeback` starts server, agent and an echo service, then ends the server (SIGTERM and
SIGKILL in turn) and starts it again. Two figures a round, in seconds: from the start of the new server until
it listens, and from then until a client gets its echo at the port it had before. Nothing is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ours import RT1, RUN, SERVER, listed
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything

__all__ = ["main"]

PATIENCE = 30.0  # seconds for anything to become ready


def serve_echo() -> int:
    """An echo service in a thread; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            peer, _ = listening.accept()
            with peer, contextlib.suppress(ConnectionError):
                while data := peer.recv(4096):
                    peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


def _echoes(port: int) -> bool:
    """Whether a client gets its byte back there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.settimeout(1)
            client.sendall(b"?")
            return client.recv(1) == b"?"
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _time_until(ready: Callable[[int], bool], crew: Crew, port: int) -> float:
    begun = time.monotonic()
    while not ready(port):
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError(crew.last_words())
        time.sleep(0.005)
    return time.monotonic() - begun


def measure(how: signal.Signals, service: int, folder: Path) -> tuple[str, float, float]:
    """How it ended, seconds to listen, seconds from then to the first echo.

    Everything is started anew for each figure: an agent whose link lived less than a minute backs off.
    """
    link, *pool = free_ports(4, adjacent=True)
    config = folder / "revtunnel.ini"
    config.write_text(
        SERVER.format(folder=folder) + RT1.format(port=link, first=pool[0], last=pool[-1], more="")
    )
    local = f"echo=127.0.0.1:{service}"
    agent = [*RUN, "agent", "--server", f"127.0.0.1:{link}", "--serial", "plc-1", "--local", local]
    with Crew(folder) as crew:
        server = crew.start("server", [*RUN, "server", "--config", config])
        crew.start("agent", agent)
        crew.wait_until(lambda: "plc-1" in listed(folder / "admin.sock"), "the agent's port")
        port = listed(folder / "admin.sock")["plc-1"]
        _time_until(_echoes, crew, port)
        server.send_signal(how)
        server.wait(PATIENCE)
        crew.start("server", [*RUN, "server", "--config", config])
        return how.name, _time_until(_listens, crew, link), _time_until(_echoes, crew, port)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comeback", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="restarts, SIGTERM and SIGKILL in turn (20)")
    options = parser.parse_args(argv)
    become_reaper()
    found = []
    try:
        service = serve_echo()
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="comeback-") as folder:
                found.append(measure((signal.SIGTERM, signal.SIGKILL)[number % 2], service, Path(folder)))
    finally:
        end_everything()
    print("| ended by | rounds | start to listening, s | listening to first echo, median s | most, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for how in sorted({row[0] for row in found}):
        starts = [row[1] for row in found if row[0] == how]
        backs = [row[2] for row in found if row[0] == how]
        median = statistics.median(backs)
        print(f"| {how} | {len(backs)} | {statistics.median(starts):.2f} | {median:.2f} | {max(backs):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
