"""Listening and connecting without Twisted's transports: what endpoints, factories and callers see of it."""

import contextlib
import errno
import itertools
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import (
    CannotListenError,
    ConnectBindError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.interfaces import IListeningPort, IReactorPluggableNameResolver, IReactorTime
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from zope.interface.verify import verifyObject

from revtunnel.ground.facts import AcceptFailed, Fact, NoDescriptors
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Offer, parse_target
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.lean_reactor import ACCEPTS, LeanReactor
from revtunnel.streams.dialler import Dialler, NotDialled
from tests.support.epoll import Loop, Names, own_reactor
from tests.support.memory import Recorder

pytestmark = pytest.mark.slow


class Lean(Loop):
    """A lean reactor and what it reported."""

    def __init__(self, loop: Loop) -> None:
        self.reactor = loop.reactor
        self.told: list[Fact] = []
        self.lean = LeanReactor(loop.reactor, self.told.append)

    def listen(self, factory: ServerFactory, port: int = 0, host: str = "127.0.0.1") -> Any:
        return self.lean.listenTCP(port, factory, 200, host)


@pytest.fixture
def loop() -> Iterator[Lean]:
    with own_reactor() as loop:
        yield Lean(loop)


class Recorders(ServerFactory):
    """Makes recorders, as many as wanted."""

    noisy = False

    def __init__(self, make: Callable[[], Any] = Recorder) -> None:
        self.made: list[Any] = []
        self.peers: list[Any] = []
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        self.peers.append(addr)
        self.made.append(self._make())
        return self.made[-1]


class Dialling(ClientFactory):
    """A factory for one recorder, which keeps what it is told."""

    noisy = False

    def __init__(self) -> None:
        self.protocol_made = Recorder()
        self.told: list[str] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        return self.protocol_made

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.told.append(f"failed {reason.type.__name__}")

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        self.told.append(f"lost {reason.type.__name__}")


def ending(client: socket.socket) -> str:
    """How the other side ended a connection that is not read yet."""
    try:
        return "data" if client.recv(1) else "end"
    except ConnectionResetError:
        return "reset"


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port that answers nobody: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has none left."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = os.open(os.devnull, os.O_RDONLY)  # the lowest free number
    resource.setrlimit(resource.RLIMIT_NOFILE, (held, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(held)


# -- listening


def test_a_listener_lets_clients_in(loop: Lean) -> None:
    """The factory is told who comes, the protocol has one of our transports, with no delay set."""
    factory = Recorders()
    port = loop.listen(factory)
    assert verifyObject(IListeningPort, port)
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
        client.sendall(b"hello")
        loop.until(lambda: factory.made and factory.made[0].data == b"hello")
        protocol = factory.made[0]
        assert isinstance(protocol.transport, EndTransport)
        assert (factory.peers[0].host, factory.peers[0].port) == client.getsockname()
        assert protocol.transport.getPeer() == factory.peers[0]
        assert protocol.transport.getHost() == port.getHost()
        assert protocol.transport.getTcpNoDelay() and protocol.transport.getTcpKeepAlive()
        protocol.transport.loseConnection()
        loop.until(lambda: protocol.lost)
        assert client.recv(1) == b""
    assert factory.numPorts == 1
    port.stopListening()
    assert factory.numPorts == 0


def test_ipv6_is_listened_at_and_reached(loop: Lean) -> None:
    """Addresses are IPv6Address objects, and the endpoint for them works."""
    factory = Recorders()
    port = loop.listen(factory, host="::1")
    assert port.getHost().host == "::1"
    endpoint = TCP6ClientEndpoint(loop.lean, "::1", port.getHost().port)
    client = loop.wait(endpoint.connect(Recorders()))
    loop.until(lambda: factory.made)
    assert factory.peers[0] == client.transport.getHost()
    assert client.transport.getPeer().port == port.getHost().port
    client.transport.abortConnection()
    loop.until(lambda: client.lost and factory.made[0].lost)
    port.stopListening()


def test_who_is_not_wanted_is_reset(loop: Lean, capfd: pytest.CaptureFixture[str]) -> None:
    """A factory that gives nothing, and one that raises, leave nobody hanging and the listener open."""

    def faulty() -> Any:
        raise ValueError("a bug")

    for make in (lambda: None, faulty):
        port = loop.listen(Recorders(make))
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
                loop.settle()
                assert ending(client) == "reset"
        port.stopListening()


def test_a_port_that_is_taken(loop: Lean) -> None:
    """Twisted's exception, with the system's number in it; also for an address that is not here."""
    port = loop.listen(Recorders())
    with pytest.raises(CannotListenError) as taken:
        loop.listen(Recorders(), port.getHost().port)
    assert taken.value.socketError.errno == errno.EADDRINUSE
    assert taken.value.port == port.getHost().port
    with pytest.raises(CannotListenError) as elsewhere:
        loop.listen(Recorders(), 0, "192.0.2.1")
    assert elsewhere.value.socketError.errno == errno.EADDRNOTAVAIL
    port.stopListening()


def test_a_port_is_free_when_stop_listening_returns(loop: Lean) -> None:
    """It can be bound again in the same turn; a second stop does nothing."""
    port = loop.listen(Recorders())
    number = port.getHost().port
    port.stopListening()
    port.stopListening()
    again = loop.listen(Recorders(), number)
    assert again.getHost().port == number
    again.stopListening()


def test_a_crowd_is_let_in_by_portions(loop: Lean) -> None:
    """64 in one turn, the others in the next; a listener may be closed in the middle of it."""
    factory = Recorders()
    port = loop.listen(factory)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port.getHost().port)))
        loop.reactor.iterate(0)
        assert len(factory.made) == ACCEPTS
        loop.until(lambda: len(factory.made) == 100)
        closing = Recorders(lambda: port.stopListening() and None)
        port.stopListening()
        port = loop.listen(closing)
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", port.getHost().port)))
        loop.settle()
        assert len(closing.made) == 1
        for one in factory.made:
            one.transport.abortConnection()
        loop.until(lambda: all(one.lost for one in factory.made))


