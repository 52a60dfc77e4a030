"""Listening: whom a listener hands over, whom it turns away, and what closes it."""

import contextlib
import errno
import itertools
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock

from revtunnel.ground.facts import AcceptFailed, Fact, NoDescriptors, Trouble, TroubleOver
from revtunnel.ground.origin import Origin
from revtunnel.ground.retries import Retries
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import ACCEPTS, Came, Listeners
from revtunnel.sockets.stages import read_some
from tests.support.epoll import Loop, own_reactor


class Lean(Loop):
    """Listeners and what they reported."""

    def __init__(self, loop: Loop) -> None:
        self.reactor = loop.reactor
        self.told: list[Fact] = []
        self.lean = Listeners(loop.reactor, self.told.append)

    def listen(self, came: Came, port: int = 0, host: str = "127.0.0.1") -> Any:
        return self.lean.listen(host, port, 200, came)


@pytest.fixture
def loop() -> Iterator[Lean]:
    with own_reactor() as loop:
        yield Lean(loop)


class Guests(list[End]):
    """The ends that came, to be closed by the test."""

    def clear(self) -> None:
        """Close them all."""
        for end in self:
            end.abort()
        super().clear()


def nobody(end: End) -> None:
    """Nobody is expected."""
    raise NotImplementedError


def ending(client: socket.socket) -> str:
    """How the other side ended a connection that is not read yet."""
    try:
        return "data" if client.recv(1) else "end"
    except ConnectionResetError:
        return "reset"


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
    """Each as an end that knows who it is, with no delay set and nothing read."""
    guests = Guests()
    listener = loop.listen(guests.append)
    assert listener.place == f"127.0.0.1:{listener.port}"
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        client.sendall(b"hello")
        loop.until(lambda: guests)
        (end,) = guests
        host, port = client.getsockname()
        assert end.peer == f"{host}:{port}"
        assert end.origin == Origin(host, port, "127.0.0.1", listener.port)
        assert end.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert loop.wait(Deferred.fromCoroutine(read_some(loop.reactor, end))) == b"hello"
        end.end_writing()
        end.close()
        assert client.recv(1) == b""
    listener.stop()


def test_ipv6_is_listened_at(loop: Lean) -> None:
    """Written in brackets."""
    guests = Guests()
    listener = loop.listen(guests.append, host="::1")
    assert listener.place == f"[::1]:{listener.port}"
    with socket.create_connection(("::1", listener.port)) as client:
        loop.until(lambda: guests)
        assert guests[0].peer == f"[::1]:{client.getsockname()[1]}"
    guests.clear()
    listener.stop()


def test_both_families_stand_beside_each_other(loop: Lean) -> None:
    """On one port, at all addresses: each is of its own family. Told so, the one of IPv6 takes both."""
    fourth, sixth = Guests(), Guests()
    one = loop.listen(fourth.append, host="0.0.0.0")
    two = loop.listen(sixth.append, one.port, "::")
    for host, guests in (("127.0.0.1", fourth), ("::1", sixth)):
        with socket.create_connection((host, one.port)):
            loop.until(lambda guests=guests: guests)
    for port in (one, two):
        port.stop()
    both = loop.lean.listen("::", 0, 200, sixth.append, both=True)
    with socket.create_connection(("127.0.0.1", both.port)):
        loop.until(lambda: len(sixth) == 2)
    both.stop()
    assert len(fourth) == 1
    fourth.clear()
    sixth.clear()


def test_a_bug_of_the_callers_leaves_nobody_hanging(loop: Lean, capfd: pytest.CaptureFixture[str]) -> None:
    """The client is reset, and the listener stays open."""

    def faulty(end: End) -> None:
        raise ValueError("a bug")

    listener = loop.listen(faulty)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", listener.port)) as client:
            loop.settle()
            assert ending(client) == "reset"
    listener.stop()


def test_a_port_that_is_taken(loop: Lean) -> None:
    """Twisted's exception, with the system's number in it; also for an address that is not here."""
    port = loop.listen(nobody)
    with pytest.raises(CannotListenError) as taken:
        loop.listen(nobody, port.port)
    assert taken.value.socketError.errno == errno.EADDRINUSE
    assert taken.value.port == port.port
    with pytest.raises(CannotListenError) as elsewhere:
        loop.listen(nobody, 0, "192.0.2.1")
    assert elsewhere.value.socketError.errno == errno.EADDRNOTAVAIL
    port.stop()


def test_a_port_is_free_when_stop_listening_returns(loop: Lean) -> None:
    """It can be bound again in the same turn; a second stop does nothing."""
    port = loop.listen(nobody)
    number = port.port
    port.stop()
    port.stop()
    again = loop.listen(nobody, number)
    assert again.port == number
    again.stop()


