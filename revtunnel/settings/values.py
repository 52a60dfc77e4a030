"""Types of settings: what a value looks like in a file, its unit, its limits, and how it is read.

Rule of this file: a reader gives a value or raises a ValueError that names the text and what is wanted; it
looks at nothing but that text.

Source: twisted.md section 7; faults.md C5; ours for the rest.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.policy import KIB, MIB
from revtunnel.ground.serials import MAX_SERIAL, parse_serial
from revtunnel.ground.targets import Offer, parse_endpoint, parse_offer
from revtunnel.sockets.ways.proxy_choice import HttpProxy, parse_proxy
from revtunnel.sockets.ways.trusted_proxies import Network

__all__ = [
    "GIB",
    "PortMapping",
    "SettingKind",
    "count",
    "many",
    "path",
    "read_address",
    "read_dialled",
    "read_header",
    "read_listening",
    "read_mapping",
    "read_mode",
    "read_network",
    "read_person",
    "read_port",
    "read_proxy",
    "read_range",
    "read_server_port",
    "seconds",
    "serial",
    "share",
    "size",
    "text",
    "word",
    "yes_no",
]

GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One service of a legacy device: the port that clients dial (0: one from the pool), and its target."""

    client_port: int
    offer: Offer

    def __str__(self) -> str:
        return f"{self.client_port} -> {self.offer.name}={self.offer.target}"


# ---- kinds of values


@dataclass(frozen=True, slots=True)
class SettingKind:
    """A type of value: ``read`` raises a ValueError that names the value and what is wanted."""

    unit: str
    limit: str
    read: Callable[[str], Any]
    show: Callable[[Any], str] = str


_TIMES = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_SIZES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}


def _largest(value: float, units: dict[str, int]) -> str:
    """``value`` in the largest unit that leaves it whole; never in minutes: 60 s reads better."""
    whole = [unit for unit, size in units.items() if unit != "min" and value % size == 0 and value >= size]
    unit = whole[-1] if whole else next(iter(units))
    return f"{value / units[unit]:.15g} {unit}"


def _number(unit: str, low: float, high: float, form: str, units: dict[str, int]) -> SettingKind:
    """A number of ``form``, between two limits, with or without one of ``units`` behind it."""
    factors = {"": 1, **{name.lower(): factor for name, factor in units.items()}}
    show = partial(_largest, units=units) if units else str
    limit = f"{show(low)} to {show(high)}"
    wanted = f"a number{' with or without ' + ', '.join(units) if units else ''} wanted, {limit}"

    def read(text: str) -> Any:
        match = re.fullmatch(rf"({form}) ?([A-Za-z]*)", text, re.ASCII)
        if not match or match[2].lower() not in factors:
            raise ValueError(f"{text[:80]!a}: {wanted}")
        value = (float(match[1]) if "." in match[1] else int(match[1])) * factors[match[2].lower()]
        if not low <= value <= high:
            raise ValueError(f"{text[:80]!a} is outside {limit}")
        return value

    return SettingKind(unit, limit, read, show)


def count(unit: str, low: int, high: int) -> SettingKind:
    return _number(unit, low, high, "[0-9]{1,15}", {})


def seconds(low: float, high: float) -> SettingKind:
    kind = _number("seconds", low, high, r"[0-9]{1,12}(?:\.[0-9]{1,6})?", _TIMES)
    return dataclasses.replace(kind, read=lambda text: float(kind.read(text)))


def size(low: int, high: int) -> SettingKind:
    return _number("bytes", low, high, "[0-9]{1,15}", _SIZES)


def share(low: float, high: float) -> SettingKind:
    return _number("share", low, high, r"[01](?:\.[0-9]{1,6})?", {})


def word(*words: str) -> SettingKind:
    limit = " or ".join((", ".join(words[:-1]), words[-1]))

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text[:80]!a}: {limit} wanted")
        return text

    return SettingKind("word", limit, read)


