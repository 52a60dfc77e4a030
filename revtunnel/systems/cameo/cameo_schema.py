"""The settings of revtunnel-cameo and of the two programs; a part of the table in schema.py."""

from functools import partial

from revtunnel.ground.policy import KIB, MIB, CameoLimits
from revtunnel.settings.schema_keys import LOG, Key, Section, limit_key
from revtunnel.settings.values import (
    GIB,
    SettingKind,
    count,
    many,
    path,
    read_address,
    read_listening,
    read_network,
    read_port,
    seconds,
    size,
    word,
)

__all__ = ["CAMEO_SECTIONS"]


def read_ports(text: str) -> tuple[int, int, int]:
    """The three numbers of CAMEO's own ``proxy_ports``."""
    ports = [read_port(part.strip()) for part in text.split(",")]
    if len(ports) != 3 or len(set(ports)) != 3:
        raise ValueError(f"{text[:80]!a}: three different ports wanted, such as 10000, 10001, 10002")
    return ports[0], ports[1], ports[2]


def read_translation(text: str) -> tuple[int, int]:
    reported, colon, advertised = (part.strip() for part in text.partition(":"))
    if not colon:
        raise ValueError(f"{text[:80]!a}: REPORTED:ADVERTISED wanted, such as 10000:21000")
    return read_port(reported), read_port(advertised)


def read_type(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:4]) > 999:
        raise ValueError(f"{text[:80]!a}: a message type of 0 to 999 wanted")
    return int(text)


_NETWORKS = many("network", read_network, 0, 256)
_DOORS = many("HOST:PORT", read_listening, 0, 16)
_limit = partial(limit_key, CameoLimits)
_CAMEO = (
    Key(
        "proxy_ports",
        SettingKind("ports", "three different ones", read_ports),
        "10000, 10001, 10002",
        "responder port, subscriber port, publisher port; the same as proxy_ports of the CAMEO server",
    ),
    Key(
        "bind",
        many("address", read_address, 1, 16),
        "127.0.0.1",
        "addresses where the three ports listen; the programs of CAMEO's names listen everywhere instead",
    ),
    Key(
        "allow",
        _NETWORKS,
        "",
        "who may connect to the first two ports, such as 10.1.0.0/16; empty: everybody "
        "who reaches them; this machine always may",
        True,
    ),
    Key(
        "trusted",
        _NETWORKS,
        "",
        "whose peers may hold names and publish, as those of this machine may; for "
        "applications of the site that run on another one",
        True,
    ),
    Key(
        "admin_socket",
        path(107, "auto"),
        "auto",
        "the door for revtunnelctl --socket PATH; auto: cameo.sock "
        "beside the server's; who may use it stands in [admin]",
    ),
    Key(
        "log_file",
        path(4096, "syslog", "none"),
        "syslog",
        "where the two programs log to, whose output nobody reads; the service logs to its standard output",
    ),
    *LOG,
    _limit("drain", seconds(0, 600), "time that peers get to take what waits for them when the relays stop"),
    _limit("message", size(64 * KIB, 4 * GIB), "one message, all its frames together"),
    _limit("frames", count("frames", 8, 65535), "frames of one message"),
    _limit(
        "queue_messages",
        count("messages", 1, 10_000_000),
        "messages that wait for a peer that does not take them; further ones are dropped whole, and counted",
    ),
    _limit("queue", size(64 * KIB, 16 * GIB), "bytes of them; a single message may be larger"),
    _limit(
        "pool", size(MIB, 256 * GIB), "what waits for all peers together, with messages that are not whole"
    ),
    _limit("topics", count("topics", 1, 1_000_000), "topics of one subscriber"),
    _limit("topic", count("bytes", 1, 4000), "length of a topic"),
    _limit(
        "connections",
        count("connections", 8, 1_000_000),
        "connections in all; the last quarter is kept for this machine",
    ),
    _limit("connections_per_source", count("connections", 1, 1_000_000), "connections of one other machine"),
    _limit("handshake", seconds(1, 120), "time from connect to a peer's READY, absolute"),
    _limit(
        "backlog", count("connections", 1, 65535), "connections the kernel queues per listening socket", False
    ),
)
_OUTSIDE = (
    Key(
        "responder",
        _DOORS,
        "",
        "where outside clients reach the responder relay; an agent offers it with --local",
    ),
    Key(
        "subscriber",
        _DOORS,
        "",
        "where outside clients reach the publisher relay; at least one of both is needed",
    ),
    Key(
        "advertise",
        many("REPORTED:ADVERTISED", read_translation, 0, 16),
        "",
        "ports in answers of the CAMEO "
        "server that clients of this door are told otherwise: 10000:21000, 10001:21001",
        True,
    ),
    Key(
        "requests",
        word("all", "read-only"),
        "all",
        "what such clients may ask the CAMEO server; read-only: "
        "nothing that starts, stops, writes, sets or removes",
        True,
    ),
    Key(
        "refuse_types",
        many("message type", read_type, 0, 64),
        "",
        "types of requests to the CAMEO server that are refused beside those",
        True,
    ),
)

CAMEO_SECTIONS = (
    Section("cameo", "cameo", "The relays of a CAMEO site.", _CAMEO),
    Section(
        "cameo-outside",
        "cameo",
        "A way in for clients beyond the firewall; nobody there is local.",
        _OUTSIDE,
        True,
    ),
)