def test_a_crowd_is_let_in_by_portions(loop: Lean) -> None:
    """64 in one turn, the others in the next; a listener may be closed in the middle of it."""
    guests = Guests()
    port = loop.listen(guests.append)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port.port)))
        loop.reactor.iterate(0)
        assert len(guests) == ACCEPTS
        loop.until(lambda: len(guests) == 100)
        port.stop()
        late = Guests()

        def close(end: End) -> None:
            late.append(end)
            port.stop()

        port = loop.listen(close)
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", port.port)))
        loop.settle()
        assert len(late) == 1
        late.clear()
        guests.clear()


def test_n1_without_descriptors_clients_are_reset_and_it_is_said_once(loop: Lean) -> None:
    """They do not wait for a time-out, the reactor does not spin, and clients are served again afterwards."""
    guests = Guests()
    port = loop.listen(guests.append)
    where = ("127.0.0.1", port.port)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.socket()) for _ in range(100)]
        with no_descriptors():
            for client in crowd:
                client.connect(where)
            loop.settle(quiet=0.05)
        assert [ending(client) for client in crowd] == ["reset"] * 100
        assert guests == []
        assert [type(fact) for fact in loop.told] == [NoDescriptors]
        assert loop.told[0].connections == ACCEPTS  # type: ignore[attr-defined]
        with socket.create_connection(where):
            loop.until(lambda: guests)
        guests.clear()
    port.stop()


def test_n1_without_even_a_spare_descriptor_the_listener_rests(loop: Lean) -> None:
    """Nobody can be turned away then; who waits is served when there are descriptors again."""
    guests = Guests()
    port = loop.listen(guests.append)
    port._spare._number = os.close(port._spare._number)
    with socket.socket() as client:
        with no_descriptors():
            client.connect(("127.0.0.1", port.port))
            loop.settle()
            assert guests == []
            assert port not in loop.reactor.getReaders()
        loop.until(lambda: guests)
        assert [type(fact) for fact in loop.told] == [NoDescriptors]
    guests.clear()
    port.stop()


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
    guests = Guests()
    port = loop.listen(guests.append)
    faulty(port, *NETWORK, *OTHERS, *UNLISTED)
    with socket.create_connection(("127.0.0.1", port.port)):
        loop.until(lambda: guests)
    guests.clear()
    assert loop.told == []
    port.stop()


def test_a_listener_that_only_fails_rests_and_says_so_once(loop: Lean) -> None:
    """No busy loop and no flood of lines; it listens on, and serves whoever waited once it can."""
    guests = Guests()
    port = loop.listen(guests.append)
    sock = faulty(port, ever=errno.EPERM)
    with socket.create_connection(("127.0.0.1", port.port)):
        loop.until(lambda: sock.calls >= 3 * ACCEPTS)
        assert sock.calls == 3 * ACCEPTS
        assert port not in loop.reactor.getReaders()
        where = f"127.0.0.1:{port.port}"
        assert loop.told == [AcceptFailed(where, ACCEPTS, "Operation not permitted")]
        sock.faults = iter(())
        loop.until(lambda: guests)
    guests.clear()
    port.stop()
    assert loop.reactor.getDelayedCalls() == []


