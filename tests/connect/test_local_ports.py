"""Local ports: which one, and who may come."""

import socket
from collections.abc import Iterator
from functools import partial

import pytest

from revtunnel.connect.local_ports import LocalPort, LocalSocket, PortRules, open_port
from revtunnel.connect.outcomes import CONFIG, Stop
from revtunnel.sockets.listening import Listeners
from tests.support.epoll import Loop


class Ports:
    """What is open, and who came."""

    def __init__(self, loop: Loop) -> None:
        self.came: list[LocalSocket] = []
        self.gone: list[LocalSocket] = []
        self.made: list[LocalPort] = []
        self._open = partial(open_port, loop.reactor, Listeners(loop.reactor, lambda fact: None))

    def open(self, own: int, **rules: object) -> LocalPort:
        """One more."""
        give, left = self.came.append, self.gone.append
        self.made.append(self._open("ssh", own, PortRules(**rules), give, left))  # type: ignore[arg-type]
        return self.made[-1]


@pytest.fixture
def ports(loop: Loop) -> Iterator[Ports]:
    ports = Ports(loop)
    yield ports
    for port in ports.made:
        port.close()
    for came in ports.came:
        came.abort()
    loop.settle()


def test_the_own_port_then_the_next_free_one(ports: Ports) -> None:
    """Two services with one port: the second has another one above it."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        own = found.getsockname()[1]
    first, second = ports.open(own), ports.open(own)
    assert first.port == own
    assert own < second.port <= own + 100
    assert first.place == f"127.0.0.1:{own}"


def test_a_port_nobody_knows(ports: Ports) -> None:
    """Any one."""
    assert ports.open(0).port > 0


def test_another_address_with_the_same_port(ports: Ports) -> None:
    """The next one on which it is free."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        own = found.getsockname()[1]
    first, second = ports.open(own, range=True), ports.open(own, range=True)
    assert first.port == second.port == own
    assert (first.address, second.address) == ("127.77.0.1", "127.77.0.2")


def test_a_port_that_was_asked_for_or_none(ports: Ports) -> None:
    """Also an address that is not of this machine."""
    taken = ports.open(0).port
    with pytest.raises(Stop, match="Address already in use") as stop:
        ports.open(22, port=taken)
    assert stop.value.status == CONFIG
    with pytest.raises(Stop, match="no local port for ssh"):
        ports.open(22, listen="192.0.2.1")


def test_a_program_of_ours_may_come(loop: Loop, ports: Ports) -> None:
    """It is given on, and waits unread."""
    port = ports.open(0)
    with socket.create_connection(("127.0.0.1", port.port)) as program:
        program.sendall(b"early")
        loop.until(lambda: ports.came)
        assert ports.came[0].waits
        assert ports.came[0].service == "ssh"
        ports.came[0].abort()
        loop.until(lambda: ports.gone)
        assert not ports.came[0].waits


@pytest.mark.parametrize("any_user", [False, True])
@pytest.mark.parametrize("listen", ["127.0.0.1", "::"])
def test_a_program_of_another_user_may_not(
    loop: Loop, ports: Ports, listen: str, any_user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees a reset, and the person is told; unless he wanted them. On :: IPv4 is ::ffff:127.0.0.1."""
    monkeypatch.setattr("revtunnel.connect.local_ports.is_same_user", lambda sock: False)
    port = ports.open(0, listen=listen, any_user=any_user)
    told: list[int] = []
    port.on_stranger = lambda: told.append(1)
    with socket.create_connection(("127.0.0.1", port.port)) as program:
        loop.until(lambda: told or ports.came)
        assert bool(ports.came) is any_user
        assert bool(told) is not any_user
        if not any_user:
            with pytest.raises(ConnectionResetError):
                program.recv(1)
