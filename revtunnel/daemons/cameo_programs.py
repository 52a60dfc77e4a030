"""cameo-rep-proxy PORT and cameo-pub-proxy PUB SUB: ours under the names that a CAMEO server starts.

The server starts them with pipes that it never reads nor writes, watches nothing, and kills them. So: the
ports are open before anything large is imported; what is wrong is one line on standard output, and from then
on nothing is written there; a pipe on standard input that ends is the server's death, and ours; one process,
no fork, no file beside a log.

====== =======================================
status when
====== =======================================
0      the server is gone; SIGTERM, SIGINT
1      wrong arguments; a port cannot be had
78     wrong settings
====== =======================================

Source: wire/cameo.md sections 1 to 3 and 5 (mode "Drop-in").
"""

import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["publisher", "responder"]

FAILED, CONFIG = 1, 78
BACKLOG = 1024
EVERYWHERE = "0.0.0.0"
_USAGE = {"cameo-rep-proxy": "<port>", "cameo-pub-proxy": "<publisher port> <subscriber port>"}


def responder(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command ``cameo-rep-proxy``."""
    _main("cameo-rep-proxy", sys.argv[1:] if arguments is None else arguments)


def publisher(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command ``cameo-pub-proxy``."""
    _main("cameo-pub-proxy", sys.argv[1:] if arguments is None else arguments)


def _main(name: str, arguments: Sequence[str]) -> NoReturn:
    wanted = _USAGE[name].count("<")
    ports = [int(text) for text in arguments if text.isascii() and text.isdecimal() and len(text) < 6]
    if len(arguments) != wanted or len(ports) != wanted or not all(1 <= port <= 65535 for port in ports):
        _leave(FAILED, f"usage: {name} {_USAGE[name]}")
    sockets = []
    for port in ports:
        try:
            sockets.append(_listen(port))
        except OSError as error:
            _leave(FAILED, f"{name}: cannot listen on port {port}: {error.strerror}")
    _run(name, sockets)


def _listen(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((EVERYWHERE, port))
    sock.listen(BACKLOG)
    return sock


def _leave(status: int, *lines: str) -> NoReturn:
    for line in lines:
        print(line, flush=True)
    raise SystemExit(status)


def _run(name: str, sockets: list[socket.socket]) -> NoReturn:
    """Everything behind the first moment: imports, settings, log, relay, reactor."""
    from twisted.internet import reactor
    from twisted.internet.error import CannotListenError

    from revtunnel.daemons.schema import load
    from revtunnel.ground.errors import SettingsError
    from revtunnel.process.process import prepare_reactor
    from revtunnel.process.reporting import Reporter
    from revtunnel.systems.cameo.cameo_settings import read_cameo
    from revtunnel.systems.cameo.cameo_system import CameoSystem
    from revtunnel.systems.cameo.lifeline import run_until_end

    prepare_reactor(reactor)
    reporter = Reporter()
    try:
        settings = load(read_cameo)
        system = CameoSystem(reactor, settings, reporter)
        _open(system, name, sockets)
    except SettingsError as error:
        _leave(CONFIG, *(f"{name}: {line}" for line in error.errors))
    except CannotListenError as error:
        _leave(FAILED, f"{name}: {error}")
    _be_silent()
    _log(name, settings, reporter)
    run_until_end(reactor, system, settings.drain)
    raise SystemExit(0)


def _open(system: Any, name: str, sockets: list[socket.socket]) -> None:
    responder, subscribers, publishers = system.main_ports()
    factories = (responder,) if name == "cameo-rep-proxy" else (subscribers, publishers)
    for sock, factory in zip(sockets, factories, strict=True):
        system.adopt(sock.fileno(), sock.family, factory)
        sock.close()
    system.start_outside("responder" if len(factories) == 1 else "subscriber")


def _be_silent() -> None:
    """Standard output and error go nowhere from now on: 64 KiB in a pipe that nobody reads would block us."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _log(name: str, settings: Any, reporter: Any) -> None:
    """Begin the log that the settings ask for, with a line that says what runs."""
    import time

    from twisted.logger import globalLogBeginner

    from revtunnel.ground.facts import ServerState
    from revtunnel.process.log_output import LogOutput
    from revtunnel.process.logs import LineObserver
    from revtunnel.process.syslog_output import SyslogOutput

    descriptor = 1  # nowhere
    output: LogOutput
    if settings.log_file == "syslog":
        output = SyslogOutput(name)
    else:
        if settings.log_file != "none":
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(settings.log_file, flags, 0o640)
        output = LogOutput(descriptor)
    observer = LineObserver(output, settings.log_format, time.monotonic, settings.log_level)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
    reporter(ServerState("ready", f"{name}, started by process {os.getppid()}"))
