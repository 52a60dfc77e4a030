"""What one device is allowed: its ports, its targets, its clients, how many, until when.

The rule: a record is looked at on every open, so that a change counts at once; what nobody wrote down is
allowed. A device without a record of its own has the default record, if there is one.

Source: faults.md "Per-device authority record", N33; ours for the patterns.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import SettingKind, any_of, count, many, nothing, read_range, text, word
from revtunnel.ground.labels import MAX_LABELS, parse_label
from revtunnel.ground.networks import Network, address_of, network_of, within
from revtunnel.ground.targets import Offer, Target, is_label, parse_offer, parse_target

__all__ = [
    "CLIENTS",
    "DEFAULT",
    "DeviceRecord",
    "DeviceRecords",
    "DeviceSettings",
    "Pattern",
    "parse_pattern",
]

DEFAULT = "*"  # the serial of the default record
DAY = 86400.0  # seconds
_LOOSE = re.compile(r"\*?(?:[A-Za-z0-9._-]{1,253})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Targets by the name of their offer, or by host and port; an empty host and port 0 are any."""

    name: str = ""
    host: str = ""  # exact, or ``*.suffix``
    port: int = 0

    def fits(self, offer: Offer) -> bool:
        """Whether a device with this pattern may offer that."""
        if self.name:
            return offer.name == self.name
        target = offer.target
        if self.port and self.port != target.port:
            return False
        if self.host.startswith("*"):
            return target.path is None and target.host.endswith(self.host[1:])
        return not self.host or self.host == target.host

    def __str__(self) -> str:
        if self.name:
            return self.name
        if self.host.startswith("unix:"):
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host or '*'}:{self.port or '*'}"


def parse_pattern(text: str) -> Pattern:
    """Read ``NAME``, ``HOST:PORT`` or ``unix:PATH``; ``*`` for HOST or PORT, ``*.example.com`` for HOST.

    Raises:
        ValueError: not of that form.
    """
    if is_label(text):
        return Pattern(name=text)
    host, colon, port = text.rpartition(":")
    if text.startswith("unix:") or (colon and host and "*" not in text):
        exact: Target = parse_target(text)
        return Pattern(host=exact.host, port=exact.port)
    number = "1" if port == "*" else port
    loose = host.startswith("*") and (host == "*" or host.startswith("*.")) and _LOOSE.fullmatch(host)
    if not (colon and (loose or "*" not in host)):
        raise ValueError(f"{text[:120]!a}: NAME, HOST:PORT, *.DOMAIN:PORT or unix:PATH wanted, * for any")
    if not loose:
        return Pattern(host=parse_target(f"{host}:{number}").host)
    if not re.fullmatch("[0-9]{1,5}", number, re.ASCII) or not 1 <= int(number) <= 65535:
        raise ValueError(f"{text[:120]!a}: port 1 to 65535 wanted, or *")
    return Pattern(host="" if host == "*" else host.lower(), port=0 if port == "*" else int(port))


def read_day(text: str) -> float | None:
    """The end of a day in UTC, in seconds since 1970; None for ``never``."""
    if text == "never":
        return None
    try:
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
            raise ValueError(text)
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() + DAY
    except ValueError:
        raise ValueError(f"{text[:80]!a}: never, or a day such as 2027-12-31 wanted") from None


def read_service(text: str) -> Offer:
    """An offer at a TCP port."""
    offer = parse_offer(text)
    if offer.target.path is not None:
        raise ValueError(f"{text[:80]!a}: [NAME=]HOST:PORT wanted")
    return offer


def read_web(text: str) -> tuple[str, str]:
    """A service that is a web page, and how it speaks."""
    name, sign, kind = (part.strip() for part in text.partition("="))
    if not sign or not is_label(name) or kind not in ("http", "https", "https-any"):
        raise ValueError(f"{text[:80]!a}: NAME=http, NAME=https or NAME=https-any wanted")
    return name, kind


