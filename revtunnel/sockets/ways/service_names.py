"""The link ports that DNS lists under a name (SRV), and in which order they are tried.

The rules of RFC 2782: the smallest priority first; among those of one priority chance decides, by their
weights, and anew each time; a target that is the root means that there is no such service. What DNS says is
believed for its TTL, and is nobody's proof: whom a certificate must name is the caller's to know. A target
that is no host name, or has port 0, is passed over.

Source: RFC 2782; RFC 1035 4.2 (datagrams, TCP); twisted.names for the bytes; ours.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TwistedTimeout

from revtunnel.ground.targets import is_literal, parse_endpoint_or
from revtunnel.sockets.addresses import socket_address
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.opening import open_end
from revtunnel.sockets.stages import read_some, readable, write_all

__all__ = ["Found", "Listed", "in_order", "look_up"]

MOST = 16  # link ports of one name
LONGEST = 86400.0  # seconds that an answer is believed, whatever it says
TRIES = (1, 2, 4)  # seconds that each name server gets, in turn
RESOLV_CONF = "/etc/resolv.conf"
MAX_FILE = 64 * 1024  # bytes

LARGEST = 65535  # bytes of an answer
TRUNCATED = 2  # in the third byte of an answer
_SAYS = {2: "says that it failed", 5: "refuses to answer"}


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
    from twisted.names import dns  # 6 ms of CPU, which an agent without SRV spares

    why = "no name server answered"
    for seconds in TRIES:
        for server in servers or name_servers():
            asked = dns.Message(int.from_bytes(os.urandom(2), "big"), recDes=1)
            asked.addQuery(name.encode("ascii"), dns.SRV)
            asking = Deferred.fromCoroutine(_ask(reactor, asked.toStr(), server, seconds))
            try:
                answer = dns.Message()
                answer.fromStr(await asking.addTimeout(seconds, reactor))
            except TwistedTimeout:
                continue
            except OSError as failed:
                why = f"name server {server[0]}: {said(failed)}"
            except (EOFError, ValueError, LookupError, struct.error):
                why = f"name server {server[0]} answers with noise"
            else:
                if answer.rCode == dns.ENAME:
                    raise _unknown(name)
                if answer.rCode == dns.OK:
                    return _found(name, [each for each in answer.answers if each.type == dns.SRV])
                why = f"name server {server[0]} {_SAYS.get(answer.rCode, 'answers with an error')}"
    raise TimeoutError(errno.ETIMEDOUT, f"{name}: {why}")


async def _ask(reactor: Any, query: bytes, server: tuple[str, int], seconds: float) -> bytes:
    """What one name server answers, by a datagram, and by TCP where that is too long for one."""
    family, address = socket_address(*server)
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(address)  # nobody else is heard
        sock.send(query)
        answer = b""
        while answer[:2] != query[:2]:
            await readable(reactor, End(sock))
            with suppress(BlockingIOError):
                answer = sock.recv(LARGEST)
    if len(answer) < 4 or not answer[2] & TRUNCATED:
        return answer
    end = await open_end(reactor, *server, seconds)
    try:
        await write_all(reactor, end, len(query).to_bytes(2, "big") + query)
        whole = bytearray()
        while len(whole) < 2 or len(whole) < 2 + int.from_bytes(whole[:2], "big"):
            some = await read_some(reactor, end)
            if not some:
                raise ConnectionError(errno.ECONNRESET, "it hung up")
            whole += some
    finally:
        end.abort()
    return bytes(whole[2:])


def _found(name: str, records: Sequence[Any]) -> Found:
    if not records:
        raise _unknown(name)
    listed = [found for each in records if (found := _listed(each.payload)) is not None][:MOST]
    if not listed:
        closed = all(each.payload.target.name in (b"", b".") for each in records)
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
