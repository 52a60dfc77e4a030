"""Who is at the other end of the admin socket's socket, and what the settings let him do.

Rule of this file: the kernel says who it is; a user is never taken for a group or a number.

Source: faults.md C1, "Mechanisms, exact" (Admin); unix(7) for SO_PEERCRED.
"""

import contextlib
import grp
import os
import pwd
import socket
import struct
from typing import NamedTuple

from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.operation_form import CallerRole

__all__ = ["Caller", "caller_at", "role_of"]

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Caller(NamedTuple):
    """Who is at the other end of a connection, as the kernel says."""

    uid: int
    name: str  # the uid where it has no name
    groups: frozenset[str] = frozenset()


def caller_at(handle: socket.socket) -> Caller:
    """The process that connected, as it was then."""
    raw = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    name, gids = str(uid), {gid}
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
        gids |= set(os.getgrouplist(name, gid))
    groups = set()
    for each in gids:
        with contextlib.suppress(KeyError):
            groups.add(grp.getgrgid(each).gr_name)
    return Caller(uid, name, frozenset(groups))


def role_of(caller: Caller, settings: AdminSettings) -> CallerRole:
    """What the caller may do: root and our own user everything, the others what the settings say."""
    if caller.uid in (0, os.geteuid()) or any(_is(caller, person) for person in settings.operators):
        return CallerRole.OPERATOR
    return CallerRole.READER if any(_is(caller, person) for person in settings.readers) else CallerRole.NOBODY


def _is(caller: Caller, person: str) -> bool:
    if person.startswith("@"):
        return person[1:] in caller.groups
    return caller.uid == int(person) if person.isdigit() else caller.name == person
