"""Kinds of values that are set: what one looks like in a file, its unit, its limits, and how it is read.

Rule of this file: a reader gives a value or raises a ValueError that names the text and what is wanted; it
looks at nothing but that text. Kinds that one owner has alone stand beside him.

Source: twisted.md section 7; faults.md C5; ours for the rest.
"""

import dataclasses
import ipaddress
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.networks import network_of
from revtunnel.ground.serials import MAX_SERIAL, parse_serial
from revtunnel.ground.targets import parse_endpoint

__all__ = [
    "ADDRESS",
    "COMMAND",
    "GIB",
    "KIB",
    "MIB",
    "NAME",
    "PEM",
    "PLACE",
    "RANGES",
    "SettingKind",
    "any_of",
    "count",
    "listening",
    "many",
    "networks",
    "nothing",
    "path",
    "read_address",
    "read_listening",
    "read_port",
    "read_range",
    "seconds",
    "serial_or",
    "share",
    "size",
    "text",
    "word",
    "yes_no",
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


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
        seen: set[Any] = set()
        for piece, value in zip(pieces, found, strict=True):
            if value in seen:
                raise ValueError(f"{piece[:80]!a} stands there twice")
            seen.add(value)
        return found

    return SettingKind(unit, f"{least} to {most} entries", read)


def any_of(unit: str, item: Callable[[str], Any], most: int) -> SettingKind:
    """A list, or ``any``, which is None, or ``none``, which is empty."""
    entries = many(unit, item, 1, most)

    def read(text: str) -> tuple[Any, ...] | None:
        return {"any": None, "none": ()}.get(text) if text in ("any", "none") else entries.read(text)

    return SettingKind(unit, f"any, none, or {entries.limit}", read)


def nothing(word: str, kind: SettingKind) -> SettingKind:
    """The same, and ``word`` is read as None."""
    return dataclasses.replace(kind, read=lambda text: None if text == word else kind.read(text))


# ---- what several owners have


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


def read_port(text: str, least: int = 1) -> int:
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not least <= int(text) <= 65535:
        raise ValueError(f"{text[:80]!a}: a port of {least} to 65535 wanted")
    return int(text)


def read_range(text: str) -> tuple[int, int]:
    low, dash, high = (part.strip() for part in text.partition("-"))
    first = read_port(low)
    last = read_port(high) if dash else first
    if last < first:
        raise ValueError(f"{text[:80]!a} runs backwards, {last}-{first} wanted")
    return first, last


def serial_or(nothing: str) -> SettingKind:
    """A serial, or the word that stands for none."""

    def read(text: str) -> str:
        try:
            return text if text == nothing else parse_serial(text)
        except RemoteError as error:
            raise ValueError(str(error)) from None

    return SettingKind("serial", f"{nothing}, or 1 to {MAX_SERIAL} of A-Z a-z 0-9 . _ : -", read)


def listening(least: int) -> SettingKind:
    """Where this machine listens."""
    return many("HOST:PORT", read_listening, least, 16)


def networks(most: int) -> SettingKind:
    """Addresses and networks."""
    return many("network", network_of, 0, most)


def read_command(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text[:80]!a}: {error}, words as a shell has them wanted") from None
    return text


ADDRESS = SettingKind("address", "an IP address of this machine", read_address)
COMMAND = SettingKind("command", "words, no shell", read_command)
PEM = nothing("none", path(4096, "none"))
PLACE = nothing("none", path(4096, "auto", "none"))  # "auto" is replaced by who reads it
NAME = text("name", "1 to 32 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,32}")
RANGES = many("PORT or LOW-HIGH", read_range, 1, 64)
