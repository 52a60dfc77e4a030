"""The settings of web listeners and of remote sessions; a part of the table in schema.py."""

import re
from functools import partial

from revtunnel.settings.schema_keys import Key, Section, limit_key
from revtunnel.settings.values import (
    count,
    many,
    path,
    read_listening,
    read_network,
    seconds,
    word,
    yes_no,
)
from revtunnel.systems.sessions.localproxy_settings import LOCALPROXY_SECTIONS
from revtunnel.systems.sessions.session_life import SessionLimits

__all__ = ["SESSION_SECTIONS"]


def read_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a host name wanted")
    return text.lower().rstrip(".")


def read_origin(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]{1,262}", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: an origin such as https://desk.example wanted, without a path")
    return text.lower()


_PEM = path(4096, "none")
_ANY = count("sessions", 1, 1_000_000)
_limit = partial(limit_key, SessionLimits)
_WEB = (
    Key("address", many("HOST:PORT", read_listening, 0, 16), "",
        "where people's programs and web pages come in, such as 127.0.0.1:2443, 0.0.0.0:2443; port 0: any "
        "free one; empty: nowhere"),
    Key("tls", yes_no(), "no", "they have to come with TLS; needs certificate and certificate_key", True),
    Key("certificate", _PEM, "none", "of the server, for the name that people dial; behind it those that "
        "lead to its authority", True),
    Key("certificate_key", _PEM, "none", "file with its private key, closed to others", True),
    Key("tls_least", word("1.3", "1.2"), "1.3", "oldest version of TLS that is spoken", True),
    Key("allow_plaintext", yes_no(), "no",
        "INSECURE: lets other machines in without TLS; no: such a listener does not start"),
    Key("hosts", many("host name", read_host, 0, 64), "", "names by which people reach it, as in Host; "
        "addresses and localhost always may be", True),
    Key("origins", many("origin", read_origin, 0, 64), "", "web pages that may open connections, such as "
        "https://desk.example, beside those from the listener's own address", True),
    Key("proxy_protocol", word("no", "v1", "v2", "any"), "no", "a load balancer says in a PROXY header whom "
        "each connection is for; of which version"),
    Key("proxy_from", many("network", read_network, 0, 256), "", "the load balancer's addresses, such as "
        "10.0.0.7, fd00::/64: who sends the header, and who else is refused"),
)  # fmt: skip
_SESSIONS = (
    _limit("idle", seconds(60, 3600), "time without a byte either way after which a session ends"),
    _limit("maximum", seconds(3600, 864_000), "time that a session may last"),
    _limit("grace", seconds(1, 3600), "time that a lost connection, or device, has to come back"),
    _limit("per_user", _ANY, "sessions of one user at once"),
    _limit("per_device", _ANY, "sessions to one device at once"),
    _limit("total", _ANY, "sessions in all"),
)  # fmt: skip
SESSION_SECTIONS = (
    Section("web", "server", "Where people come in for remote sessions; there is none without an address.",
            _WEB, named=True),
    Section("sessions", "server", "Remote sessions; those that run keep what they began with.", _SESSIONS),
    *LOCALPROXY_SECTIONS,
)  # fmt: skip
