"""What a server is told: frozen values, a class for each part, right once they exist.

Rule of this file: settings are declared here (ground/declared.py) and not decided about; server_reading.py
makes these from a file.

Source: twisted.md section 7; ours.
"""

import os
from dataclasses import dataclass, field

from revtunnel.cluster.cluster_settings import ClusterSettings
from revtunnel.daemons.webhook_settings import WebhookSettings
from revtunnel.fleet.device_records import CLIENTS, DeviceRecords, DeviceSettings
from revtunnel.fleet.penalties import PenaltySettings
from revtunnel.fleet.pools import Pool
from revtunnel.ground.declared import limit, setting
from revtunnel.ground.kinds import (
    ADDRESS,
    COMMAND,
    NAME,
    PLACE,
    RANGES,
    SettingKind,
    count,
    listening,
    many,
    networks,
    nothing,
    read_listening,
    read_port,
    seconds,
    serial_or,
    text,
    word,
    yes_no,
)
from revtunnel.ground.limits import DataLimits, EmoLimits, LinkLimits, RelayLimits, ServerLimits
from revtunnel.ground.networks import Network
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.wake_settings import WakeSettings
from revtunnel.settings.sections import LogSettings
from revtunnel.sockets.plane_settings import PlaneSettings
from revtunnel.sockets.ways.trusted_proxies import SenderSettings
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.systems.sessions.localproxy_settings import LocalproxySettings
from revtunnel.systems.sessions.session_life import SessionLimits
from revtunnel.systems.sessions.session_settings import WebSettings
from revtunnel.systems.thingworx.edge_settings import EdgeSettings
from revtunnel.trust.audit_settings import AuditSettings
from revtunnel.trust.authority_settings import AuthoritySettings
from revtunnel.trust.oidc_settings import OidcSettings
from revtunnel.trust.tls_settings import ListenerTls

