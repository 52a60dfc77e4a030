"""Sections of settings: which dataclasses fill which section, and what differs between two trees of settings.

Rule of this file: it is imported by the programs that have to listen at once, so it imports little.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
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
    """One section; ``named``: it is written ``[listener NAME]`` and may come several times."""

    name: str
    reader: str  # server, agent, both, ...
    text: str
    parts: tuple[type, ...] = ()  # each with the keys that its bases have not, in this order
    named: bool = False
    entry: Key | None = None  # the form of every line, where keys are free
    label: str = "NAME"  # what stands behind the name of a named section
    labels: str = r"[A-Za-z0-9._-]{1,32}"  # and its form
    wanted: str = "NAME 1 to 32 of A-Z a-z 0-9 . _ -"  # and that in words
    shown: str = ""  # head line in the shipped file, if not the title

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Its settings; a part may say another text of what it inherits."""
        by_name = {key.name: key for part in reversed(self.parts) for key in keys_of(part).values()}
        return tuple(by_name[key.name] for part in self.parts for key in own_keys(part))

    @property
    def title(self) -> str:
        """Its head line as a manual shows it."""
        return f"[{self.name} {self.label}]" if self.named else f"[{self.name}]"


class Sections:
    """The table of all sections."""

    def __init__(self, *sections: Section) -> None:
        self.all = sections
        self.by_name = {section.name: section for section in sections}
        self._by_part = {part: section for section in reversed(sections) for part in section.parts}
        self._keys = {(section.name, key.name): key for section in sections for key in section.keys}

    def __iter__(self) -> Iterator[Section]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def find(self, label: str, name: str) -> Key:
        """A key of a section, ``listener`` for every ``[listener NAME]``; KeyError: there is none."""
        return self._keys[label.partition(" ")[0], name]

    def of(self, part: type) -> Section:
        """The section that a part fills; KeyError: it is none."""
        return self._by_part[part]

    def parts_in(self, part: Any) -> Iterator[tuple[str, type]]:
        """The fields of a part that are parts themselves, not lists of them."""
        return ((each.name, each.type) for each in fields(part) if each.type in self._by_part)

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
        section = self._by_part[type(part)]
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
                    if type(inner) in self._by_part:
                        yield from self._flat(inner)
