"""What a device's web page is called in a browser, and which services are web pages.

Rule of this file: two services never have one name, whatever their devices are called, and a name is one
label of DNS, for a certificate's wildcard covers one. Serials and services of small letters, digits and
single hyphens are in it as they are (``plc-7--web``); of all others a hash of 80 bits stands for both.

Source: RFC 1123 section 2.1, RFC 5890 section 2.3.1 (hyphens in the third and fourth place); ours.
"""

import hashlib
import re
from collections.abc import Iterable

from revtunnel.ground.targets import Target, place

__all__ = ["label_of", "named_by", "spoken_by", "told_host"]

_PLAIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_HASHED = re.compile(r"x-[0-9a-f]{20}", re.ASCII)
_BY_NAME = re.compile(r"(https?|web|www)(?:[._-]|\d|$)", re.ASCII | re.IGNORECASE)
MOST = 63  # characters of a label


def label_of(serial: str, service: str) -> str:
    """The label of a service's page."""
    is_plain = all(_PLAIN.fullmatch(each) for each in (serial, service)) and len(serial) > 2
    label = f"{serial}--{service}"
    if is_plain and len(label) <= MOST and not _HASHED.fullmatch(serial):
        return label
    hashed = hashlib.sha256(f"{serial}\0{service}".encode()).hexdigest()[:20]
    return f"x-{hashed}--page"


def named_by(label: str) -> tuple[str, str] | None:
    """Serial and service of a label that says them."""
    serial, _, service = label.partition("--")
    return (serial, service) if service and label_of(serial, service) == label else None


def spoken_by(service: str, said: Iterable[tuple[str, str]]) -> str:
    """How a service speaks: http, https, https-any (whoever it is), or "": it is no web page.

    ``said``: of the device's record, by name; of the others their names say it.
    """
    by_name = _BY_NAME.match(service)
    found = "" if by_name is None else "https" if by_name[1].lower() == "https" else "http"
    return dict(said).get(service, found)


def told_host(target: Target, said: str, secure: bool) -> str:
    """What a device is told as Host: ``said`` by its record, or where the agent dials."""
    if said not in ("", "target"):
        return said
    if target.path is not None:
        return "localhost"
    host = place(target.host, target.port)
    return host.removesuffix(f":{443 if secure else 80}")