def test_a_socket_that_cannot_accept_at_all(loop: Lean) -> None:
    """A datagram socket from a parent that made a mistake: tried again and again, calmly."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        wrong.bind(("127.0.0.1", 0))
        port = loop.lean.adopt(wrong.fileno(), socket.AF_INET, nobody)
        wrong.sendto(b"readable", wrong.getsockname())
        loop.until(lambda: loop.told)
        assert [fact.detail for fact in loop.told] == [os.strerror(errno.EOPNOTSUPP)]  # type: ignore[attr-defined]
        assert port not in loop.reactor.getReaders()
        port.stop()


@pytest.mark.parametrize("number", [errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK])
def test_what_is_fatal_closes_the_listener(loop: Lean, number: int) -> None:
    """It is no socket that listens: it says so, without a traceback, and is gone."""
    guests = Guests()
    port = loop.listen(guests.append)
    where = f"127.0.0.1:{port.port}"
    faulty(port, number)
    with socket.create_connection(("127.0.0.1", port.port)):
        loop.until(lambda: loop.told)
    assert loop.told == [AcceptFailed(where, 1, f"{os.strerror(number)}; nobody is let in there any more")]
    assert port.fileno() == -1
    assert port not in loop.reactor.getReaders()


def test_a_listening_socket_that_somebody_else_shut(loop: Lean) -> None:
    """A parent that has it too may do that; accept says EINVAL from then on."""
    with socket.create_server(("127.0.0.1", 0)) as parent:
        port = loop.lean.adopt(parent.fileno(), socket.AF_INET, nobody)
        parent.shutdown(socket.SHUT_RDWR)
        loop.until(lambda: loop.told)
        assert port.fileno() == -1
        assert "nobody is let in there any more" in loop.told[0].detail  # type: ignore[attr-defined]


def test_one_that_was_shut_is_opened_again_on_its_port(loop: Lean) -> None:
    """And whoever comes then is let in; what it was and how long is said."""
    clock, guests = Clock(), Guests()
    loop.lean.retries = Retries(clock, loop.told.append, lambda: 0.0)
    port = loop.listen(guests.append)
    number = port.port
    faulty(port, errno.EINVAL)
    with socket.create_connection(("127.0.0.1", number)):
        loop.until(lambda: len(loop.told) == 2)
    assert loop.told[0].detail == "Invalid argument; it is opened again"  # type: ignore[attr-defined]
    what = f"port 127.0.0.1:{number}"
    assert loop.told[1] == Trouble(what, "Invalid argument")
    assert not port.is_open
    clock.advance(2)
    assert (port.is_open, port.port) == (True, number)
    assert loop.told[2:] == [TroubleOver(what, 2.0)]
    with socket.create_connection(("127.0.0.1", number)):
        loop.until(lambda: guests)
    guests.clear()
    port.stop()


def test_what_may_pass_is_waited_for(loop: Lean) -> None:
    """Another program has the port, or the address is not here; the owner has a listener all the same."""
    clock, guests = Clock(), Guests()
    loop.lean.retries = Retries(clock, loop.told.append, lambda: 0.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        port = loop.lean.keep("[web main]", "127.0.0.1", number, 5, guests.append)
        assert (port.is_open, port.port, port.place) == (False, number, f"127.0.0.1:{number}")
        clock.advance(2)
        assert loop.told == [Trouble(f"[web main] 127.0.0.1:{number}", "Address already in use")]
    clock.advance(4)
    assert [type(fact) for fact in loop.told] == [Trouble, TroubleOver]
    with socket.create_connection(("127.0.0.1", number)):
        loop.until(lambda: guests)
    guests.clear()
    port.stop()
    elsewhere = loop.lean.keep("[web main]", "192.0.2.1", 2065, 5, nobody, must=True)
    assert list(loop.lean.retries.problems.values()) == ["Cannot assign requested address"]
    elsewhere.stop()
    assert loop.lean.retries.problems == {} and clock.getDelayedCalls() == []


def test_what_does_not_pass_is_an_error(loop: Lean) -> None:
    """As is a port that has to be had at once, and everything where nothing is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        with pytest.raises(CannotListenError):
            loop.lean.keep("x", "127.0.0.1", number, 5, nobody)
        loop.lean.retries = Retries(Clock(), loop.told.append)
        with pytest.raises(CannotListenError):
            loop.lean.keep("x", "127.0.0.1", number, 5, nobody, must=True)
    with pytest.raises(CannotListenError):
        loop.lean.keep("x", "no address", 0, 5, nobody)
    assert loop.lean.retries.problems == {}


def test_a_hang_up_that_was_another_s_closes_no_listener(loop: Lean) -> None:
    """A batch of events may hold one of a descriptor that was closed, whose number a listener has now."""
    guests = Guests()
    port = loop.listen(guests.append)
    loop.reactor._disconnectSelectable(port, CONNECTION_LOST, False)
    with socket.create_connection(("127.0.0.1", port.port)):
        loop.until(lambda: guests)
    guests.clear()
    assert loop.told == []
    port.stop()


def test_one_that_is_lent_lets_nobody_in_until_it_is_back(loop: Lean) -> None:
    """Who connects waits, whatever becomes of the other process."""
    came = Guests()
    listener = loop.listen(came.append)
    lent = listener.lend()
    with socket.create_connection(("127.0.0.1", listener.port)):
        for _ in range(5):
            loop.reactor.iterate(0.01)
        assert came == []
        os.close(lent)
        listener.take_back()
        loop.reactor.iterate(0.1)
        assert len(came) == 1
    came.clear()
    listener.stop()


def test_one_that_is_stopped_while_it_is_lent_is_shut_for_both(loop: Lean) -> None:
    """Its port is free at once, though the other process has not closed its own yet."""
    listener = loop.listen(nobody)
    lent = socket.socket(fileno=listener.lend())
    listener.stop()
    again = loop.listen(nobody, listener.port)
    with pytest.raises(OSError):
        lent.accept()
    lent.close()
    again.stop()


def test_one_that_cannot_be_lent_goes_on_here(loop: Lean, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of a descriptor."""
    came = Guests()
    listener = loop.listen(came.append)

    def full(number: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", full)
        with pytest.raises(OSError):
            listener.lend()
    with socket.create_connection(("127.0.0.1", listener.port)):
        loop.until(lambda: came)
    came.clear()
    listener.stop()
