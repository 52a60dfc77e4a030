"""Messages with descriptors between processes of one daemon, by a UNIX socket that nobody else can open.

A message is a name and values, pickled: both ends are this program, one is the other's child. It has its size
and the number of its descriptors in front. The rules: messages arrive whole and in order, each with its own
descriptors; whoever sends gives them away, and they are closed here once the kernel has them. One for which
the receiver has no room, or the kernel on the way to it, is -1 there, and nothing else is lost by that.

The parent never waits: what a worker does not take is held, LIMIT bytes at most, and then the worker is lost;
``giving`` says how many descriptors are among that.
A worker waits for the parent where it needs an answer (``call``), as a server without workers waits for its
own function; messages that come meanwhile are kept for the next turn.

Source: unix(7), SCM_RIGHTS: descriptors come with the first byte that was sent beside them; ours.
"""

import array
import errno
import os
import pickle
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import LocalError

__all__ = ["GONE", "DescriptorPipe", "Message", "PipeLost", "WaitingPipe", "pipe_pair"]

GONE = "the other process is gone"  # why a pipe is lost, most often
LIMIT = 64 * 1024 * 1024  # bytes that wait for a worker
READ = 256 * 1024  # bytes of one reading
_buffer = memoryview(bytearray(READ))  # of all pipes of the process: copied before the next reading
MOST = 64  # descriptors of one message: the kernel takes 253 at once, a listener as many in a turn
_HEAD = struct.Struct("!IBB")  # bytes of the message, its descriptors, those that the kernel did not take
_ROOM = socket.CMSG_SPACE(MOST * array.array("i").itemsize)

Message = tuple[str, tuple[Any, ...], list[int]]  # its name, its values, its descriptors; -1: no room for it


class PipeLost(ConnectionError):
    """The other process is gone, or did not take what it was told."""


