"""Which HTTP proxy leads to a server: the one of the settings, or the one that the environment names.

Rules: a proxy that the settings name leads to every server. The environment's leads to those that NO_PROXY
does not except, and never to a server on this machine. A password never stands in an error's text.

In the environment the variables ``https_proxy``, ``HTTPS_PROXY``, ``all_proxy``, ``ALL_PROXY`` are asked in
this order, the first that is there counts, and an empty one says: no proxy. ``no_proxy`` or ``NO_PROXY`` has
entries with commas or spaces between: ``*``, a name (which covers what is below it; ``.name`` and ``*.name``
are the same), an address, a network in CIDR form, each with ``:PORT`` behind it or without.

Source: ours, after what curl, Go and Python read from these variables.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from revtunnel.ground.networks import address_of, is_loopback, within
from revtunnel.ground.targets import parse_endpoint_or, place
from revtunnel.sockets.ways.http_connect import ProxyCredentials

__all__ = [
    "DIRECT",
    "Exceptions",
    "HttpProxy",
    "ProxyChoice",
    "from_environment",
    "parse_credentials",
    "parse_proxy",
]

HTTP_PORT = 80  # of a proxy in the environment that names no port

_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:(.*)@)?([^@/?#\s]+)/?", re.ASCII)
_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_WANTED = "http://HOST:PORT wanted"


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """One HTTP proxy; its written form has no password."""

    host: str
    port: int
    credentials: ProxyCredentials | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"http://{place(self.host, self.port)}"


def parse_proxy(text: str) -> HttpProxy:
    """The proxy that a setting names: ``http://HOST:PORT``.

    Raises:
        ValueError: not of that form, or with a user before the host.
    """
    match = _URL.fullmatch(text)
    if match and match[2] is not None:
        raise ValueError("a user or password in the URL is refused, a file named by proxy_credentials wanted")
    if not match or match[1] is None:
        raise ValueError(f"{_shown(text)}: {_WANTED}")
    return _proxy(text, match, None)


def _proxy(text: str, match: re.Match[str], port: int | None) -> HttpProxy:
    if (match[1] or "http").lower() != "http":
        raise ValueError(f"{_shown(text)}: only http:// proxies are spoken to, {_WANTED}")
    try:
        host, number = parse_endpoint_or(match[3], port)
    except ValueError:
        raise ValueError(f"{_shown(text)}: {_WANTED}, IPv6 in brackets") from None
    user, colon, password = (match[2] or "").partition(":")
    credentials = ProxyCredentials(unquote(user), unquote(password)) if user or colon else None
    return HttpProxy(host, number, credentials)


def _shown(text: str) -> str:
    """A URL for people, without what may be a password."""
    return f"{text.rpartition('@')[2][:120]!a}"


def parse_credentials(text: str) -> ProxyCredentials:
    """What a file for proxy_credentials holds: one line, ``user:password``; the text is never repeated.

    Raises:
        ValueError: not of that form.
    """
    line = text.removesuffix("\n").removesuffix("\r")
    user, colon, password = line.partition(":")
    if not user or not colon or not line.isprintable():
        raise ValueError("one line user:password wanted")
    return ProxyCredentials(user, password)


class Exceptions:
    """What NO_PROXY says; an entry that cannot be read covers nothing."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._covers = [_entry(piece) for piece in re.split(r"[,\s]+", text) if piece]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exceptions) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def cover(self, host: str, port: int) -> bool:
        """Whether a server is reached without the proxy; ``host`` is canonical, as in ground/targets.py."""
        return any(covers(host, port) for covers in self._covers)


def _entry(piece: str) -> Callable[[str, int], bool]:
    """Whether one entry covers a host and a port."""
    bracket = re.fullmatch(r"\[([^\]]*)\](?::([0-9]+))?", piece)
    plain = re.fullmatch(r"([^:]*):([0-9]+)", piece)
    match = bracket or plain
    name, wanted = (match[1], match[2]) if match else (piece, None)
    covers = _name_entry(name.lower())
    return lambda host, port: (wanted is None or int(wanted) == port) and covers(host)


def _name_entry(name: str) -> Callable[[str], bool]:
    if name == "*":
        return lambda host: True
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        suffix = name.removeprefix("*").lstrip(".").rstrip(".")
        return lambda host: bool(suffix) and f".{host}".endswith(f".{suffix}")
    return lambda host: within(address_of(host), (network,))


def _is_here(host: str) -> bool:
    """Whether a server is on this machine."""
    return is_loopback(host) or host.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class ProxyChoice:
    """How servers are reached."""

    proxy: HttpProxy | None = None
    exceptions: Exceptions | None = None  # None: the settings name the proxy, and it leads everywhere
    fault: str = ""  # why the environment's cannot be used

    def proxy_for(self, host: str, port: int) -> HttpProxy | None:
        """The proxy for a server; None: none is needed.

        Raises:
            ValueError: one is needed, and what the environment names cannot be used.
        """
        if self.exceptions is not None and (_is_here(host) or self.exceptions.cover(host, port)):
            return None
        if self.fault:
            raise ValueError(self.fault)
        return self.proxy


DIRECT = ProxyChoice()


def from_environment(environ: Mapping[str, str], credentials: ProxyCredentials | None = None) -> ProxyChoice:
    """What the usual variables say; ``credentials`` serve a proxy whose variable has none."""
    name = next((variable for variable in _VARIABLES if variable in environ), "")
    text = environ.get(name, "").strip()
    if not text:
        return DIRECT
    exceptions = Exceptions(environ.get("no_proxy", environ.get("NO_PROXY", "")))
    match = _URL.fullmatch(text)
    try:
        if not match:
            raise ValueError(f"{_shown(text)}: {_WANTED}")
        proxy = _proxy(text, match, HTTP_PORT)
    except ValueError as error:
        return ProxyChoice(None, exceptions, f"{name}: {error}")
    return ProxyChoice(HttpProxy(proxy.host, proxy.port, proxy.credentials or credentials), exceptions)
