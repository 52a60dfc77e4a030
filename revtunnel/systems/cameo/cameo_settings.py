"""The settings of revtunnel-cameo and of cameo-rep-proxy and cameo-pub-proxy: sections [cameo] and [admin].

Rule of this file: it is imported by whoever reads settings, so it imports little.

Source: twisted.md section 7; wire/cameo.md section 5; ours for the rest.
"""

from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import SettingKind, listening, many, networks, path, read_address, read_port, word
from revtunnel.ground.limits import CameoLimits
from revtunnel.ground.networks import Network
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.admin_people import read_admin
from revtunnel.settings.inifile import Surroundings, Table
from revtunnel.settings.sections import LogSettings
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_requests import READ_ONLY

__all__ = ["CameoSettings", "OutsideSettings", "read_cameo"]

Endpoint = tuple[str, int]


def read_ports(text: str) -> tuple[int, int, int]:
    """The three numbers of CAMEO's own ``proxy_ports``."""
    ports = [read_port(part.strip()) for part in text.split(",")]
    if len(ports) != 3 or len(set(ports)) != 3:
        raise ValueError(f"{text[:80]!a}: three different ports wanted, such as 10000, 10001, 10002")
    return ports[0], ports[1], ports[2]


def read_translation(text: str) -> tuple[int, int]:
    reported, colon, advertised = (part.strip() for part in text.partition(":"))
    if not colon:
        raise ValueError(f"{text[:80]!a}: REPORTED:ADVERTISED wanted, such as 10000:21000")
    return read_port(reported), read_port(advertised)


def read_type(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:4]) > 999:
        raise ValueError(f"{text[:80]!a}: a message type of 0 to 999 wanted")
    return int(text)


_PORTS = SettingKind("ports", "three different ones", read_ports)
_TRANSLATIONS = many("REPORTED:ADVERTISED", read_translation, 0, 16)
_TYPES = many("message type", read_type, 0, 64)


# fmt: off
@dataclass(frozen=True, kw_only=True)
class OutsideSettings:
    """One way in for clients beyond the firewall; at least one of the first two is not empty."""

    name: str
    responder: tuple[Endpoint, ...] = setting(listening(0), "", "where outside clients reach the responder "
        "relay; an agent offers it with --local", live=True)
    subscriber: tuple[Endpoint, ...] = setting(listening(0), "", "where outside clients reach the publisher "
        "relay; at least one of both is needed", live=True)
    advertise: tuple[tuple[int, int], ...] = setting(_TRANSLATIONS, "", "ports in answers of the CAMEO "
        "server that clients of this listener are told otherwise: 10000:21000, 10001:21001", live=True)
    requests: str = setting(word("all", "read-only"), "all", "what such clients may ask the CAMEO server; "
        "read-only: nothing that starts, stops, writes, sets or removes", live=True)
    refuse_types: tuple[int, ...] = setting(_TYPES, "", "types of requests to the CAMEO server that are "
        "refused beside those", live=True)

    @property
    def rules(self) -> CameoRules:
        """What holds for its peers."""
        refused = frozenset(self.refuse_types) | (READ_ONLY if self.requests == "read-only" else frozenset())
        return CameoRules(self.name, outside=True, advertise=dict(self.advertise), refused_types=refused)


@dataclass(frozen=True, kw_only=True)
class CameoSettings(LogSettings):
    """All that the relays are told."""

    proxy_ports: tuple[int, int, int] = setting(_PORTS, "10000, 10001, 10002", "responder port, subscriber "
        "port, publisher port; the same as proxy_ports of the CAMEO server", live=True)
    bind: tuple[str, ...] = setting(many("address", read_address, 1, 16), "127.0.0.1", "addresses where the "
        "three ports listen; the programs of CAMEO's names listen everywhere instead", live=True)
    allow: tuple[Network, ...] = setting(networks(256), "", "who may connect to the first two ports, such as "
        "10.1.0.0/16; empty: everybody who reaches them; this machine always may", live=True)
    trusted: tuple[Network, ...] = setting(networks(256), "", "whose peers may hold names and publish, as "
        "those of this machine may; for applications of the site that run on another one", live=True)
    admin_socket: str = setting(path(107, "auto"), "auto", "where revtunnelctl comes in with --socket "
        "PATH; auto: cameo.sock beside the server's; who may use it stands in [admin]")
    log_file: str = setting(path(4096, "syslog", "none"), "syslog", "where the two programs log to, whose "
        "output nobody reads; the service logs to its standard output")
    limits: CameoLimits
    outside: tuple[OutsideSettings, ...]
    admin: AdminSettings
    files: tuple[str, ...]

    @property
    def drain(self) -> float:
        """Seconds that a drain may take."""
        return self.limits.drain
# fmt: on


def read_cameo(table: Table, around: Surroundings) -> CameoSettings:
    """The settings of the relays; an outside listener of which nothing is set is none."""
    rules = table.parts(OutsideSettings, None)
    socket = around.socket(table.get("cameo", "admin_socket"), "cameo")
    settings = table.part(
        CameoSettings,
        admin_socket=socket,
        outside=tuple(each for each in rules if each != OutsideSettings(name=each.name)),
        admin=read_admin(table, socket),
        files=tuple(table.files),
    )
    _check(table, settings)
    return settings


def _check(table: Table, settings: CameoSettings) -> None:
    """Every outside has a way in, no address has two owners, translations are of different ports."""
    taken: dict[Endpoint, str] = {
        (host, port): "cameo" for host in settings.bind for port in settings.proxy_ports
    }
    for each in settings.outside:
        label = f"cameo-outside {each.name}"
        if not each.responder and not each.subscriber and table.sound(label, "responder", "subscriber"):
            table.complain(label, "responder", "missing: HOST:PORT wanted, here or for subscriber")
        for key, endpoints in (("responder", each.responder), ("subscriber", each.subscriber)):
            for endpoint in endpoints:
                owner = taken.setdefault(endpoint, f"{label}] {key}") if endpoint[1] else ""
                if owner and owner != f"{label}] {key}":
                    text = f"{endpoint[0]} port {endpoint[1]} is also that of [{owner.removesuffix(']')}"
                    table.complain(label, key, text if "]" in owner else f"{text}]")
        for side, what in ((0, "reported"), (1, "advertised")):
            ports = [pair[side] for pair in each.advertise]
            if double := next((port for at, port in enumerate(ports) if port in ports[:at]), None):
                table.complain(label, "advertise", f"port {double} is {what} twice")
