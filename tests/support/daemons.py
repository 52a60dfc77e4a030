"""Real servers and agents as processes: started, watched, hurt and stopped from a test.

Rule of this file: from outside only. A daemon is known by its command line, its settings file, its log (JSON
lines) and what the kernel says of the process. Every daemon of a test writes into the test's directory; at
the end each is stopped, its log is shown by pytest if the test failed, and a Python traceback, or anything on
standard error that the test did not expect, fails the test.

    def test_something(lab):
        with Echo() as echo:
            server, agent = lab.pair(echo=echo.target)
            connect(server.client_port("plc-7", "echo"))
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.fork_server import Forked, output_of, spawn
from tests.support.ports import port_block

__all__ = ["Agent", "Daemon", "Lab", "Server", "Settings", "ini"]

ROOT = Path(__file__).resolve().parents[2]
Settings = Mapping[str, Mapping[str, object]]
READY = 60.0  # seconds until a daemon has said that it is ready
PATIENCE = 40.0  # seconds until an event is in the log
WORKERS = os.environ.get("REVTUNNEL_TEST_WORKERS", "")  # of every server that does not say otherwise
SHOWN = 120  # lines of each log that a failed test shows


def ini(sections: Settings) -> str:
    """A settings file; a list or tuple becomes one value a line."""
    lines = []
    for title, keys in sections.items():
        lines.append(f"[{title}]")
        for name, value in keys.items():
            text = "".join(f"\n    {each}" for each in value) if isinstance(value, list | tuple) else value
            lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"


def merged(*layers: Settings) -> dict[str, dict[str, object]]:
    """Settings in which later layers win, key by key; a value of None takes the key away."""
    found: dict[str, dict[str, object]] = {}
    for layer in layers:
        for title, keys in layer.items():
            found.setdefault(title, {}).update(keys)
    return {
        title: {key: value for key, value in keys.items() if value is not None}
        for title, keys in found.items()
    }


class Daemon:
    """One daemon. ``prefix`` stands before its command, such as ``ip netns exec NAME``.

    Attributes:
        descriptors_most: RLIMIT_NOFILE of the process; 0 is the test's own.
        complains: standard error may hold something.
    """

    def __init__(self, directory: Path, name: str, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.name = name
        self.prefix = list(prefix)
        self.descriptors_most = 0
        self.complains = False
        self.process: Forked | subprocess.Popen[bytes] | None = None
        self.log_path = directory / f"{name}.log"
        self.error_path = directory / f"{name}.err"
        self._events: list[dict[str, Any]] = []
        self._read_to = 0
        self._began = 0  # index of the first event of this start

    # -- to be said by each kind

    def command(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether the log says that it works."""
        raise NotImplementedError

    # -- life

    def start(self, wait: bool = True) -> Self:
        """Run it, and wait until it is ready."""
        self._began = len(self.all_events())
        with open(self.log_path, "ab") as log, open(self.error_path, "ab") as errors:
            self.process = spawn(
                [*self.prefix, *self.command()],
                stdout=log,
                stderr=errors,
                cwd=self.directory,
                env=self.environment(),
                descriptors_most=self.descriptors_most,
            )
        if wait:
            self.wait_until(self.ready, "readiness", READY)
            self._settle()
        return self

    def _settle(self) -> None:
        """It says that it is ready just before its reactor opens its last descriptors, and waits."""
        before = -1
        while self.running and (before != (before := self.descriptors()) or not self._waits()):
            time.sleep(0.01)

    def _waits(self) -> bool:
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S"  # and is not one of many that would run

    def environment(self) -> dict[str, str]:
        """That of the test, without what a service manager or a shell might have set for us."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("REVTUNNEL", "XDG"))}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return kept | {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(self.directory)}

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As ``kill -9``."""
        self.signal(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """As ``kill -STOP``; the kernel goes on taking bytes for it."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """As ``kill -CONT``."""
        self.signal(signal.SIGCONT)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(patience)

    def stop(self, patience: float = PATIENCE) -> int:
        """As ``kill -TERM``: its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(patience)

    def ask_to_end(self) -> None:
        """SIGTERM, if it runs; it may be frozen."""
        if self.running:
            self.resume()
            self.signal(signal.SIGTERM)

    def end(self) -> None:
        """Stop it in whatever way is needed: the first SIGTERM was sent."""
        for patience, number in ((0.5, signal.SIGTERM), (5.0, signal.SIGKILL), (5.0, signal.SIGKILL)):
            if not self.running:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(patience)
                return
            self.signal(number)

    # -- what it says

    def all_events(self) -> list[dict[str, Any]]:
        """Every log line so far, of all starts."""
        if not self.log_path.exists():
            return []
        with open(self.log_path, "rb") as log:
            log.seek(self._read_to)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_to += len(whole)
        self._events += [_event(line) for line in whole.splitlines()]
        return self._events

    def events(self, event: str = "", **fields: object) -> list[dict[str, Any]]:
        """Log lines since the last start, of one event, with these fields."""
        return [
            line
            for line in self.all_events()[self._began :]
            if event in ("", line["event"]) and all(line.get(key) == value for key, value in fields.items())
        ]

    def wait_event(
        self, event: str, count: int = 1, patience: float = PATIENCE, **fields: object
    ) -> dict[str, Any]:
        """The newest such event, when there are at least ``count`` since the last start."""
        self.wait_until(
            lambda: len(self.events(event, **fields)) >= count, f"{count} x {event} {fields or ''}", patience
        )
        return self.events(event, **fields)[-1]

    def wait_until(self, true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Return when ``true()``; AssertionError when the process ended first, or never."""
        end = time.monotonic() + patience
        while not true():
            assert self.running, f"{self.name} ended with {self.wait()} before its {what}:\n{self.said()}"
            assert time.monotonic() < end, f"no {what} of {self.name} in {patience:g} s\n{self.shown()}"
            time.sleep(0.02)

    def said(self) -> str:
        """What it wrote to standard error."""
        return self.error_path.read_text() if self.error_path.exists() else ""

    def faults(self) -> list[str]:
        """What must never be there: tracebacks, and lines on standard error."""
        found = [
            f"{self.name}: {line.get('error')}\n{line['traceback']}"
            for line in self.all_events()
            if "traceback" in line
        ]
        found += [f"{self.name}: {line}" for line in self.all_events() if line["level"] == "critical"]
        text = self.log_path.read_text() if self.log_path.exists() else ""
        if "Traceback (most recent" in text + self.said():
            found.append(f"{self.name}: a traceback")
        if self.said() and not self.complains:
            found.append(f"{self.name}: on standard error: {self.said()}")
        return found

    def shown(self) -> str:
        """The end of its log, for a test that failed."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        left_out = [f"... {len(lines) - SHOWN} lines"] if len(lines) > SHOWN else []
        return "\n".join([f"---- {self.name}", *left_out, *lines[-SHOWN:], self.said()])

    # -- what the kernel says

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise KeyError(name)

    def resident(self) -> int:
        """Resident memory now, in bytes."""
        return self._status("VmRSS") * 1024

    def peak_resident(self) -> int:
        """The most resident memory since ``forget_peak`` (or the start), in bytes."""
        return self._status("VmHWM") * 1024

    def forget_peak(self) -> None:
        """Let the peak begin again at what is resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if isinstance(found, dict) and "event" in found and "level" in found:
        return found
    return {"event": "not JSON", "level": "critical", "line": line.decode("ascii", "replace")}


class Server(Daemon):
    """``revtunnel-server`` with a settings file; free ports are found at the first start, and then kept."""

    def __init__(
        self, directory: Path, name: str = "server", settings: Settings | None = None, **more: Any
    ) -> None:
        super().__init__(directory, name, **more)
        self.config = directory / f"{name}.ini"
        self.admin_socket = directory / f"{name}.sock"
        defaults: Settings = {
            "server": {
                "name": name,
                "state_directory": directory / f"{name}.state",
                "log_format": "json",
                "log_level": "debug",
            },
            "listener main": {"address": "127.0.0.1:0"},
            "pool default": {"ranges": port_block()},
            "admin": {"socket": self.admin_socket},
        }
        if WORKERS:
            defaults = merged(defaults, {"server": {"workers": WORKERS}})
        self.settings = merged(defaults, settings or {})
        self.write()

    def write(self, **changes: Mapping[str, object]) -> None:
        """Write the settings file; ``server={"drain": 1}``. A section with a name is in ``settings``."""
        self.settings = merged(self.settings, changes)
        self.config.write_text(ini(self.settings))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "revtunnel.daemons.run", "server", "--config", str(self.config)]

    def start(self, wait: bool = True) -> Self:
        super().start(wait)
        if wait:
            listeners = [title for title in self.settings if title.startswith("listener ")]
            for title, port in zip(listeners, self.ports, strict=False):
                host = str(self.settings[title]["address"]).rpartition(":")[0]
                self.settings[title]["address"] = f"{host}:{port}"
            self.write()
        return self

    def ready(self) -> bool:
        return bool(self.events("state", state="ready"))

    @property
    def ports(self) -> list[int]:
        """Where agents come in: one port for each listener, in the order of the file."""
        detail = self.events("state", state="ready")[-1]["detail"]
        agents = detail.partition("; ")[0].removeprefix("agents at ")
        return [int(each.rpartition(":")[2]) for each in agents.split(", ")]

    @property
    def web_port(self) -> int:
        """Where people come in."""
        return int(self.events("state", state="ready")[-1]["detail"].rpartition(":")[2])

    @property
    def port(self) -> int:
        """Where agents come in at the first listener."""
        return self.ports[0]

    def client_port(self, serial: str, target: str) -> int:
        """Where clients reach a target; waits until its listener is open."""
        self.wait_until(lambda: self._is_open(serial, target), f"listener of {serial}/{target}")
        return int(self.events("listener-opened", serial=serial, target=target)[-1]["port"])

    def _is_open(self, serial: str, target: str) -> bool:
        seen = [
            line["event"]
            for line in self.events(serial=serial, target=target)
            if line["event"] in ("listener-opened", "listener-closed")
        ]
        return bool(seen) and seen[-1] == "listener-opened"

    def control(self, *words: str) -> Any:
        """What ``revtunnelctl --json`` answers; CalledProcessError when it fails."""
        module = [sys.executable, "-m", "revtunnel.ctl.ctl"]
        command = [*module, "--json", "--socket", str(self.admin_socket), *words]
        return json.loads(output_of(command, env=self.environment(), cwd=self.directory))

    def wait_link(self, serial: str, count: int = 1) -> dict[str, Any]:
        """The ``link-up`` of a device."""
        return self.wait_event("link-up", count, serial=serial)


class Agent(Daemon):
    """``revtunnel-agent``; ``offers`` are the values of ``--local`` by name, ``servers`` of ``--server``."""

    def __init__(
        self,
        directory: Path,
        serial: str,
        servers: Sequence[str],
        offers: Mapping[str, str],
        settings: Settings | None = None,
        options: Sequence[str] = (),
        name: str = "",
        **more: Any,
    ) -> None:
        super().__init__(directory, name or f"agent-{serial}", **more)
        self.serial = serial
        self.servers = list(servers)
        self.offers = dict(offers)
        self.options = list(options)
        self.config = directory / f"{self.name}.ini"
        defaults = {
            "log_format": "json",
            "log_level": "debug",
            "state_directory": directory / f"{self.name}.state",
        }
        self.settings = merged({"agent": defaults}, settings or {})
        self.write()

    def write(self, **changes: Mapping[str, object]) -> None:
        """Write the settings file."""
        self.settings = merged(self.settings, changes)
        self.config.write_text(ini(self.settings))

    def arguments(self) -> list[str]:
        """What stands behind the command's name."""
        found = ["--config", str(self.config), "--serial", self.serial]
        for server in self.servers:
            found += ["--server", server]
        for name, target in self.offers.items():
            found += ["--local", f"{name}={target}"]
        return found + self.options

    def command(self) -> list[str]:
        return [sys.executable, "-m", "revtunnel.daemons.run", "agent", *self.arguments()]

    def ready(self) -> bool:
        return bool(self.events("state", state="started"))


class Lab:
    """The daemons of one test, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemons: list[Daemon] = []

    def server(self, settings: Settings | None = None, **more: Any) -> Server:
        """A server, not started yet."""
        return self.add(Server(self.directory, settings=settings, **more))

    def agent(self, server: Server, serial: str = "plc-7", **more: Any) -> Agent:
        """An agent of the server's first listener, not started yet; ``offers`` and more as for ``Agent``."""
        more.setdefault("servers", [f"127.0.0.1:{server.port}"])
        return self.add(Agent(self.directory, serial, **more))

    def pair(
        self,
        settings: Settings | None = None,
        agent_settings: Settings | None = None,
        serial: str = "plc-7",
        **offers: str,
    ) -> tuple[Server, Agent]:
        """A server and an agent that offers ``offers``, started, every client port open."""
        server = self.server(settings).start()
        agent = self.agent(server, serial, offers=offers, settings=agent_settings).start()
        for name in offers:
            server.client_port(serial, name)
        return server, agent

    def add(self, daemon: Any) -> Any:
        """Watch over a daemon that was made elsewhere."""
        self.daemons.append(daemon)
        return daemon

    def close(self) -> None:
        """Stop all; AssertionError when one of them showed a fault."""
        for daemon in self.daemons:
            daemon.ask_to_end()
        for daemon in reversed(self.daemons):
            daemon.end()
        faults = [fault for daemon in self.daemons for fault in daemon.faults()]
        for daemon in self.daemons:
            print(daemon.shown())  # pytest shows it when the test failed
        assert not faults, "\n".join(faults)


@contextlib.contextmanager
def laboratory(directory: Path) -> Iterator[Lab]:
    """A ``Lab`` that is closed at the end."""
    lab = Lab(directory)
    try:
        yield lab
    finally:
        lab.close()
