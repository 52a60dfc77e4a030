"""One connected socket, plain or TLS: reads, writes and endings told apart. No Twisted, no callbacks.

The rules: nothing blocks; an end in order (FIN; over TLS: close_notify) is never mistaken for a cut (RST;
over TLS also a FIN without close_notify, an alert, garbage), and a cut is always an OSError with a plain
sentence (``said``), never an exception of the TLS engine. The two directions end independently, over TLS as
well: TLS 1.3 goes on reading after our close_notify and writing after theirs.

Traps stepped around: the kernel ends the sockets of a killed process with FIN, so a plain socket is set to
end with a reset until ``close``. An ending that the engine found behind good bytes is not told by the kernel
a second time, so it is kept here and ``pending`` says so. An engine that has lost its socket would use the
number of whoever has it next, so a closed end has no engine.

The engine works on the socket itself. Over memory BIOs, 256 KiB a system call, one stream on loopback ran at
0.8 to 1.7 GB/s against 1.6 to 1.9, and a connection keeps the largest BIO it ever needed.

Source: ours; performance.md; faults.md N26-N28; RFC 8446 section 6.1 for the two directions of TLS 1.3.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any, NoReturn

from OpenSSL import SSL

from revtunnel.ground.origin import Origin, origin_of
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import place
from revtunnel.sockets.hangups import is_cut
from revtunnel.sockets.tls_records import RECORD, address_of, fault_of, read_records, write_records

__all__ = [
    "BROKE_TLS",
    "CUT",
    "RECORD",
    "End",
    "PlainEnd",
    "TlsEnd",
    "ends_with_reset",
    "said",
    "sentence",
    "set_options",
    "tune",
]

IOV_MAX = 1024
NOTSENT = 512 * 1024  # bytes the kernel may hold unsent (TCP_NOTSENT_LOWAT): as much as a relay moves at once
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close, also that of a killed process, is a reset
_IN_ORDER = struct.pack("ii", 0, 0)
_CORKED = ((socket.IPPROTO_TCP, getattr(socket, "TCP_CORK", 3), 1),)
_UNCORKED = ((socket.IPPROTO_TCP, getattr(socket, "TCP_CORK", 3), 0),)


class End:
    """A socket's end, as relays and transports use it. Not thread-safe; every call may raise OSError: a cut.

    ``reads_when_writable``: the last ``read_into`` (or ``handshake``) waits until the socket is writable;
    ``writes_when_readable``: the last ``write`` (or ``end_writing``) waits until it is readable. TLS only.
    """

    __slots__ = (
        "_origin",
        "is_watched",
        "peer",
        "reads_when_writable",
        "sock",
        "tls_version",
        "writes_when_readable",
    )
    gathers = False  # it has ``write_pieces``
    # a reading that leaves more than so many bytes of its room free has left nothing; None: that says nothing
    slack: int | None = None
    close_ends = False  # ``close`` says our end of file, if nothing is unread

    def __init__(self, sock: socket.socket, peer: str = "") -> None:
        if sock.gettimeout() != 0.0:
            sock.setblocking(False)
        self.sock = sock
        self.is_watched = False  # by watch.py, whoever is told
        self.peer = peer or _written(sock)  # host:port
        self.tls_version = ""  # such as TLSv1.3, when that is decided
        self._origin: Origin | None = None
        self.reads_when_writable = False
        self.writes_when_readable = False

    def fileno(self) -> int:
        """The descriptor; -1 once closed or aborted."""
        return self.sock.fileno()

    @property
    def origin(self) -> Origin | None:
        """Its client's address and the one that he dialled; None: it has none, or is gone.

        Set by whoever was told of another than the kernel's.
        """
        if self._origin is None and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                self._origin = origin_of(*self.sock.getpeername()[:2], *self.sock.getsockname()[:2])
        return self._origin

    @origin.setter
    def origin(self, origin: Origin | None) -> None:
        self._origin = origin

    @property
    def engine(self) -> int | None:
        """For the data plane: where its TLS engine is, 0: it has none; None: it stays with Python for now."""
        return 0

    def broken(self, number: int) -> OSError:
        """What the data plane says of a cut, by that number."""
        return OSError(number, os.strerror(number))

    @property
    def pending(self) -> bool:
        """Whether ``read_into`` has something for which the descriptor will not be reported readable."""
        return False

    @property
    def fin_cuts(self) -> bool:
        """Whether ends of file are in band, so that the kernel's, before ours was said, is a cut."""
        return False

    @property
    def was_cut(self) -> bool:
        """Whether the other side has reset the connection, and not behind its word that it has had all."""
        return is_cut(self.sock)

    def read_into(self, view: memoryview) -> int | None:
        """Read up to ``len(view)`` bytes, at least RECORD of room: how many; 0: the end; None: nothing now.

        ``slack`` says when there was no more, except what ``pending`` says.
        """
        raise NotImplementedError

    def write(self, data: bytes | memoryview) -> int:
        """Write some bytes (``data`` is not empty) and say how many were taken; 0: none now.

        What was not taken must be the beginning of the next write, and none of it may be left out: TLS has
        perhaps encrypted and begun to send it.
        """
        raise NotImplementedError

    def write_pieces(self, pieces: list[bytes | memoryview]) -> int:
        """As ``write`` of all of them, one behind the other; only where it ``gathers``."""
        raise NotImplementedError

    def end_writing(self) -> bool:
        """Send our end of file behind all that was taken; False: call again when writable.

        Not before the last write was taken whole. Reading goes on.
        """
        raise NotImplementedError

    def beat(self) -> None:
        """Say something that is no byte of the stream, for whoever cuts what is silent; TCP has keepalive."""

    def is_parting(self) -> None:
        """It ends in order from now on, also by the death of this process."""
        _linger(self.sock, _IN_ORDER)

    def because(self, reason: Ended, detail: str = "") -> None:
        """Why ``abort`` comes next, for an end that can say it; TCP and TLS cannot."""

    def close(self) -> None:
        """Release the descriptor; after our end of file that is in order. Never raises."""
        self.sock.close()

    def abort(self) -> None:
        """Release the descriptor; the other side sees a reset. Never raises."""
        _linger(self.sock, _RESET)
        self.sock.close()