def test_n1_without_descriptors_clients_are_reset_and_it_is_said_once(loop: Lean) -> None:
    """They do not wait for a time-out, the reactor does not spin, and clients are served again afterwards."""
    factory = Recorders()
    port = loop.listen(factory)
    where = ("127.0.0.1", port.getHost().port)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.socket()) for _ in range(100)]
        with no_descriptors():
            for client in crowd:
                client.connect(where)
            loop.settle(quiet=0.05)
        assert [ending(client) for client in crowd] == ["reset"] * 100
        assert factory.made == []
        assert [type(fact) for fact in loop.told] == [NoDescriptors]
        assert loop.told[0].connections == ACCEPTS  # type: ignore[attr-defined]
        with socket.create_connection(where):
            loop.until(lambda: factory.made)
        loop.until(lambda: factory.made[0].lost)
    port.stopListening()


def test_n1_without_even_a_spare_descriptor_the_listener_rests(loop: Lean) -> None:
    """Nobody can be turned away then; who waits is served when there are descriptors again."""
    factory = Recorders()
    port = loop.listen(factory)
    port._spare._number = os.close(port._spare._number)
    with socket.socket() as client:
        with no_descriptors():
            client.connect(("127.0.0.1", port.getHost().port))
            loop.settle()
            assert factory.made == []
            assert port not in loop.reactor.getReaders()
        loop.until(lambda: factory.made)
        assert [type(fact) for fact in loop.told] == [NoDescriptors]
    loop.until(lambda: factory.made[0].lost)
    port.stopListening()


