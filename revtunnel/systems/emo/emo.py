"""The MTConnect EMO proxy's wire: commands of eight bytes, and the in-band end of a data socket's stream.

Rule of this file: a decoder holds at most what is incomplete (8 bytes of a command, 44 of a terminator), and
everything else passes at once.

=============  =========  =====================================================================
bytes          direction  meaning
=============  =========  =====================================================================
``C005010\\n``  a->s       first on a connection: command socket of server port 5010
``P005010\\n``  a->s       first on a connection: a data socket for port 5010
``C000001\\n``  s->a       a client came: data socket 1, a new one or the idle one of that index
``S000001\\n``  a->s       data socket 1 is idle again
``T000001\\n``  both       data socket 1 is to be closed
``PING   \\n``  s->a       are you there
``PONG   \\n``  a->s       I am
``F0000001\\n`` s->a       the port is refused; nine bytes, one digit more than all others
=============  =========  =====================================================================

A data socket carries raw bytes in each direction, then TERMINATOR where a stream ends; it can be used again
after both. A stream that holds the terminator's bytes ends there: the wire has no other way.

Source: wire/emo.md section 1.
"""

import re
from enum import Enum
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.first_bytes import Listens, explained

__all__ = [
    "LEAST_PORT",
    "LONGEST_HELD",
    "REFUSED",
    "TERMINATOR",
    "Emo",
    "EmoCommand",
    "EmoDecoder",
    "EndFinder",
    "encode_emo",
]

LEAST_PORT = 1025  # that the original lets a client register
SIZE = 8  # bytes of every command but REFUSED
TERMINATOR = b"\0\0\0\0\0" + b"1818df499987fab124fac0cfc9edb83fa5578c36"
LONGEST_HELD = len(TERMINATOR) - 1  # bytes that may be the beginning of one
REFUSED = b"F0000001\n"
MAX_NUMBER = 999_999
_NUMBERED = re.compile(rb"([CPSTF])(\d{6})\n", re.ASCII)


class Emo(Enum):
    """A command by its letter, or the whole of a heartbeat."""

    CONNECT = b"C"
    DATA_SOCKET = b"P"
    IDLE = b"S"
    TERMINATE = b"T"
    REFUSED = b"F"
    PING = b"PING   \n"
    PONG = b"PONG   \n"


class EmoCommand(NamedTuple):
    """One command; ``number`` is a port or an index, 0 for heartbeats."""

    kind: Emo
    number: int = 0


def encode_emo(kind: Emo, number: int = 0) -> bytes:
    """The bytes of a command; ``number`` 0 to 999,999.

    Raises:
        ValueError: the number has more than six digits.
    """
    if kind in (Emo.PING, Emo.PONG):
        return bytes(kind.value)
    if kind is Emo.REFUSED:
        return REFUSED
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"{number}: six digits at most")
    return b"%s%06d\n" % (kind.value, number)


class EmoDecoder:
    """Cuts what a command socket says into commands; holds at most one incomplete one. ``at``: who reads."""

    def __init__(self, at: Listens = Listens.EMO) -> None:
        self._buffer = b""
        self._at = at

    @property
    def held(self) -> bytes:
        """What is incomplete; after a ``P`` command, the first bytes of the stream."""
        return self._buffer

    def receive(self, data: bytes) -> None:
        """Take bytes as they come."""
        self._buffer += data

    def next(self) -> EmoCommand | None:
        """The next whole command, or None until more has come.

        Raises:
            RemoteError: these eight bytes are no command; what came before them was given out.
        """
        if len(self._buffer) < SIZE:
            return None
        first, self._buffer = self._buffer[:SIZE], self._buffer[SIZE:]
        if first == REFUSED[:SIZE]:  # the original's ninth byte
            if self._buffer[:1] == b"\n":
                self._buffer = self._buffer[1:]
            return EmoCommand(Emo.REFUSED, 1)
        if first in (Emo.PING.value, Emo.PONG.value):
            return EmoCommand(Emo(first))
        found = _NUMBERED.fullmatch(first)
        if found is None:
            words = f"{first!r} is no command: a letter of CPST, six digits and a line feed"
            raise RemoteError(explained(words, first + self._buffer, self._at))
        return EmoCommand(Emo(found[1]), int(found[2]))


class EndFinder:
    """Finds the terminator in one direction of a data socket and lets all else pass at once.

    A message that ends with NULs would wait for the next one, so its owner may ``release`` them after a
    while; they are then remembered as the possible beginning that they are.
    """

    def __init__(self) -> None:
        self.ended = False
        self._held = b""
        self._released = 0  # how many of the first of these were given out already

    @property
    def held(self) -> int:
        """Bytes held back because they may begin a terminator: 0 to 44."""
        return len(self._held) - self._released

    def release(self) -> bytes:
        """What is held back, if it is nothing but NULs."""
        if self._held.strip(b"\0"):
            return b""
        held, self._released = self._held[self._released :], len(self._held)
        return held

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(bytes of the stream that are certain, bytes that follow the terminator).

        ``ended`` is set by the terminator. Call it no more then, until ``again``.
        """
        data = self._held + data if self._held else data
        end = data.find(TERMINATOR)
        if end >= 0:
            payload = data[self._released : max(end, self._released)]
            self.ended, self._held, self._released = True, b"", 0
            return payload, data[end + len(TERMINATOR) :]
        keep = _may_begin(data)
        certain = len(data) - keep
        payload = data[self._released : certain] if self._released or keep else data
        self._held = data[certain:] if keep else b""
        self._released = max(0, self._released - certain)
        return payload, b""

    def flush(self) -> bytes:
        """What was held back: the connection ended without a terminator."""
        held, self._held, self._released = self._held[self._released :], b"", 0
        return held

    def again(self) -> None:
        """The data socket carries another stream."""
        self.ended = False


def _may_begin(data: bytes) -> int:
    """How many of the last bytes of ``data`` may be the beginning of a terminator."""
    tail = data[-LONGEST_HELD:]
    first = tail.find(b"\0")
    while first >= 0:
        if TERMINATOR.startswith(tail[first:]):
            return len(tail) - first
        first = tail.find(b"\0", first + 1)
    return 0
