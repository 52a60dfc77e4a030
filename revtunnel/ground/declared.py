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
    """What runs by ``old`` once it was told ``new``: settings that need a restart are as they were.

    So are those of the parts in it. Named parts come and go; one that is alone, such as that of a system
    which is not enabled, is there or not until the restart.
    """
    keys, kept = keys_of(type(old)), {}
    for each in fields(old):  # type: ignore[arg-type]
        mine, told = getattr(old, each.name), getattr(new, each.name)
        if mine is told or (each.name in keys and keys[each.name].live):
            continue
        kept[each.name] = mine if each.name in keys else _updated_part(mine, told)
    same = all(getattr(new, name) is value for name, value in kept.items())
    return new if same else replace(new, **kept)  # type: ignore[type-var]


def _updated_part(mine: Any, told: Any) -> Any:
    """The same for what is no setting itself: a part, named parts, or what was made of them."""
    if isinstance(told, tuple) and all(is_dataclass(each) for each in (*mine, *told)):
        before = {each.name: each for each in mine}
        return tuple(updated(before.get(each.name, each), each) for each in told)
    if is_dataclass(mine) and is_dataclass(told):
        return updated(mine, told)
    return mine if told is None or is_dataclass(told) else told
