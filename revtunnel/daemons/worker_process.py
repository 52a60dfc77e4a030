"""The processes that serve links and clients beside a server: one that makes them, and each that it made.

The first imports everything and waits; it makes a worker by a fork, in a few milliseconds, whenever the
server wants one, and has no reactor, thread or file of its own that a child would have to forget. It ends
with its server, as every worker does.

Rule of this file: signals are the server's business. A manager may send them to the whole group.

Source: ours.
"""

import os
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

from twisted.logger import Logger, LogLevel, globalLogPublisher

from revtunnel.daemons.worker_board import ToParent, WorkerBoard
from revtunnel.ground.errors import SettingsError
from revtunnel.process.logs import record
from revtunnel.process.process import prepare_reactor
from revtunnel.sockets.descriptor_pipe import Message, WaitingPipe

__all__ = ["WANTED", "main"]

log = Logger(namespace="revtunnel")

WANTED = struct.Struct("!BB")  # which worker is wanted, of how many processes
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class _Worker:
    """One worker, from its first message on."""

    def __init__(self, reactor: Any, sock: socket.socket, share: int, of: int) -> None:
        self._reactor = reactor
        self._share, self._of = share, of
        self._board: WorkerBoard | None = None
        self._pipe = WaitingPipe(reactor, sock, self._received, self._ends)
        self._parent = ToParent(reactor, self._pipe)
        globalLogPublisher.addObserver(self._logged)  # type: ignore[arg-type]
        self._parent.tell("hello", os.getpid())

    def _received(self, message: Message) -> None:
        name, values, descriptors = message
        if self._board is not None:
            try:
                getattr(self._board, name)(*values, *descriptors)
            except Exception:
                log.failure("{name}", name=name)
            return
        try:
            self._board = WorkerBoard(self._reactor, self._parent, values[0], self._share, self._of)
        except SettingsError as error:
            self._parent.tell("faulty", error.errors)
            self._ends("")
        self._parent.tell("ready")

    def _logged(self, event: Any) -> None:
        """What is said beside facts, such as faults of ours."""
        if event.get("log_level", LogLevel.info) >= LogLevel.warn or "log_failure" in event:
            self._parent.tell("logged", record(event))

    def _ends(self, why: str) -> None:
        """The parent is gone, or has closed the pipe: what is open ends with the process, by resets."""
        os._exit(0)


def _serve(sock: socket.socket, share: int, of: int) -> None:
    """Be a worker."""
    from twisted.internet import reactor

    prepare_reactor(reactor)
    _Worker(reactor, sock, share, of)
    reactor.run(installSignalHandlers=False)  # type: ignore[call-arg]


def main(descriptor: int, serve: Any = _serve) -> NoReturn:
    """Make workers until the server is gone."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    asked = socket.socket(fileno=descriptor)
    while True:
        wanted, given, _, _ = socket.recv_fds(asked, WANTED.size, 1)
        if not given:
            os._exit(0)
        if os.fork() == 0:
            asked.close()
            try:
                serve(socket.socket(fileno=given[0]), *WANTED.unpack(wanted))
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(given[0])


if __name__ == "__main__":
    main(int(sys.argv[1]))
