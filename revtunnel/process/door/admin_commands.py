"""The commands of the admin door: their names, arguments, answers and errors on the wire (AMP).

Rule of this file: the form only. What a command does is in admin_desk.py, who calls in admin_socket.py;
docs/admin.rst describes it for other programs. Rows and facts travel as JSON text in one value: one form for
the wire, ``--json`` and the log. A value stays below ``MAX_VALUE``, because AMP drops a connection at 65,535.

A listing is asked page by page: ``after`` is the cursor of the answer before, absent at first; the answer
has no ``after`` when that was the last page.

Source: twisted.md 2.5; faults.md C1 to C3, "Mechanisms, exact" (Admin).
"""

import json
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from twisted.protocols import amp

from revtunnel.process.door.refusals import Busy, Conflict, Denied, Invalid, NotFound

__all__ = [
    "COMMANDS",
    "ERRORS",
    "MAX_PATH",
    "MAX_VALUE",
    "AdminCommand",
    "Authority",
    "Certify",
    "Channels",
    "Close",
    "Cut",
    "Devices",
    "Drain",
    "Enroll",
    "Enrolled",
    "FactSeen",
    "Kick",
    "LogLevel",
    "Peers",
    "Ping",
    "Ports",
    "Release",
    "Reload",
    "Revoke",
    "Role",
    "Status",
    "Token",
    "Watch",
    "in_json",
    "paged",
]

MAX_VALUE = 60_000  # bytes of one value that we send
MAX_PATH = 107  # bytes of a UNIX socket's path


class Role(IntEnum):
    """What a caller may do; each may what the one before it may."""

    NOBODY = 0
    READER = 1  # look
    OPERATOR = 2  # change things


ERRORS: dict[type[Exception], bytes] = {
    NotFound: b"NOT_FOUND",
    Invalid: b"INVALID",
    Conflict: b"CONFLICT",
    Busy: b"BUSY",
    Denied: b"DENIED",
}


class AdminCommand(amp.Command):
    """The base of all; ``role`` is the least a caller needs."""

    errors = ERRORS
    role = Role.READER


_Fields = list[tuple[bytes, amp.Argument]]
_PAGE: _Fields = [(b"after", amp.Unicode(optional=True)), (b"limit", amp.Integer(optional=True))]
_ROWS: _Fields = [(b"rows", amp.Unicode()), (b"after", amp.Unicode(optional=True))]
_ROW: _Fields = [(b"row", amp.Unicode())]
_SERIAL: tuple[bytes, amp.Argument] = (b"serial", amp.Unicode())


class Ping(AdminCommand):
    """``row``: state, name and version."""

    response = _ROW


class Status(AdminCommand):
    """``row``: the server as a whole."""

    response = _ROW


class Devices(AdminCommand):
    """``rows`` by serial."""

    arguments = _PAGE
    response = _ROWS


class Record(AdminCommand):
    """``row``: what one device may do, whether it is known or not."""

    arguments = [_SERIAL]
    response = _ROW


class Ports(AdminCommand):
    """``rows`` by port."""

    arguments = _PAGE
    response = _ROWS


class Channels(AdminCommand):
    """``rows`` by serial and number; of one device where ``serial`` is given."""

    arguments = [(b"serial", amp.Unicode(optional=True)), *_PAGE]
    response = _ROWS


class Enrolled(AdminCommand):
    """``rows``: serials that have a device key."""

    arguments = _PAGE
    response = _ROWS


class Peers(AdminCommand):
    """``rows``: the peers of the CAMEO relays, by address; revtunnel-cameo only."""

    arguments = _PAGE
    response = _ROWS


class Watch(AdminCommand):
    """From now on the server calls ``FactSeen`` for everything that happens, until the connection ends."""


class Close(AdminCommand):
    """End one channel with a reset."""

    arguments = [_SERIAL, (b"channel", amp.Integer())]
    role = Role.OPERATOR


class Cut(AdminCommand):
    """End the connection of one peer, by its address; revtunnel-cameo only."""

    arguments = [(b"peer", amp.Unicode())]
    role = Role.OPERATOR


class Kick(AdminCommand):
    """End a device's link; it stays away for ``retry_after`` seconds."""

    arguments = [_SERIAL, (b"retry_after", amp.Integer())]
    role = Role.OPERATOR


