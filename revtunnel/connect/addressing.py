"""What people type: servers, sessions that were handed over, devices and their services.

Rule of this file: text to values and back; every fault is a ValueError with one sentence, and no nonce is in
it.

Source: next/remote-sessions.md section 7; ours.
"""

import re
from dataclasses import dataclass, field

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial
from revtunnel.ground.targets import is_label, parse_endpoint_or, place

__all__ = [
    "Handed",
    "ServerAddress",
    "parse_handed",
    "parse_server",
    "parse_services",
    "parse_session",
]

SCHEME = "revtunnel://"
_SECURE = {"https": True, "wss": True, "http": False, "ws": False}
_SERVER = re.compile(r"(?:([a-z]+)://)?([^/?#@\s]+)/?", re.ASCII)
_HANDED = re.compile(r"revtunnel://([^/?#@\s]+)/s/([^/?#\s]+)#(\S+)", re.ASCII)
_SESSION = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server's web listener is; its written form is what logins are kept under."""

    host: str
    port: int
    secure: bool = True  # with TLS

    @property
    def place(self) -> str:
        """``HOST:PORT``."""
        return place(self.host, self.port)

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.place}"


@dataclass(frozen=True, slots=True)
class Handed:
    """A session that somebody, or a web page, handed over."""

    server: ServerAddress
    session: str
    nonce: str = field(repr=False)


def parse_server(text: str) -> ServerAddress:
    """``https://HOST[:PORT]`` or ``HOST[:PORT]``; ``http://`` is without TLS. ValueError: none of these."""
    match = _SERVER.fullmatch(text)
    scheme = match[1] or "https" if match else ""
    if not match or scheme not in _SECURE:
        raise ValueError(f"{text[:120]!a}: https://HOST[:PORT] wanted")
    secure = _SECURE[scheme]
    return ServerAddress(*parse_endpoint_or(match[2], 443 if secure else 80), secure)


def parse_handed(text: str) -> Handed:
    """``revtunnel://HOST[:PORT]/s/SESSION#NONCE``. ValueError: it is not."""
    match = _HANDED.fullmatch(text)
    if not match or not _SESSION.fullmatch(match[2]) or not _NONCE.fullmatch(match[3]):
        raise ValueError(f"{text.partition('#')[0][:120]!a}: revtunnel://HOST[:PORT]/s/SESSION#NONCE wanted")
    return Handed(ServerAddress(*parse_endpoint_or(match[1], 443)), match[2], match[3])


def parse_session(text: str) -> str:
    """The public number of a session. ValueError: it is none."""
    if not _SESSION.fullmatch(text):
        raise ValueError(f"{text[:80]!a}: a session's 32 hexadecimal digits wanted")
    return text


def parse_services(texts: list[str]) -> tuple[str, list[str]]:
    """The one device of ``DEVICE/SERVICE ...`` and its services; none: all that may be used.

    Raises:
        ValueError: two devices, a service twice, or no such names.
    """
    devices, services = [], []
    for text in texts:
        device, slash, service = text.partition("/")
        if slash and not is_label(service):
            raise ValueError(f"{text[:120]!a}: DEVICE/SERVICE wanted, such as plc-7/ssh")
        devices.append(_serial(device))
        services += [service] if slash else []
    if len(set(devices)) != 1:
        raise ValueError(f"{' '.join(texts)[:120]!a}: a session has one device")
    if len(set(services)) != len(services) or (len(texts) > 1 and len(services) != len(texts)):
        raise ValueError(f"{' '.join(texts)[:120]!a}: each service once, or the device alone for all of them")
    return devices[0], services


def _serial(text: str) -> str:
    try:
        return parse_serial(text)
    except RemoteError as error:
        raise ValueError(f"{text[:80]!a}: {error}") from None