class Faulty(socket.socket):
    """A listening socket whose ``accept`` fails as told before it goes on; each failure takes nobody away."""

    faults: Iterator[int] = iter(())
    calls = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """As a socket's."""
        self.calls += 1
        number = next(self.faults, 0)
        if number:
            raise OSError(number, os.strerror(number))
        return super().accept()


def faulty(port: Any, *faults: int, ever: int = 0) -> Faulty:
    """Have a port's next accepts fail so, and all that follow with ``ever``."""
    port._sock = made = Faulty(fileno=port._sock.detach())
    made.setblocking(False)
    made.faults = itertools.chain(faults, itertools.repeat(ever) if ever else ())
    return made


NETWORK = (  # of the new connection: "treat them like EAGAIN", says accept(2)
    errno.ENETDOWN,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
)
OTHERS = (  # that it lists beside them
    errno.ECONNABORTED,
    errno.EPERM,
    errno.ENOSR,
    errno.ESOCKTNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.ETIMEDOUT,
    errno.EINTR,
)
UNLISTED = (errno.ECONNRESET, errno.EPIPE, errno.EACCES, errno.EIO)  # of the connection, or a security module


def test_what_befell_one_connection_closes_no_listener(loop: Lean) -> None:
    """accept(2) says to try again: whoever is behind it is let in at once, and there is nothing to say."""
    factory = Recorders()
    port = loop.listen(factory)
    faulty(port, *NETWORK, *OTHERS, *UNLISTED)
    with socket.create_connection(("127.0.0.1", port.getHost().port)):
        loop.until(lambda: factory.made)
    loop.until(lambda: factory.made[0].lost)
    assert loop.told == []
    port.stopListening()


def test_a_listener_that_only_fails_rests_and_says_so_once(loop: Lean) -> None:
    """No busy loop and no flood of lines; it listens on, and serves whoever waited once it can."""
    factory = Recorders()
    port = loop.listen(factory)
    sock = faulty(port, ever=errno.EPERM)
    with socket.create_connection(("127.0.0.1", port.getHost().port)):
        loop.until(lambda: sock.calls >= 3 * ACCEPTS)
        assert sock.calls == 3 * ACCEPTS
        assert port not in loop.reactor.getReaders()
        where = f"127.0.0.1:{port.getHost().port}"
        assert loop.told == [AcceptFailed(where, ACCEPTS, "Operation not permitted")]
        sock.faults = iter(())
        loop.until(lambda: factory.made)
    loop.until(lambda: factory.made[0].lost)
    port.stopListening()
    assert loop.reactor.getDelayedCalls() == []