class Release(AdminCommand):
    """Give back the port of an absent device's target; which port that was."""

    arguments = [_SERIAL, (b"target", amp.Unicode())]
    response = [(b"port", amp.Integer())]
    role = Role.OPERATOR


class Enroll(AdminCommand):
    """Make a device key. ``problem``: why it is not on the server's disk yet."""

    arguments = [_SERIAL, (b"replace", amp.Boolean())]
    response = [(b"key", amp.Unicode()), (b"problem", amp.Unicode(optional=True))]
    role = Role.OPERATOR


class Authority(AdminCommand):
    """``row``: directory, fingerprint, until, tokens, certificates; NOT_FOUND where there is no authority."""

    response = _ROW


class Token(AdminCommand):
    """Make a one-time token for an agent; ``server``: where it should dial, "" if that is not known."""

    arguments = [_SERIAL, (b"replace", amp.Boolean())]
    response = [
        (b"token", amp.Unicode()),
        (b"server", amp.Unicode()),
        (b"problem", amp.Unicode(optional=True)),
    ]
    role = Role.OPERATOR


class Certify(AdminCommand):
    """Make a certificate from ``request``, PKCS #10 in DER or PEM; both certificates in DER."""

    arguments = [_SERIAL, (b"request", amp.String()), (b"replace", amp.Boolean())]
    response = [
        (b"certificate", amp.String()),
        (b"authority", amp.String()),
        (b"problem", amp.Unicode(optional=True)),
    ]
    role = Role.OPERATOR


class Revoke(AdminCommand):
    """Withdraw key, certificates and tokens of a device and cut it off; ``lift``: see docs/admin.rst."""

    arguments = [_SERIAL, (b"lift", amp.Boolean(optional=True))]
    response = [(b"problem", amp.Unicode(optional=True))]
    role = Role.OPERATOR


class Drain(AdminCommand):
    """Stop the server in order."""

    role = Role.OPERATOR


class Reload(AdminCommand):
    """Read the settings again; ``row``: changed, needs_restart, errors (then nothing changed)."""

    response = _ROW
    role = Role.OPERATOR


class LogLevel(AdminCommand):
    """Log from this level on, until the next restart or reload."""

    arguments = [(b"least", amp.Unicode())]
    role = Role.OPERATOR


class FactSeen(amp.Command):
    """Server to watcher: one fact, with ``ts`` and ``level``. It is not answered."""

    commandName = b"Fact"
    arguments = [(b"row", amp.Unicode())]
    requiresAnswer = False


COMMANDS: dict[bytes, type[AdminCommand]] = {
    command.commandName: command
    for command in (
        Ping,
        Status,
        Devices,
        Record,
        Ports,
        Channels,
        Enrolled,
        Peers,
        Watch,
        Close,
        Cut,
        Kick,
        Release,
        Enroll,
        Authority,
        Token,
        Certify,
        Revoke,
        Drain,
        Reload,
        LogLevel,
    )
}


def in_json(row: Any) -> str:
    """One line of ASCII JSON of at most ``MAX_VALUE`` bytes.

    Where a row is too large its largest lists and texts are cut; of a list ``<name>_left_out`` says how much.
    """
    text = _written(row)
    while len(text) > MAX_VALUE and isinstance(row, dict):
        sizes = {
            name: len(_written(value)) for name, value in row.items() if isinstance(value, list | tuple | str)
        }
        if not sizes or max(sizes.values()) < 100:
            break
        row = _halved(row, max(sizes, key=lambda name: sizes[name]))
        text = _written(row)
    return text


def _halved(row: dict[str, Any], name: str) -> dict[str, Any]:
    value = row[name]
    kept = value[: len(value) // 2]
    if isinstance(value, str):
        return {**row, name: kept}
    count = f"{name}_left_out"
    return {**row, name: kept, count: row.get(count, 0) + len(value) - len(kept)}


def paged(rows: Sequence[Any], more: bool, cursor_of: Callable[[Any], str]) -> dict[str, Any]:
    """The answer of a listing: as many rows as one value holds, at least one if there are any."""
    texts: list[str] = []
    size = len("[]")
    for row in rows:
        text = in_json(row)
        size += len(text) + len(",")
        if texts and size > MAX_VALUE:
            more = True
            break
        texts.append(text)
    after = cursor_of(rows[len(texts) - 1]) if more and texts else None
    return {"rows": f"[{','.join(texts)}]", "after": after}


def _written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str).replace("\x7f", "\\u007f")
