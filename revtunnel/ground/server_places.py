"""Where an agent finds its server: a link port, ``HOST:PORT``, a web listener,
``wss://HOST[:PORT][/PATH]``, or a name under which DNS lists link ports (SRV), ``_NAME._tcp.DOMAIN``.

The rule of WebSockets: whoever came with one subprotocol is not the other. The rule of what DNS says: it
has no say in whom a certificate must name, nor in whether TLS is spoken; both hang on what was written.

Source: docs/link-protocol.rst "WebSockets"; RFC 2782; RFC 9525; ours.
"""

import re
from typing import NamedTuple

from revtunnel.ground.targets import is_literal, parse_endpoint, parse_endpoint_or, place

__all__ = ["DATA", "LINK", "LINK_PATH", "ServerPlace", "after", "parse_server_place"]

LINK_PATH = "/link"
LINK, DATA = "revtunnel.link.1", "revtunnel.data.1"  # subprotocols of a WebSocket
_URL = re.compile(r"(wss?)://([^/?#@\s]+)(/[!-~]{0,255})?", re.ASCII)
_SERVICE = re.compile(r"(_[A-Za-z0-9-]{1,62})\._tcp\.([^:]+)", re.ASCII)
_LOOKS_LIKE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)


class ServerPlace(NamedTuple):
    """One server, as it is written in the settings."""

    host: str
    port: int
    path: str = ""  # of its WebSocket; "": a link port
    secure: bool = False  # of a WebSocket: with TLS
    name: str = ""  # whom its certificate must name, where others say where that is; "": the host

    @property
    def web(self) -> bool:
        """Whether links go there over WebSocket."""
        return bool(self.path)

    @property
    def service(self) -> bool:
        """Whether it stands for the link ports that DNS lists under it."""
        return not self.port

    def __str__(self) -> str:
        if self.service:
            return self.host
        where = place(self.host, self.port)
        return f"{'wss' if self.secure else 'ws'}://{where}{self.path}" if self.path else where


def parse_server_place(text: str) -> ServerPlace:
    """Read one ``--server``; a URL's port is 443, 80 for ``ws``, and its path /link, unless it says others.

    Raises:
        ValueError: it is no such place; the text names the value.
    """
    url = _URL.fullmatch(text)
    if service := _SERVICE.fullmatch(text):
        return _service(service[1], service[2])
    if url is None and _LOOKS_LIKE_URL.match(text):
        raise ValueError(
            f"{text[:120]!a}: wss://HOST[:PORT][/PATH] wanted, or HOST:PORT, or _NAME._tcp.DOMAIN"
        )
    if url is None:
        return ServerPlace(*parse_endpoint_or(text, None))
    secure, path = url[1] == "wss", url[3] or ""
    host, port = parse_endpoint_or(url[2], 443 if secure else 80)
    if "?" in path or "#" in path:
        raise ValueError(f"{text[:120]!a}: a path without query wanted")
    return ServerPlace(host, port, path if path.strip("/") else LINK_PATH, secure)


def _service(service: str, written: str) -> ServerPlace:
    """The name of an SRV record; certificates must have its domain."""
    domain, _ = parse_endpoint(f"{written}:0")
    if is_literal(domain) or domain.rpartition(".")[2] == "localhost":  # which decides whether TLS is spoken
        raise ValueError(f"{written[:120]!a}: a domain wanted behind _NAME._tcp.")
    return ServerPlace(f"{service.lower()}._tcp.{domain}", 0, name=domain)


def after(where: str, why: str) -> str:
    """A sentence that stands behind a place, which it does not name a second time."""
    bare = where.rpartition("://")[2].partition("/")[0]
    for name in (where, bare, bare.rpartition(":")[0]):
        for mark in (": ", " "):
            if name and why.startswith(name + mark):
                return why.removeprefix(name + mark)
    return why