def test_a_socket_that_cannot_accept_at_all(loop: Lean) -> None:
    """A datagram socket from a parent that made a mistake: tried again and again, calmly."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        wrong.bind(("127.0.0.1", 0))
        port = loop.lean.adoptStreamPort(wrong.fileno(), socket.AF_INET, Recorders())
        wrong.sendto(b"readable", wrong.getsockname())
        loop.until(lambda: loop.told)
        assert [fact.detail for fact in loop.told] == [os.strerror(errno.EOPNOTSUPP)]  # type: ignore[attr-defined]
        assert port not in loop.reactor.getReaders()
        port.stopListening()


@pytest.mark.parametrize("number", [errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK])
def test_what_is_fatal_closes_the_listener(loop: Lean, number: int) -> None:
    """It is no socket that listens: it says so, without a traceback, and is gone."""
    factory = Recorders()
    port = loop.listen(factory)
    where = f"127.0.0.1:{port.getHost().port}"
    faulty(port, number)
    with socket.create_connection(("127.0.0.1", port.getHost().port)):
        loop.until(lambda: loop.told)
    assert loop.told == [AcceptFailed(where, 1, f"{os.strerror(number)}; nobody is let in there any more")]
    assert port.fileno() == -1 and factory.numPorts == 0
    assert port not in loop.reactor.getReaders()


def test_a_listening_socket_that_somebody_else_shut(loop: Lean) -> None:
    """A parent that has it too may do that; accept says EINVAL from then on."""
    with socket.create_server(("127.0.0.1", 0)) as parent:
        port = loop.lean.adoptStreamPort(parent.fileno(), socket.AF_INET, Recorders())
        parent.shutdown(socket.SHUT_RDWR)
        loop.until(lambda: loop.told)
        assert port.fileno() == -1
        assert "nobody is let in there any more" in loop.told[0].detail  # type: ignore[attr-defined]


def test_a_hang_up_that_was_another_s_closes_no_listener(loop: Lean) -> None:
    """A batch of events may hold one of a descriptor that was closed, whose number a listener has now."""
    factory = Recorders()
    port = loop.listen(factory)
    loop.reactor._disconnectSelectable(port, CONNECTION_LOST, False)
    with socket.create_connection(("127.0.0.1", port.getHost().port)):
        loop.until(lambda: factory.made)
    loop.until(lambda: factory.made[0].lost)
    assert loop.told == []
    port.stopListening()


# -- connecting


def test_endpoints_connect(loop: Lean, tmp_path: Path) -> None:
    """Twisted's endpoints for addresses, names and UNIX sockets end with our transports."""
    port = loop.listen(Recorders())
    number = port.getHost().port
    path = str(tmp_path / "sock")
    loop.lean.installNameResolver(Names(service=["127.0.0.1"]))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        endpoints = [
            TCP4ClientEndpoint(loop.lean, "127.0.0.1", number),
            HostnameEndpoint(loop.lean, "service", number),
            UNIXClientEndpoint(loop.lean, path),
        ]
        for endpoint in endpoints:
            client = loop.wait(endpoint.connect(Recorders()))
            assert type(client.transport).__mro__[1] is EndTransport
            assert client.transport.getHandle().getpeername() in (("127.0.0.1", number), path)
            client.transport.loseConnection()
            loop.until(lambda: client.lost)  # noqa: B023
    port.stopListening()


def test_what_endpoints_ask_of_a_reactor_is_there() -> None:
    """It provides what the wrapped reactor provides."""
    with own_reactor() as loop:
        lean = LeanReactor(loop.reactor, print)
        assert IReactorPluggableNameResolver.providedBy(lean) and IReactorTime.providedBy(lean)
        assert lean.seconds() > 0


def test_a_factory_is_told_of_its_connection(loop: Lean) -> None:
    """Started and stopped once, lost after its protocol; disconnect ends it in order."""
    port = loop.listen(Recorders())
    factory = Dialling()
    connector = loop.lean.connectTCP("127.0.0.1", port.getHost().port, factory)
    assert connector.state == "connecting" and factory.numPorts == 1
    loop.until(lambda: connector.state == "connected")
    assert connector.getDestination() == port.getHost()
    connector.disconnect()
    loop.until(lambda: factory.told)
    assert factory.told == ["lost ConnectionDone"]
    assert factory.protocol_made.lost and factory.numPorts == 0
    connector = loop.lean.connectTCP("127.0.0.1", port.getHost().port, factory)
    connector.stopConnecting()
    assert factory.told[1:] == ["failed UserError"]
    loop.settle()
    assert loop.reactor.getDelayedCalls() == [] and loop.reactor.getWriters() == []
    port.stopListening()


