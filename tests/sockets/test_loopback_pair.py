"""Both ends of a connection within this machine, whoever has them, and whoever loses them."""

import socket

import pytest

from revtunnel.sockets.loopback_pair import loopback_pair


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_with_an_end_cuts_it(dies: int) -> None:
    """Also one that was given it and has not taken it: the kernel closes it, which is no end in order."""
    pair = loopback_pair()
    pair[dies].close()
    other: socket.socket = pair[1 - dies]
    other.setblocking(True)
    with other, pytest.raises(ConnectionResetError):
        other.recv(1)
