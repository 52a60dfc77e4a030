"""The link ports that DNS lists under a name (SRV), and in which order they are tried.

The rules of RFC 2782: the smallest priority first; among those of one priority chance decides, by their
weights, and anew each time; a target that is the root means that there is no such service. What DNS says is
believed for its TTL, and is nobody's proof: whom a certificate must name is the caller's to know. A target
that is no host name, or has port 0, is passed over.

Source: RFC 2782; twisted.names; ours.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import TimeoutError as TwistedTimeout
from twisted.internet.error import ConnectError

from revtunnel.ground.targets import is_literal, parse_endpoint_or

__all__ = ["Found", "Listed", "in_order", "look_up"]

MOST = 16  # link ports of one name
LONGEST = 86400.0  # seconds that an answer is believed, whatever it says
TRIES = (1, 2, 4)  # seconds that each name server gets, in turn
RESOLV_CONF = "/etc/resolv.conf"
MAX_FILE = 64 * 1024  # bytes

_SAYS = {"DNSServerError": "says that it failed", "DNSQueryRefusedError": "refuses to answer"}


class Listed(NamedTuple):
    """One record."""

    priority: int
    weight: int
    host: str
    port: int


class Found(NamedTuple):
    """An answer; ``ttl`` in seconds."""

    listed: tuple[Listed, ...]
    ttl: float


def in_order(listed: Sequence[Listed], random: Callable[[], float]) -> list[Listed]:
    """The records in the order in which they are to be tried. ``random`` gives floats in [0, 1)."""
    order = []
    # those without weight first, so that they have their small chance
    rest = sorted(listed, key=lambda each: (each.priority, each.weight))
    while rest:
        same = [each for each in rest if each.priority == rest[0].priority]
        at = int(random() * (sum(each.weight for each in same) + 1))  # 0 to the sum, both included
        for each in same:
            at -= each.weight
            if at <= 0:
                break
        order.append(each)
        rest.remove(each)
    return order


def name_servers(path: str = RESOLV_CONF) -> list[tuple[str, int]]:
    """Those of this machine, as resolv.conf(5) lists them."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file.read(MAX_FILE).splitlines()]
    except OSError:
        lines = []
    found = [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"]
    return [(host, 53) for host in found if is_literal(host.partition("%")[0])][:3] or [("127.0.0.1", 53)]


async def look_up(reactor: Any, name: str, servers: Sequence[tuple[str, int]] = ()) -> Found:
    """Ask ``servers``, or else those of this machine, in turn. OSError: why there is none of use."""
    from twisted.names import dns, error  # 40 ms of CPU, which an agent without SRV spares

    why = "no name server answered"
    for seconds in TRIES:
        for server in servers or name_servers():
            try:
                answers = await _ask(reactor, name, server, seconds)
            except error.DNSNameError:
                raise _unknown(name) from None
            except error.DomainError as failed:
                why = f"name server {server[0]} {_SAYS.get(type(failed).__name__, 'answers with an error')}"
            except (OSError, error.DNSQueryTimeoutError, TwistedTimeout, ConnectError) as failed:
                if isinstance(failed, OSError | ConnectError):
                    why = f"name server {server[0]}: {getattr(failed, 'strerror', None) or failed}"
            else:
                return _found(name, [each for each in answers if each.type == dns.SRV])
    raise TimeoutError(errno.ETIMEDOUT, f"{name}: {why}")


async def _ask(reactor: Any, name: str, server: tuple[str, int], seconds: float) -> Sequence[Any]:
    """The answers of one name server, by UDP, and by TCP where they are long."""
    from twisted.names import client

    resolver = client.Resolver(servers=[server], reactor=reactor)
    try:
        return (await resolver.lookupService(name, (seconds,)))[0]  # type: ignore[no-any-return]
    finally:
        for connection in resolver.connections:
            connection.transport.loseConnection()


def _found(name: str, records: Sequence[Any]) -> Found:
    if not records:
        raise _unknown(name)
    listed = [found for each in records if (found := _listed(each.payload)) is not None][:MOST]
    if not listed:
        closed = all(str(each.payload.target) in ("", ".") for each in records)
        words = "DNS says that this service is not offered" if closed else "no record of it names a server"
        raise ConnectionError(errno.ECONNREFUSED, f"{name}: {words}")
    return Found(tuple(listed), min(LONGEST, *(float(each.ttl or 0) for each in records)))


def _unknown(name: str) -> OSError:
    return socket.gaierror(socket.EAI_NONAME, f"{name}: it has no SRV record")


def _listed(record: Any) -> Listed | None:
    """A record; None: nothing can be dialled there."""
    try:
        host, port = parse_endpoint_or(f"{record.target}:{record.port}", None)
    except ValueError:
        return None
    return None if is_literal(host) else Listed(record.priority, record.weight, host, port)
