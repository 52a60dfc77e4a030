"""The command line of a daemon, as far as all have the same.

Rule of this file: an option is a key of schema.py under another name, read by the same code; after parsing,
``options.settings`` is complete and right, or the process has ended: usage.UsageError for the command line
(64 under run.py), 78 for settings. Nothing secret is ever taken from the command line, which is public, but
for a token that is good once and used up by the time anybody has read it.

Source: twisted.md sections 1.6 and 7; faults.md C5, C7, C8, C9.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from twisted.python import usage

import revtunnel
from revtunnel.daemons.schema import find, load
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.targets import place
from revtunnel.settings.inifile import DEFAULT_PATH, MissingSettings, Name, Surroundings, Table

__all__ = ["DaemonOptions", "describe", "options_of", "refused", "written"]

CONFIG = 78  # exit status of sysexits.h: wrong settings


def describe(section: str, name: str) -> str:
    """A setting as the help of its option."""
    key = find(section, name)
    return f"{key.text} ({key.kind.unit}: {key.kind.limit}; default: {key.default or 'none'})"


def options_of(settable: Mapping[str, Name]) -> list[list[str | None]]:
    """Options that take one value each."""
    return [[option, None, None, describe(*name)] for option, name in settable.items()]


def refused(option: str, value: str, error: ValueError) -> usage.UsageError:
    """The refusal of a value, which it names once."""
    shown = f"{value.rpartition('@')[2][:120]!a}" if option == "proxy" else f"{value[:120]!a}"  # no password
    return usage.UsageError(f"--{option} {shown}: {str(error).removeprefix(f'{shown}: ')}")


def written(addresses: tuple[tuple[str, int], ...]) -> str:
    """Addresses for people."""
    return ", ".join(place(*each) for each in addresses)


class DaemonOptions(usage.Options):
    """What all daemons take; ``around`` may be set before parsing to say where defaults come from."""

    longdesc = ""  # else twisted shows the docstring of __main__
    examples = ""
    program = ""
    settings: Any
    read: Callable[[Table, Surroundings], Any]  # makes them
    settable: dict[str, Name] = {}  # option with one value: the setting it stands for
    paths = frozenset(
        {
            "admin-socket",
            "authority",
            "certificate",
            "certificate-key",
            "key-file",
            "proxy-credentials",
            "state-directory",
        }
    )
    around: Surroundings | None = None
    optFlags = [["check-config", None, "check all settings, say ok or list every error (status 78), and end"]]
    optParameters = [
        [
            "config",
            "c",
            None,
            f"settings file (default: $REVTUNNEL_CONFIG, else {DEFAULT_PATH} if it exists)",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.overrides: dict[Name, Any] = {}
        self.path: str | None = None  # absolute: a daemon may change its directory

    def opt_version(self) -> NoReturn:
        """print the version and end"""
        print(f"{self.program} {revtunnel.__version__}")
        raise SystemExit(0)

    def opt_key(self, _: str) -> NoReturn:
        """refused: everybody can read a command line; use a key file"""
        raise usage.UsageError(
            "--key is refused: everybody on this machine can read a command line; "
            "write the key into a file of mode 0600 and give --key-file PATH to the agent"
        )

    def parseArgs(self, *words: str) -> None:
        """No bare words."""
        if words:
            raise usage.UsageError(f"{words[0][:80]!a}: only options are taken, see --help")

    def getUsage(self, width: int | None = None) -> str:
        """Twisted's help with examples behind it."""
        return f"{super().getUsage(width)}\n{self.examples}"

    def postOptions(self) -> None:
        """Read the settings, or say all that is wrong with them."""
        for option, name in self.settable.items():
            if self[option] is not None:
                self._override(option, name, self[option])
        if self["config"] == "":
            raise usage.UsageError("--config '': the name of a file wanted")
        path = self["config"] or os.environ.get("REVTUNNEL_CONFIG")
        self.path = os.path.abspath(path) if path else None
        try:
            self._take()
        except MissingSettings as error:
            if not self["check-config"]:
                raise usage.UsageError("; ".join(error.errors)) from None
            self._refuse(error)
        except SettingsError as error:
            self._refuse(error)
        if self["check-config"]:
            print("\n".join(["ok", *self._summary()]))
            raise SystemExit(0)

    def _override(self, option: str, name: Name, text: str) -> None:
        if option in self.paths and text not in ("auto", "none", "system"):
            text = os.path.abspath(text) if text else text
        try:
            self.overrides[name] = find(*name).kind.read(text)
        except ValueError as error:
            raise refused(option, text, error) from None

    def _refuse(self, error: SettingsError) -> NoReturn:
        for line in error.errors:
            print(f"{self.program}: {line}", file=sys.stderr)
        raise SystemExit(CONFIG)

    def _repeat(self, option: str, name: Name, value: str) -> None:
        """One more use of an option that is read as its setting, which is a list."""
        try:
            found = find(*name).kind.read(value)
        except ValueError as error:
            raise refused(option, value, error) from None
        self._add(option, name, value, found)

    def _add(self, option: str, name: Name, value: str, found: tuple[Any, ...]) -> None:
        """One more use of an option that may be repeated."""
        before = self.overrides.get(name, ())
        if set(before) & set(found):
            raise usage.UsageError(f"--{option} {value[:120]!a} was given twice")
        self.overrides[name] = before + found

    def load(self) -> Any:
        """Read everything again, for SIGHUP.

        Raises:
            SettingsError: the settings are wrong now; ``self.settings`` is as it was.
        """
        return load(type(self).read, self.path, self.overrides, self.around)

    def _take(self) -> None:
        self.settings = self.load()
        self["log-format"], self["log-level"] = self.settings.log_format, self.settings.log_level

    def _summary(self) -> list[str]:
        raise NotImplementedError
