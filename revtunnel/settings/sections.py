"""What all daemons' settings share: parts of ground/policy.py, named sections, the admin door, what changed.

Rule of this file: it is imported by the programs that have to listen at once, so it imports little.
"""

import grp
import os
import pwd
from collections.abc import Iterable
from typing import Any

from revtunnel.daemons.schema import SECTIONS, find
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.inifile import SECTION_OF, Name, Surroundings, Table

__all__ = [
    "admin_settings",
    "check_people",
    "differences",
    "named_sections",
    "part_of",
    "socket_beside",
]


def admin_settings(table: Table, socket: str) -> AdminSettings:
    """Section [admin], with the socket's path, which is never ``auto``."""
    values = {key.name: table.get("admin", key.name) for key in SECTION_OF["admin"].keys}
    return AdminSettings(**{**values, "socket": socket})


def socket_beside(table: Table, section: str, around: Surroundings) -> str:
    """Where a daemon's admin socket is: as set, or beside the server's, under the section's name."""
    path: str = table.get(section, "admin_socket")
    if path == "auto":
        return os.path.join(os.path.dirname(around.admin_socket()), f"{section}.sock")
    return path


def check_people(table: Table) -> None:
    """Everybody in [admin] must exist."""
    for key in ("operators", "readers"):
        for person in table.get("admin", key):
            try:
                if person.startswith("@"):
                    grp.getgrnam(person[1:])
                elif not person.isdigit():
                    pwd.getpwnam(person)
            except KeyError:
                table.complain("admin", key, f"{person!a}: no such user or group on this machine")


def part_of(table: Table, part: type) -> Any:
    """A dataclass of ground/policy.py out of the keys that fill it."""
    keys = {key.name: section.name for section in SECTIONS for key in section.keys if key.part is part}
    return part(**{key: table.get(section, key) for key, section in keys.items()})


def named_sections(table: Table, kind: str, default: str | None) -> list[dict[str, Any]]:
    """The values of every ``[kind NAME]``, or of one called ``default`` where there is none."""
    labels = table.named(kind) or ([] if default is None else [f"{kind} {default}"])
    return [
        {"name": label.split()[1], **{key.name: table.get(label, key.name) for key in SECTION_OF[kind].keys}}
        for label in labels
    ]


def differences(
    old: Iterable[tuple[Name, Any]], new: Iterable[tuple[Name, Any]]
) -> tuple[list[str], list[str]]:
    """Names of settings that differ: those that SIGHUP applies, and those that need a restart.

    A name is ``[section] key``; a named section that came or went is one name without a key.
    """
    before, after = dict(old), dict(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    whole = {label for label, _ in before} ^ {label for label, _ in after}
    live: list[str] = []
    restart: list[str] = []
    for label, key in names:
        comes_or_goes = label in whole and " " in label
        text = f"[{label}]" if comes_or_goes else f"[{label}] {key}"
        stays = not comes_or_goes or SECTION_OF[label.split()[0]].free
        group = live if _is_live(label, key) and stays else restart
        if text not in group:
            group.append(text)
    return live, [text for text in restart if text not in live]


def _is_live(label: str, key: str) -> bool:
    section = SECTION_OF[label.split()[0]]
    return section.entry.live if section.entry else find(section.name, key).live
