"""How a setting is declared: once, as a field of the frozen dataclass that its owner is told.

Rule of this file: a declaration says all that there is to say of a setting. The reader, the shipped file, the
manuals and what a reload changed are made from it (settings/sections.py); nothing is read or printed here. ::

    @dataclass(frozen=True, slots=True)
    class WarmLimits:
        warm: int = limit(count("sockets", 0, 1024), 2, "sockets that wait for the next client")

Source: ours.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from revtunnel.ground.kinds import SettingKind

__all__ = ["Key", "keys_of", "limit", "own_keys", "setting", "updated"]

Part = TypeVar("Part")
_KEY = "key"  # in a field's metadata


@dataclass(frozen=True, slots=True)
class Key:
    """One setting."""

    name: str  # in a file
    kind: SettingKind
    default: str  # as it is written in a file
    value: Any  # the same, read
    text: str
    live: bool  # SIGHUP applies it; else it needs a restart
    is_limit: bool = False  # it bounds memory, time or count, and stands in the manual's appendix


_FOUND: dict[Any, dict[str, Key]] = {}


def setting(kind: SettingKind, default: str, text: str, live: bool = False, name: str = "") -> Any:
    """A field that is a setting; ``default`` as in a file, ``name`` there if it is not the field's."""
    key = Key(name, kind, default, kind.read(default), text, live)
    return field(default=key.value, metadata={_KEY: key})


def limit(kind: SettingKind, default: float, text: str, live: bool = True) -> Any:
    """A field that is a limit."""
    key = Key("", kind, kind.show(default), default, text, live, is_limit=True)
    return field(default=default, metadata={_KEY: key})


def keys_of(part: Any) -> dict[str, Key]:
    """All settings of a dataclass, those that it inherits too, by field."""
    if part not in _FOUND:
        found = {each.name: each.metadata[_KEY] for each in fields(part) if _KEY in each.metadata}
        _FOUND[part] = {name: replace(key, name=key.name or name) for name, key in found.items()}
    return _FOUND[part]


def own_keys(part: type) -> list[Key]:
    """Those that its bases have not."""
    inherited = {name for base in part.__bases__ if is_dataclass(base) for name in keys_of(base)}
    return [key for name, key in keys_of(part).items() if name not in inherited]


def updated(old: Part, new: Part) -> Part:
    """What runs by ``old`` once it was told ``new``: its settings that need a restart are as they were."""
    kept = {name: getattr(old, name) for name, key in keys_of(type(old)).items() if not key.live}
    return replace(new, **kept)  # type: ignore[type-var]
