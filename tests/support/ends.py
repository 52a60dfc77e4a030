"""Two joined EndTransports, plain or TLS, over a socketpair or over loopback."""

import socket
from typing import Any

from twisted.internet.interfaces import IProtocol

from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd, TlsEnd, tune
from tests.support.epoll import Loop
from tests.support.throwaway_tls import contexts

__all__ = ["join_ends", "tcp_pair"]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def join_ends(
    loop: Loop, near: IProtocol, far: IProtocol, *, tls: bool = False, tcp: bool = False
) -> tuple[EndTransport, EndTransport]:
    """Connect two protocols; over TLS both are shaken before they are told."""
    pair = tcp_pair() if tcp else socket.socketpair()
    for each in pair:
        tune(each)
    ends: Any = [PlainEnd(each) for each in pair]
    if tls:
        server, client = contexts()
        ends = TlsEnd.connecting(client.getContext(), pair[0]), TlsEnd.accepting(server.getContext(), pair[1])
        done = [False, False]
        while not all(done):
            done = [was or end.handshake() for was, end in zip(done, ends, strict=True)]
    transports = EndTransport(loop.reactor, ends[0], near), EndTransport(loop.reactor, ends[1], far)
    for transport in transports:
        transport.start()
    return transports
