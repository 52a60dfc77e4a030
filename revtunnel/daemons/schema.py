"""The one table of settings: every key of revtunnel.ini with its type, default, unit, limits and meaning.

Rule of this file: a setting exists here or it does not exist. The reader (settings.py) knows no key by
itself; the shipped file, its manual page and its page in docs/ are printed from here, never edited:

    python -m revtunnel.daemons.schema --ini > etc/revtunnel.ini
    python -m revtunnel.daemons.schema --man > man/revtunnel.ini.5
    python -m revtunnel.daemons.schema --rst > docs/settings.rst

A key whose ``part`` is a dataclass of ground/policy.py takes its default from there.
Source: twisted.md section 7; faults.md C5, "Bind defaults"; ours for the rest.
"""

import re
import sys
import textwrap
from functools import cache, partial

from revtunnel.daemons.record_schema import CLIENTS, RECORD_SECTIONS
from revtunnel.ground.policy import (
    KIB,
    MIB,
    AgentLimits,
    DataLimits,
    EmoLimits,
    EnrolmentLimits,
    LinkLimits,
    RelayLimits,
    ServerLimits,
)
from revtunnel.ground.targets import parse_offer
from revtunnel.settings.schema_keys import LOG, Key, Section, limit_key
from revtunnel.settings.values import (
    GIB,
    SettingKind,
    count,
    many,
    path,
    read_address,
    read_dialled,
    read_header,
    read_listening,
    read_mapping,
    read_mode,
    read_network,
    read_person,
    read_port,
    read_proxy,
    read_range,
    read_server_port,
    seconds,
    serial,
    share,
    size,
    text,
    word,
    yes_no,
)
from revtunnel.systems.cameo.cameo_schema import CAMEO_SECTIONS
from revtunnel.systems.cccp.cccp_schema import CCCP_SECTIONS

__all__ = ["FIXED", "SECTIONS", "Key", "Section", "as_ini", "as_man", "as_rst", "find"]

# fields of LinkLimits that are no settings: the scheduler's own measures
FIXED = {
    "violations",
    "frame",
    "lone_frame",
    "smallest_quantum",
    "largest_quantum",
    "frames_a_turn",
    "time_a_turn",
    "late_frames",
    "idle_frames",
}


