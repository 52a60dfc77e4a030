"""What does an idle device cost: memory and CPU of its server, bytes on its path, the end of so many?

`python -m benchmarks.idle` starts revtunnel-server and simulated agents (agents.py) that do nothing, waits
until their kernels probe as seldom as they ever will (`--rest`), and looks for `--seconds`. `--tls`: links
over TLS; `--asked`: agents without the kernel's probes, which their server asks by PING. Bytes are counted as
IP: the segments that the kernel at the agents' end has counted, at 52 bytes, and what was in them. It prints
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.agents_tls import authority
from benchmarks.ours import RUN
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything

__all__ = ["main"]

PATIENCE = 300.0  # seconds until all links are up, or the server has ended
SETTINGS = """\
[server]
state_directory = {folder}
log_level = warn
[admin]
socket = {folder}/admin.sock
[limits]
pending = 20000
pending_per_source = 20000
[listener main]
address = 127.0.0.1:{port}
{tls}
[pool default]
ranges = 1024-19999
bind = 127.77.0.1
clients = any
"""
DAY = 86_400.0


def _ended(crew: Crew, server: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Seconds, and CPU seconds, from SIGTERM to its end."""
    begun, before = time.monotonic(), crew.cpu()["server"]
    used = before
    server.send_signal(signal.SIGTERM)
    while server.poll() is None and time.monotonic() - begun < PATIENCE:
        used = max(used, crew.cpu().get("server", 0.0))
        time.sleep(0.02)
    return time.monotonic() - begun, used - before


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The figures."""
    count = options.links
    (port,) = free_ports(1)
    tls = authority(folder) if options.tls else ""
    config = folder / "revtunnel.ini"
    config.write_text(SETTINGS.format(folder=folder, port=port, tls=tls))
    with Crew(folder) as crew:
        server = crew.start("server", [*RUN, "server", "--config", config])
        crew.wait_until((folder / "admin.sock").exists, "the server's admin socket")
        crew.settle(3.0)
        memory = crew.memory()["server"].proportional
        words = ["--port", port, "--count", count, "--offer", "web=127.0.0.1:9"]
        words += ["--tls", folder] * options.tls + ["--asked"] * options.asked
        begun = time.monotonic()
        crew.start("herd", [sys.executable, "-m", "benchmarks.agents", *map(str, words)])
        log = next(folder.glob("*-herd.log"))
        crew.wait_until(lambda: "up" in log.read_text().split(), f"{count} links", PATIENCE)
        time.sleep(max(0.0, options.rest - (time.monotonic() - begun)))
        found = {"links": float(count), "up_cpu_s": crew.cpu()["server"]}
        found["memory_kib"] = (crew.memory()["server"].proportional - memory) / count / 1024
        cpu, sent, since = crew.cpu()["server"], _traffic(port), time.monotonic()
        time.sleep(options.seconds)
        seconds = time.monotonic() - since
        found["cpu_s_a_minute_per_1000"] = (crew.cpu()["server"] - cpu) / seconds * 60 / count * 1000
        found["mb_a_day"] = (_traffic(port) - sent) / seconds * DAY / count / 1e6
        found["lost"] = float(log.read_text().count("lost "))
        found["failed"] = float(log.read_text().count("failed "))
        found["sigterm_s"], found["sigterm_cpu_s"] = _ended(crew, server)
    return found


def _traffic(port: int) -> int:
    """Bytes of IP that the links to a port have sent and received so far, as the agents' kernel counts."""
    command = ["ss", "-tinH", "dport", "=", str(port)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [word.partition(":") for word in shown.split()]
    whole = {"bytes_acked": 1, "bytes_received": 1, "segs_out": 52, "segs_in": 52}
    return sum(int(value) * whole[name] for name, _, value in words if name in whole and value.isdigit())


def main(argv: list[str] | None = None) -> int:
    about = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=about)
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--rest", type=float, default=100.0, help="seconds before that (%(default)g)")
    parser.add_argument("--seconds", type=float, default=120.0, help="that it is looked at (%(default)g)")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--asked", action="store_true", help="by PING, as without the kernel's probes")
    options = parser.parse_args(argv)
    become_reaper()
    try:
        with tempfile.TemporaryDirectory(prefix="idle-") as folder:
            found = measure(options, Path(folder))
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
    finally:
        end_everything()
    return 0


if __name__ == "__main__":
    sys.exit(main())
