"""Whose program comes to a local port: the kernel's table, and real sockets."""

import os
import socket
import sys

import pytest

from revtunnel.connect.same_user import ask_kernel, is_same_user, owner_of
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_connection_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel's answer, and by its table where it cannot be asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.seteuid(65534)  # whoever makes a socket is its user
        try:
            stranger = socket.socket()
        finally:
            os.seteuid(0)
        stranger.connect(listener.getsockname())
        accepted = listener.accept()[0]
        with stranger, accepted:
            near, far = accepted.getpeername(), accepted.getsockname()
            assert ask_kernel(socket.AF_INET, near, far) == 65534
            assert not is_same_user(accepted)
            monkeypatch.setattr("revtunnel.connect.same_user._DIAG", 99)
            with pytest.raises(OSError, match="rotocol"):
                ask_kernel(socket.AF_INET, near, far)
            assert not is_same_user(accepted)


@pytest.mark.parametrize("near", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_ipv4_to_an_ipv6_socket(near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever socket the other side has, and by whichever table."""
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection((near, listener.getsockname()[1])),
        listener.accept()[0] as accepted,
    ):
        assert is_same_user(accepted)
        monkeypatch.setattr("revtunnel.connect.same_user._DIAG", 99)
        assert is_same_user(accepted)


def test_nobody() -> None:
    """No socket, no owner."""
    assert ask_kernel(socket.AF_INET, ("127.0.0.1", 1), ("127.0.0.1", 2)) is None