def test_errors_are_twisteds(loop: Lean, tmp_path: Path) -> None:
    """Refused, late, given up, no such path, no descriptor: the exceptions that callers tell apart."""
    port = loop.listen(Recorders())
    number = port.getHost().port
    port.stopListening()
    with pytest.raises(ConnectionRefusedError) as refused:
        loop.wait(TCP4ClientEndpoint(loop.lean, "127.0.0.1", number).connect(Recorders()))
    assert refused.value.osError == errno.ECONNREFUSED
    with pytest.raises(ConnectError) as missing:
        loop.wait(UNIXClientEndpoint(loop.lean, str(tmp_path / "none")).connect(Recorders()))
    assert missing.value.osError == errno.ENOENT
    with pytest.raises(ConnectError):
        loop.wait(UNIXClientEndpoint(loop.lean, "x" * 200).connect(Recorders()))
    with no_descriptors(), pytest.raises(ConnectBindError) as out:
        loop.wait(TCP4ClientEndpoint(loop.lean, "127.0.0.1", number).connect(Recorders()))
    assert out.value.osError == errno.EMFILE
    with deaf() as silent:
        with pytest.raises(TimeoutError):
            loop.wait(TCP4ClientEndpoint(loop.lean, "127.0.0.1", silent, timeout=0.02).connect(Recorders()))
        dial = TCP4ClientEndpoint(loop.lean, "127.0.0.1", silent).connect(Recorders())
        loop.settle()
        dial.cancel()
        with pytest.raises(ConnectingCancelledError):
            loop.wait(dial)
    assert loop.reactor.getDelayedCalls() == [] and loop.reactor.getWriters() == []


def test_a_unix_socket_with_a_full_backlog_is_waited_for(loop: Lean, tmp_path: Path) -> None:
    """Where TCP would knock again, a UNIX socket says no; it is tried again until it takes us."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(path)
        dial = UNIXClientEndpoint(loop.lean, path).connect(Recorders())
        loop.settle()
        assert not dial.called
        stack.enter_context(listener.accept()[0])
        client = loop.wait(dial)
        client.transport.abortConnection()
        loop.until(lambda: client.lost)


def test_what_is_not_plain_is_the_wrapped_reactors(loop: Lean) -> None:
    """A name and an address to bind to are left to Twisted's own transports."""
    port = loop.listen(Recorders())
    endpoint = TCP4ClientEndpoint(loop.lean, "127.0.0.1", port.getHost().port, bindAddress=("127.0.0.1", 0))
    client = loop.wait(endpoint.connect(Recorders()))
    assert not isinstance(client.transport, EndTransport)
    client.transport.abortConnection()
    loop.until(lambda: client.lost)
    port.stopListening()


def test_n2_the_diallers_words(loop: Lean, tmp_path: Path) -> None:
    """Our dialler finds the same word for each error as over Twisted's transports."""
    refusing = loop.listen(Recorders())
    number = refusing.getHost().port
    refusing.stopListening()
    with deaf() as silent:
        targets = {
            f"127.0.0.1:{number}": Ended.REFUSED,
            f"unix:{tmp_path}/none": Ended.REFUSED,
            f"127.0.0.1:{silent}": Ended.TIMED_OUT,
        }
        offers = [Offer(f"t{place}", parse_target(text)) for place, text in enumerate(targets)]
        dialler = Dialler(loop.lean, limits(), offers)
        for offer, word in zip(offers, targets.values(), strict=True):
            with pytest.raises(NotDialled) as caught:
                loop.wait(dialler.dial(offer.target))
            assert caught.value.reason is word
        with no_descriptors(), pytest.raises(NotDialled) as caught:
            loop.wait(dialler.dial(offers[0].target))
        assert caught.value.reason is Ended.OUT_OF_RESOURCES


def limits() -> Any:
    """An agent's, with a short dial."""
    from dataclasses import replace

    from revtunnel.ground.policy import AgentLimits

    return replace(AgentLimits(), dial=0.05)


def test_a_protocol_without_half_close_is_lost_at_the_end_of_file(loop: Lean) -> None:
    """As with Twisted's: nothing of it stays in the reactor."""
    factory = Recorders(type("Plain", (Recorder,), {}))
    port = loop.listen(factory)
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
        client.shutdown(socket.SHUT_WR)
        loop.until(lambda: factory.made and factory.made[0].lost)
        assert client.recv(1) == b""
    assert isinstance(factory.made[0], Protocol)
    port.stopListening()
