"""The settings of the admin socket."""

import re
from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import SettingKind, many, path

__all__ = ["AdminSettings"]


def read_mode(text: str) -> int:
    if not re.fullmatch("0?6[046][046]", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: an octal mode such as 0660 wanted, nothing executable")
    return int(text, 8)


def read_person(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,10}|@?[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a user name, a uid or @group wanted")
    return text


_PEOPLE = many("user, uid or @group", read_person, 0, 64)
_MODE = SettingKind("octal", "0600 to 0666", read_mode, "{:04o}".format)


# fmt: off
@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The admin socket; people are user names, uids or ``@group``, all of which exist."""

    socket: str = setting(path(107, "auto"), "auto", "auto: admin.sock in $RUNTIME_DIRECTORY, /run/revtunnel "
        "for root, else revtunnel in $XDG_RUNTIME_DIR or ~/.local/state")
    mode: int = setting(_MODE, "0660", "permission bits")
    operators: tuple[str, ...] = setting(_PEOPLE, "", "who may change things; root and the user of the "
        "server always may", live=True)
    readers: tuple[str, ...] = setting(_PEOPLE, "", "who may only look", live=True)
