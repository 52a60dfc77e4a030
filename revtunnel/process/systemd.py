"""What the service manager is told: ready, stopping, reloading, alive.

Rule of this file: telling never blocks and never fails; without NOTIFY_SOCKET nothing is told. The watchdog
is fed from the reactor, so that a loop that hangs is restarted by the manager.

Source: sd_notify(3), systemd.service(5) "Type=notify".
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

__all__ = ["Notifier", "NotifyService"]


class Notifier:
    """Datagrams to the manager's socket; ``watchdog`` is how long it waits for a sign of life, None for ever.

    Args:
        address: path of the socket, ``@`` in front for an abstract one; None when nobody listens.
        watchdog: seconds, what the unit's WatchdogSec says.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self.watchdog = watchdog
        self._address = address
        self._status = "ready"

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> "Notifier":
        """What the manager passed to process ``pid``; taken out, for children do not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", None)
        usec = environ.pop("WATCHDOG_USEC", "")
        mine = environ.pop("WATCHDOG_PID", str(pid)) == str(pid)
        wanted = address is not None and mine and usec.isdecimal() and int(usec) > 0
        return cls(address or None, int(usec) / 1e6 if wanted else None)

    def ready(self, pid: int | None = None) -> None:
        """All listeners are open; also the end of a reload. ``pid`` when it is not the started one."""
        self._tell("READY=1", f"STATUS={self._status}", *([] if pid is None else [f"MAINPID={pid}"]))

    def status(self, text: str) -> None:
        """One line for ``systemctl status``, until there is another."""
        self._status = text
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def reloading(self, now: float) -> None:
        """Settings are being read again, at ``now`` on CLOCK_MONOTONIC; ``ready`` must follow."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}", "STATUS=reloading")

    def stopping(self, status: str = "stopping", seconds: float | None = None) -> None:
        """We are on our way out and need at most ``seconds`` from now."""
        self._tell("STOPPING=1", f"STATUS={status}", *([] if seconds is None else [_extend(seconds)]))

    def extend(self, seconds: float) -> None:
        """Start, reload or stop needs ``seconds`` more from now."""
        self._tell(_extend(seconds))

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        target = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(text.encode(), target)


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"


class NotifyService(Service):
    """Says READY once the reactor runs, feeds the watchdog, says STOPPING.

    Give it to the service tree last: services start in order, and READY stands for all of them. With ``held``
    it does not say READY: ``Notifier.ready`` is then for the service to call that is ready last.
    """

    def __init__(self, reactor: Any, notifier: Notifier, held: bool = False) -> None:
        self._reactor = reactor
        self._notifier = notifier
        self._held = held
        self._loop = LoopingCall(notifier.alive)
        self._loop.clock = reactor

    def startService(self) -> None:
        super().startService()
        if self._notifier.watchdog is not None:
            self._loop.start(self._notifier.watchdog / 2)
        if not self._held:
            self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        if self.running:
            self._notifier.ready(pid=os.getpid())

    def stopService(self) -> None:
        """Say STOPPING; the watchdog is fed on, because a drain may take longer than its time."""
        super().stopService()
        self._notifier.stopping()
        if self._loop.running:
            self._reactor.addSystemEventTrigger("after", "shutdown", self._loop.stop)
