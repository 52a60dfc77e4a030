"""What an agent is told: frozen values, a class for each part, right once they exist.

Rule of this file: settings are declared here (ground/declared.py) and not decided about; agent_reading.py
makes these from a file. It imports nothing that only a server needs.

Source: twisted.md section 7; ours.
"""

import re
from dataclasses import dataclass

from revtunnel.fleet.device_records import Pattern, parse_pattern
from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import (
    COMMAND,
    PEM,
    PLACE,
    SettingKind,
    any_of,
    many,
    nothing,
    read_port,
    seconds,
    serial_or,
    word,
    yes_no,
)
from revtunnel.ground.limits import AgentLimits, EmoLimits, LinkLimits, RelayLimits
from revtunnel.ground.server_places import ServerPlace, parse_server_place
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.settings.sections import LogSettings
from revtunnel.sockets.plane_settings import PlaneSettings
from revtunnel.sockets.ways.proxy_choice import HttpProxy, ProxyChoice, parse_proxy
from revtunnel.trust.tls_settings import AgentTls

__all__ = ["AgentSettings", "AgentWays", "ConsentSettings", "ErrandSettings", "ProbeSettings"]


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


_SERVERS = many("HOST:PORT, wss://HOST[:PORT][/PATH] or _NAME._tcp.DOMAIN", parse_server_place, 0, 16)
_OFFERS = many("[NAME=]HOST:PORT or unix:PATH", parse_offer, 0, 255)
_REMOTE = any_of("HOST:PORT or unix:PATH", read_remote, 256)
_PROXY = SettingKind("URL", "environment, none or http://HOST:PORT", read_proxy)
_HEADERS = many("NAME=v1 or NAME=v2", read_header, 0, 255)
_AT_ONCE = many("NAME=COUNT", read_at_once, 0, 255)
_PROBES = many("NAME or NAME=/PATH", read_probe, 0, 255)
_SERVER_PORT = SettingKind("port", "0, or 1025 to 65535", read_server_port)


# fmt: off
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
    legacy: bool = setting(yes_no(), "no", "the server may be a ReadyAgent server that nobody "
        "changed: where it does not offer rt1, its wire is spoken")
    emo: bool = setting(yes_no(), "no", "the server speaks the MTConnect EMO proxy's wire; see server_port")
    server_port: int = setting(_SERVER_PORT, "0", "emo: the port at the server that stands for the one "
        "service in local; needed there")
    modern: str = setting(word("auto", "no"), "auto", "emo: auto: offer rt1 first, which a server of this "
        "project speaks on the same port; an original server hangs up on it at once, and EMO is spoken then; "
        "no: never", live=True)
    keepalive: float | None = setting(nothing("auto", seconds(0.1, 3600)), "auto", "silence before the link "
        "is asked for a sign of life; auto: as the server says, and less once the path there, a proxy or "
        "NAT, has cut three silent links in a row; such a path carries all clients by the link", live=True)
    follow: str = setting(word("configured", "verified", "no"), "configured", "where a server that stops or "
        "is full may send the agent: configured: to what servers lists, what DNS lists under its SRV names, "
        "and another address of the name that was dialled; verified: over TLS anywhere, if the server there "
        "proves the same name; no: nowhere", live=True)
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
class AgentSettings(
    AgentTls, AgentWays, ConsentSettings, ProbeSettings, ErrandSettings, PlaneSettings, LogSettings
):
    """All that an agent is told; servers and local hold at least one, and no two names of local are equal."""

    servers: tuple[ServerPlace, ...] = setting(_SERVERS, "", "servers, tried in turn; at least one is "
        "needed; a URL is that of a web listener, port 443 and path /link unless it says others: a device "
        "key is wanted there, for certificates and enrolment are for HOST:PORT. _NAME._tcp.DOMAIN: what DNS "
        "lists there (SRV); certificates name DOMAIN then, and TLS is spoken with tls = auto", live=True)
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