_ANY = count("connections", 1, 65535)
_HOUR = seconds(1, 3600)
_QUEUE = size(4 * KIB, GIB)
_NAME = text("name", "1 to 32 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,32}")
_PEM = path(4096, "none")
_SENDERS = (
    Key("proxy_protocol", word("no", "v1", "v2", "any"), "no", "a load balancer says in a PROXY header whom "
        "each connection is for; of which version"),
    Key("proxy_from", many("network", read_network, 0, 256), "", "the load balancer's addresses, such as "
        "10.0.0.7, fd00::/64: who sends the header, and who else is refused"),
)  # fmt: skip
_TLS_LEAST = Key("tls_least", word("1.3", "1.2"), "1.3", "oldest version of TLS that is spoken", True)
_PEOPLE = many("user, uid or @group", read_person, 0, 64)
_server = partial(limit_key, ServerLimits)
_SERVER = (
    Key("name", text("name", "auto, or 1 to 64 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,64}"), "auto",
        "name that agents are told; auto: the host name"),
    Key("state_directory", path(4096, "auto", "none"), "auto",
        "where leases and device keys are kept; auto: $STATE_DIRECTORY, /var/lib/revtunnel for root, else "
        "revtunnel in $XDG_STATE_HOME or ~/.local/state; none: in memory, lost at the end"),
    Key("allow_open_state", yes_no(), "no",
        "INSECURE: lets others than its owner write in state_directory; no: the server does not start there"),
    _server("drain", seconds(0, 3600), "time that running channels get when the server stops"),
    *LOG,
)  # fmt: skip
_LISTENER = (
    Key("address", many("HOST:PORT", read_listening, 1, 16), "127.0.0.1:2065",
        "where agents come in; several, such as IPv4 and IPv6, with commas; port 0: any free one"),
    Key("kind", word("rt1", "legacy", "emo"), "rt1",
        "rt1: agents of this project name themselves; legacy: the ReadyAgent device named by serial; emo: "
        "machines of the MTConnect EMO proxy, each known by its port: SERIAL/emo = PORT in [reservations]"),
    Key("keys", word("enrolled", "required"), "enrolled",
        "enrolled: a serial that has a key must prove it, others are let in; required: everybody must"),
    Key("allow_without_keys", yes_no(), "no",
        "INSECURE: lets devices without keys in from other machines; no: such a listener does not start"),
    Key("duplicate", word("newest", "oldest"), "newest",
        "which link stays when a serial that proves no key comes twice"),
    Key("data", word("link", "socket", "auto"), "auto",
        "what carries channels: the link; a connection of its own for each, which the agent brings; auto: "
        "that, and the link where none comes", True),
    Key("pool", _NAME, "default", "the [pool NAME] that gives its devices their client ports"),
    Key("serial", serial("none"), "none", "legacy: serial of its one device; needed there"),
    Key("mappings", many("CLIENTPORT -> [NAME=]HOST:PORT", read_mapping, 0, 255), "",
        "legacy: services of the device, one a line; CLIENTPORT 0: one from the pool; needed there"),
    Key("probe", yes_no(), "yes", "legacy: offer rt1 first; a real device ignores the offer unharmed"),
    Key("heartbeat", yes_no(), "yes", "legacy: test a silent link with DATA for the unused channel 0; emo: "
        "send PING, which a client of the first version does not bear"),
    Key("tls", yes_no(), "no", "agents have to come with TLS; needs certificate and certificate_key", True),
    Key("certificate", _PEM, "none", "of the server, for the name or address that agents dial, extended key "
        "usage serverAuth; behind it those that lead to its authority", True),
    Key("certificate_key", _PEM, "none", "file with its private key, closed to others", True),
    Key("authority", _PEM, "none", "certificates of those who sign device certificates", True),
    Key("device_certificates", word("required", "optional", "no"), "required",
        "required: an agent must show a certificate, whose URI urn:revtunnel:device:SERIAL says which device "
        "it is, extended key usage clientAuth; optional: may; no: is not asked, keys decide", True),
    Key("crl", _PEM, "none", "certificates that the authority took back; a list that is not current lets "
        "nobody in", True),
    _TLS_LEAST,
    Key("allow_plaintext", yes_no(), "no",
        "INSECURE: lets other machines in without TLS; no: such a listener does not start"),
    *_SENDERS,
)  # fmt: skip
_POOL = (
    Key("ranges", many("PORT or LOW-HIGH", read_range, 1, 64), "20000-20999",
        "ports that clients dial, such as 20000-20999, 30000"),
    Key("bind", SettingKind("address", "an IP address of this machine", read_address), "127.0.0.1",
        "address on which client ports listen; anybody who reaches it reaches the devices"),
    Key("quarantine", seconds(0, 86400), "60 s", "time a port rests before another device gets it"),
    Key("sticky", seconds(0, 3650 * 86400), "30 d", "time a device that is away keeps its ports"),
    Key("clients", CLIENTS, "any", "who may use its ports; has to be said where other machines reach bind, "
        "here or in [device *]", True),
    Key("absent", word("close", "refuse"), "close",
        "while its device is away a client port is closed, or stays open and refuses every client"),
    *_SENDERS,
)  # fmt: skip
_RESERVATION = Key("SERIAL/TARGETNAME", SettingKind("port", "1 to 65535", read_port), "none",
    "client port of that target, inside or outside the pools; example: plc-7/http = 20080", True)  # fmt: skip
