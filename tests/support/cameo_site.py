"""A CAMEO site as processes and real ZeroMQ sockets: our relays, and libzmq (pyzmq) in the place of CAMEO.

``Programs`` are cameo-rep-proxy and cameo-pub-proxy, ``Relays`` the daemon; both have three ports of this
machine. ``Backend`` answers requests as the CAMEO server or a responder does, in a thread.
"""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import zmq

from tests.support.daemons import Daemon, Settings, ini, merged
from tests.support.ports import free_ports
from tests.support.services import Running

__all__ = ["PATIENCE", "SERVER", "Backend", "Programs", "Relays", "Sockets", "ask", "program"]

SERVER = b"0:0"
PATIENCE = 20_000  # milliseconds that a socket waits for a message
_CODE = "from revtunnel.daemons.cameo_programs import {0}; {0}()"


def program(which: str, *ports: int) -> list[str]:
    """The command line of ``responder`` (cameo-rep-proxy) or ``publisher`` (cameo-pub-proxy)."""
    return [sys.executable, "-c", _CODE.format(which), *map(str, ports)]


class Sockets:
    """The sockets of one test; closed at the end, with nothing lingering."""

    def __init__(self) -> None:
        self.context = zmq.Context()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(linger=0)

    def make(self, kind: int, port: int, identity: bytes = b"", **options: Any) -> Any:
        """A socket that connects to a port; options by the names that zmq gives them."""
        made = self.context.socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.RCVTIMEO, PATIENCE)
        made.setsockopt(zmq.SNDTIMEO, PATIENCE)
        if identity:
            made.setsockopt(zmq.ROUTING_ID, identity)
        for name, value in options.items():
            made.setsockopt(getattr(zmq, name), value)
        made.connect(f"tcp://127.0.0.1:{port}")
        return made


def ask(client: Any, to: bytes, *parts: bytes) -> list[bytes]:
    """One request through a REQ socket, in CAMEO's form: the parts of the answer."""
    client.send_multipart([to, b"", *parts])
    answer = client.recv_multipart()
    assert answer[:2] == [to, b""]
    return list(answer[2:])


class Backend(Running):
    """A ROUTER with a name: answers every request with its parts behind one of its own."""

    def __init__(self, port: int, identity: bytes = SERVER, answer: bytes = b"") -> None:
        self.port = port
        self.identity = identity
        self.answer = answer
        self.asked: list[list[bytes]] = []
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        with Sockets() as sockets:
            router = sockets.make(zmq.ROUTER, self.port, self.identity, ROUTER_HANDOVER=1)
            while not self._stop.is_set():
                if not router.poll(50):
                    continue
                frames = router.recv_multipart()
                self.asked.append(frames[4:])
                router.send_multipart([*frames[:4], *self.answer_to(frames[4:])])

    def answer_to(self, parts: list[bytes]) -> list[bytes]:
        """The parts of the answer."""
        return [self.answer, *parts] if self.answer else parts


class Programs:
    """Both programs, their pipes held as the CAMEO server holds them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = free_ports()
        self.log = directory / "programs.log"
        self.config = directory / "programs.ini"
        self.config.write_text(ini({"cameo": {"log_file": self.log, "log_level": "debug"}}))
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self.log.exists():
            text = self.log.read_text()
            print(text[-5000:])
            assert "Traceback" not in text and " error " not in text

    def start(self) -> None:
        """Start both, as CAMEO does, and wait for nothing."""
        responder, subscriber, publisher = self.ports
        for command in (program("responder", responder), program("publisher", subscriber, publisher)):
            self.running.append(self.launch(command))

    def launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """One program with pipes that nobody reads or writes."""
        environment = Daemon(self.directory, "programs").environment()
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env=environment | {"REVTUNNEL_CONFIG": str(self.config)},
        )

    def kill(self) -> None:
        """As the CAMEO server does at its end."""
        for process in self.running:
            process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self.running.clear()


class Relays(Daemon):
    """``revtunnel-cameo`` with a settings file."""

    def __init__(
        self, directory: Path, settings: Settings | None = None, name: str = "cameo", **more: Any
    ) -> None:
        super().__init__(directory, name, **more)
        self.config = directory / f"{name}.ini"
        self.admin_socket = directory / f"{name}.sock"
        self.ports = free_ports()
        own = {
            "proxy_ports": ", ".join(map(str, self.ports)),
            "admin_socket": self.admin_socket,
            "log_format": "json",
            "log_level": "debug",
        }
        self.settings = merged({"cameo": own}, settings or {})
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the settings file, with changes of a section."""
        self.settings = merged(self.settings, changes)
        self.config.write_text(ini(self.settings))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "revtunnel.daemons.run", "cameo", "--config", str(self.config)]

    def ready(self) -> bool:
        return bool(self.events("state", state="ready"))
