"""What an agent dials: ``host:port`` or ``unix:PATH``, and how a target is written and named.

The written form is one string everywhere: settings, HELLO, CONNECT, log, admin. A CONNECT carries
``host`` and ``port``; a UNIX socket travels as host ``unix:PATH``, port 0. Two targets are the same
only if their written forms are equal after ``parse_target``: this is what the agent's allow list compares.

Source: wire/readyagent.md section 1 (CONNECT), faults.md F16 and C8; ``unix:`` is ours.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

__all__ = [
    "MAX_HOST",
    "Offer",
    "Target",
    "is_literal",
    "parse_endpoint",
    "parse_endpoint_or",
    "parse_offer",
    "parse_target",
    "place",
    "target_of",
    "told_apart",
    "twice",
]

MAX_HOST = 255  # bytes of host in a CONNECT
_DNS_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL}(?:\.{_DNS_LABEL})*\.?", re.ASCII)
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?", re.ASCII)  # inet_aton may take it
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)  # as long as Linux lets an interface's name be
MAX_LABEL = 32  # characters
_LABEL = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_LABEL}}}", re.ASCII)
_ODD = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
_WITH_PORT = re.compile(r".*[^:]:[0-9]+", re.ASCII)
_UNIX = re.compile(r"/[\x21-\x7e]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """One address that an agent may dial; ``host`` is canonical (lower case, IPv6 compressed)."""

    host: str
    port: int

    @property
    def path(self) -> str | None:
        """The path of a UNIX socket, else None."""
        return self.host.removeprefix("unix:") if self.host.startswith("unix:") else None

    @property
    def is_literal(self) -> bool:
        """Whether ``host`` is an IP address and needs no name resolution."""
        return is_literal(self.host)

    def __str__(self) -> str:
        return place(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Offer:
    """One ``--local``: a target under the name by which server and operators know it."""

    name: str
    target: Target


def place(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets; ``unix:PATH`` as it is."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(1024)
def is_literal(host: str) -> bool:
    """Whether this is an address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(1024)
def _canonical(host: str) -> str:
    """The one spelling: names lower case without a final dot, addresses compressed, mapped IPv4 as IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None and not _ZONE.fullmatch(address.scope_id):
            raise ValueError(f"{host[:80]!a} has a zone that is no interface's name")
        return str(address.ipv4_mapped or address)
    if address:
        return str(address)
    if not _NAME.fullmatch(host) or _NUMBER.fullmatch(host):
        raise ValueError(f"{host[:80]!a} is not a host name or an IP address")
    return host.lower().rstrip(".")


def target_of(host: str, port: int) -> Target:
    """The target that a CONNECT names.

    Raises:
        ValueError: the host is no address, name or ``unix:`` path; the port is out of range.
    """
    if host.startswith("unix:"):
        if port or not _UNIX.fullmatch(host[5:]):
            raise ValueError(f"{host[:120]!a}: unix:/PATH wanted, at most 100 printable characters")
        return Target(host, 0)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port}: 1 to 65535 wanted")
    return Target(_canonical(host), port)


def _split(text: str) -> tuple[str, int]:
    bracket = re.fullmatch(r"\[([^\[\]]+)\]:([0-9]{1,5})", text, re.ASCII)
    plain = re.fullmatch(r"([^:\[\]]+):([0-9]{1,5})", text, re.ASCII)
    match = bracket or plain
    if not match:
        raise ValueError(f"{text[:120]!a}: HOST:PORT wanted, IPv6 in brackets")
    if bracket and ":" not in bracket[1]:
        raise ValueError(f"{text[:120]!a}: only an IPv6 address goes into brackets")
    return match[1], int(match[2])


def parse_endpoint(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` where we listen or dial a server; port 0 is allowed.

    Raises:
        ValueError: not of that form; the text names the value.
    """
    host, port = _split(text)
    if port > 65535:
        raise ValueError(f"{text[:120]!a}: port {port} is above 65535")
    return _canonical(host), port


def parse_endpoint_or(text: str, port: int | None) -> tuple[str, int]:
    """The same where we dial: no port 0, and ``port`` where none is written; None: one has to be."""
    host, written = parse_endpoint(text if port is None or _WITH_PORT.fullmatch(text) else f"{text}:{port}")
    if not written:
        raise ValueError(f"{text[:120]!a}: port 1 to 65535 wanted")
    return host, written


def parse_target(text: str) -> Target:
    """Read ``HOST:PORT`` (IPv6 in brackets) or ``unix:PATH``.

    Raises:
        ValueError: not of that form; the text names the value and what is wanted.
    """
    if text.startswith("unix:"):
        return target_of(text, 0)
    return target_of(*_split(text))


def _called(target: Target) -> str:
    """The name of an offer that has none."""
    return f"tcp-{target.port}" if target.path is None else f"unix-{target.path.rsplit('/', 1)[1]}"[:32]


def told_apart(offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """The same, and those without a name of their own that would have one together have their host in it.

    All of them: who comes first in a list must not decide which machine a client reaches by the short one.
    """
    names = Counter(offer.name for offer in offers)

    def named(offer: Offer) -> Offer:
        target = offer.target
        if names[offer.name] == 1 or offer.name != _called(target) or target.path is not None:
            return offer
        port = f"-{target.port}"
        return replace(offer, name=_ODD.sub("-", target.host)[: 32 - len(port)] + port)

    return tuple(map(named, offers))


def is_label(text: str) -> bool:
    """Whether an offer may be called that: 1 to 32 of letters, digits and ``._-``."""
    return _LABEL.fullmatch(text) is not None


def parse_offer(text: str) -> Offer:
    """Read one ``--local``: ``[NAME=]TARGET``; without a name it is ``tcp-PORT`` or ``unix-FILE``.

    Raises:
        ValueError: as ``parse_target``, or the name is not 1 to 32 of letters, digits and ``._-``.
    """
    name, equals, rest = text.partition("=")
    if not equals or name.startswith("unix:"):
        name, rest = "", text
    target = parse_target(rest)
    if not equals or rest is text:
        name = _called(target)
    if not is_label(name):
        raise ValueError(f"{text[:120]!a}: a name is 1 to 32 of A-Z a-z 0-9 . _ -")
    return Offer(name, target)


def twice(names: list[str]) -> str | None:
    """The first name that stands there a second time."""
    return next((name for number, name in enumerate(names) if name in names[:number]), None)
