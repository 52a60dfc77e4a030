"""What a server and an agent are told: frozen values, a class for each part, right once they exist.

Rule of this file: settings are declared here (ground/declared.py) and not decided about; settings.py makes
these from a file. It is imported by whoever reads settings, so it imports little.

Source: twisted.md section 7; ours.
"""

import re
from dataclasses import dataclass, field

from revtunnel.cluster.cluster_settings import ClusterSettings
from revtunnel.fleet.device_records import CLIENTS, DeviceRecords, DeviceSettings, Pattern, parse_pattern
from revtunnel.fleet.penalties import PenaltySettings
from revtunnel.fleet.pools import Pool
from revtunnel.ground.declared import limit, setting
from revtunnel.ground.kinds import (
    ADDRESS,
    COMMAND,
    NAME,
    PEM,
    PLACE,
    RANGES,
    SettingKind,
    any_of,
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
from revtunnel.ground.limits import AgentLimits, DataLimits, EmoLimits, LinkLimits, RelayLimits, ServerLimits
from revtunnel.ground.networks import Network
from revtunnel.ground.server_places import ServerPlace, parse_server_place
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.wake_settings import WakeSettings
from revtunnel.settings.sections import LogSettings
from revtunnel.sockets.ways.proxy_choice import HttpProxy, ProxyChoice, parse_proxy
from revtunnel.sockets.ways.trusted_proxies import SenderSettings
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.systems.sessions.localproxy_settings import LocalproxySettings
from revtunnel.systems.sessions.session_life import SessionLimits
from revtunnel.systems.sessions.session_settings import WebSettings
from revtunnel.systems.thingworx.edge_settings import EdgeSettings
from revtunnel.trust.audit_settings import AuditSettings
from revtunnel.trust.authority_settings import AuthoritySettings
from revtunnel.trust.tls_settings import AgentTls, ListenerTls

__all__ = [
    "AgentSettings",
    "AgentWays",
    "ConsentSettings",
    "ErrandSettings",
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


def read_server_port(text: str) -> int:
    """A port that an EMO machine may register, or 0: none."""
    return 0 if text == "0" else read_port(text, 1025)


def read_proxy(text: str) -> HttpProxy | str:
    return text if text in ("environment", "none") else parse_proxy(text)


def read_remote(text: str) -> Pattern:
    pattern = parse_pattern(text)
    if pattern.name:  # whoever adds an offer gives it its name
        raise ValueError(f"{text[:80]!a}: HOST:PORT, *.DOMAIN:PORT or unix:PATH wanted, * for any")
    return pattern


def read_at_once(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Za-z0-9._-]{1,32})=([1-9][0-9]{0,4})", text, re.ASCII)
    if not match:
        raise ValueError(f"{text[:80]!a}: NAME=COUNT wanted, NAME as in local, COUNT 1 to 99999")
    return match[1], int(match[2])


def read_header(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9._-]{1,32})=(v[12])", text, re.ASCII)
    if not match:
        raise ValueError(f"{text[:80]!a}: NAME=v1 or NAME=v2 wanted, NAME as in local")
    return match[1], match[2]


def read_probe(text: str) -> tuple[str, str]:
    """A service and what is asked of it; an empty path: a connection is enough."""
    match = re.fullmatch(r"([A-Za-z0-9._-]{1,32})(?:=(/[!-~]{0,255}))?", text, re.ASCII)
    if not match:
        raise ValueError(f"{text[:80]!a}: NAME or NAME=/PATH wanted, NAME as in local")
    return match[1], match[2] or ""


_SERVER_NAME = text("name", "auto, or 1 to 64 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,64}")
_MAPPINGS = many("[HOST:]CLIENTPORT -> [NAME=]HOST:PORT", read_mapping, 0, 255)
_SERVERS = many("HOST:PORT or wss://HOST[:PORT][/PATH]", parse_server_place, 0, 16)
_OFFERS = many("[NAME=]HOST:PORT or unix:PATH", parse_offer, 0, 255)
_REMOTE = any_of("HOST:PORT or unix:PATH", read_remote, 256)
_PROXY = SettingKind("URL", "environment, none or http://HOST:PORT", read_proxy)
_HEADERS = many("NAME=v1 or NAME=v2", read_header, 0, 255)
_AT_ONCE = many("NAME=COUNT", read_at_once, 0, 255)
_PROBES = many("NAME or NAME=/PATH", read_probe, 0, 255)
_SERVER_PORT = SettingKind("port", "0, or 1025 to 65535", read_server_port)


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
        "comes", live=True)
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
        "that gave it to its device, and leads there wherever the device is; all: the ports of "
        "[reservations] are open at every node that has them in its settings, also for a device that was "
        "never there", live=True)
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
class ServerSettings(LogSettings):
    """All that a server is told."""

    name: str = setting(_SERVER_NAME, "auto", "name that agents are told; auto: the host name")
    state_directory: str | None = setting(PLACE, "auto", "where leases and device keys are kept; auto: "
        "$STATE_DIRECTORY, /var/lib/revtunnel for root, else revtunnel in $XDG_STATE_HOME or ~/.local/state; "
        "none: in memory, lost at the end")
    allow_open_state: bool = setting(yes_no(), "no", "INSECURE: lets others than its owner write in "
        "state_directory; no: the server does not start there")
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
    sessions: SessionLimits
    cccp: CccpPart | None  # None: not enabled
    localproxy: LocalproxySettings
    thingworx: EdgeSettings
    cluster: ClusterSettings
    files: tuple[str, ...]  # that were read, in this order


