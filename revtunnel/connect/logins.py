"""The tokens of the person who runs the program, one for each server, in a file that nobody else may read.

Rule of this file: a file that others could have read or written is refused and not repaired; a token is never
in a sentence. ``$XDG_CONFIG_HOME/revtunnel/logins.json``, or in ``~/.config``; ``REVTUNNEL_TOKEN`` in the
environment counts before it.

Source: XDG Base Directory Specification; ours.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from revtunnel.connect.addressing import ServerAddress, parse_server
from revtunnel.connect.outcomes import CONFIG, DENIED, Stop
from revtunnel.state.atomic_file import make_directory, write_whole

__all__ = ["KeptLogin", "Logins", "place_of"]

MOST = 256 * 1024  # bytes of the file


@dataclass(frozen=True, slots=True)
class KeptLogin:
    """What is kept for one server."""

    token: str = field(repr=False)
    user: str = ""  # as the server named him
    ca: str = ""  # file of the authority that signed the server; "": the machine's


def place_of(environ: Mapping[str, str]) -> str:
    """The path of the file."""
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # such ones are to be ignored, the specification says
        home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(home, "revtunnel", "logins.json")


class Logins:
    """The file's content; ``last`` is the server that was logged in to last."""

    def __init__(self, path: str) -> None:
        """Read it. Stop: it cannot be used."""
        self.path = path
        self.last = ""
        self.of: dict[str, KeptLogin] = {}
        text = self._read()
        try:
            content = json.loads(text) if text else {}
            self.last = str(content.get("last", ""))
            self.of = {
                str(parse_server(server)): KeptLogin(**{key: str(value) for key, value in kept.items()})
                for server, kept in content.get("servers", {}).items()
            }
        except (ValueError, TypeError, AttributeError):
            raise Stop(CONFIG, f"{path}: not written by this program; remove it and log in again") from None

    def server(self, named: str) -> ServerAddress:
        """The server that is meant: the one that is named, or the last login's. Stop: there is none."""
        if not named and not self.last:
            raise Stop(CONFIG, "no login: run revtunnel-connect login https://HOST:PORT, or name a --server")
        try:
            return parse_server(named or self.last)
        except ValueError as error:
            raise Stop(CONFIG, f"--server: {error}" if named else f"{self.path}: {error}") from None

    def login(self, server: ServerAddress, environ: Mapping[str, str]) -> KeptLogin:
        """What is known for a server. Stop: nothing is."""
        kept = self.of.get(str(server))
        token = environ.get("REVTUNNEL_TOKEN", "").strip()
        if token:
            return KeptLogin(token, "", kept.ca if kept else "")
        if kept is None:
            raise Stop(DENIED, f"no login for {server}: run revtunnel-connect login {server}")
        return kept

    def keep(self, server: ServerAddress, login: KeptLogin) -> None:
        """Keep a login, in place of the one before. Stop: the file cannot be written."""
        self.of[str(server)] = login
        self.last = str(server)
        self._write()

    def forget(self, server: ServerAddress) -> bool:
        """Keep no login of this server any more; False: there was none."""
        known = self.of.pop(str(server), None) is not None
        if self.last == str(server):
            self.last = next(reversed(self.of), "")
        if known:
            self._write()
        return known

    def _read(self) -> str:
        try:
            with open(self.path, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                if status.st_mode & 0o077 or status.st_uid != os.geteuid():
                    raise Stop(
                        CONFIG, f"{self.path}: others may read or write it; chmod 600 wanted, and yours"
                    )
                return file.read(MOST)
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise Stop(CONFIG, f"{self.path}: {getattr(error, 'strerror', '') or 'not UTF-8'}") from None

    def _write(self) -> None:
        servers = {server: asdict(login) for server, login in self.of.items()}
        data = json.dumps({"last": self.last, "servers": servers}, indent=1).encode()
        try:
            make_directory(os.path.dirname(self.path), 0o700)
            write_whole(self.path, data + b"\n")
        except OSError as error:
            raise Stop(CONFIG, f"{self.path}: {error.strerror}") from None
