"""What happened at the CAMEO relays; facts like those of facts.py, and by the same rule.

``relay`` is "responder" or "publisher", ``identity`` the name that others use for a peer, as text.
"""

from dataclasses import dataclass

from revtunnel.ground.facts import Fact, Severity

__all__ = [
    "CameoServerGone",
    "CameoServerSeen",
    "MessagesDropped",
    "NameReplaced",
    "PeerJoined",
    "PeerLeft",
    "PeerRefused",
    "RequestRefused",
    "Unroutable",
    "shown",
]


def shown(identity: bytes) -> str:
    """An identity as text: names as they are, our own ids for clients in hexadecimal."""
    if identity[:1] == b"\0":
        return f"client-{identity[1:9].hex()}"
    return identity.decode("ascii", "backslashreplace")


@dataclass(frozen=True, slots=True)
class PeerJoined(Fact):
    """A peer finished its handshake, or waits for the CAMEO server to finish it."""

    word = "peer-joined"
    severity = Severity.DEBUG
    relay: str
    peer: str
    socket_type: str
    identity: str
    waits: bool


@dataclass(frozen=True, slots=True)
class PeerLeft(Fact):
    """A peer that had joined is gone."""

    word = "peer-left"
    severity = Severity.DEBUG
    relay: str
    peer: str
    identity: str
    reason: str  # a word: "lost", "protocol", "silent", "no-server", "stopping", "operator"
    detail: str
    seconds: float
    messages_from_peer: int
    messages_to_peer: int
    dropped: int


@dataclass(frozen=True, slots=True)
class PeerRefused(Fact):
    """A connection never became a peer."""

    word = "peer-refused"
    severity = Severity.WARN
    relay: str
    peer: str
    reason: str  # a word: those of cameo_admission.py, "silent", "protocol", "unfit", "name-not-allowed"
    detail: str


@dataclass(frozen=True, slots=True)
class NameReplaced(Fact):
    """A newer connection took over a name; the older one has it again when the newer one is gone."""

    word = "name-replaced"
    severity = Severity.WARN
    relay: str
    identity: str
    peer: str
    older: str


@dataclass(frozen=True, slots=True)
class CameoServerSeen(Fact):
    """The CAMEO server is connected: clients that waited for it are let in."""

    word = "cameo-server-seen"
    peer: str
    waited: int  # clients


@dataclass(frozen=True, slots=True)
class CameoServerGone(Fact):
    """The CAMEO server is no longer connected; clients are held back until it is."""

    word = "cameo-server-gone"
    severity = Severity.WARN
    peer: str
    seconds: float  # that it was there


@dataclass(frozen=True, slots=True)
class MessagesDropped(Fact):
    """A peer does not take what is written to it: from now on messages for it are lost. Said once a burst."""

    word = "messages-dropped"
    severity = Severity.WARN
    relay: str
    peer: str
    identity: str
    waiting: int  # messages
    waiting_bytes: int


@dataclass(frozen=True, slots=True)
class Unroutable(Fact):
    """A message for a name that nobody has was dropped; said once until somebody has it."""

    word = "unroutable"
    severity = Severity.WARN
    peer: str
    identity: str  # that was wanted


@dataclass(frozen=True, slots=True)
class RequestRefused(Fact):
    """A request to the CAMEO server was not passed on."""

    word = "request-refused"
    severity = Severity.WARN
    peer: str
    outside: str
    type: int  # of CAMEO's messages; -1: it could not be read
    answered: bool
