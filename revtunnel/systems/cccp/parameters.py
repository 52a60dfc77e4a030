"""The parameters of CCCP's API: how one looks, as a pattern that description and reader share.

Rule of this file: one pattern for both, so that what is described is taken and the rest is refused. Patterns
are of the kind that JSON Schema and Python have in common.

Source: TCXN CCCP, "Proxy Control API"; RFC 3986 3.2.2 for addresses; ours for networks.
"""

import re

from revtunnel.ground.networks import Network, network_of
from revtunnel.process.admin.refusals import Invalid
from revtunnel.systems.cccp.proxy_sessions import MAX_WHITELIST

__all__ = ["ENTRY", "SERIAL", "TRUTHS", "read_truth", "read_whitelist", "read_whole"]

SERIAL = r"^(?!(?:.*/)?\.\.?(?:/|$))[!-~]{1,64}$"  # as registration.py takes it
TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_H = "[0-9A-Fa-f]{1,4}"
_LOW = f"(?:{_H}:{_H}|{_IPV4})"  # the last 32 bits
_IPV6 = "|".join(
    (
        f"(?:{_H}:){{6}}{_LOW}",
        f"::(?:{_H}:){{5}}{_LOW}",
        *(f"(?:(?:{_H}:){{0,{before}}}{_H})?::(?:{_H}:){{{4 - before}}}{_LOW}" for before in range(5)),
        f"(?:(?:{_H}:){{0,5}}{_H})?::{_H}",
        f"(?:(?:{_H}:){{0,6}}{_H})?::",
    )
)
_BITS = "(?:/(?:{}))?"
_NETWORK = "|".join(
    (
        _IPV4 + _BITS.format("3[0-2]|[12]?[0-9]"),
        f"(?:{_IPV6})" + _BITS.format("12[0-8]|1[01][0-9]|[1-9]?[0-9]"),
    )
)
ENTRY = f"^ *(?:{_NETWORK}) *$"  # of ip_whitelist
_WHOLE = re.compile("0|[1-9][0-9]{0,8}", re.ASCII)
_ENTRY = re.compile(ENTRY.strip("^$"), re.ASCII)


def read_truth(name: str, text: str) -> bool:
    """Raises: Invalid: neither true nor false."""
    if text not in TRUTHS:
        raise Invalid(f"{name}: true or false wanted")
    return TRUTHS[text]


def read_whole(name: str, text: str, least: int, most: int) -> int:
    """Raises: Invalid: no whole number, or beyond its limits."""
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise Invalid(f"{name}: a whole number of {least} to {most} wanted")
    return int(text)


def read_whitelist(text: str) -> tuple[Network, ...]:
    """Addresses and networks with commas between; the bits behind a network's length do not count.

    Raises:
        Invalid: an entry is neither, or there are more than 64.
    """
    entries = text.split(",", MAX_WHITELIST)
    if len(entries) > MAX_WHITELIST:
        raise Invalid(f"ip_whitelist: at most {MAX_WHITELIST} entries")
    wrong = next((entry for entry in entries if not _ENTRY.fullmatch(entry)), None)
    if wrong is not None:
        raise Invalid(f"ip_whitelist: {wrong[:80]!a}: an address or a network such as 10.0.0.0/8 wanted")
    return tuple(dict.fromkeys(network_of(entry.strip(" "), strict=False) for entry in entries))
