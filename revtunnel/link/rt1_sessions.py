"""What is said about remote sessions on an rt1 link: the server asks, the agent answers.

Rule of this file: a question that cannot be read is answered with no, and counts as an oddity.

Source: streams/session_says.py; docs/link-protocol.rst "Sessions".
"""

from revtunnel.ground.errors import RemoteError
from revtunnel.link.mux import Consented, Happening, SessionAsked, SessionOver
from revtunnel.link.rt1_ends import Rt1Ends
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.session_says import SHORTEST, decode_consent, decode_session, encode_consent

__all__ = ["Rt1Sessions"]


class Rt1Sessions(Rt1Ends):
    """Questions and answers; which channel is of which session is said in rt1.py."""

    def session(self, payload: bytes) -> None:
        """Server: ask for a session, or say that it is over."""
        self._turns.control(encode_frame(Command.SESSION, 0, payload))

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
        return [SessionOver(said) if isinstance(said, str) else SessionAsked(said)]

    def _consented(self, frame: Frame, now: float) -> list[Happening]:
        return [Consented(*decode_consent(frame.payload))]
