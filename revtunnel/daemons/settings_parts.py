"""What settings become: frozen values, one class for each part, complete and right once they exist.

Rule of this file: no decision and no default; schema.py has those, settings.py makes these.

Source: twisted.md section 7; ours.
"""

from dataclasses import dataclass

from revtunnel.daemons.record_settings import DeviceSettings
from revtunnel.ground.policy import (
    AgentLimits,
    DataLimits,
    EmoLimits,
    LinkLimits,
    PenaltyLimits,
    RelayLimits,
    ServerLimits,
)
from revtunnel.ground.targets import Offer
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.values import PortMapping
from revtunnel.sockets.ways.proxy_choice import ProxyChoice
from revtunnel.sockets.ways.trusted_proxies import Network
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.trust.authority_settings import AuthoritySettings
from revtunnel.trust.tls_settings import (
    AgentTls,
    ListenerTls,
)

__all__ = ["AgentSettings", "ListenerSettings", "PoolSettings", "Reservation", "ServerSettings"]


@dataclass(frozen=True, slots=True)
class ListenerSettings(ListenerTls):
    """One door for agents; for kind ``legacy`` ``serial`` and ``mappings`` are set, else None and empty."""

    name: str
    address: tuple[tuple[str, int], ...]  # IP address and port; port 0 is any
    kind: str  # rt1, legacy, emo
    keys: str  # enrolled, required
    allow_without_keys: bool
    duplicate: str  # newest, oldest
    data: str  # link, socket, auto
    pool: str  # name of a PoolSettings, which exists
    serial: str | None
    mappings: tuple[PortMapping, ...]
    probe: bool
    heartbeat: bool
    proxy_protocol: str  # no, v1, v2, any
    proxy_from: tuple[Network, ...]  # who sends PROXY headers; empty if nobody does


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Ports for clients: no two ranges of all pools overlap, and none holds a listener's port."""

    name: str
    ranges: tuple[tuple[int, int], ...]  # first and last port
    bind: str  # IP address
    quarantine: float  # seconds
    sticky: float  # seconds
    clients: tuple[Network, ...] | None  # who may use them; None is anybody
    absent: str  # close, refuse
    proxy_protocol: str  # no, v1, v2, any
    proxy_from: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port that belongs to one target of one device."""

    serial: str
    target: str  # name of the offer
    port: int


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All that a server is told; ``drain`` is in ``limits``."""

    name: str
    state_directory: str | None  # None: keep nothing
    allow_open_state: bool
    log_format: str
    log_level: str
    listeners: tuple[ListenerSettings, ...]
    pools: tuple[PoolSettings, ...]
    reservations: tuple[Reservation, ...]
    devices: tuple[DeviceSettings, ...]
    penalties: PenaltyLimits
    exempt: tuple[Network, ...]  # who pays no penalties
    limits: ServerLimits
    data: DataLimits
    emo: EmoLimits
    relay: RelayLimits
    link: LinkLimits
    admin: AdminSettings
    authority: AuthoritySettings
    cccp: CccpPart | None  # None: not enabled
    files: tuple[str, ...]  # that were read, in this order


@dataclass(frozen=True, slots=True)
class AgentSettings(AgentTls):
    """All that an agent is told."""

    servers: tuple[tuple[str, int], ...]  # at least one
    serial: str
    state_directory: str | None  # where enrolment keeps key and certificate; None: nowhere
    renew_before: float  # share of a certificate's life
    key_file: str | None
    local: tuple[Offer, ...]  # at least one, names differ
    legacy: bool
    emo: bool
    server_port: int  # emo: 1025 to 65535, else 0
    modern: str  # emo: auto, no
    data_sockets: bool
    proxy: ProxyChoice
    proxy_credentials: str | None
    proxy_protocol: tuple[tuple[str, str], ...]  # name of an offer and version, v1 or v2
    log_format: str
    log_level: str
    limits: AgentLimits
    emo_limits: EmoLimits
    relay: RelayLimits
    link: LinkLimits
    files: tuple[str, ...]