_LIMITS = (
    _server("pending", _ANY, "agents that have not finished their handshake"),
    _server("pending_per_source", _ANY, "the same from one address; behind NAT many devices share one"),
    _server("handshakes", _ANY, "TLS handshakes in progress; the next ones wait"),
    _server("proxy_header", size(536, 64 * KIB), "a PROXY header v2 with all its entries"),
    _server("proxy_wait", seconds(1, 60), "time from connect to the end of a PROXY header, absolute"),
    _server("clients", count("connections", 1, 1_000_000), "clients in all"),
    _server("clients_per_device", _ANY, "clients of one device"),
    _server("pool", size(0, 64 * GIB), "credit beyond first_window, all links"),
    _server("descriptors", share(0.1, 1.0), "share of the file descriptors that connections may use"),
    _server("descriptors_kept", count("descriptors", 8, 4096), "kept for links and the admin door"),
    _server("herd_spread", seconds(0, 600), "time over which agents spread their return; "
            "10 s for thousands of agents, 30 s above 20000"),
    _server("retry_after", count("seconds", 0, 3600), "time a leaving server asks its agents to stay away"),
    _server("backlog", _ANY, "connections the kernel queues per listening socket", False),
    _server("duplicate_swaps", count("links", 1, 1000), "links of one serial that may replace each other "
            "within duplicate_window before all are refused"),
    _server("duplicate_window", _HOUR, "see duplicate_swaps"),
)  # fmt: skip
_ADMIN = (
    Key("socket", path(107, "auto"), "auto",
        "auto: admin.sock in $RUNTIME_DIRECTORY, /run/revtunnel for root, else revtunnel in $XDG_RUNTIME_DIR "
        "or ~/.local/state"),
    Key("mode", SettingKind("octal", "0600 to 0666", read_mode, "{:04o}".format), "0660", "permission bits"),
    Key("operators", _PEOPLE, "", "who may change things; root and the user of the server always may", True),
    Key("readers", _PEOPLE, "", "who may only look", True),
)  # fmt: skip
_DAYS = partial(count, "days")
_enrolment = partial(limit_key, EnrolmentLimits)
_AUTHORITY = (
    Key("directory", path(4096, "auto", "none"), "auto",
        "where the authority is, once revtunnelctl ca init has made one; auto: authority in state_directory",
        True),
    Key("authority_days", _DAYS(1, 36500), "7300", "life of the authority itself"),
    Key("server_days", _DAYS(1, 3650), "825", "life of a server's certificate"),
    Key("device_days", _DAYS(1, 3650), "90", "life of a device's certificate; its agent renews it", True),
    _enrolment("token_life", seconds(60, 30 * 86400), "time a one-time token is good"),
    _enrolment("tokens", count("tokens", 1, 100_000), "tokens that wait to be used"),
    _enrolment("wrong_tries", count("tries", 1, 1000), "failures of one address within wrong_window before "
               "it is refused for as long; behind NAT many devices share one"),
    _enrolment("wrong_window", seconds(1, 86400), "see wrong_tries"),
    _enrolment("sources", count("addresses", 16, 1_000_000), "addresses that failed and are remembered"),
    _enrolment("renewals", count("certificates", 1, 1000), "certificates that one device gets in 24 hours"),
)  # fmt: skip
_data = partial(limit_key, DataLimits)
_DATA = (
    _data("warm", count("sockets", 0, 1024), "sockets of one agent that wait for its next client, while "
          "there are clients now and then"),
    _data("warm_most", count("sockets", 1, 1024), "sockets of one agent that wait or are on their way"),
    _data("warm_idle", seconds(1, 86400), "time without a client after which none waits"),
    _data("wait", seconds(0, 60), "time a client waits for a socket before it goes by the link"),
    _data("retry", _HOUR, "time that clients go by the link at once after no socket came"),
    _data("answer", seconds(0.1, 60), "time an agent's machine has to acknowledge a CONNECT, or four round "
          "trips if that is more; then another socket is tried"),
    _data("ticket", seconds(1, 300), "time an agent has to bring a socket"),
)  # fmt: skip
_link = partial(limit_key, LinkLimits)
_LINK = (
    _link("keepalive", _HOUR, "silence before a PING; below the time of any NAT on the way"),
    _link("busy_keepalive", _HOUR, "the same while sent data is unanswered"),
    _link("answer", _HOUR, "time a PING may stay unanswered"),
    _link("busy_answer", _HOUR, "the same while sent data is unanswered"),
    _link("handshake", seconds(1, 120), "time from connect to an accepted HELLO, absolute"),
    _link("probe", seconds(0.1, 30), "time a legacy listener waits for an answer to its offer"),
    _link("offers", count("targets", 1, 255), "targets that one agent may offer"),
    _link("channels", count("channels", 1, 255), "channels at once"),
    _link("number_wait", seconds(0, 60), "time a client waits for a free channel number"),
    _link("waiting", count("clients", 0, 65535), "clients that may wait for one"),
    _link("first_window", size(4 * KIB, 16 * MIB), "credit of a new channel"),
    _link("open_window", _QUEUE, "credit once the target has answered"),
    _link("largest_window", _QUEUE, "credit that tuning may reach on a channel"),
    _link("link_pool", size(0, 16 * GIB), "credit beyond first_window, all channels"),
    _link("queue", size(4 * KIB, 16 * MIB), "what a channel may queue before its socket is paused"),
    _link("legacy_queue_hard", _QUEUE, "legacy: owed to one socket before the link is paused"),
    _link("legacy_link_queue", _QUEUE, "legacy: owed to all sockets before the link is paused"),
    _link("legacy_stall", _HOUR, "legacy: time a paused link waits for its slowest socket, then resets it"),
    _link("early_data", size(0, 16 * MIB), "legacy: held for a channel whose CONNECT has not come yet"),
    _link("early_wait", seconds(0, 60), "legacy: time it is held"),
    _link("echo_wait", seconds(1, 600), "legacy: silence after which a missing echo CLOSE counts as seen"),
    _link("legacy_linger", seconds(0, 600), "legacy: time a service may be silent after its client's CLOSE"),
    _link("legacy_answer", _HOUR, "legacy: time a device may answer nothing while its TCP still answers; it "
          "does so while it dials"),
    _link("legacy_glitches", count("glitches", 1, 1_000_000), "the same as glitches on a legacy link"),
    _link("glitches", count("glitches", 1, 1_000_000), "oddities in glitch_window before a link is closed"),
    _link("glitch_window", _HOUR, "see glitches"),
)  # fmt: skip
_relay = partial(limit_key, RelayLimits)
_RELAY = (
    _relay("first", size(16 * KIB, MIB), "a reading, to begin with and whenever not all was taken"),
    _relay("turn", size(16 * KIB, MIB), "the largest reading; more is faster, less is kinder to others"),
    _relay("calm", count("readings", 0, 65535), "readings that stay small once somebody said little"),
    _relay("pool", size(MIB, 16 * GIB), "held for all sides that take nothing before readings are small"),
    _relay("flush", _HOUR, "time a side may take for the last bytes once both have ended"),
)  # fmt: skip
_emo = partial(limit_key, EmoLimits)
_EMO = (
    _emo("sockets", count("sockets", 1, 999), "data sockets of one machine, clients that wait among them"),
    _emo("wait", seconds(1, 600), "time a client waits for its data socket"),
    _emo("first", seconds(0.1, 60), "time from connect to the first command, absolute"),
    _emo("heartbeat", _HOUR, "silence before a PING"),
    _emo("silence", _HOUR, "silence after which the other side is gone, if it took part in PING and PONG"),
    _emo("idle", seconds(1, 86400), "time after which the agent closes a data socket that nobody uses"),
    _emo("unasked", count("sockets", 1, 1000), "data sockets that nobody asked for before the machine's "
         "command socket is closed"),
    _emo("held", size(4 * KIB, 16 * MIB), "what a stream may have on its way to a side that takes nothing"),
    _emo("nul_wait", seconds(0.01, 60), "time after which NULs at the end of a message, which might begin a "
         "terminator, are passed on all the same"),
    _emo("ask_again", seconds(60, 30 * 86400), "time after which the agent offers rt1 again, with its next "
         "connection, to a server that did not know it; see modern"),
)  # fmt: skip
_agent = partial(limit_key, AgentLimits)
_AGENT = (
    Key("servers", many("HOST:PORT", read_dialled, 0, 16), "",
        "servers, tried in turn; at least one is needed", True),
    Key("serial", serial("auto"), "auto",
        "name of the device; auto: the one in its certificate, else the host name"),
    Key("key_file", path(4096, "auto", "none"), "auto", "file with the device key, closed to others; auto: "
        "revtunnel.key in $CREDENTIALS_DIRECTORY, none where there is no such file"),
    Key("local", many("[NAME=]HOST:PORT or unix:PATH", parse_offer, 0, 255), "",
        "what the agent may dial for the server, and nothing else; at least one is needed; what is gone at a "
        "SIGHUP is dialled no more"),
    Key("tls", word("auto", "yes", "no"), "auto", "auto: yes, but for a server on this machine (127.0.0.1, "
        "::1, localhost) while neither authority nor certificate is set; no: plaintext, see allow_plaintext",
        True),
    Key("state_directory", path(4096, "auto", "none"), "auto",
        "where enrolment keeps key and certificate; auto: $STATE_DIRECTORY, /var/lib/revtunnel for root, "
        "else revtunnel in $XDG_STATE_HOME or ~/.local/state"),
    Key("authority", path(4096, "auto", "system"), "auto",
        "certificates of those who sign the server's; system: whom this machine trusts; auto: the one that "
        "enrolment left where its certificate is used, else system", True),
    Key("server_name", text("name", "auto, or a host name or an address", r"[A-Za-z0-9._:-]{1,253}"), "auto",
        "whom the server's certificate must name; auto: the host of servers, as it is written there", True),
    Key("certificate", path(4096, "auto", "none"), "auto", "of the device: URI urn:revtunnel:device:SERIAL, "
        "extended key usage clientAuth; behind it those that lead to its authority; auto: what enrolment "
        "left in state_directory, with its key", True),
    Key("certificate_key", _PEM, "none", "file with its private key, closed to others", True),
    Key("renew_before", share(0.05, 0.9), "0.33",
        "share of its life that is left when a certificate of enrolment is renewed", True),
    _TLS_LEAST,
    Key("allow_plaintext", yes_no(), "no",
        "INSECURE: with tls = no, speaks to servers on other machines all the same", True),
    Key("proxy", SettingKind("URL", "environment, none or http://HOST:PORT", read_proxy), "environment",
        "HTTP proxy on the way to the servers; environment: what https_proxy, all_proxy and no_proxy say, "
        "never for a server on this machine", True),
    Key("proxy_credentials", _PEM, "none", "file with user:password for the proxy, closed to others", True),
    Key("proxy_protocol", many("NAME=v1 or NAME=v2", read_header, 0, 255), "",
        "services, by their name in local, that are told with a PROXY header who their client is"),
    Key("legacy", yes_no(), "no", "the server is a ReadyAgent server that nobody changed: never speak rt1"),
    Key("emo", yes_no(), "no", "the server speaks the MTConnect EMO proxy's wire; see server_port"),
    Key("server_port", SettingKind("port", "0, or 1025 to 65535", read_server_port), "0",
        "emo: the port at the server that stands for the one service in local; needed there"),
    Key("modern", word("auto", "no"), "auto", "emo: auto: offer rt1 first, which a server of this project "
        "speaks on the same port; an original server hangs up after 3 s, and is known then; no: never"),
    Key("data_sockets", yes_no(), "yes", "bring connections for single channels when the server wants them"),
    _agent("data_most", count("sockets", 0, 65535), "such connections at once, waiting or in use"),
    _agent("data_dials", count("dials", 1, 1024), "such connections on their way to the server"),
    _agent("data_ticket", seconds(1, 300), "time after which one that was not begun is given up"),
    _agent("dial", seconds(0.1, 300), "time for one target, name resolution included"),
    _agent("dials", count("dials", 1, 1024), "dials in flight per link"),
    _agent("dials_waiting", count("dials", 0, 65535), "dials that wait their turn; more are refused"),
    _agent("lookups", count("lookups", 1, 8), "name resolutions in flight"),
    _agent("retry_first", seconds(0.1, 60), "longest first wait before a new try; doubles each time"),
    _agent("retry_most", _HOUR, "longest wait of all"),
    _agent("stable", _HOUR, "time a link must live before the waits start over"),
    _agent("connect", seconds(1, 300), "time for the connection to a server"),
    *LOG,
)  # fmt: skip