CLIENTS = any_of("network", network_of, 1024)
_TARGETS = any_of("NAME, HOST:PORT or unix:PATH", parse_pattern, 256)
_PORTS = any_of("PORT or LOW-HIGH", read_range, 64)
_LABELS = many("NAME or NAME=VALUE", parse_label, 0, MAX_LABELS)
_SERVICES = many("[NAME=]HOST:PORT", read_service, 0, 64)
_WEB = many("NAME=KIND", read_web, 0, 64)
_WEB_HOST = text("Host", "target, or HOST or HOST:PORT", r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?")
_EXPIRES = SettingKind("day", "never, or YYYY-MM-DD", read_day)


# fmt: off
@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What holds for one device; None is any, or never. Ports are the first and last of each range."""

    clients: tuple[Network, ...] | None = setting(CLIENTS, "any", "who may reach the device, such as "
        "10.1.0.0/16, 2001:db8::/32; and its pool must have him too", live=True)
    targets: tuple[Pattern, ...] | None = setting(_TARGETS, "any", "what it may offer: names of services, or "
        "addresses in which * is any host or port and *.DOMAIN any host of a domain", live=True)
    ports: tuple[tuple[int, int], ...] | None = setting(_PORTS, "any", "client ports that it may "
        "have", live=True)
    leases: int = setting(count("ports", 0, 65535), "64", "client ports that it may hold beside those in "
        "[reservations], and as many that rest after it; a lower number counts for its next ones", live=True)
    channels: int | None = setting(nothing("0", count("channels", 0, 65535)), "0", "at once; 0: what "
        "clients_per_device in [limits] allows to all", live=True)
    at_once: int | None = setting(nothing("any", count("clients", 1, 65535)), "any", "clients of one of its "
        "services at once, such as 1 for a PLC that takes one; further ones wait in line, see line and "
        "line_wait in [limits]", live=True)
    expires: float | None = setting(_EXPIRES, "never", "its last day, in UTC; then its link is closed and "
        "refused", live=True)
    labels: tuple[str, ...] = setting(_LABELS, "", "what grants may call it by, such as hall-b, "
        "line=3", live=True)
    sessions: str = setting(word("any", "asked", "no"), "any", "remote sessions to it: any that a grant "
        "allows, and its site where that can be asked; asked: only if it can, which needs an agent of ours "
        "that is new enough; no: none", live=True)
    services: tuple[Offer, ...] = setting(_SERVICES, "", "what a ThingWorx device has, as it dials it, or a "
        "localproxy, by name; others say it", live=True)
    web: tuple[tuple[str, str], ...] = setting(_WEB, "", "its services that are web pages, and how they "
        "speak: http; https: with a certificate that this machine takes for the target; https-any: whatever "
        "its certificate, such as a self-signed one. What is not here goes by its name: web, www, http, "
        "https, also with more behind a . _ - or digit", live=True)
    web_host: str = setting(_WEB_HOST, "target", "what they are told as Host; target: what the agent dials",
        live=True)
# fmt: on

    def has_target(self, offer: Offer) -> bool:
        """Whether the device may offer this."""
        return self.targets is None or any(pattern.fits(offer) for pattern in self.targets)

    def has_client(self, peer: str) -> bool:
        """Whether a client from ``HOST:PORT`` may reach the device."""
        return self.clients is None or within(address_of(peer), self.clients)

    def row(self) -> dict[str, object]:
        """The record as plain values, for operators; None is any."""
        last = None if self.expires is None else datetime.fromtimestamp(self.expires - 1, UTC)
        return {
            "ports": None if self.ports is None else [f"{low}-{high}" for low, high in self.ports],
            "targets": None if self.targets is None else [str(pattern) for pattern in self.targets],
            "clients": None if self.clients is None else [str(network) for network in self.clients],
            "leases": self.leases,
            "channels": self.channels,
            "at_once": self.at_once,
            "expires": None if last is None else last.strftime("%Y-%m-%d"),  # the last day, UTC
            "labels": list(self.labels),
            "sessions": self.sessions,
            "services": [f"{each.name}={each.target}" for each in self.services],
            "web": [f"{name}={kind}" for name, kind in self.web],
            "web_host": self.web_host,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings(DeviceRecord):
    """The record of one device, or of all others where ``name`` is ``*``."""

    name: str


@dataclass(frozen=True, slots=True)
class DeviceRecords:
    """All records by serial, and what each pool asks of clients beside them.

    ``over``: those of single devices that operators have laid down, in place of the ones of settings.
    """

    devices: Mapping[str, DeviceRecord] = field(default_factory=dict)
    pools: Mapping[str, tuple[Network, ...] | None] = field(default_factory=dict)
    over: Mapping[str, DeviceRecord] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(init=False)  # of those that have any, and of DEFAULT
    ends: Sequence[tuple[float, str]] = field(init=False)  # when each is over that has an end, in order

    def __post_init__(self) -> None:
        records = {**self.devices, **self.over}
        found = ((each.expires, name) for name, each in records.items() if each.expires is not None)
        object.__setattr__(self, "ends", sorted(found))
        labels = {name: each.labels for name, each in records.items() if each.labels}
        object.__setattr__(self, "labels", labels)

    def of(self, serial: str) -> DeviceRecord:
        """The record in force."""
        return self.over.get(serial) or self.devices.get(serial) or self.devices.get(DEFAULT) or _ANY

    def source(self, serial: str) -> str:
        """The section that it is from: the serial, ``*``, or nothing."""
        return next((name for name in (serial, DEFAULT) if name in self.devices), "")

    def expired(self, serial: str, wall: float) -> bool:
        """Whether a device's time is over; ``wall`` is seconds since 1970."""
        end = self.of(serial).expires
        return end is not None and wall >= end

    def refuses(self, serial: str, peer: str, pool: str, wall: float) -> str:
        """Why a client may not have this device: ``not-allowed``, ``expired``, or nothing."""
        if self.expired(serial, wall):
            return "expired"
        own = self.pools.get(pool)
        if own is not None and not within(address_of(peer), own):
            return "not-allowed"
        return "" if self.of(serial).has_client(peer) else "not-allowed"


_ANY = DeviceRecord()