class PlainEnd(End):
    """TCP, or a UNIX socket (which has no reset: its abort is seen as one only behind unread bytes)."""

    __slots__ = ()
    gathers = True
    slack = 0
    close_ends = True

    def __init__(self, sock: socket.socket, peer: str = "", inherits: bool = False) -> None:
        """``inherits``: it was accepted from a socket that ``ends_with_reset``."""
        super().__init__(sock, peer)
        if not inherits:
            ends_with_reset(sock)

    def read_into(self, view: memoryview) -> int | None:
        """As ``End`` says; one system call."""
        try:
            return self.sock.recv_into(view)
        except BlockingIOError:
            return None

    def write(self, data: bytes | memoryview) -> int:
        """As ``End`` says; one system call."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def write_pieces(self, pieces: list[bytes | memoryview]) -> int:
        """As ``End`` says; one system call, of at most 1,024 pieces (IOV_MAX)."""
        try:
            return self.sock.sendmsg(pieces if len(pieces) <= IOV_MAX else [b"".join(pieces)])
        except BlockingIOError:
            return 0

    def end_writing(self) -> bool:
        """As ``End`` says: FIN."""
        self.sock.shutdown(socket.SHUT_WR)
        return True

    def close(self) -> None:
        """As ``End`` says."""
        self.is_parting()
        self.sock.close()


class TlsEnd(End):
    """TLS 1.3 on a connected TCP socket; ``handshake`` comes before everything else."""

    __slots__ = ("_cut", "_ended", "_parting", "_why", "connection")
    slack = RECORD

    def __init__(self, connection: SSL.Connection, sock: socket.socket, peer: str = "") -> None:
        """``connection`` was made on this very socket, and knows which side it is: see ``accepting``."""
        super().__init__(sock, peer)
        _linger(sock, _IN_ORDER)  # a plain end, before the handshake, had it reset; TLS tells a cut by itself
        self.connection: Any = connection  # _NO_ENGINE once closed
        self._ended = False  # their close_notify came
        self._parting = False  # our close_notify is with the engine, not yet with the kernel
        self._cut: OSError | None = None  # found behind good bytes, to be raised by the next read
        self._why: OSError | None = None  # what the engine said of the fault, which it says once

    @classmethod
    def accepting(cls, context: SSL.Context, sock: socket.socket, peer: str = "") -> "TlsEnd":
        """The server's side of TLS."""
        connection = SSL.Connection(context, sock)
        connection.set_accept_state()
        return cls(connection, sock, peer)

    @classmethod
    def connecting(
        cls, context: SSL.Context, sock: socket.socket, name: str = "", peer: str = ""
    ) -> "TlsEnd":
        """The client's side; ``name`` (a host name, no address, ASCII) is what the server is told."""
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        if name:
            connection.set_tlsext_host_name(name.encode("ascii"))
        return cls(connection, sock, peer)

    def handshake(self) -> bool:
        """Go on with the handshake: True once done; else call again when readable (or as the flag says)."""
        self.reads_when_writable = False
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.WantWriteError:
            self.reads_when_writable = True
            return False
        except SSL.Error as error:
            raise self._fault(error) from None
        self.tls_version = self.connection.get_protocol_version_name()
        return True

    @property
    def engine(self) -> int | None:
        """As ``End`` says."""
        waits = self.reads_when_writable or self.writes_when_readable or self._parting
        return None if waits or self._cut is not None else address_of(self.connection)

    def broken(self, number: int) -> OSError:
        """As ``End`` says: an error of the system, or of TLS."""
        error = fault_of(number)
        return super().broken(number) if error is None else sentence(error)

    @property
    def pending(self) -> bool:
        """As ``End`` says: decrypted bytes, or an ending that was found behind the bytes read last."""
        return self._cut is not None or self._ended or self.connection.pending() > 0

    def read_into(self, view: memoryview) -> int | None:
        """As ``End`` says; record by record while there is room for a whole one."""
        if self._cut is not None:
            raise self._cut
        if self._ended:
            return 0
        self.reads_when_writable = False
        got, stopped = read_records(self.connection, view)
        if isinstance(stopped, SSL.WantWriteError):
            self.reads_when_writable = True
        elif isinstance(stopped, SSL.ZeroReturnError):
            self._ended = True
            return got
        elif stopped is not None and not isinstance(stopped, SSL.WantReadError):
            self._cut = self._fault(stopped)
            if not got:
                raise self._cut
        return got or None

    def write(self, data: bytes | memoryview) -> int:
        """As ``End`` says; record by record, which the kernel sends together."""
        self.writes_when_readable = False
        if len(data) > RECORD:
            set_options(self.sock, _CORKED)
            taken, stopped = write_records(self.connection, data)
            set_options(self.sock, _UNCORKED)
        else:
            taken, stopped = write_records(self.connection, data)
        if isinstance(stopped, SSL.WantReadError):
            self.writes_when_readable = True
        elif stopped is not None and not isinstance(stopped, SSL.WantWriteError):
            fault = self._fault(stopped)
            if not taken:
                raise fault  # else the next write meets it again
        return taken

    def end_writing(self) -> bool:
        """As ``End`` says: close_notify."""
        self.writes_when_readable = False
        try:
            if self._parting or not self.connection.get_shutdown() & SSL.SENT_SHUTDOWN:
                self._parting = True
                self.connection.shutdown()  # a call too many would read, and drop what it reads
        except SSL.WantWriteError:
            return False
        except SSL.WantReadError:
            pass  # that waits for theirs
        except SSL.Error as error:
            raise self._fault(error) from None
        self._parting = False
        return True

    def _fault(self, error: SSL.Error) -> OSError:
        """What happened; of an engine that failed before, and has no more to say, what it said then."""
        if self._why is None or error.args != ([],):
            self._why = sentence(error)
        return self._why

    def close(self) -> None:
        """As ``End`` says."""
        self.connection = _NO_ENGINE
        super().close()

    def abort(self) -> None:
        """As ``End`` says."""
        self.connection = _NO_ENGINE
        super().abort()


