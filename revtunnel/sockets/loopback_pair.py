"""Two connected ends within this machine that can do what TCP can: half-close, and reset.

A UNIX socket pair cannot reset: what is cut would look like an end in order, unless bytes were unread.

Both end with a reset, from the first moment on: whoever is given one may die before he has taken it.

Source: tcp(7), unix(7); ours.
"""

import socket

from revtunnel.sockets.ends import ends_with_reset, tune

__all__ = ["loopback_pair"]

TRIES = 16  # somebody else on this machine may dial in between


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends. OSError: there are none to be had."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        near = socket.socket()
        try:
            near.connect(listening.getsockname())
            mine = near.getsockname()
            for _ in range(TRIES):
                far, peer = listening.accept()
                if peer == mine:
                    break
                far.close()
            else:
                raise OSError("a connection within this machine was not to be had")
        except OSError:
            near.close()
            raise
    for each in (near, far):
        each.setblocking(False)
        tune(each, within=True)
        ends_with_reset(each)
    return near, far
