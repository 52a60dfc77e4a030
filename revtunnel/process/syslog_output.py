"""Log lines to the syslog socket, for programs whose standard output nobody reads.

Rule of this file: as log_output.py: a write never blocks and never raises, a line is sent whole or dropped
and counted. The socket is opened anew when the system's logger has been restarted.

Source: syslog(3), RFC 3164 (facility ``daemon``); systemd-journald listens at the same place.
"""

import os
import re
import socket

from revtunnel.process.log_output import LogOutput

__all__ = ["SyslogOutput"]

PLACE = "/dev/log"
_DAEMON = 3 * 8  # the facility
_PRIORITY = re.compile(rb"<([0-7])>(.*)")


class SyslogOutput(LogOutput):
    """Lines for the system's logger under a program's name."""

    def __init__(self, name: str, place: str = PLACE) -> None:
        self.journal = True  # lines begin with their priority and have no time: the logger adds it
        self.dropped = 0
        self._place = place
        self._tag = f"{name}[{os.getpid()}]: ".encode()
        self._socket: socket.socket | None = None

    def offer(self, line: bytes) -> bool:
        """Send the lines of one event."""
        return all([self._send(each) for each in line.splitlines()])  # noqa: C419  all are tried

    def close(self) -> None:
        """Write no more."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._place = None, ""

    def _send(self, line: bytes) -> bool:
        found = _PRIORITY.match(line)
        priority, text = (int(found[1]), found[2]) if found else (6, line)
        data = b"<%d>%s%s" % (_DAEMON + priority, self._tag, text)
        return any(self._attempt_at(data, anew) for anew in (self._socket is None, True))

    def _attempt_at(self, data: bytes, anew: bool) -> bool:
        try:
            if anew or self._socket is None:
                self._connect()
            assert self._socket is not None
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(data)
        except OSError:
            return False

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(self._place)
        except OSError:
            sock.close()
            raise
        self._socket = sock