class _NoEngine:
    """What a closed end has for an engine."""

    def pending(self) -> int:
        """Nothing any more."""
        return 0

    def __getattr__(self, name: str) -> NoReturn:
        raise OSError(errno.EBADF, "the connection is closed")


_NO_ENGINE = _NoEngine()


CUT = "cut the connection"  # where an end in order was owed; a reason may follow
BROKE_TLS = "broke TLS"
_HOLLOW = ("record layer failure",)  # what OpenSSL adds to a reason, and tells nobody anything
_SYSTEM = {
    errno.ECONNRESET: "reset the connection",
    errno.EPIPE: "reset the connection",
    errno.ECONNREFUSED: "refused the connection",
    errno.ETIMEDOUT: "did not answer any more",
}


def said(error: OSError) -> str:
    """What the other side did, behind its name, or what failed: plain words without an error number.

    What the system says of some numbers is replaced; a sentence of our own stays as it is.
    """
    system = error.errno is not None and error.strerror == os.strerror(error.errno)
    words = _SYSTEM.get(error.errno or 0) if system else None
    return words or error.strerror or str(error) or type(error).__name__


_PROMPT = (
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), NOTSENT),
)
_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4), 30),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 5), 10),
)


def tune(handle: Any, within: bool = False) -> None:
    """Set what every TCP socket of ours has: no delay, a bound on unsent bytes, keepalive.

    Urgent data stays among the other bytes, in its place; without that the kernel takes its last byte out.

    Accepted sockets inherit all of it from a listening one, so that one call may do for many. What is no TCP
    socket is left alone. No TCP_USER_TIMEOUT: it also ends a living program that takes nothing for that long
    (a paused client, or a data socket that carries its pause), so only links have it.

    ``within``: it stays within this machine, where nobody is lost without the kernel's knowing.
    """
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        set_options(handle, _PROMPT if within else _PROMPT + _ALIVE)