SECTIONS = (
    Section("server", "server", "The server as a whole.", _SERVER),
    Section("listener", "server", "A door for agents. Without any, [listener main] is assumed.", _LISTENER,
            True),
    Section("pool", "server", "Ports for clients. Without any, [pool default] is assumed.", _POOL, True),
    Section("reservations", "server", "Ports that belong to one target of one device for ever.",
            entry=_RESERVATION),
    *RECORD_SECTIONS,
    Section("limits", "server", "What the server spends at most.", _LIMITS),
    Section("admin", "server", "The door for revtunnelctl, a UNIX socket.", _ADMIN),
    Section("authority", "server", "A small certificate authority, for people who have none.", _AUTHORITY),
    Section("data", "server", "Data sockets: connections that agents bring for single channels.", _DATA),
    Section("relay", "both", "Pairs of sockets joined to one stream: clients and services on data sockets.",
            _RELAY),
    Section("emo", "both", "The MTConnect EMO proxy's wire; command sockets keep what they began with.",
            _EMO),
    Section("link", "both", "One link, at either end; running links keep what they began with.", _LINK),
    Section("agent", "agent", "The agent beside the device.", _AGENT),
    *CAMEO_SECTIONS,
    *CCCP_SECTIONS,
)  # fmt: skip


@cache
def find(section: str, name: str) -> Key:
    """The key ``name`` of a section, ``listener`` for every ``[listener NAME]``; KeyError: there is none."""
    keys = {(each.name, key.name): key for each in SECTIONS for key in each.keys}
    return keys[section, name]


