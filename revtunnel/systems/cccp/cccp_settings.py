"""The settings of CCCP: sections [cccp] and [cccp-project ...], for revtunnel-cccp and for revtunnel-server.

Rule of this file: it is imported by whoever reads settings, so it imports little; cccp_reading.py makes these
from a file.

Source: twisted.md section 7; wire/cccp.md section 2; ours.
"""

import re
from dataclasses import dataclass, field

from revtunnel.fleet.pools import Pool
from revtunnel.ground.declared import setting
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.kinds import (
    ADDRESS,
    PEM,
    PLACE,
    RANGES,
    listening,
    many,
    nothing,
    path,
    seconds,
    text,
    word,
    yes_no,
)
from revtunnel.ground.limits import CccpLimits, FleetLimits, RelayLimits
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.wake_settings import WakeRules, WakeSettings
from revtunnel.settings.sections import LogSettings
from revtunnel.systems.cccp.proxy_sessions import MAX_TIMEOUT
from revtunnel.systems.cccp.registration import parse_registered
from revtunnel.trust.tls_settings import ListenerTls

__all__ = ["CccpPart", "CccpSettings", "ProjectSettings"]


def read_serial(text: str) -> str:
    try:
        return parse_registered(text)
    except RemoteError as error:
        raise ValueError(str(error)) from None


def read_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:._-]{1,253}", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a host name or an address wanted")
    return text.lower()


_HOST = nothing("auto", text("host name", "auto, or a host name or an address", r"[A-Za-z0-9:._-]{1,253}"))


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ProjectSettings(ListenerTls):
    """Devices of one project, and the ports of their clients."""

    address: tuple[tuple[str, int], ...] = setting(listening(1), "127.0.0.1:2070", "where its devices "
        "register", live=True)
    ranges: tuple[tuple[int, int], ...] = setting(RANGES, "21000-21999", "ports that its clients dial",
        live=True)
    bind: str = setting(ADDRESS, "127.0.0.1", "address on which those listen, with :: IPv4 too; who reaches "
        "it reaches devices, unless ip_whitelist says no", live=True)
    quarantine: float = setting(seconds(0, 86400), "60 s", "time a port rests before another device gets it",
        live=True)
    quarantine_least: float | None = setting(nothing("full", seconds(0, 86400)), "full", "time it rests at "
        "least where no other port is left; full: quarantine, whatever happens", live=True)
    sticky: float = setting(seconds(0, 3650 * 86400), "30 d", "time a persistent proxy's port is kept while "
        "we are down", live=True)
    duplicate: str = setting(word("newest", "oldest"), "newest", "which connection stays when a serial "
        "without a certificate comes twice", live=True)
    line_feed: str = setting(word("payload", "swallow"), "payload", "what one LF directly behind the return "
        "is", live=True)
    early_data: str = setting(word("hold", "discard"), "hold", "what the first side of a proxy that is not "
        "persistent says before the other is there: left unread, or thrown away", live=True)
    off: str = setting(word("close", "park"), "close", "what /off does with the device's "
        "connection", live=True)
    timeout: float = setting(seconds(0, MAX_TIMEOUT), "0 s", "time to the first client where /on says none; "
        "0: none", live=True)
    serials: tuple[str, ...] = setting(many("serial", read_serial, 0, 100_000), "", "devices that are known; "
        "empty: every one", live=True)
    allow_open: bool = setting(yes_no(), "no", "INSECURE: lets other machines register any serial without a "
        "device certificate; no: such a listener does not start", live=True)
    # said otherwise than of agents
    tls: bool = setting(yes_no(), "no", "devices have to come with TLS; needs certificate and "
        "certificate_key", live=True)
    certificate: str | None = setting(PEM, "none", "of this listener, for the name that devices "
        "dial", live=True)
    device_certificates: str = setting(word("required", "optional", "no"), "required", "required: a device "
        "must show a certificate, whose URI urn:revtunnel:device:SERIAL is what it says; optional: may; no: "
        "is not asked", live=True)
    crl: str | None = setting(PEM, "none", "certificates that the authority took back", live=True)

    @property
    def pool(self) -> Pool:
        """Its ports, for the allocator."""
        where = f"cccp-{self.name}", self.ranges, self.bind
        return Pool(*where, self.quarantine, self.sticky, quarantine_least=self.quarantine_least)


@dataclass(frozen=True, kw_only=True)
class CccpPart(WakeSettings):
    """What both daemons are told."""

    enabled: bool = setting(yes_no(), "no", "run CCCP inside revtunnel-server, where /on reaches every "
        "device by its serial; revtunnel-cccp does not look at it")
    http: tuple[tuple[str, int], ...] = setting(listening(1), "127.0.0.1:2080", "where the API listens",
        live=True)
    host: str | None = setting(_HOST, "auto", "that callers are told to connect their clients to; auto: the "
        "address their request came in on", live=True)
    hosts: tuple[str, ...] = setting(many("host name", read_host, 0, 64), "", "names that callers may use "
        "for the API beside addresses, localhost and host", live=True)
    token: bytes | None = setting(PLACE, "auto", "file with the bearer token of callers, closed to others; "
        "auto: revtunnel-cccp.token in $CREDENTIALS_DIRECTORY, none where there is no such "
        "file", live=True, name="token_file")
    allow_without_token: bool = setting(yes_no(), "no", "INSECURE: lets other machines call without a token; "
        "no: such a listener does not start", live=True)
    projects: tuple[ProjectSettings, ...] = ()
    limits: CccpLimits = field(default_factory=CccpLimits)

    @property
    def wake(self) -> WakeRules:
        """For the wake driver."""
        return WakeRules(self.wake_command, self.wake_url, self.limits.wake, self.limits.wakes)

    @property
    def pools(self) -> list[Pool]:
        """For the allocator."""
        return [project.pool for project in self.projects]


@dataclass(frozen=True, kw_only=True)
class CccpSettings(LogSettings):
    """All that revtunnel-cccp is told."""

    state_directory: str | None = setting(PLACE, "auto", "where revtunnel-cccp keeps ports and sessions, in "
        "cccp.db; auto and none as in [server]")
    allow_open_state: bool = setting(yes_no(), "no", "as in [server]")
    admin_socket: str = setting(path(107, "auto"), "auto", "where revtunnelctl comes in with --socket "
        "PATH; auto: cccp.sock beside the server's; who may use it stands in [admin]")
    part: CccpPart
    fleet: FleetLimits
    relay: RelayLimits
    admin: AdminSettings
    files: tuple[str, ...]

    @property
    def drain(self) -> float:
        """Seconds that a drain may take."""
        return self.part.limits.drain
