"""What a setting and a section of settings are; the table of all of them is schema.py."""

from dataclasses import dataclass
from typing import Any

from revtunnel.settings.values import SettingKind, word

__all__ = ["LOG", "Key", "Section", "limit_key"]


@dataclass(frozen=True, slots=True)
class Key:
    """One setting."""

    name: str
    kind: SettingKind
    default: str  # as it is written in a file
    text: str
    live: bool = False  # SIGHUP applies it; else it needs a restart
    part: type | None = None  # the dataclass of ground/policy.py it is a field of

    @property
    def value(self) -> Any:
        """The default as a value."""
        return self.kind.read(self.default)


@dataclass(frozen=True, slots=True)
class Section:
    """One section; ``named``: it is written ``[listener NAME]`` and may come several times."""

    name: str
    reader: str  # server, agent, both
    text: str
    keys: tuple[Key, ...] = ()
    named: bool = False
    note: str = ""  # behind the keys in the shipped file
    entry: Key | None = None  # the form of every line, where keys are free
    label: str = "NAME"  # what stands behind the name of a named section
    labels: str = r"[A-Za-z0-9._-]{1,32}"  # and its form
    wanted: str = "NAME 1 to 32 of A-Z a-z 0-9 . _ -"  # and that in words
    free: bool = False  # named sections of it come and go on SIGHUP

    @property
    def title(self) -> str:
        """Its head line as a manual shows it."""
        return f"[{self.name} {self.label}]" if self.named else f"[{self.name}]"


def limit_key(part: type, name: str, kind: SettingKind, text: str, live: bool = True) -> Key:
    """A key that is a field of a dataclass of ground/policy.py."""
    return Key(name, kind, kind.show(getattr(part(), name)), text, live, part)


LOG = (
    Key("log_format", word("text", "json"), "text", "form of a log line: for people, or one JSON object"),
    Key("log_level", word("debug", "info", "warn", "error"), "info", "least level that is logged", True),
)
