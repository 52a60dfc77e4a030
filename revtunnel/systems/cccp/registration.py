"""The registration line of TCXN CCCP: a device says its serial and a return, and is told nothing.

::

    CLD-123456\\r        1 to 64 printable ASCII characters without space, case-sensitive; then CR (0x0D)

The first CR ends the line; every byte behind it is payload, an LF too, unless the listener swallows one LF
directly behind the CR. A serial with a path step (``.`` or ``..`` between slashes) is refused, because
serials end up in commands and URLs of others.

Source: TCXN CCCP, "Registration in Cloud Proxy"; wire/cccp.md section 2; faults.md R3 to R6.
"""

import re

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.first_bytes import Listens, explained

__all__ = ["MAX_LINE", "RegistrationDecoder", "parse_registered"]

MAX_LINE = 64  # characters of a serial
_SERIAL = re.compile(r"[!-~]{1,64}", re.ASCII)
_STEP = re.compile(r"(?:^|/)\.\.?(?:/|$)")


def parse_registered(text: str) -> str:
    """Return ``text`` if a device may register itself by it.

    Raises:
        RemoteError: it may not; the text is shown escaped and cut, so it is safe to log.
    """
    if not _SERIAL.fullmatch(text) or _STEP.search(text):
        raise RemoteError(f"serial {text[:80]!a}: 1 to {MAX_LINE} printable characters without space wanted")
    return text


class RegistrationDecoder:
    """Finds the serial; holds at most 64 bytes before it is there, and nothing after ``take``."""

    __slots__ = ("_held", "_swallow", "serial")

    def __init__(self, swallow_lf: bool = False) -> None:
        self.serial: str | None = None
        self._held = b""
        self._swallow = swallow_lf

    def receive(self, data: bytes) -> bool:
        """Take what came; True once the serial is there.

        Raises:
            RemoteError: it is no serial, or longer than one may be.
        """
        self._held += data
        if self.serial is not None:
            return True
        line, found, _ = self._held[: MAX_LINE + 1].partition(b"\r")
        if not found:
            if len(self._held) > MAX_LINE:
                raise self._refusal(f"no return in {MAX_LINE + 1} bytes: {self._held[:80]!a}")
            return False
        try:
            self.serial = parse_registered(line.decode("latin-1"))
        except RemoteError as error:
            raise self._refusal(str(error)) from None
        self._held = self._held[len(line) + 1 :]
        return True

    def _refusal(self, words: str) -> RemoteError:
        return RemoteError(explained(words, self._held, Listens.CCCP))

    def take(self) -> tuple[bytes, bool]:
        """The payload behind the line, and whether one LF is still to be swallowed if it comes next."""
        payload, self._held = self._held, b""
        if self._swallow and payload:
            return payload.removeprefix(b"\n"), False
        return payload, self._swallow