# ---- what is printed from it

_SYNTAX = """\
One KEY = VALUE a line under a [SECTION]; a line that begins with # or ; is a comment, a further indented
line goes on with the value above it. Times are seconds unless s, min, h or d follows; sizes are bytes unless
KiB, MiB or GiB follows. Unknown sections and keys are errors, and so is anything twice in one file.
FILE.d/*.ini beside FILE, and conf.d/*.ini beside /etc/revtunnel/revtunnel.ini, are read after it in the
order of their names; a later file wins. The command line wins over the environment (REVTUNNEL_CONFIG names
FILE), that over the files. Secrets never stand here: the device key has a file of its own, see key_file.
On SIGHUP all is read again; if anything is wrong the old settings stay.""".splitlines()
_EXAMPLE = """\
[listener main]
address = 0.0.0.0:2065, [::]:2065
tls = yes
certificate = /etc/revtunnel/server.pem
certificate_key = /etc/revtunnel/server.key
authority = /etc/revtunnel/authority.pem

[listener press]
address = 127.0.0.1:2066
kind = legacy
serial = press-4
mappings =
    2300 -> 10.41.51.152:23
    0 -> http=127.0.0.1:80

[pool default]
ranges = 20000-20999, 30000

[reservations]
plc-7/tcp-23 = 20023

[device plc-7]
clients = 10.1.0.0/16, 2001:db8:1::/48
targets = *:23
expires = 2027-12-31""".splitlines()


