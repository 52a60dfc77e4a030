"""Whether a connection that nobody reads at present has ended or was cut: asked of the kernel.

Source: faults.md N26 to N29; ours.
"""

import errno
import os
import select
import socket

__all__ = ["has_ended", "hung_up", "is_cut"]


def hung_up(sock: socket.socket) -> OSError | None:
    """Why a descriptor has hung up; EPIPE where both directions have ended; None: it has not."""
    if not (events := _events(sock)):
        return None
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events & select.POLLERR else 0
    return OSError(number or errno.EPIPE, os.strerror(number or errno.EPIPE))


def is_cut(sock: socket.socket) -> bool:
    """Whether the other side has reset a connection; POLLHUP would be both ends of file, too."""
    return bool(_events(sock) & select.POLLERR)


def has_ended(sock: socket.socket) -> bool:
    """Whether the other side has ended a connection, or cut it."""
    return bool(_events(sock, select.POLLRDHUP))


def _events(sock: socket.socket, asked: int = 0) -> int:
    poll = select.poll()
    poll.register(sock, asked)
    return sum(events for _, events in poll.poll(0))
