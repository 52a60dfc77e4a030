"""Sections of settings: which dataclasses fill which section, and what differs between two trees of settings.

Rule of this file: a section names its dataclasses, and they are imported when somebody asks for its keys, so
that a program reads the file it shares with others without their code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pkgutil import resolve_name
from typing import Any

from revtunnel.ground.declared import Key, keys_of, own_keys, setting, updated
from revtunnel.ground.kinds import word

__all__ = ["LogSettings", "Section", "Sections"]

Name = tuple[str, str]  # section as it is written, such as "listener main", and key
_FORM, _LEVEL = word("text", "json"), word("debug", "info", "warn", "error")


@dataclass(frozen=True)
class LogSettings:
    """The log of any daemon."""

    log_format: str = setting(_FORM, "text", "form of a log line: for people, or one JSON object")
    log_level: str = setting(_LEVEL, "info", "least level that is logged", live=True)


@dataclass(frozen=True)
class Section:
    """One section; ``named``: it is written ``[listener NAME]`` and may come several times.

    ``parts`` are the dataclasses that fill it, as ``module:Class``: each with the keys that its bases have
    not, in this order.
    """

    name: str
    reader: str  # server, agent, both, ...
    text: str
    parts: tuple[str, ...] = ()
    named: bool = False
    entry: Key | None = None  # the form of every line, where keys are free
    label: str = "NAME"  # what stands behind the name of a named section
    labels: str = r"[A-Za-z0-9._-]{1,32}"  # and its form
    wanted: str = "NAME 1 to 32 of A-Z a-z 0-9 . _ -"  # and that in words
    shown: str = ""  # head line in the shipped file, if not the title

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Its settings; a part may say another text of what it inherits."""
        parts = [resolve_name(part) for part in self.parts]
        by_name = {key.name: key for part in reversed(parts) for key in keys_of(part).values()}
        return tuple(by_name[key.name] for part in parts for key in own_keys(part))

    @cached_property
    def by_name(self) -> dict[str, Key]:
        """The same, by what is written before ``=``."""
        return {key.name: key for key in self.keys}

    @property
    def title(self) -> str:
        """Its head line as a manual shows it."""
        return f"[{self.name} {self.label}]" if self.named else f"[{self.name}]"


def _written(part: Any) -> str:
    """A class as ``Section.parts`` names it."""
    return f"{part.__module__}:{getattr(part, '__qualname__', '')}"


class Sections:
    """The table of all sections."""

    def __init__(self, *sections: Section) -> None:
        self.all = sections
        self.by_name = {section.name: section for section in sections}
        self._by_part = {part: section for section in reversed(sections) for part in section.parts}

    def __iter__(self) -> Iterator[Section]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def find(self, label: str, name: str) -> Key:
        """A key of a section, ``listener`` for every ``[listener NAME]``; KeyError: there is none."""
        return self.by_name[label.partition(" ")[0]].by_name[name]

    def of(self, part: type) -> Section:
        """The section that a part fills; KeyError: it is none."""
        return self._by_part[_written(part)]

    def parts_in(self, part: Any) -> Iterator[tuple[str, Any]]:
        """The fields of a part that are parts themselves, not lists of them."""
        return ((each.name, each.type) for each in fields(part) if _written(each.type) in self._by_part)

    def differences(self, old: Any, new: Any) -> tuple[list[str], list[str]]:
        """Names of settings that differ: those that SIGHUP applies, and those that need a restart."""
        taken = updated(old, new)
        return self._differing(old, taken), self._differing(taken, new)

    def _differing(self, old: Any, new: Any) -> list[str]:
        """A name is ``[section] key``; a section that came or went is one name without a key."""
        before, after = dict(self._flat(old)), dict(self._flat(new))
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        whole = {label for label, _ in before} ^ {label for label, _ in after}
        found = {
            f"[{label}]"
            if label in whole and self.by_name[label.partition(" ")[0]].entry is None
            else f"[{label}] {key}": None
            for label, key in names
        }
        return [*found]

    def _flat(self, part: Any) -> Iterator[tuple[Name, Any]]:
        """Every setting of a part and of the parts in it, with its name."""
        section = self.of(type(part))
        label = f"{section.name} {part.name}" if section.named else section.name
        if section.entry is not None:
            yield (label, part.name), part
            return
        keys = keys_of(type(part))
        for each in fields(part):
            value = getattr(part, each.name)
            if each.name in keys:
                yield (label, keys[each.name].name), value
            else:
                for inner in value if isinstance(value, tuple) else (value,):
                    if _written(type(inner)) in self._by_part:
                        yield from self._flat(inner)
