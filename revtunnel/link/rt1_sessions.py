"""What is said about remote sessions on an rt1 link: the server asks, the agent answers.

Rule of this file: a question that cannot be read is answered with no, and counts as an oddity. So does what
nobody asked for, without a word: it is normal about a session of the link before, and nothing else.

Source: streams/consent_messages.py; docs/link-protocol.rst "Sessions".
"""

from revtunnel.ground.errors import RemoteError
from revtunnel.link.mux import Consented, Happening, SessionAsked, SessionOver
from revtunnel.link.rt1_ends import Rt1Ends
from revtunnel.streams.commands import Command
from revtunnel.streams.consent_messages import (
    SHORTEST,
    decode_consent,
    decode_session,
    encode_consent,
    is_over,
)
from revtunnel.streams.frames import Frame, encode_frame

__all__ = ["Rt1Sessions"]

ANSWERS = 2  # to one question: yes, and later that it is taken back
MOST_DUE = 2048  # of what is still to come, most never does: an agent allows 1024 sessions at once


class Rt1Sessions(Rt1Ends):
    """Questions and answers; which channel is of which session is said in rt1.py."""

    _due = 0  # server: answers, taken back ones among them; agent: ends of what was asked for

    def session(self, payload: bytes) -> None:
        """Server: ask for a session, or say that it is over."""
        if not is_over(payload):
            self._expect(ANSWERS)
        self._turns.control(encode_frame(Command.SESSION, 0, payload), asks=True)

    def consent(self, payload: bytes) -> None:
        """Agent: answer."""
        self._turns.control(encode_frame(Command.CONSENT, 0, payload))

    def _session(self, frame: Frame, now: float) -> list[Happening]:
        try:
            said = decode_session(frame.payload)
        except RemoteError as error:
            if len(frame.payload) < SHORTEST:
                raise
            self.consent(encode_consent(frame.payload[1:SHORTEST].hex(), False, str(error)))
            return self._glitch(str(error), now)
        if not isinstance(said, str):
            self._expect(1)
            return [SessionAsked(said)]
        self._settle(now)
        return [SessionOver(said)]

    def _consented(self, frame: Frame, now: float) -> list[Happening]:
        said = Consented(*decode_consent(frame.payload))
        self._settle(now)
        return [said]

    def _expect(self, count: int) -> None:
        self._due = min(self._due + count, MOST_DUE)

    def _settle(self, now: float) -> None:
        if self._due:
            self._due -= 1
        else:
            self.glitches.add(now)
