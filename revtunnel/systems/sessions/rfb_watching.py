"""What one who may only look says to a screen (RFB): what asks for pictures goes on, all else is dropped.

Rule of this file: what it does not know is a fault, for it could be a key. Versions 3.7 and 3.8, where the
client's part can be read without the server's, at a screen that has them: one of 3.3 reads the same bytes as
other messages. Nobody else is sent away for one who looks (the shared flag).

Source: RFC 6143 sections 7.1 and 7.5; the rfbproto community document for messages 150, 248, 250, 251, 255.
"""

from typing import NamedTuple

__all__ = ["RfbWatching", "is_screen"]

VERSIONS = (b"RFB 003.007\n", b"RFB 003.008\n")
NO_PASSWORD, PASSWORD = 1, 2  # security types whose answers are known
RESPONSE = 16  # bytes of the answer to a password's challenge


class _Kind(NamedTuple):
    """One message: bytes up to its length, those in all; where a count stands, and the bytes of each."""

    passes: bool
    head: int
    counted: tuple[int, int] = (0, 0)  # first byte of a count in the head, and behind the last
    each: int = 1


_KINDS = {
    0: _Kind(True, 20),  # pixel format
    2: _Kind(True, 4, (2, 4), 4),  # encodings
    3: _Kind(True, 10),  # a picture is wanted
    4: _Kind(False, 8),  # key
    5: _Kind(False, 6),  # pointer
    6: _Kind(False, 8, (4, 8)),  # clipboard; a length below zero is its extended form
    150: _Kind(True, 10),  # pictures without asking
    248: _Kind(True, 9, (8, 9)),  # fence
    250: _Kind(False, 4),  # power
    251: _Kind(False, 8, (6, 7), 16),  # size of the desktop
    255: _Kind(False, 12),  # key with its scan code
}


def is_screen(service: str) -> bool:
    """Whether a service is one by its name."""
    return service.lower().startswith("vnc")


class RfbWatching:
    """The client's bytes of one connection."""

    def __init__(self) -> None:
        self._stage = self._version
        self._wanted = 12  # bytes until the stage is asked
        self._said = bytearray()  # of what is not whole
        self._left = 0  # bytes of a message's body
        self._passes = False
        self._screen = b""  # its version

    def heard(self, data: bytes) -> None:
        """What the screen says; its version comes first."""
        self._screen += data[: 12 - len(self._screen)]

    def take(self, data: bytes) -> bytes:
        """What goes on to the screen.

        Raises:
            ValueError: it is not to be read.
        """
        out = bytearray()
        at = 0
        while at < len(data):
            if self._left:
                body = data[at : at + self._left]
                self._left -= len(body)
                out += body if self._passes else b""
                at += len(body)
                continue
            more = data[at : at + self._wanted - len(self._said)]
            self._said += more
            at += len(more)
            if len(self._said) == self._wanted:
                out += self._stage(bytes(self._said))
        return bytes(out)

    def _next(self, stage: object, wanted: int) -> None:
        self._stage = stage  # type: ignore[assignment]
        self._wanted = wanted
        self._said.clear()

    def _version(self, said: bytes) -> bytes:
        if said not in VERSIONS or not said <= self._screen < b"RFB 1":
            raise ValueError("RFB 3.7 or 3.8 wanted of one who watches, and of the screen")
        self._next(self._security, 1)
        return said

    def _security(self, said: bytes) -> bytes:
        if said[0] not in (NO_PASSWORD, PASSWORD):
            raise ValueError(f"security type {said[0]}: none or a password wanted of one who watches")
        if said[0] == PASSWORD:
            self._next(self._answer, RESPONSE)
        else:
            self._next(self._begin, 1)
        return said

    def _answer(self, said: bytes) -> bytes:
        self._next(self._begin, 1)
        return said

    def _begin(self, said: bytes) -> bytes:
        self._next(self._message, 1)
        return b"\x01"

    def _message(self, said: bytes) -> bytes:
        kind = _KINDS.get(said[0])
        if kind is None or (said[0] == 255 and said[1:2] not in (b"", b"\x00")):
            raise ValueError(f"message {said[0]} of a screen is not known")
        if len(said) < kind.head:
            self._wanted = 2 if said[0] == 255 and len(said) == 1 else kind.head
            return b""
        start, end = kind.counted
        count = int.from_bytes(said[start:end], "big", signed=said[0] == 6) if end else 0
        self._left, self._passes = abs(count) * kind.each, kind.passes
        self._next(self._message, 1)
        return said if kind.passes else b""
