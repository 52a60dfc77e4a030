"""Reading settings files into one table of values, with every error that is in them.

Rule of this file: it goes on after an error, and each error says ``FILE:LINE``. What values mean together is
not its business, but for the order of two limits.

A file is read line by line. ``[section]`` opens a section, ``key = value`` sets a key (the first ``=`` parts
them), a line indented deeper than its key goes on with the value, a line that begins with ``#`` or ``;`` is a
comment; there are no comments behind a value, no quotes and no interpolation. UTF-8, with or without a byte
order mark, lines end with LF or CR LF.

Source: twisted.md section 7; faults.md C5; ours for the rest.
"""

import difflib
import glob
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from revtunnel.ground.declared import Key, keys_of
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.kinds import MIB
from revtunnel.settings.sections import Section, Sections

__all__ = [
    "DEFAULT_PATH",
    "File",
    "MissingSettings",
    "Name",
    "SettingsError",
    "Surroundings",
    "Table",
    "read_files",
]

DEFAULT_PATH = "/etc/revtunnel/revtunnel.ini"
MAX_FILE = MIB  # bytes of one file; a larger one is not read

_SECRETS = {"key", "secret", "password", "passphrase", "token", "psk", "device_key", "private_key"}
_ORDERED = (  # section, a key, and the key it must not be above
    ("link", "first_window", "open_window"),
    ("link", "open_window", "largest_window"),
    ("link", "busy_keepalive", "keepalive"),
    ("link", "busy_answer", "answer"),
    ("link", "legacy_queue_hard", "legacy_link_queue"),
    ("limits", "pending_per_source", "pending"),
    ("limits", "wake_first", "wake_most"),
    ("agent", "retry_first", "retry_most"),
)

Name = tuple[str, str]  # section as it is written, such as "listener main", and key
Part = TypeVar("Part")


class MissingSettings(SettingsError):
    """Nothing is wrong, but something without a default was given nowhere."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What settings take from the process instead of a file."""

    environ: Mapping[str, str]
    root: bool
    home: str
    host_name: str
    default_path: str = DEFAULT_PATH

    @classmethod
    def here(cls) -> "Surroundings":
        """Those of this process."""
        return cls(os.environ, os.geteuid() == 0, os.path.expanduser("~"), socket.gethostname())

    def state_directory(self) -> str:
        """Where systemd, or else the XDG rules, want what is kept."""
        root = "/var/lib/revtunnel" if self.root else None
        return self._first("STATE_DIRECTORY") or root or self._below("XDG_STATE_HOME")

    def admin_socket(self) -> str:
        """Where systemd, or else the XDG rules, want sockets."""
        root = "/run/revtunnel" if self.root else None
        directory = self._first("RUNTIME_DIRECTORY") or root or self._below("XDG_RUNTIME_DIR")
        return os.path.join(directory, "admin.sock")

    def socket(self, path: str, name: str = "admin") -> str:
        """A daemon's admin socket: as set, or, for ``auto``, beside the server's."""
        beside = self.admin_socket()
        return os.path.join(os.path.dirname(beside), f"{name}.sock") if path == "auto" else path

    def kept_in(self, directory: str | None) -> str | None:
        """A state directory, ``auto`` replaced."""
        return self.state_directory() if directory == "auto" else directory

    def credential(self) -> str | None:
        """The device key that systemd handed over, if it did."""
        path = os.path.join(self.environ.get("CREDENTIALS_DIRECTORY", ""), "revtunnel.key")
        return path if os.path.isabs(path) and os.path.exists(path) else None

    def _first(self, variable: str) -> str:
        return self.environ.get(variable, "").split(":")[0]

    def _below(self, variable: str) -> str:
        base = self.environ.get(variable, "")
        return os.path.join(base if os.path.isabs(base) else f"{self.home}/.local/state", "revtunnel")


