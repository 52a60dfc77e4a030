"""The settings of records and penalties, of who is let in; a part of the table in schema.py."""

import calendar
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from revtunnel.fleet.records import parse_pattern
from revtunnel.ground.labels import MAX_LABELS, parse_label
from revtunnel.ground.networks import network_of
from revtunnel.ground.policy import PenaltyLimits
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.settings.schema_keys import Key, Section, limit_key
from revtunnel.settings.values import SettingKind, count, many, read_range, seconds, word

__all__ = ["CLIENTS", "RECORD_SECTIONS"]

DAY = 86400


def any_of(unit: str, item: Callable[[str], Any], most: int) -> SettingKind:
    """A list, or ``any``, which is None, or ``none``, which is empty."""
    entries = many(unit, item, 1, most)

    def read(text: str) -> tuple[Any, ...] | None:
        return {"any": None, "none": ()}.get(text) if text in ("any", "none") else entries.read(text)

    return SettingKind(unit, f"any, none, or {entries.limit}", read)


def read_day(text: str) -> float | None:
    """The end of a day in UTC, in seconds since 1970; None for ``never``."""
    if text == "never":
        return None
    try:
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
            raise ValueError(text)
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%d")) + DAY)
    except ValueError:
        raise ValueError(f"{text[:80]!a}: never, or a day such as 2027-12-31 wanted") from None


def read_service(text: str) -> Offer:
    """An offer at a TCP port."""
    offer = parse_offer(text)
    if offer.target.path is not None:
        raise ValueError(f"{text[:80]!a}: [NAME=]HOST:PORT wanted")
    return offer


CLIENTS = any_of("network", network_of, 1024)
_DEVICE = (
    Key("clients", CLIENTS, "any",
        "who may reach the device, such as 10.1.0.0/16, 2001:db8::/32; and its pool must have him too", True),
    Key("targets", any_of("NAME, HOST:PORT or unix:PATH", parse_pattern, 256), "any",
        "what it may offer: names of services, or addresses in which * is any host or port and *.DOMAIN any "
        "host of a domain", True),
    Key("ports", any_of("PORT or LOW-HIGH", read_range, 64), "any", "client ports that it may have", True),
    Key("channels", count("channels", 0, 65535), "0",
        "at once; 0: what clients_per_device in [limits] allows to all", True),
    Key("expires", SettingKind("day", "never, or YYYY-MM-DD", read_day), "never",
        "its last day, in UTC; then its link is closed and refused", True),
    Key("labels", many("NAME or NAME=VALUE", parse_label, 0, MAX_LABELS), "",
        "what grants may call it by, such as hall-b, line=3", True),
    Key("sessions", word("any", "asked", "no"), "any", "remote sessions to it: any that a grant allows, "
        "and its site where that can be asked; asked: only if it can, which needs an agent of ours that is "
        "new enough; no: none", True),
    Key("services", many("[NAME=]HOST:PORT", read_service, 0, 64), "",
        "what a ThingWorx device has, as it dials it, or a localproxy, by name; others say it", True),
)  # fmt: skip
_penalty = partial(limit_key, PenaltyLimits)
_HOUR = seconds(0, 3600)
_PENALTIES = (
    _penalty("authentication", _HOUR, "cost of a wrong proof or certificate; 0: none"),
    _penalty("silence", _HOUR, "cost of a handshake that was not finished in time"),
    _penalty("garbage", _HOUR, "cost of what is no handshake"),
    _penalty("applied", seconds(0, 86400), "an address that owes more is refused until it owes nothing"),
    _penalty("most", seconds(1, 86400), "what one address owes at most"),
    _penalty("sources", count("addresses", 16, 1_000_000), "addresses that are remembered, and serials"),
    _penalty("serial_failures", count("failures", 2, 1000), "wrong proofs for one serial in serial_window "
             "before the addresses they came from are locked out of it"),
    _penalty("serial_window", seconds(1, 86400), "see serial_failures"),
    _penalty("serial_lockout", seconds(0, 86400), "how long they are"),
    Key("exempt", many("network", network_of, 0, 1024), "127.0.0.0/8, ::1",
        "who pays nothing; a load balancer without a PROXY header belongs here, or all behind it pay for one",
        True),
)  # fmt: skip

RECORD_SECTIONS = (
    Section("device", "server", "What one device may do. [device *] is for all; a device's own section wins, "
            "key by key.", _DEVICE, True, label="SERIAL", labels=r"\*|[A-Za-z0-9._:-]{1,64}",
            wanted="SERIAL or *, 1 to 64 of A-Z a-z 0-9 . _ : -", free=True),
    Section("penalties", "server", "What failed handshakes cost the address they come from: an IPv4 address, "
            "or an IPv6 /64.", _PENALTIES),
)  # fmt: skip