def yes_no() -> SettingKind:
    either = word("yes", "no")
    return SettingKind(
        "word", either.limit, lambda text: either.read(text) == "yes", lambda on: "yes" if on else "no"
    )


def text(unit: str, limit: str, pattern: str) -> SettingKind:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{text[:80]!a}: {limit} wanted")
        return text

    return SettingKind(unit, limit, read)


def path(longest: int, *words: str) -> SettingKind:
    return text(
        "path",
        f"{', '.join(words)} or an absolute path of at most {longest} characters",
        rf"{'|'.join(words)}|/[^\x00-\x1f]{{1,{longest - 1}}}",
    )


def many(unit: str, item: Callable[[str], Any], least: int, most: int) -> SettingKind:
    """A list: one entry a line, or with commas between; no entry twice."""

    def read(text: str) -> tuple[Any, ...]:
        pieces = [piece.strip() for piece in re.split(r"[,\n]", text) if piece.strip()]
        found = tuple(item(piece) for piece in pieces)
        if not least <= len(found) <= most:
            raise ValueError(f"{len(found)} entries, {least} to {most} wanted: {unit}")
        for number, value in enumerate(found):
            if value in found[:number]:
                raise ValueError(f"{pieces[number][:80]!a} stands there twice")
        return found

    return SettingKind(unit, f"{least} to {most} entries", read)


# ---- entries of lists


def read_address(text: str) -> str:
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text[:80]!a}: an IP address of this machine wanted") from None


def read_listening(text: str) -> tuple[str, int]:
    host, port = parse_endpoint(text)
    return read_address(host), port


def read_dialled(text: str) -> tuple[str, int]:
    host, port = parse_endpoint(text)
    if not port:
        raise ValueError(f"{text[:80]!a}: port 1 to 65535 wanted")
    return host, port


def read_port(text: str, least: int = 1) -> int:
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not least <= int(text) <= 65535:
        raise ValueError(f"{text[:80]!a}: a port of {least} to 65535 wanted")
    return int(text)


def read_server_port(text: str) -> int:
    """A port that an EMO machine may register, or 0: none."""
    return 0 if text == "0" else read_port(text, 1025)


def read_range(text: str) -> tuple[int, int]:
    low, dash, high = (part.strip() for part in text.partition("-"))
    first = read_port(low)
    last = read_port(high) if dash else first
    if last < first:
        raise ValueError(f"{text[:80]!a} runs backwards, {last}-{first} wanted")
    return first, last


def read_mapping(text: str) -> PortMapping:
    port, arrow, offer = (part.strip() for part in text.partition("->"))
    if not arrow:
        raise ValueError(f"{text[:120]!a}: CLIENTPORT -> [NAME=]HOST:PORT wanted")
    return PortMapping(read_port(port, least=0), parse_offer(offer))


def read_person(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,10}|@?[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a user name, a uid or @group wanted")
    return text


def read_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        wanted = "an address or a network such as 10.0.0.0/8 wanted"
        raise ValueError(f"{text[:80]!a}: {wanted}, {error}") from None


def read_proxy(text: str) -> HttpProxy | str:
    return text if text in ("environment", "none") else parse_proxy(text)


def read_header(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9._-]{1,32})=(v[12])", text, re.ASCII)
    if not match:
        raise ValueError(f"{text[:80]!a}: NAME=v1 or NAME=v2 wanted, NAME as in local")
    return match[1], match[2]


def read_mode(text: str) -> int:
    if not re.fullmatch("0?6[046][046]", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: an octal mode such as 0660 wanted, nothing executable")
    return int(text, 8)


def serial(nothing: str) -> SettingKind:
    """A serial, or the word that stands for none."""

    def read(text: str) -> str:
        try:
            return text if text == nothing else parse_serial(text)
        except RemoteError as error:
            raise ValueError(str(error)) from None

    return SettingKind("serial", f"{nothing}, or 1 to {MAX_SERIAL} of A-Z a-z 0-9 . _ : -", read)
