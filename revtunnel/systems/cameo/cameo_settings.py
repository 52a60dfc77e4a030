"""The settings of revtunnel-cameo and of cameo-rep-proxy and cameo-pub-proxy: sections [cameo] and [admin].

Source: twisted.md section 7; wire/cameo.md section 5; ours for the rest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from revtunnel.ground.policy import CameoLimits
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.inifile import SECTION_OF, Name, SettingsError, Surroundings, Table, read_files
from revtunnel.settings.sections import (
    admin_settings,
    check_people,
    differences,
    named_sections,
    part_of,
    socket_beside,
)
from revtunnel.sockets.ways.trusted_proxies import Network
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_requests import READ_ONLY

__all__ = ["CameoSettings", "OutsideSettings", "cameo_changes", "load_cameo"]

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class OutsideSettings:
    """One way in for clients beyond the firewall; at least one of the first two is not empty."""

    name: str
    responder: tuple[Endpoint, ...]
    subscriber: tuple[Endpoint, ...]
    advertise: tuple[tuple[int, int], ...]
    requests: str  # all, read-only
    refuse_types: tuple[int, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is set: a section as the shipped file has it."""
        return self == OutsideSettings(self.name, (), (), (), "all", ())

    @property
    def rules(self) -> CameoRules:
        """What holds for its peers."""
        refused = frozenset(self.refuse_types) | (READ_ONLY if self.requests == "read-only" else frozenset())
        return CameoRules(self.name, outside=True, advertise=dict(self.advertise), refused_types=refused)


@dataclass(frozen=True, slots=True)
class CameoSettings:
    """All that the relays are told; ``drain`` is in ``limits``."""

    proxy_ports: tuple[int, int, int]  # responder, subscriber, publisher
    bind: tuple[str, ...]
    allow: tuple[Network, ...]
    trusted: tuple[Network, ...]
    log_file: str  # a path, syslog or none
    log_format: str
    log_level: str
    outside: tuple[OutsideSettings, ...]
    limits: CameoLimits
    admin: AdminSettings
    files: tuple[str, ...]


def load_cameo(
    path: str | None = None, overrides: Mapping[Name, Any] | None = None, around: Surroundings | None = None
) -> CameoSettings:
    """The settings of the relays; arguments and errors as those of ``load_server``."""
    around = around or Surroundings.here()
    table = read_files(path, overrides, around)
    names = ("proxy_ports", "bind", "allow", "trusted", "log_file", "log_format", "log_level")
    settings = CameoSettings(
        **{name: table.get("cameo", name) for name in names},
        outside=tuple(each for each in _outside(table) if not each.empty),
        limits=part_of(table, CameoLimits),
        admin=admin_settings(table, socket_beside(table, "cameo", around)),
        files=tuple(table.files),
    )
    _check(table, settings)
    check_people(table)
    if table.errors:
        raise SettingsError(table.errors)
    return settings


def _outside(table: Table) -> Iterator[OutsideSettings]:
    for values in named_sections(table, "cameo-outside", None):
        yield OutsideSettings(**values)


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


def cameo_changes(old: CameoSettings, new: CameoSettings) -> tuple[list[str], list[str]]:
    """Names of settings that differ, as ``differences`` says them."""
    return differences(_flat(old), _flat(new))


def _flat(settings: CameoSettings) -> Iterator[tuple[Name, Any]]:
    """Every setting with its name."""
    for key in SECTION_OF["cameo"].keys:
        owner: Any = settings.limits if key.part else settings
        value = settings.admin.socket if key.name == "admin_socket" else getattr(owner, key.name)
        yield ("cameo", key.name), value
    for name in ("mode", "operators", "readers"):
        yield ("admin", name), getattr(settings.admin, name)
    for each in settings.outside:
        for field in fields(each)[1:]:
            yield (f"cameo-outside {each.name}", field.name), getattr(each, field.name)