def _facts(key: Key) -> str:
    change = "at once on SIGHUP" if key.live else "with a restart"
    return f"Unit: {key.kind.unit}. Limit: {key.kind.limit}. Changes: {change}."


def _rows(section: Section) -> tuple[Key, ...]:
    return section.keys if section.entry is None else (*section.keys, section.entry)


def as_ini() -> str:
    """etc/revtunnel.ini: every key as a comment with its default."""
    lines = ["# Settings of revtunnel-server and revtunnel-agent; each key is shown with its default.", "#"]
    lines += [*(f"# {line}" for line in _SYNTAX), ""]
    for section in SECTIONS:
        title = {
            "listener": "[listener main]",
            "pool": "[pool default]",
            "device": "[device *]",
            "cameo-outside": "[cameo-outside web]",
            "cccp-project": "[cccp-project main]",
        }.get(section.name, section.title)
        lines += [f"# ---- {section.text} Read by: {section.reader}.", title, ""]
        for key in _rows(section):
            lines += [f"# {line}" for line in (*textwrap.wrap(key.text, 100), _facts(key))]
            lines += [
                f"# {key.name} = PORT" if section.entry else f"#{key.name} = {key.default}".rstrip(),
                "",
            ]
        lines += [f"# {section.note}", ""] if section.note else []
    return "\n".join(lines)


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")


