"""What happened, as frozen values: the one source of log lines, counters, ``revtunnelctl watch`` and audit.

Rule of this file: a fact is said once, where it was decided, with the serial and a reason word; payload
bytes, keys and tickets never appear. ``word`` names the kind of fact on every surface.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar

from revtunnel.ground.reasons import Ended

__all__ = [
    "AcceptFailed",
    "AuditProblem",
    "CertificateFailed",
    "CertificateForked",
    "CertificateIssued",
    "ChannelEnded",
    "ChannelOpened",
    "ClientRefused",
    "ConsentGiven",
    "DataSocketsMissing",
    "DeviceEnrolled",
    "DeviceRevoked",
    "DuplicateDevice",
    "Fact",
    "LeftEarly",
    "LinkDown",
    "LinkNotBegun",
    "LinkRefused",
    "LinkStalled",
    "LinkUp",
    "ListenerClosed",
    "ListenerOpened",
    "ListenerRefused",
    "NoDescriptors",
    "PeerGlitch",
    "Report",
    "RevocationLifted",
    "ServerState",
    "ServiceDown",
    "ServiceUp",
    "SettingsReloaded",
    "Severity",
    "TokenGiven",
    "Trouble",
    "TroubleOver",
    "WakeEnded",
    "WebRefused",
]


class Severity(Enum):
    """How loud a fact is in the log."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Fact:
    """The base of every fact. ``peer`` is ``host:port`` of the other end of a socket."""

    word: ClassVar[str] = "fact"
    severity: ClassVar[Severity] = Severity.INFO

    def row(self) -> dict[str, Any]:
        """The fact as plain values for JSON, log and admin."""
        row: dict[str, Any] = {"event": self.word}
        for name in names_of(self):
            value = getattr(self, name)
            row[name] = value.word if isinstance(value, Ended) else value
        return row


_known: dict[type[Fact], tuple[str, ...]] = {}  # names of fields by kind: finding them out is slow


def names_of(fact: Fact) -> tuple[str, ...]:
    """The names of its fields, in the order in which it takes their values."""
    found = _known.get(type(fact))
    if found is None:
        found = _known[type(fact)] = tuple(field.name for field in fields(fact))
    return found


Report = Callable[[Fact], None]


@dataclass(frozen=True, slots=True)
class LinkUp(Fact):
    """A device's link was accepted."""

    word = "link-up"
    serial: str
    peer: str
    wire: str  # "rt1" or "legacy"
    listener: str
    authenticated: bool
    replaced: bool  # an older link of this serial was closed for it
    tls: str = ""  # such as TLSv1.3; "" in plain


@dataclass(frozen=True, slots=True)
class LinkDown(Fact):
    """A device's link ended; every channel of it ended with it."""

    word = "link-down"
    serial: str
    peer: str
    reason: str  # a word: "lost", "silent", "replaced", "kicked", "stopping", "protocol", "agent-left"
    detail: str
    seconds: float
    channels: int  # channels cut by it


@dataclass(frozen=True, slots=True)
class ServiceUp(Fact):
    """A service beside an agent answers its looks."""

    word = "service-up"
    serial: str
    service: str
    detail: str


@dataclass(frozen=True, slots=True)
class ServiceDown(Fact):
    """A service beside an agent does not: the agent is there, the machine is not."""

    word = "service-down"
    severity = Severity.WARN
    serial: str
    service: str
    detail: str


@dataclass(frozen=True, slots=True)
class DuplicateDevice(Fact):
    """A serial came a second time while it was here: a device that came back, or somebody else. An alarm.

    Told of every wire that cannot tell one from the other, and whenever a serial comes by another wire.
    """

    word = "duplicate-device"
    severity = Severity.WARN
    serial: str
    peer: str  # of the newer connection
    older: str
    stays: str  # "newest", "oldest", "neither"
    authenticated: bool  # the newer one
    wire: str  # of the newer connection
    older_wire: str


@dataclass(frozen=True, slots=True)
class LinkRefused(Fact):
    """A connection to a link listener was not accepted as a link."""

    word = "link-refused"
    severity = Severity.WARN
    listener: str
    peer: str
    serial: str  # "" when it never said one
    reason: str  # a word: "silent", "protocol", "denied", "certificate", "tls", "duplicate", "overloaded"
    detail: str


@dataclass(frozen=True, slots=True)
class WebRefused(Fact):
    """A connection to a web listener came to nothing: no WebSocket, and no page."""

    word = "web-refused"
    severity = Severity.WARN
    listener: str
    peer: str
    path: str  # without its query; "" when it never said one
    status: int  # of HTTP, that it was told; 0: none
    reason: (
        str  # a word: "silent", "protocol", "denied", "origin", "host", "not-found", "penalty", "too-often"
    )
    detail: str


@dataclass(frozen=True, slots=True)
class LinkNotBegun(LinkRefused):
    """It hung up before it was a link: an agent that looked whom to trust, a load balancer that checks."""

    word = "link-not-begun"
    severity = Severity.INFO


@dataclass(frozen=True, slots=True)
class LinkStalled(Fact):
    """A legacy link was paused because its slowest client does not take its bytes."""

    word = "link-stalled"
    severity = Severity.WARN
    serial: str
    channel: int
    owed: int  # bytes


@dataclass(frozen=True, slots=True)
class ChannelOpened(Fact):
    """A client's stream reached its target."""

    word = "channel-opened"
    severity = Severity.DEBUG
    serial: str
    channel: int
    target: str
    peer: str  # the client
    milliseconds: float  # from accept to the target's answer