__all__ = [
    "LegacyDeviceSettings",
    "ListenerSettings",
    "PoolSettings",
    "PortMapping",
    "Reservation",
    "ServerSettings",
    "agents_at",
]


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One service of a legacy device: the port that clients dial (0: one from the pool), and its target."""

    client_port: int
    offer: Offer
    client_host: str = ""  # where that port listens; empty: where the pool's do


def read_mapping(text: str) -> PortMapping:
    where, arrow, offer = (part.strip() for part in text.partition("->"))
    if not arrow:
        raise ValueError(f"{text[:120]!a}: CLIENTPORT -> [NAME=]HOST:PORT wanted")
    if ":" not in where:
        return PortMapping(read_port(where, least=0), parse_offer(offer))
    host, port = read_listening(where)
    return PortMapping(read_port(str(port)), parse_offer(offer), host)


_SERVER_NAME = text("name", "auto, or 1 to 64 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,64}")
_WORKERS = nothing("auto", SettingKind("workers", "auto, or 1 to 64", count("workers", 1, 64).read))
_MAPPINGS = many("[HOST:]CLIENTPORT -> [NAME=]HOST:PORT", read_mapping, 0, 255)


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ListenerSettings(ListenerTls, SenderSettings, WakeSettings):
    """A listener for agents; ``serial`` and ``mappings`` are set for kind ``legacy``, else None and empty."""

    address: tuple[tuple[str, int], ...] = setting(listening(1), "127.0.0.1:2065", "where agents come in; "
        "several with commas, such as 0.0.0.0:2065, [::]:2065, which is IPv6 only; port 0: any free one",
        live=True)
    kind: str = setting(word("rt1", "legacy", "emo", "nodes"), "rt1", "rt1: agents of this project name "
        "themselves; legacy: ReadyAgent devices, see serial; emo: machines of the MTConnect EMO proxy, each "
        "known by its port: SERIAL/emo = PORT in [reservations]; nodes: the other nodes of a cluster, with "
        "TLS and certificates of nodes: see [cluster]", live=True)
    first_come: tuple[tuple[int, int], ...] | None = setting(nothing("none", RANGES), "none", "emo: ports, "
        "1000 at most, that whoever comes first may register, as the machine emo-PORT: for closed networks",
        live=True)
    keys: str = setting(word("enrolled", "required"), "enrolled", "enrolled: a serial that has a key must "
        "prove it, others are let in; required: everybody must", live=True)
    allow_without_keys: bool = setting(yes_no(), "no", "INSECURE: lets devices without keys in from other "
        "machines; no: such a listener does not start", live=True)
    duplicate: str = setting(word("auto", "newest", "oldest", "refuse-both"), "auto", "which link stays when "
        "a serial that proves nothing comes twice, and, once two machines take the link from each other, "
        "whatever they prove: the newest; the oldest; refuse-both: neither, for 5 minutes; auto: refuse-both "
        "of those that prove their serial, else newest", live=True)
    data: str = setting(word("link", "socket", "auto"), "auto", "what carries channels: the link; a "
        "connection of its own for each, which the agent brings; auto: that, and the link where none "
        "comes, over TLS also for short clients", live=True)
    checkers: tuple[Network, ...] = setting(networks(256), "", "addresses from which load balancers look "
        "whether the listener lives: what comes of that is counted, and said once an hour", live=True)
    pool: str = setting(NAME, "default", "the [pool NAME] that gives its devices their client ports",
        live=True)
    serial: str | None = setting(nothing("none", serial_or("none")), "none", "legacy: serial of its one "
        "device; none: it has those of [legacy-device SERIAL]", live=True)
    mappings: tuple[PortMapping, ...] = setting(_MAPPINGS, "", "legacy: services of the device, one a line; "
        "CLIENTPORT 0: one from the pool; with HOST it listens there, and not where the pool does", live=True)
    probe: bool = setting(yes_no(), "yes", "legacy: offer rt1 first; a real device ignores the offer "
        "unharmed", live=True)
    heartbeat: bool = setting(yes_no(), "yes", "legacy: test a silent link with DATA for the unused channel "
        "0; emo: send PING, which a client of the first version does not bear", live=True)
    wake_command: str = setting(COMMAND, "", "legacy: what makes a device of this listener dial out: run at "
        "the start, when its link is lost, and when a client waits for it (absent in [pool NAME]); its "
        "serial is added as the last word", live=True)


@dataclass(frozen=True, kw_only=True)
class LegacyDeviceSettings:
    """One of the devices that come in at one legacy listener."""

    name: str
    listener: str | None = setting(nothing("none", NAME), "none", "the [listener NAME] that it comes to; "
        "needed", live=True)
    source: tuple[Network, ...] = setting(networks(64), "", "where it comes from, such as 10.41.0.7 or "
        "10.41.0.0/28; of two devices it is the one with the smaller network; not needed where TLS shows its "
        "certificate", live=True)
    mappings: tuple[PortMapping, ...] = setting(_MAPPINGS, "", "its services, as in [listener NAME]; empty: "
        "those that stand there", live=True)


def agents_at(web: WebSettings) -> ListenerSettings:
    """The listener for agents that a web listener is as well; no other has a blank in its name."""
    told = {name: getattr(web, name) for name in ("address", "keys", "data", "pool")}
    return ListenerSettings(name=f"web {web.name}", **told)


@dataclass(frozen=True, kw_only=True)
class PoolSettings(SenderSettings):
    """Ports for clients: no two ranges of all pools overlap, and none holds a listener's port."""

    name: str
    ranges: tuple[tuple[int, int], ...] = setting(RANGES, "20000-20999", "ports that clients dial, such as "
        "20000-20999, 30000", live=True)
    bind: str = setting(ADDRESS, "127.0.0.1", "address on which client ports listen, with :: IPv4 too; "
        "anybody who reaches it reaches the devices", live=True)
    quarantine: float = setting(seconds(0, 86400), "60 s", "time a port rests before another device gets it",
        live=True)
    quarantine_least: float | None = setting(nothing("full", seconds(0, 86400)), "full", "time it rests at "
        "least where the pool has no other port left; full: quarantine, whatever happens", live=True)
    sticky: float = setting(seconds(0, 3650 * 86400), "30 d", "time a device that is away keeps its ports",
        live=True)
    unoffered: float = setting(seconds(0, 3650 * 86400), "1 h", "time a device that is here keeps the port "
        "of a service that it offers no longer", live=True)
    clients: tuple[Network, ...] | None = setting(CLIENTS, "any", "who may use its ports; has to be said "
        "where other machines reach bind, here or in [device *]", live=True)
    absent: str = setting(word("close", "refuse", "wait"), "close", "while its device is away a client port "
        "is closed, or stays open and refuses every client, or lets them wait for it", live=True)
    nodes: str = setting(word("owner", "all"), "owner", "of a cluster: a client port is open at the node "
        "where its device is, and at one where it was as absent says; all: at every node, also while its "
        "device is at none. With an engine nodes that have a pool of this name and these ranges share its "
        "numbers; without one all takes ports of [reservations] only", live=True)
    wake_wait: float = setting(seconds(1, 3600), "60 s", "absent = wait: time a client waits, then it is "
        "refused", live=True)

    @property
    def pool(self) -> Pool:
        """Its ports, for the allocator."""
        rests = self.quarantine, self.sticky, self.unoffered, self.quarantine_least
        return Pool(self.name, self.ranges, self.bind, *rests)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port that belongs to one target of one device."""

    serial: str
    target: str  # name of the offer
    port: int
    kept: bool = False  # by an operator (kept_ports.py), not in the settings

    @property
    def name(self) -> str:
        """Its key."""
        return f"{self.serial}/{self.target}"


@dataclass(frozen=True, kw_only=True)
class ServerSettings(PlaneSettings, LogSettings):
    """All that a server is told."""

    name: str = setting(_SERVER_NAME, "auto", "name that agents are told; auto: the host name")
    state_directory: str | None = setting(PLACE, "auto", "where leases and device keys are kept; auto: "
        "$STATE_DIRECTORY, /var/lib/revtunnel for root, else revtunnel in $XDG_STATE_HOME or ~/.local/state; "
        "none: in memory, lost at the end")
    allow_open_state: bool = setting(yes_no(), "no", "INSECURE: lets others than its owner write in "
        "state_directory; no: the server does not start there")
    workers: int | None = setting(_WORKERS, "1", "processes that have the links of rt1 listeners and their "
        "clients; auto: one for each processor; 1: this process has them itself")
    drain: float = limit(seconds(0, 3600), 30.0, "time that running channels get when the server stops")
    listeners: tuple[ListenerSettings, ...]
    pools: tuple[PoolSettings, ...]
    reservations: tuple[Reservation, ...]
    legacy_devices: tuple[LegacyDeviceSettings, ...] = ()
    devices: tuple[DeviceSettings, ...]
    records: DeviceRecords = field(default_factory=DeviceRecords, compare=False)  # made of devices and pools
    penalties: PenaltySettings
    limits: ServerLimits
    data: DataLimits
    emo: EmoLimits
    relay: RelayLimits
    link: LinkLimits
    admin: AdminSettings
    authority: AuthoritySettings
    audit: AuditSettings
    web: tuple[WebSettings, ...]  # none: no remote sessions
    oidc: OidcSettings
    webhooks: tuple[WebhookSettings, ...]  # none: no fact goes anywhere
    sessions: SessionLimits
    cccp: CccpPart | None  # None: not enabled
    localproxy: LocalproxySettings
    thingworx: EdgeSettings
    cluster: ClusterSettings
    files: tuple[str, ...]  # that were read, in this order

    @property
    def processes(self) -> int:
        """How many workers there are; 1: none."""
        return len(os.sched_getaffinity(0)) if self.workers is None else self.workers