class Table:
    """Values by section and key, where each came from, and every error so far."""

    def __init__(self, sections: Sections) -> None:
        self.sections = sections
        self.values: dict[Name, Any] = {}
        self.origins: dict[Name, str] = {}
        self.heads: dict[str, str] = {}  # sections in the order of their first head line
        self.files: list[str] = []
        self.errors: list[str] = []
        self._passing = 0  # of the errors: those of files that somebody may be about to replace
        self._broken: set[Name] = set()

    def put(self, name: Name, key: Key, text: str, origin: str) -> None:
        self.origins[name] = origin
        self._broken.discard(name)
        try:
            self.values[name] = key.kind.read(text)
        except ValueError as error:
            self.complain(*name, f"{error}{_beside(text)}")
            self._broken.add(name)

    def get(self, label: str, key: str) -> Any:
        """The value, or the default."""
        name = (label, key)
        return self.values[name] if name in self.values else self.sections.find(label, key).value

    def part(self, part: type[Part], /, label: str = "", **given: Any) -> Part:
        """A part out of its section, or out of ``[label]``, with the parts in it.

        ``given`` is taken instead of what is written; a field that is neither has its own default.
        """
        label = label or self.sections.of(part).name
        found = {name: self.get(label, key.name) for name, key in keys_of(part).items() if name not in given}
        inner: dict[str, Any] = {
            name: self.part(each) for name, each in self.sections.parts_in(part) if name not in given
        }
        return part(**found, **inner, **given)

    def parts(self, part: type[Part], default: str | None) -> tuple[Part, ...]:
        """One for every ``[section NAME]``, or of one called ``default`` where there is none."""
        kind = self.sections.of(part).name
        labels = self.named(kind) or ([] if default is None else [f"{kind} {default}"])
        return tuple(self.part(part, label, name=label.split()[1]) for label in labels)

    def sound(self, label: str, *keys: str) -> bool:
        """Whether none of these values is known to be wrong; a second error about it would only confuse."""
        return not any((label, key) in self._broken for key in keys)

    def named(self, kind: str) -> list[str]:
        return [label for label in self.heads if label.split()[0] == kind]

    @property
    def fault(self) -> SettingsError:
        """All errors."""
        return SettingsError(self.errors, passes=self._passing == len(self.errors))

    def complain(self, label: str, key: str, text: str, passes: bool = False) -> None:
        """Note an error; ``passes``: of a file beside the settings, as in ``SettingsError``."""
        origin = self.origins.get((label, key)) or self.heads.get(label)
        if self.sound(label, key):
            self.errors.append(f"{origin or 'settings'}: [{label}] {key}: {text}")
            self._passing += passes

    def complain_of_file(self, path: str, why: str) -> None:
        """Note that a settings file cannot be read now."""
        self.errors.append(f"{path}: {why}, a file that can be read wanted")
        self._passing += 1


