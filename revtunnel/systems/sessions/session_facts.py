"""What happened to remote sessions and to those who wanted one; payload, tokens and nonces never appear.

Source: ground/facts.py; ours.
"""

from dataclasses import dataclass

from revtunnel.ground.facts import Fact, Severity

__all__ = ["PersonRefused", "SessionEnded", "SessionStarted"]


@dataclass(frozen=True, slots=True)
class SessionStarted(Fact):
    """A person was granted the use of some services of a device."""

    word = "session-started"
    session: str
    user: str
    serial: str
    services: tuple[str, ...]
    peer: str


@dataclass(frozen=True, slots=True)
class SessionEnded(Fact):
    """It is over."""

    word = "session-ended"
    session: str
    user: str
    serial: str
    reason: str  # a word: "owner", "idle", "maximum", "revoked", "device-gone", ...
    detail: str
    seconds: float
    connections: int
    bytes_to_device: int
    bytes_to_client: int


@dataclass(frozen=True, slots=True)
class PersonRefused(Fact):
    """Somebody may not; an empty user: nobody knows who it was."""

    word = "person-refused"
    severity = Severity.WARN
    action: str  # "login", "start", "enter", "share", "end"
    user: str
    serial: str
    services: tuple[str, ...]
    peer: str
    reason: str  # a word: "no-grant", "offline", "used", "expired", "revoked", "audit", ...
