"""What was said on a data socket is taken back, on an rt1 link: the server asks for it, the agent answers.

Rule of this file: a client's first bytes, which stand behind CONNECT, may go to another socket only when the
agent has said that the target of the first one has had nothing and never will. Questions come one for each
socket that failed a client, so far too many end the link; of those that an agent leaves unanswered the latest
are kept (who asked has a time of his own). An answer that nobody waits for is an oddity.

Source: docs/link-protocol.rst "Data sockets"; ours.
"""

from collections.abc import Callable
from typing import Any

from revtunnel.link.mux import Happening, Recalled, RecallOf
from revtunnel.link.rt1_offers import Rt1Offers
from revtunnel.streams.commands import Command, decode_recalled, encode_recalled, number_of
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.numbers import Tally

__all__ = ["Rt1Recall"]

MOST, WINDOW = 10_000, 60.0  # questions, in seconds; each is answered with 9 bytes
UNANSWERED = 1_000  # questions


class Rt1Recall(Rt1Offers):
    """Asked by the server, answered by the agent. ``early``: both ends said in HELLO that they have it."""

    early = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._asked: dict[int, Callable[[bool], None]] = {}
        self._recalls = Tally(MOST, WINDOW, "questions about data sockets")

    def recall(self, number: int, told: Callable[[bool], None]) -> None:
        """Server: ask for it; ``told`` is called by whoever has the happening that comes of the answer."""
        self._asked[number] = told
        if len(self._asked) > UNANSWERED:
            del self._asked[next(iter(self._asked))]
        self._turns.control(encode_frame(Command.RECALL, 0, number.to_bytes(4, "big")), asks=True)

    def recalled(self, number: int, in_time: bool) -> None:
        """Agent: answer it."""
        self._turns.control(encode_frame(Command.RECALLED, 0, encode_recalled(number, in_time)))

    def _recall(self, frame: Frame, now: float) -> list[Happening]:
        self._recalls.add(now)
        return [RecallOf(number_of(frame.payload))]

    def _recalled(self, frame: Frame, now: float) -> list[Happening]:
        number, in_time = decode_recalled(frame.payload)
        told = self._asked.pop(number, None)
        if told is None:
            return self._glitch(f"RECALLED of data socket {number}, which nobody asked for", now)
        return [Recalled(told, in_time)]