def set_options(sock: socket.socket, options: Iterable[tuple[int, int, int | bytes]]) -> None:
    """Level, number and value of each; what this kernel does not know is left out."""
    for level, number, value in options:
        try:  # contextlib.suppress costs more than the call
            sock.setsockopt(level, number, value)
        except OSError:
            continue


def ends_with_reset(sock: socket.socket) -> None:
    """Have it, and what is accepted from it, end with a reset, also by the death of this process."""
    _linger(sock, _RESET)


def sentence(error: SSL.Error) -> OSError:
    """What the TLS engine says, as an OSError."""
    if isinstance(error, SSL.SysCallError):
        number = error.args[0]
        if number > 0:
            return OSError(number, os.strerror(number))
        return ConnectionResetError(errno.ECONNRESET, f"{CUT}: no TLS close_notify")
    reasons = [entry[-1] for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    words = ", ".join(each for each in reasons if each and each not in _HOLLOW) or "unknown fault"
    return ConnectionAbortedError(errno.EPROTO, f"{BROKE_TLS}: {words}")


def _linger(sock: socket.socket, how: bytes) -> None:
    set_options(sock, ((socket.SOL_SOCKET, socket.SO_LINGER, how),))  # of no effect on a UNIX socket


def _written(sock: socket.socket) -> str:
    """``host:port`` of the other side."""
    try:
        address = sock.getpeername()
    except OSError:  # already reset
        return "?"
    if not isinstance(address, tuple):
        return f"unix:{os.fsdecode(address or b'')}"
    return place(*address[:2])
