"""What a person types in answer to a question of ours, in a terminal that echoes nothing by itself.

Rule of this file: values in, values out. Backspace, Ctrl-U, and Enter do what they do everywhere; Ctrl-C and
Ctrl-D give up. What is typed ahead waits for the next question, up to a limit.

Source: ours.
"""

import codecs
from typing import NamedTuple

__all__ = ["GivenUp", "Typed", "TypedLines"]

MOST = 1024  # characters of an answer, and bytes that are typed ahead
_RUBOUT = "\b \b"


class GivenUp(Exception):
    """The person does not want to."""


class Typed(NamedTuple):
    """What goes to the screen, and the answer; None: it is not whole."""

    shown: str
    answer: str | None


class TypedLines:
    """One question after the other."""

    def __init__(self) -> None:
        self._echo = True
        self._said: list[str] = []
        self._ahead = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def ask(self, echo: bool) -> Typed:
        """A question is put; perhaps it was answered already. Raises GivenUp."""
        self._echo, self._said = echo, []
        ahead, self._ahead = self._ahead, b""
        return self.take(ahead)

    def keep(self, data: bytes) -> None:
        """Nothing is asked now."""
        self._ahead = (self._ahead + data)[:MOST]

    def take(self, data: bytes) -> Typed:
        """More of the answer. Raises GivenUp."""
        shown = ""
        for at, byte in enumerate(data):
            char = self._decoder.decode(bytes((byte,)))
            if char in ("\r", "\n"):
                self._ahead = data[at + 1 :][:MOST]
                return Typed(shown + "\r\n", "".join(self._said))
            if char in ("\x03", "\x04"):
                raise GivenUp
            if char in ("\x7f", "\b", "\x15"):
                gone = self._said[-1:] if char != "\x15" else self._said
                shown += _RUBOUT * len(gone) if self._echo else ""
                self._said = self._said[: len(self._said) - len(gone)]
            elif char and char.isprintable() and len(self._said) < MOST:
                self._said.append(char)
                shown += char if self._echo else ""
        return Typed(shown, None)

    def rest(self) -> bytes:
        """What was typed ahead, when nothing more is asked."""
        ahead, self._ahead = self._ahead, b""
        return ahead
