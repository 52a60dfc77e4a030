"""What happened to CCCP devices and proxy sessions; facts like those of facts.py, and by the same rule."""

from dataclasses import dataclass

from revtunnel.ground.facts import Fact, Severity

__all__ = [
    "DeviceGone",
    "DeviceRegistered",
    "ProxyEnded",
    "ProxyStarted",
    "RegistrationRefused",
]


@dataclass(frozen=True, slots=True)
class DeviceRegistered(Fact):
    """A device said its serial."""

    word = "device-registered"
    serial: str
    peer: str
    project: str
    authenticated: bool
    tls: str  # such as TLSv1.3; "" in plain


@dataclass(frozen=True, slots=True)
class DeviceGone(Fact):
    """A registered device is not connected any more."""

    word = "device-gone"
    serial: str
    peer: str
    reason: (
        str  # a word: "closed", "lost", "replaced", "off", "session", "parked-too-long", "kicked", "stopping"
    )
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RegistrationRefused(Fact):
    """A connection never became a registered device; it was told nothing."""

    word = "registration-refused"
    severity = Severity.WARN
    project: str
    peer: str
    serial: str  # "" when it never said one
    reason: str  # a word: "silent", "protocol", "unknown", "duplicate", "certificate", "tls", "overloaded"
    detail: str


@dataclass(frozen=True, slots=True)
class ProxyStarted(Fact):
    """A proxy session was started, changed by a further ``/on``, or taken up after a restart."""

    word = "proxy-started"
    serial: str
    port: int
    project: str
    persistent: bool
    how: str  # "on", "renewed", "restart"


@dataclass(frozen=True, slots=True)
class ProxyEnded(Fact):
    """A proxy session is over."""

    word = "proxy-ended"
    serial: str
    port: int
    reason: str  # a word of systems/cccp/proxy_sessions.py, or "restarted", "device-absent", "operator"
    transferred: int
    seconds: float