def as_man() -> str:
    """man/revtunnel.ini.5, whole."""
    lines = ['.TH REVTUNNEL.INI 5 "" revtunnel "File formats"', ".SH NAME"]
    lines += [r"revtunnel.ini \- settings of revtunnel\-server and revtunnel\-agent", ".SH SYNOPSIS"]
    lines += [".I /etc/revtunnel/revtunnel.ini", ".SH DESCRIPTION", *(_roff(line) for line in _SYNTAX)]
    for section in SECTIONS:
        lines += [f'.SH "{_roff(section.title)}"', _roff(section.text), f"Read by: {section.reader}."]
        for key in _rows(section):
            lines += [".TP", rf"\fB{_roff(key.name)}\fR = {_roff(key.default)}".rstrip()]
            lines += [_roff(f"{key.text}."), ".br", _roff(_facts(key))]
    lines += [".SH EXAMPLE", ".nf", *(_roff(line) for line in _EXAMPLE), ".fi", ".SH SEE ALSO"]
    lines += [r".BR revtunnel\-server (8),", r".BR revtunnel\-agent (8),", ".BR revtunnelctl (1)", ""]
    return "\n".join(lines)


def _cells(key: Key) -> list[str]:
    """A row of the table in docs/; what reST would read as markup is escaped."""
    default = f"``{key.default}``" if key.default else "(empty)"
    meaning = re.sub(r"([*|`_])", r"\\\1", f"{key.text}. {_facts(key)}")
    return [f"   * - ``{key.name}``", f"     - {default}", f"     - {meaning}"]


def as_rst() -> str:
    """docs/settings.rst."""
    lines = ["Settings", "========", "", ".. Printed by: python -m revtunnel.daemons.schema --rst", ""]
    lines += [line.replace("*", "\\*") for line in _SYNTAX]
    lines += ["", "An example::", "", *(f"    {line}".rstrip() for line in _EXAMPLE)]
    for section in SECTIONS:
        lines += [
            "",
            section.title,
            "-" * len(section.title),
            "",
            f"{section.text} Read by: {section.reader}.",
        ]
        lines += ["", ".. list-table::", "   :header-rows: 1", "   :widths: 20 15 65", ""]
        lines += ["   * - key", "     - default", "     - meaning"]
        lines += [cell for key in _rows(section) for cell in _cells(key)]
        lines += ["", section.note] if section.note else []
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    """Print one of the three; 64 if it is not clear which."""
    printers = {"--ini": as_ini, "--man": as_man, "--rst": as_rst}
    if len(arguments) != 1 or arguments[0] not in printers:
        print("usage: python -m revtunnel.daemons.schema --ini | --man | --rst", file=sys.stderr)
        return 64
    sys.stdout.write(printers[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
