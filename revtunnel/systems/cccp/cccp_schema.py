"""The settings of CCCP, alone and inside revtunnel-server; a part of the table in schema.py."""

import re
from functools import partial

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.policy import CccpLimits
from revtunnel.settings.schema_keys import LOG, Key, Section, limit_key
from revtunnel.settings.values import (
    SettingKind,
    count,
    many,
    path,
    read_address,
    read_listening,
    read_range,
    seconds,
    size,
    text,
    word,
    yes_no,
)
from revtunnel.systems.cccp.proxy_sessions import MAX_TIMEOUT
from revtunnel.systems.cccp.registration import parse_registered

__all__ = ["CCCP_SECTIONS"]


def read_serial(text: str) -> str:
    try:
        return parse_registered(text)
    except RemoteError as error:
        raise ValueError(str(error)) from None


def read_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:._-]{1,253}", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a host name or an address wanted")
    return text.lower()


_PEM = path(4096, "none")
_ANY = count("connections", 1, 1_000_000)
_limit = partial(limit_key, CccpLimits)
_CCCP = (
    Key(
        "enabled",
        yes_no(),
        "no",
        "run CCCP inside revtunnel-server, where /on reaches every device by its "
        "serial; revtunnel-cccp does not look at it",
    ),
    Key("http", many("HOST:PORT", read_listening, 1, 16), "127.0.0.1:2080", "where the API listens"),
    Key(
        "host",
        text("host name", "auto, or a host name or an address", r"[A-Za-z0-9:._-]{1,253}"),
        "auto",
        "that callers are told to connect their clients to; auto: the address their request came in on",
        True,
    ),
    Key(
        "hosts",
        many("host name", read_host, 0, 64),
        "",
        "names that callers may use for the API beside addresses, localhost and host",
        True,
    ),
    Key(
        "token_file",
        path(4096, "auto", "none"),
        "auto",
        "file with the bearer token of callers, closed to "
        "others; auto: revtunnel-cccp.token in $CREDENTIALS_DIRECTORY, none where there is no such file",
        True,
    ),
    Key(
        "allow_without_token",
        yes_no(),
        "no",
        "INSECURE: lets other machines call without a token; no: such a listener does not start",
    ),
    Key(
        "state_directory",
        path(4096, "auto", "none"),
        "auto",
        "where revtunnel-cccp keeps ports and sessions, in cccp.db; auto and none as in [server]",
    ),
    Key("allow_open_state", yes_no(), "no", "as in [server]"),
    Key(
        "admin_socket",
        path(107, "auto"),
        "auto",
        "the door for revtunnelctl --socket PATH; auto: cccp.sock "
        "beside the server's; who may use it stands in [admin]",
    ),
    Key(
        "wake_command",
        SettingKind("command", "words, no shell", str),
        "",
        "run for an absent device when a caller waits for it; its serial is added as the last word",
        True,
    ),
    Key(
        "wake_url",
        text("URL", "empty, http://... or https://...", r"(https?://[!-~]{1,2000})?"),
        "",
        'instead of that: where {"serial": ...} is posted',
        True,
    ),
    *LOG,
    _limit("registration", seconds(1, 120), "time from connect to the end of a serial, with TLS, absolute"),
    _limit("pending", _ANY, "connections that have not said their serial"),
    _limit("pending_per_source", _ANY, "the same from one address; behind NAT many devices share one"),
    _limit("handshakes", _ANY, "TLS handshakes in progress; the next ones wait"),
    _limit("parked", _ANY, "devices that are registered"),
    _limit("parked_time", seconds(0, 3650 * 86400), "time one may stay without a proxy; 0: for ever"),
    _limit(
        "backlog", count("connections", 1, 65535), "connections the kernel queues per listening socket", False
    ),
    _limit("connections", _ANY, "callers of the API at once"),
    _limit("header", seconds(1, 120), "time for a whole request, absolute"),
    _limit("body", size(0, 1024 * 1024), "body of a request"),
    _limit("wait", seconds(0, 3600), "longest wait= of a caller"),
    _limit("waiting", _ANY, "callers that wait at once"),
    _limit("wakes", count("drivers", 1, 1000), "wake drivers that run at once"),
    _limit("wake", seconds(1, 600), "time one may take"),
    _limit("drain", seconds(0, 3600), "time that connected clients get when revtunnel-cccp stops"),
)
_PROJECT = (
    Key("address", many("HOST:PORT", read_listening, 1, 16), "127.0.0.1:2070", "where its devices register"),
    Key("ranges", many("PORT or LOW-HIGH", read_range, 1, 64), "21000-21999", "ports that its clients dial"),
    Key(
        "bind",
        SettingKind("address", "an IP address of this machine", read_address),
        "127.0.0.1",
        "address on which those listen; who reaches it reaches devices, unless ip_whitelist says no",
    ),
    Key("quarantine", seconds(0, 86400), "60 s", "time a port rests before another device gets it"),
    Key(
        "sticky", seconds(0, 3650 * 86400), "30 d", "time a persistent proxy's port is kept while we are down"
    ),
    Key(
        "duplicate",
        word("newest", "oldest"),
        "newest",
        "which connection stays when a serial without a certificate comes twice",
        True,
    ),
    Key(
        "line_feed", word("payload", "swallow"), "payload", "what one LF directly behind the return is", True
    ),
    Key(
        "early_data",
        word("hold", "discard"),
        "hold",
        "what the first side of a proxy that is not persistent "
        "says before the other is there: left unread, or thrown away",
        True,
    ),
    Key("off", word("close", "park"), "close", "what /off does with the device's connection", True),
    Key(
        "timeout",
        seconds(0, MAX_TIMEOUT),
        "0 s",
        "time to the first client where /on says none; 0: none",
        True,
    ),
    Key(
        "serials",
        many("serial", read_serial, 0, 100_000),
        "",
        "devices that are known; empty: every one",
        True,
    ),
    Key(
        "allow_open",
        yes_no(),
        "no",
        "INSECURE: lets other machines register any serial without a device "
        "certificate; no: such a listener does not start",
    ),
    Key("tls", yes_no(), "no", "devices have to come with TLS; needs certificate and certificate_key"),
    Key("certificate", _PEM, "none", "of this listener, for the name that devices dial", True),
    Key("certificate_key", _PEM, "none", "file with its private key, closed to others", True),
    Key("authority", _PEM, "none", "certificates of those who sign device certificates", True),
    Key(
        "device_certificates",
        word("required", "optional", "no"),
        "required",
        "required: a device must show a certificate, whose URI urn:revtunnel:device:SERIAL is "
        "what it says; optional: may; no: is not asked",
        True,
    ),
    Key("crl", _PEM, "none", "certificates that the authority took back", True),
    Key("tls_least", word("1.3", "1.2"), "1.3", "oldest version of TLS that is spoken", True),
    Key(
        "allow_plaintext",
        yes_no(),
        "no",
        "INSECURE: lets other machines in without TLS; no: such a listener does not start",
    ),
)

CCCP_SECTIONS = (
    Section("cccp", "cccp, server", "TCXN CCCP: devices that register, and its control API.", _CCCP),
    Section(
        "cccp-project",
        "cccp, server",
        "Devices of a project, and its ports. Without any, [cccp-project main] is assumed.",
        _PROJECT,
        True,
    ),
)
