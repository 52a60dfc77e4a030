"""What is kept of a remote session that runs, beside its life: its seats, their connections, who began it.

Rule of this file: values, and the form of a connection; live_sessions.py decides.

Source: next/remote-sessions.md section 3; ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from typing import Protocol as Typing

from revtunnel.ground.reasons import Ended
from revtunnel.systems.sessions.session_life import RemoteSession, Seat
from revtunnel.trust.user_tokens import Login

__all__ = ["HOW_ENDED", "SERVICES", "Line", "Live", "Seated", "Start"]

SERVICES = 64  # of one session
# what the end of a session, or of somebody's part in it, is to its channels
HOW_ENDED = {
    "idle": Ended.IDLE,
    "maximum": Ended.TIMED_OUT,
    "revoked": Ended.REFUSED,
    "muted": Ended.NOT_ALLOWED,
    "device-gone": Ended.LINK_LOST,
    "device-timeout": Ended.LINK_LOST,
    "stopping": Ended.LINK_LOST,
}  # all others: OPERATOR


class Line(Typing):
    """The connection of one seat; it calls ``LiveSessions.left`` once, when it is over."""

    peer: str  # HOST:PORT of the person's side

    def moved(self) -> tuple[int, int]:
        """Payload bytes so far, to the device and to the client."""

    def connections(self) -> int:
        """How many were opened to services."""

    def say(self, said: dict[str, Any]) -> None:
        """A command for its program, where it takes any."""

    def end(self, word: str, detail: str) -> None:
        """Cut it, and say why where that is possible."""

    def look(self, now: float) -> None:
        """A second has passed: end what takes too long."""


class Start(NamedTuple):
    """What somebody asks for."""

    serial: str
    services: tuple[str, ...]
    private: bool = False
    take_over: bool = False


@dataclass(slots=True)
class Seated:
    """Who has a seat, and what is counted of him already."""

    seat: Seat
    line: Line
    to_device: int = 0
    to_client: int = 0


@dataclass(slots=True)
class Live:
    """What is kept of a session that runs, beside its life."""

    session: RemoteSession
    login: Login | None  # of the owner; None: he came by invitation
    peer: str  # who started it
    number: int  # in listings
    until: float | None  # wall clock: rights have to be asked for again then
    connections: int = 0
    device: Seat | None = None
    seated: dict[int, Seated] = field(default_factory=dict)
    answered: Callable[[], None] | None = None  # called when the device's site has answered, or too late

    def tell(self) -> None:
        """Whoever waits for the device's site hears that it has answered, or too late."""
        answered, self.answered = self.answered, None
        if answered is not None:
            answered()

    def sooner(self, until: float | None) -> None:
        """Rights have to be asked for again by then."""
        if until is not None and (self.until is None or until < self.until):
            self.until = until