class File:
    """One file on its way into a table; each section and key at most once."""

    def __init__(self, path: str, table: Table) -> None:
        self._path = path
        self._table = table
        self._seen: dict[Name, int] = {}  # and line; a section is stored with the key ""
        self._section: Section | None = None
        self._label = ""

    def read(self) -> None:
        self._table.files.append(self._path)
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            self._table.complain_of_file(self._path, str(error.strerror))
            return
        text = self._decode(data)
        for number, line in self._logical(text.split("\n")):
            self._line(number, line)

    def _decode(self, data: bytes) -> str:
        """The text; empty, and an error noted, if it is none."""
        if len(data) > MAX_FILE:
            self._fail(1, f"more than {MAX_FILE} bytes, a settings file wanted")
            return ""
        try:
            text = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self._fail(line, f"byte 0x{data[error.start]:02x} is not UTF-8, UTF-8 wanted")
            return ""
        if odd := re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text):
            line = text.count("\n", 0, odd.start()) + 1
            self._fail(line, f"control character {odd[0]!a}, plain text wanted")
            return ""
        return text

    def _logical(self, lines: list[str]) -> Iterator[tuple[int, str]]:
        """Lines without comments and the number of each; indented ones joined to the key above."""
        held, start, depth = "", 0, 0
        for number, line in enumerate(lines, 1):
            bare = line.strip()
            if not bare or bare[0] in "#;":
                continue
            indent = len(line) - len(line.lstrip())
            if held and indent > depth and not held.startswith("["):
                held += f"\n{bare}"
                continue
            if held:
                yield start, held
            held, start, depth = bare, number, indent
        if held:
            yield start, held

    def _line(self, number: int, line: str) -> None:
        if line.startswith("["):
            self._head(number, line)
            return
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key or "\n" in key:
            self._fail(number, "neither [section] nor key = value")
        elif self._section is not None:
            self._key(number, key, value)
        elif not self._label:
            self._fail(number, f"{key[:80]!a} before any section, a line such as [server] wanted above it")

    def _head(self, number: int, line: str) -> None:
        self._section, self._label = None, "?"  # what follows a bad head is not judged
        words = line[1:-1].split() if line.endswith("]") else []
        section = self._table.sections.by_name.get(words[0]) if words else None
        if section is None:
            known = ", ".join(each.title for each in self._table.sections)
            self._fail(number, f"{line[:80]!a} is no section, wanted: {known}{_beside(line)}")
        elif section.named and (len(words) != 2 or not re.fullmatch(section.labels, words[1], re.ASCII)):
            self._fail(number, f"{line[:80]!a}: {section.title} wanted, {section.wanted}")
        elif not section.named and len(words) > 1:
            self._fail(number, f"{line[:80]!a}: {section.title} wanted, without a name")
        else:
            self._section, self._label = section, " ".join(words)
            self._table.heads.setdefault(self._label, f"{self._path}:{number}")
            self._once(number, "")

    def _once(self, number: int, key: str) -> bool:
        first = self._seen.setdefault((self._label, key), number)
        if first != number:
            what = f"[{self._label}] {key}:" if key else f"[{self._label}]:"
            self._fail(number, f"{what} stands there twice, first in line {first}")
        return first == number

    def _key(self, number: int, name: str, value: str) -> None:
        assert self._section is not None
        keys = self._section.by_name
        key = self._section.entry or keys.get(name)
        if name.lower() in _SECRETS:
            self._fail(number, f"[{self._label}] {name}: no secrets in this file, key_file = PATH wanted")
        elif key is None:
            close = difflib.get_close_matches(name, keys, 1)
            hint = f", did you mean {close[0]}?" if close else f", wanted: {', '.join(keys)}"
            self._fail(number, f"[{self._label}] {name[:80]}: no such key{hint}")
        elif self._once(number, name):
            self._table.put((self._label, name), key, value, f"{self._path}:{number}")

    def _fail(self, number: int, text: str) -> None:
        self._table.errors.append(f"{self._path}:{number}: {text}")


def _beside(text: str) -> str:
    """A hint, where what was refused has a comment behind it."""
    return "; a comment has to be a line of its own" if re.search(r"\s[#;]", text) else ""


def _paths(path: str | None, around: Surroundings) -> list[str]:
    """The files to read: a path that was given must exist, the default need not."""
    given = path or around.environ.get("REVTUNNEL_CONFIG")
    main = given or around.default_path
    found = [main] if given or os.path.exists(main) else []
    found += sorted(glob.glob(f"{glob.escape(main)}.d/*.ini"))
    if main == around.default_path:
        found += sorted(glob.glob(f"{glob.escape(os.path.dirname(main))}/conf.d/*.ini"))
    return found


def read_files(
    path: str | None, overrides: Mapping[Name, Any] | None, around: Surroundings, sections: Sections
) -> Table:
    """All files that there are, and over them ``overrides``.

    Args:
        path: the file named by the user; None: $REVTUNNEL_CONFIG, else the default path if it exists.
        overrides: values, already read, of keys such as ``("listener main", "address")``.
        around: what is taken from the process.
        sections: those that a file may have.
    """
    table = Table(sections)
    for each in _paths(path, around):
        File(each, table).read()
    for name, value in (overrides or {}).items():
        table.heads.setdefault(name[0], "command line")
        table.origins[name] = "command line"
        table.values[name] = value
    for label, below, above in _ORDERED:
        if (
            {(label, below), (label, above)} & table.values.keys()
            and table.sound(label, below, above)
            and table.get(label, below) > table.get(label, above)
        ):
            table.complain(
                label, below, f"{table.get(label, below)} is above {above} = {table.get(label, above)}"
            )
    return table