def pipe_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _packed(name: str, values: tuple[Any, ...], count: int) -> bytes:
    told = pickle.dumps((name, values), pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(len(told), count, 0) + told


def _sent(sock: socket.socket, told: memoryview, given: list[int]) -> tuple[memoryview, int]:
    """Send the beginning of a message, or more of it: what it is by now, and how much of that was taken."""
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else []
    try:
        return told, sock.sendmsg([told], beside)
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS:  # it holds as many of one user as one process may have
            raise
    size, count, _ = _HEAD.unpack_from(told)
    told = memoryview(_HEAD.pack(size, 0, count) + told[_HEAD.size :])
    return told, sock.sendmsg([told])


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        with suppress(OSError):
            os.close(each)


class _Incoming:
    """Bytes and descriptors as they come, cut into messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = bytearray()
        self._descriptors: deque[int] = deque()

    def read(self, flags: int = 0) -> Iterator[Message]:
        """One reading. BlockingIOError: nothing; PipeLost: the other end is gone."""
        try:
            asked = flags | socket.MSG_CMSG_CLOEXEC
            size, beside, seen, _ = self._sock.recvmsg_into([_buffer], _ROOM, asked)
        except ConnectionError:
            raise PipeLost(GONE) from None
        for level, kind, told in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(told[: len(told) - len(told) % found.itemsize])
                self._descriptors.extend(found)
        if not size:
            raise PipeLost(GONE)
        self._bytes += _buffer[:size]
        if seen & socket.MSG_CTRUNC:
            self._miss()
        return self._messages()

    def _miss(self) -> None:
        """No room was left for some of the message that came last: the kernel reads no further."""
        at = owed = 0
        while at + _HEAD.size <= len(self._bytes):
            size, count, _ = _HEAD.unpack_from(self._bytes, at)
            at, owed = at + _HEAD.size + size, owed + count
        if at < len(self._bytes):
            raise PipeLost("descriptors could not be taken, nobody knows of how many")
        self._descriptors.extend([-1] * (owed - len(self._descriptors)))

    def _messages(self) -> Iterator[Message]:
        while len(self._bytes) >= _HEAD.size:
            size, count, missing = _HEAD.unpack_from(self._bytes)
            if len(self._bytes) < _HEAD.size + size:
                return
            name, values = pickle.loads(self._bytes[_HEAD.size : _HEAD.size + size])
            del self._bytes[: _HEAD.size + size]
            yield name, values, [self._descriptors.popleft() for _ in range(count)] + [-1] * missing

    def close(self) -> None:
        """Close what nobody has taken."""
        _close([*self._descriptors])


@implementer(IReadWriteDescriptor)
class DescriptorPipe:
    """The parent's end. ``received`` is told each message, ``lost`` once why there are no more."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        received: Callable[[Message], None],
        lost: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reactor = reactor
        self._received = received
        self._lost = lost
        self._incoming = _Incoming(sock)
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self._held = 0
        self.giving = 0  # descriptors that wait
        self._over = False
        reactor.addReader(self)

    def send(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Say something; after the end nothing is said, and the descriptors are closed."""
        given = [*descriptors]
        if self._over:
            _close(given)
            return
        told = memoryview(_packed(name, values, len(given)))
        self._waiting.append((told, given))
        self._held += len(told)
        self.giving += len(given)
        if len(self._waiting) == 1:
            self.doWrite()
            if self._waiting and not self._over:
                self._reactor.addWriter(self)
        elif self._held > LIMIT:
            self.end(f"it did not take {self._held} bytes")

    def wait(self, seconds: float) -> None:
        """Until something was heard, while no reactor runs; at most so long."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        for _, events in poll.poll(seconds * 1000):
            if events & select.POLLOUT:
                self.doWrite()
            if events & ~select.POLLOUT:
                self.doRead()

    def end(self, why: str = "") -> None:
        """Say and hear no more."""
        if self._over:
            return
        self._over = True
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        for _, given in self._waiting:
            _close(given)
        self._waiting.clear()
        self.giving = 0
        self._incoming.close()
        self._sock.close()
        self._lost(why)

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._sock.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: an exception of ours, which it has logged."""
        self.end("a fault of its parent")

    def doRead(self) -> None:
        """Twisted calls this."""
        try:
            for message in self._incoming.read():
                if self._over:
                    _close(message[2])
                else:
                    self._received(message)
        except BlockingIOError:
            return
        except PipeLost as error:
            self.end(str(error))

    def doWrite(self) -> None:
        """Twisted calls this."""
        while self._waiting and not self._over:
            told, given = self._waiting[0]
            try:
                told, sent = _sent(self._sock, told, given)
            except BlockingIOError:
                return
            except ConnectionError:
                self.end(GONE)
                return
            except OSError as error:
                self.end(error.strerror or str(error))
                return
            _close(given)
            self.giving -= len(given)
            self._held -= sent
            if sent < len(told):
                self._waiting[0] = told[sent:], []
                return
            self._waiting.popleft()
        self._reactor.removeWriter(self)


@implementer(IReadWriteDescriptor)
class WaitingPipe:
    """A worker's end: it waits until the parent has taken what it says."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        received: Callable[[Message], None],
        lost: Callable[[str], None],
    ) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._reactor = reactor
        self._received = received
        self._lost = lost
        self._incoming = _Incoming(sock)
        self._later: deque[Message] = deque()
        self._calls = 0
        reactor.addReader(self)

    def send(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Say something."""
        given = [*descriptors]
        told = memoryview(_packed(name, values, len(given)))
        try:
            told, sent = _sent(self._sock, told, given)
            self._sock.sendall(told[sent:])
        except OSError:
            self._lost("its parent is gone")
        finally:
            _close(given)

    def call(self, name: str, *values: Any) -> Any:
        """What the parent answers. PipeLost: it is gone; LocalError: it could not, and has logged why."""
        self._calls += 1
        self.send(name, self._calls, *values)
        while True:
            answer = None
            for message in self._incoming.read():
                if message[0] == "answer" and message[1][0] == self._calls:
                    answer = message[1][1]
                    continue
                if not self._later:
                    self._reactor.callLater(0, self._catch_up)
                self._later.append(message)
            if answer is not None:
                if not answer:
                    raise LocalError(f"the parent failed at {name}")
                return answer[0]

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._sock.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: an exception of ours, which it has logged."""
        self._lost("a fault of its own")

    def doWrite(self) -> None:
        """Twisted never calls this."""

    def doRead(self) -> None:
        """Twisted calls this."""
        try:
            self._later.extend(self._incoming.read(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except PipeLost as error:
            self._lost(str(error))
            return
        self._catch_up()

    def _catch_up(self) -> None:
        while self._later:
            self._received(self._later.popleft())
