"""TLS between a connected socket and its link: the agent's step, and the server's desk for those who come.

The rules: no link is told of a connection before both sides have been judged. A server keeps nothing of TLS
for whoever has said nothing yet, answers no byte to what is no TLS, and lets so many shake hands at once;
others wait, unread. Whom it refuses gets an alert and a moment to read it.

Source: twisted.md 0.7, 2.4; faults.md "Pre-auth limits", N34, N36.
"""

import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple
from typing import Protocol as Typing

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from revtunnel.ground.errors import AnsweredOtherwise
from revtunnel.ground.first_bytes import Listens, explained
from revtunnel.sockets.ends import End, TlsEnd
from revtunnel.sockets.stages import Stage, part_unread, readable, writable
from revtunnel.sockets.tls.certificates import CertificateRefused, PeerCertificate
from revtunnel.sockets.tls.peer_verification import BY_ANOTHER, HUNG_UP, Guard, Identity, tls_fault

__all__ = ["Heard", "Secured", "TlsFailed", "TlsHandshakes", "dial_tls"]

HANDSHAKE = 0x16  # first byte of a TLS connection: a record with a ClientHello
ALERT = 0x15  # the same of an alert
FIRST = 80  # bytes that are looked at, to name what is no TLS
CROWDED = "its turn for a TLS handshake did not come"


class Heard(Typing):
    """To be told of what comes."""

    def __call__(self, waits: bool = False) -> None:
        """Something came; ``waits``: it is our turn now."""


class TlsFailed(AnsweredOtherwise):
    """No TLS with this peer. ``reason`` is a word: "certificate", "tls", "lost", "overloaded"."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(errno.EPROTO, detail)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.strerror)


class Secured(NamedTuple):
    """A connection whose two sides know each other."""

    end: TlsEnd
    peer: PeerCertificate | None  # None: an agent without a certificate, where that is allowed


async def shake(reactor: Any, end: TlsEnd, guard: Guard, server: str = "") -> Secured:
    """The handshake and the verdict; the end is left as it is when that fails.

    ``server`` is whom an agent dials, who looks what is there instead where it is no TLS.

    Raises:
        TlsFailed: the other side was refused, refused us, or did not speak TLS.
    """
    first = _peeked(end.sock) if server else b""
    try:
        while not end.handshake():
            await (writable if end.reads_when_writable else readable)(reactor, end)
            first = first or (_peeked(end.sock) if server else b"")
        peer = guard.verdict(end.connection)
    except (OSError, CertificateRefused) as error:
        if guard.fault:
            raise TlsFailed("certificate", _on_the_way(guard.fault, server)) from None
        words = tls_fault(error)
        if server:
            words = _no_tls(words, first)
        raise TlsFailed("certificate" if "certificate" in words else "tls", words) from None
    return Secured(end, peer)


def _peeked(sock: socket.socket) -> bytes:
    try:
        return sock.recv(FIRST, socket.MSG_PEEK)
    except OSError:
        return b""


# ---- the agent


def _no_tls(words: str, first: bytes) -> str:
    """What failed, and what is there if it is no TLS."""
    if not first and words == HUNG_UP:
        return f"{words}: does it speak TLS? See tls in [agent]"
    return words if not first or first[0] in (HANDSHAKE, ALERT) else explained(words, first, Listens.SERVER)


def _on_the_way(fault: str, server: str) -> str:
    """Whose certificate that may be."""
    if not server or BY_ANOTHER not in fault:
        return fault
    return f"{fault}: another server, or who opens TLS on the way, which has to leave {server} alone"


def dial_tls(reactor: Any, identity: Identity, name: str, begun: Callable[[], None]) -> Stage:
    """TLS with the server called ``name``; ``begun`` is called when it is TLS's turn.

    TlsFailed: it is another server, or it does not want us.
    """

    async def stage(plain: End) -> End:
        begun()
        connection, guard = identity.connect(plain.sock, name)
        end = TlsEnd(connection, plain.sock, plain.peer)
        try:
            return (await shake(reactor, end, guard, name)).end
        except BaseException:
            end.abort()
            raise

    return stage


# ---- the server


class TlsHandshakes:
    """All TLS handshakes of one server. ``most`` says how many may be under way."""

    def __init__(self, reactor: Any, most: Callable[[], int]) -> None:
        self.running = 0
        self._handing_on = False
        self._reactor = reactor
        self._most = most
        self._waiting: deque[Deferred[None]] = deque()

    def serve(
        self, end: End, identity: Identity, seconds: float, heard: Heard = lambda waits=False: None
    ) -> "Deferred[Secured]":
        """Take a plain end to TLS within ``seconds``; ``heard`` is told of its first byte, and of its turn.

        Fails with TlsFailed, TimeoutError (whose text says what was waited for) or CancelledError; the socket
        is closed then.
        """
        stage = ["nothing came"]

        def too_late(result: Any, timeout: float) -> Any:
            waited = isinstance(result, Failure) and result.check(CancelledError)
            if waited and stage[0] == CROWDED:  # ours, not the agent's
                return Failure(TlsFailed("overloaded", f"{CROWDED} in {timeout:g} s"))
            return Failure(TimeoutError(f"{stage[0]} in {timeout:g} s")) if waited else result

        serving = Deferred.fromCoroutine(self._serve(end, identity, stage, heard))
        return serving.addTimeout(seconds, self._reactor, too_late)

    async def _serve(self, end: End, identity: Identity, stage: list[str], heard: Heard) -> Secured:
        try:
            await self._first_byte(end)
            heard(True)
            stage[0] = CROWDED
            await self._turn()
            heard(False)
            stage[0] = "it did not finish its TLS handshake"
            try:
                connection, guard = identity.accept(end.sock)
                origin, end = end.origin, TlsEnd(connection, end.sock, end.peer)
                end.origin = origin
                return await shake(self._reactor, end, guard)
            finally:
                self._done()
        except TlsFailed:
            await part_unread(self._reactor, end)
            raise
        except BaseException:
            end.abort()
            raise

    async def _first_byte(self, end: End) -> None:
        """Wait for it, and leave it where it is. What is no TLS gets no answer, but is named in the log."""
        await readable(self._reactor, end)
        try:
            first = end.sock.recv(FIRST, socket.MSG_PEEK)
        except OSError:  # cut
            first = b""
        if not first:
            raise TlsFailed("lost", "it hung up without a word")
        if first[0] != HANDSHAKE:
            words = f"this is no TLS: it begins with {first[0]:#04x}"
            raise TlsFailed("tls", explained(words, first, Listens.TLS))

    async def _turn(self) -> None:
        """Wait until fewer than the limit shake hands."""
        while self.running >= self._most():
            turn: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(turn)
            await turn
        self.running += 1

    def _done(self) -> None:
        """Give the turn to whoever waits; one that fails at once comes here again, and finds us at it."""
        self.running -= 1
        if self._handing_on:
            return
        self._handing_on = True
        while self._waiting and self.running < self._most():
            self._waiting.popleft().callback(None)
        self._handing_on = False