@dataclass(frozen=True, slots=True)
class ChannelEnded(Fact):
    """A client's stream is over."""

    word = "channel-ended"
    serial: str
    channel: int
    target: str
    peer: str  # the client
    reason: Ended
    detail: str
    seconds: float
    bytes_to_device: int
    bytes_to_client: int


@dataclass(frozen=True, slots=True)
class ClientRefused(Fact):
    """A client was turned away before it had a channel."""

    word = "client-refused"
    severity = Severity.WARN
    serial: str
    target: str
    peer: str
    reason: str  # a word: "device-absent", "in-use", "too-many-clients", "descriptors", "no-channel", ...


@dataclass(frozen=True, slots=True)
class ListenerOpened(Fact):
    """A lease's port takes clients."""

    word = "listener-opened"
    serial: str
    target: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenerClosed(Fact):
    """A lease's port takes no more clients; the lease itself may go on."""

    word = "listener-closed"
    serial: str
    target: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenerRefused(Fact):
    """No port could be opened for a target; the link stays."""

    word = "listener-refused"
    severity = Severity.ERROR
    serial: str
    target: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeftEarly(Fact):
    """Connections that were over before anything was made for them: port scans, health checks."""

    word = "left-early"
    address: str  # or the name of a listener
    connections: int  # since it was last said


@dataclass(frozen=True, slots=True)
class NoDescriptors(Fact):
    """Connections were closed as soon as they came: the process or the system has no descriptor left."""

    word = "no-descriptors"
    severity = Severity.WARN
    connections: int  # closed since it was last said
    detail: str


@dataclass(frozen=True, slots=True)
class AcceptFailed(Fact):
    """A listening socket gives no connections, though some wait; it is tried on unless ``detail`` says no."""

    word = "accept-failed"
    severity = Severity.ERROR
    address: str
    failures: int  # since it was last said
    detail: str


@dataclass(frozen=True, slots=True)
class PeerGlitch(Fact):
    """The other side did something odd that was tolerated and counted."""

    word = "glitch"
    severity = Severity.DEBUG
    serial: str
    peer: str
    detail: str


@dataclass(frozen=True, slots=True)
class DataSocketsMissing(Fact):
    """An agent cannot bring the data sockets that its server wants; said once in five minutes."""

    word = "data-sockets-missing"
    severity = Severity.WARN
    serial: str
    peer: str  # the server
    detail: str


@dataclass(frozen=True, slots=True)
class TokenGiven(Fact):
    """An operator made a one-time token for a device. The token itself is nowhere but with him."""

    word = "token-given"
    serial: str
    by: str


@dataclass(frozen=True, slots=True)
class CertificateIssued(Fact):
    """A device has a new certificate; said by the server that made it, and by the agent that keeps it."""

    word = "certificate-issued"
    serial: str
    by: str  # operator, "token", "renewal"
    fingerprint: str  # SHA-256 of the certificate, hexadecimal
    until: str  # UTC


@dataclass(frozen=True, slots=True)
class CertificateFailed(Fact):
    """An agent could not get a certificate; it tries again unless it was refused for good."""

    word = "certificate-failed"
    severity = Severity.WARN
    serial: str
    server: str
    detail: str


@dataclass(frozen=True, slots=True)
class CertificateForked(Fact):
    """Two have the key of one certificate: it was renewed for two keys, or shown after its child was used."""

    word = "certificate-forked"
    severity = Severity.ERROR
    serial: str
    fingerprint: str  # of that certificate
    peer: str  # who came with it; empty: nobody knows
    detail: str


@dataclass(frozen=True, slots=True)
class DeviceEnrolled(Fact):
    """A device key was made."""

    word = "device-enrolled"
    serial: str
    by: str


@dataclass(frozen=True, slots=True)
class DeviceRevoked(Fact):
    """What a device proves itself with does not count any more: key, certificates, token."""

    word = "device-revoked"
    serial: str
    by: str


@dataclass(frozen=True, slots=True)
class RevocationLifted(Fact):
    """Certificates of a revoked device that another authority made count again."""

    word = "revocation-lifted"
    serial: str
    by: str


@dataclass(frozen=True, slots=True)
class SettingsReloaded(Fact):
    """Settings were read again. ``errors``: they are wrong and nothing changed, or what cannot be opened."""

    word = "settings-reloaded"
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConsentGiven(Fact):
    """An agent's site said yes or no to a remote session, ``seconds`` after it was asked."""

    word = "session-consent"
    serial: str
    session: str
    user: str
    services: str  # with commas between
    answer: str  # yes, no
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AuditProblem(Fact):
    """The audit file takes no records; or, with an empty text, it does again."""

    word = "audit-problem"
    severity = Severity.ERROR
    problem: str


@dataclass(frozen=True, slots=True)
class Trouble(Fact):
    """Something fails for a reason outside this program, and is tried again until it is well."""

    word = "trouble"
    severity = Severity.ERROR
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class TroubleOver(Fact):
    """It is well again, after so many ``seconds``."""

    word = "trouble-over"
    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ServerState(Fact):
    """A daemon changed what it does: ready, draining, stopped."""

    word = "state"
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class WakeEnded(Fact):
    """The wake driver ran for an absent device."""

    word = "wake-ended"
    serial: str
    outcome: str  # a word: "done", "failed", "timed-out"
    detail: str
    seconds: float
