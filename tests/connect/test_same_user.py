"""Whose program comes to a local port: the kernel's table, and real sockets."""

import socket
import sys

import pytest

from revtunnel.connect.same_user import is_same_user, owner_of
from tests.support.ends import tcp_pair

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:9C42 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1
   2: 0100007F:1F90 0100007F:9C42 01 00000000:00000000 00:00000000 00000000    33        0 3 1
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the example is of a little-endian machine")
def test_the_table() -> None:
    """The line with these two addresses, in this order."""
    near, far = ("127.0.0.1", 0x9C42), ("127.0.0.1", 8080)
    assert owner_of(TABLE, near, far) == 1000
    assert owner_of(TABLE, far, near) == 33
    assert owner_of(TABLE, near, ("127.0.0.1", 1)) is None
    assert owner_of("", near, far) is None


def test_a_connection_of_ours() -> None:
    """Is found, by either address family."""
    near, far = tcp_pair()
    with near, far:
        assert is_same_user(far)
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        socket.create_connection(listener.getsockname()[:2]),
        listener.accept()[0] as accepted,
    ):
        assert is_same_user(accepted)