@dataclass(frozen=True, kw_only=True)
class AgentWays:
    """How an agent gets to its servers, and what is spoken there."""

    proxy: ProxyChoice = setting(_PROXY, "environment", "HTTP proxy on the way to the servers; environment: "
        "what https_proxy, all_proxy and no_proxy say, never for a server on this machine", live=True)
    proxy_credentials: str | None = setting(PEM, "none", "file with user:password for the proxy, closed to "
        "others", live=True)
    proxy_protocol: tuple[tuple[str, str], ...] = setting(_HEADERS, "", "services, by their name in local, "
        "that are told with a PROXY header who their client is", live=True)
    at_once: tuple[tuple[str, int], ...] = setting(_AT_ONCE, "", "connections that services take at once, by "
        "their name in local, such as plc=1; further clients wait, see line and line_wait in [limits]; "
        "another number counts those that come from then on", live=True)
    legacy: bool = setting(yes_no(), "no", "the server is a ReadyAgent server that nobody changed: never "
        "speak rt1")
    emo: bool = setting(yes_no(), "no", "the server speaks the MTConnect EMO proxy's wire; see server_port")
    server_port: int = setting(_SERVER_PORT, "0", "emo: the port at the server that stands for the one "
        "service in local; needed there")
    modern: str = setting(word("auto", "no"), "auto", "emo: auto: offer rt1 first, which a server of this "
        "project speaks on the same port; an original server hangs up on it at once, and EMO is spoken then; "
        "no: never", live=True)
    keepalive: float | None = setting(nothing("auto", seconds(0.1, 3600)), "auto", "silence before the link "
        "is asked for a sign of life; auto: as the server says, and less once the path there, a proxy or "
        "NAT, has cut three silent links in a row; such a path carries all clients by the link", live=True)
    data_sockets: bool = setting(yes_no(), "yes", "bring connections for single channels when the server "
        "wants them")


@dataclass(frozen=True)
class ConsentSettings:
    """What the device's site says to remote sessions."""

    sessions: str = setting(word("allow", "ask", "no"), "allow", "remote sessions of people to what is in "
        "local: allow; ask: if consent_command says yes; no. Clients of ports are not concerned", live=True)
    consent_command: str = setting(COMMAND, "", "ask: what has to end with 0; {user}, {services}, "
        "{session}, {address} and {device} in it are replaced", live=True)
    consent_wait: float = setting(seconds(1, 110), "60 s", "time that it has; then it is killed, which is a "
        "no", live=True)


@dataclass(frozen=True)
class ErrandSettings:
    """Whether the agent stays."""

    once: bool = setting(yes_no(), "no", "end with the first link, or when each server was tried in vain; "
        "exit status 0: clients came; 69: no server had a link; 75: no client came")
    idle_end: float | None = setting(nothing("never", seconds(0.1, 3650 * 86400)), "never", "end when no "
        "client was there for so long, from the start on, with the status that once says; never: stay")


@dataclass(frozen=True)
class ProbeSettings:
    """Which services the agent looks at by itself."""

    probe: tuple[tuple[str, str], ...] = setting(_PROBES, "", "services, by their name in local, that are "
        "looked at: NAME by a connection, NAME=/PATH by an HTTP GET that has to be answered with less than "
        "500. The server shows what was found. Not for what takes one connection at a time", live=True)
    probe_interval: float = setting(seconds(1, 86400), "30 s", "time between two looks", live=True)
    probe_wait: float = setting(seconds(0.1, 60), "5 s", "time that a look may take", live=True)


@dataclass(frozen=True, kw_only=True)
class AgentSettings(AgentTls, AgentWays, ConsentSettings, ProbeSettings, ErrandSettings, LogSettings):
    """All that an agent is told; servers and local hold at least one, and no two names of local are equal."""

    servers: tuple[ServerPlace, ...] = setting(_SERVERS, "", "servers, tried in turn; at least one is "
        "needed; a URL is that of a web listener, port 443 and path /link unless it says others: a device "
        "key is wanted there, for certificates and enrolment are for HOST:PORT", live=True)
    serial: str = setting(serial_or("auto"), "auto", "name of the device; auto: the one in its certificate, "
        "else the host name")
    key_file: str | None = setting(PLACE, "auto", "file with the device key, closed to others; auto: "
        "revtunnel.key in $CREDENTIALS_DIRECTORY, none where there is no such file")
    local: tuple[Offer, ...] = setting(_OFFERS, "", "what the agent may dial for the server, and nothing "
        "else; at least one is needed; what runs to one that is gone goes on", live=True)
    remote_offers: tuple[Pattern, ...] | None = setting(_REMOTE, "none", "what revtunnelctl at the server "
        "may add to local until the agent ends, such as 10.0.0.5:22, *:443; whatever is not none lets it "
        "take away any as well; any: anything that the agent reaches; once the next link is up", live=True)
    limits: AgentLimits
    emo_limits: EmoLimits
    relay: RelayLimits
    link: LinkLimits
    files: tuple[str, ...]
