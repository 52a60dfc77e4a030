"""What an agent says of its services on an rt1 link: which answer, as it has found by looking.

Rule of this file: what is said of a service that the agent does not offer, or says nothing new, is an oddity;
what changes all the time ends the link.

Source: streams/service_state.py; docs/link-protocol.rst "Services that are looked at".
"""

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.mux import Happening, ServiceSaid
from revtunnel.link.rt1_sessions import Rt1Sessions
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.numbers import Tally
from revtunnel.streams.service_state import ServiceState, decode_service, encode_service

__all__ = ["Rt1Services"]

CHANGES = 1000  # in glitch_window


class Rt1Services(Rt1Sessions):
    """Said by the agent, kept by the server."""

    _changes: Tally | None = None  # made with the first

    def __init__(self, limits: LinkLimits, opens: bool, now: float) -> None:
        super().__init__(limits, opens, now)
        self.offered: frozenset[str] = frozenset()  # server: names that the agent may speak of

    def say_service(self, state: ServiceState) -> None:
        """Agent: whether a service answers."""
        if self.services:
            self._turns.control(encode_frame(Command.SERVICE, 0, encode_service(state)))

    def _service(self, frame: Frame, now: float) -> list[Happening]:
        state = decode_service(frame.payload)
        if state.name not in self.offered or self.service_states.get(state.name) == state:
            return self._glitch(f"SERVICE of {state.name}, which says nothing new", now)
        self._changes = self._changes or Tally(CHANGES, self.limits.glitch_window, "changes of services")
        self._changes.add(now)
        self.service_states[state.name] = state
        return [ServiceSaid(state)]
