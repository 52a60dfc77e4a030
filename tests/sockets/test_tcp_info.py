"""What the kernel says of a connection whose other side takes nothing, on loopback."""

import contextlib
import socket
import time

import pytest

from revtunnel.sockets.tcp_info import silence

pytestmark = pytest.mark.slow


@pytest.mark.timeout(30)
def test_a_program_that_takes_nothing_is_not_silent() -> None:
    """Its window is closed and its kernel answers every probe: the other side lives."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        near = socket.create_connection(door.getsockname())
        far, _ = door.accept()
        with near, far:
            near.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.send(bytes(65536))
            heard = []
            for _ in range(20):
                time.sleep(0.1)
                heard.append(silence(near))
            assert heard == [0.0] * 20


def test_what_is_no_tcp_socket_is_never_silent() -> None:
    """A UNIX socket, a closed one, and none."""
    near, far = socket.socketpair()
    with near, far:
        assert silence(near) == 0.0
    closed = socket.socket()
    closed.close()
    assert silence(closed) == 0.0
    assert silence(None) == 0.0
