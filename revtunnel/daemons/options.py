"""The command lines of revtunnel-server and revtunnel-agent.

Rule of this file: an option is a key of schema.py under another name, read by the same code; after parsing,
``options.settings`` is complete and right, or the process has ended: usage.UsageError for the command line
(64 under run.py), 78 for settings. Nothing secret is ever taken from the command line, which is public, but
for a token that is good once and used up by the time anybody has read it.

Source: twisted.md sections 1.6 and 7; faults.md C5, C7, C8, C9.
"""

import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from twisted.python import usage

import revtunnel
from revtunnel.daemons.own_authority import PUBLIC, authority_of, public_settings
from revtunnel.daemons.schema import find, load
from revtunnel.daemons.server_doubts import doubts
from revtunnel.daemons.settings import (
    DEFAULT_PATH,
    AgentSettings,
    MissingSettings,
    Name,
    ServerSettings,
    SettingsError,
    Surroundings,
    read_agent,
    read_server,
)
from revtunnel.ground.targets import parse_offer, place, told_apart
from revtunnel.settings.inifile import Table
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.enrolment import EnrolmentToken, parse_token
from revtunnel.trust.tls_settings import speaks_tls
from revtunnel.trust.tls_settings_checks import agent_rules, listener_rules, tls_lines

__all__ = ["AgentOptions", "DaemonOptions", "ServerOptions", "options_of", "written"]

CONFIG = 78  # exit status of sysexits.h: wrong settings


def describe(section: str, name: str) -> str:
    """A setting as the help of its option."""
    key = find(section, name)
    return f"{key.text} ({key.kind.unit}: {key.kind.limit}; default: {key.default or 'none'})"


def options_of(settable: Mapping[str, Name]) -> list[list[str | None]]:
    """Options that take one value each."""
    return [[option, None, None, describe(*name)] for option, name in settable.items()]


def _bad(option: str, value: str, error: ValueError) -> usage.UsageError:
    """The refusal of a value, which it names once."""
    shown = f"{value.rpartition('@')[2][:120]!a}" if option == "proxy" else f"{value[:120]!a}"  # no password
    return usage.UsageError(f"--{option} {shown}: {str(error).removeprefix(f'{shown}: ')}")


def written(addresses: tuple[tuple[str, int], ...]) -> str:
    """Addresses for people."""
    return ", ".join(place(*each) for each in addresses)


def _proxies(settings: AgentSettings) -> list[str]:
    """The proxies that lead to the servers, each once."""
    ways = (settings.proxy.proxy_for(server.host, server.port) for server in settings.servers)
    return list(dict.fromkeys(str(proxy) for proxy in ways if proxy is not None))


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
            raise _bad(option, text, error) from None

    def _refuse(self, error: SettingsError) -> NoReturn:
        for line in error.errors:
            print(f"{self.program}: {line}", file=sys.stderr)
        raise SystemExit(CONFIG)

    def _repeat(self, option: str, name: Name, value: str) -> None:
        """One more use of an option that is read as its setting, which is a list."""
        try:
            found = find(*name).kind.read(value)
        except ValueError as error:
            raise _bad(option, value, error) from None
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


class ServerOptions(DaemonOptions):
    """revtunnel-server: lets clients reach devices by their agents."""

    program = "revtunnel-server"
    synopsis = "Usage: revtunnel-server [options]"
    settings: ServerSettings
    read = staticmethod(read_server)
    settable = {
        "state-directory": ("server", "state_directory"),
        "admin-socket": ("admin", "socket"),
        "certificate": ("listener main", "certificate"),
        "certificate-key": ("listener main", "certificate_key"),
        "authority": ("listener main", "authority"),
        "clients": ("pool default", "clients"),
        "log-format": ("server", "log_format"),
        "log-level": ("server", "log_level"),
    }
    optParameters = [
        *options_of(settable),
        ["public", None, None, "take agents of other machines, who dial this host name or IP address (several"
         " with commas): port 2065, by TLS; authority and certificate are made where there are none. With "
         "--clients these reach the client ports at every address"],
    ]  # fmt: skip
    examples = """\
Examples:
  revtunnel-server
      agents at 127.0.0.1:2065, client ports 20000-20999 at 127.0.0.1
  revtunnel-server --listen 127.0.0.1:2065 --listen [::1]:2065 --log-level debug
  revtunnel-server --public gate.example --clients 10.1.0.0/16
      agents and clients of other machines; revtunnelctl enroll lets an agent in
  revtunnel-server --listen 0.0.0.0:2065 --certificate server.pem --certificate-key server.key \\
      --authority authority.pem
  revtunnel-server --config /etc/revtunnel/revtunnel.ini --check-config
"""

    def opt_listen(self, value: str) -> None:
        self._repeat("listen", ("listener main", "address"), value)

    opt_listen.__doc__ = f"of [listener main], may be repeated: {describe('listener', 'address')}"

    def _take(self) -> None:
        if self["certificate"] is not None:
            self.overrides["listener main", "tls"] = True
        if self["public"] is not None:
            wrong = [name for name in ("certificate", "certificate-key", "authority") if self[name]]
            if wrong or self["check-config"]:
                other, why = (wrong[0], "they are made") if wrong else ("check-config", "files are made")
                raise usage.UsageError(f"--public and --{other} exclude each other: {why}")
        super()._take()

    def load(self) -> Any:
        """As for every daemon; with --public the certificate is made, or renewed, before."""
        if self["public"] is not None:
            around = self.around or Surroundings.here()
            authority = authority_of(self.path, around, self.overrides)
            made = public_settings(self["public"].split(","), authority, datetime.now(UTC))
            if ("pool default", "clients") in self.overrides:
                made["pool default", "bind"] = PUBLIC[0]
            self.overrides = made | self.overrides
        return super().load()

    def _summary(self) -> list[str]:
        settings = self.settings
        lines = [f"files: {', '.join(settings.files) or 'none, all defaults'}", f"name: {settings.name}"]
        for each in settings.listeners:
            lines.append(f"listener {each.name}: {written(each.address)} {each.kind}, keys {each.keys}")
            lines += [f"listener {each.name}: {line}" for line in tls_lines(listener_rules(each))]
        for pool in settings.pools:
            ranges = ", ".join(f"{low}-{high}" for low, high in pool.ranges)
            lines.append(f"pool {pool.name}: {ranges} at {pool.bind}")
        lines.append(f"reservations: {len(settings.reservations)}")
        lines += [f"warning: {doubt}" for doubt in doubts(settings)]
        return [*lines, f"state: {settings.state_directory or 'none'}", f"admin: {settings.admin.socket}"]


class AgentOptions(DaemonOptions):
    """revtunnel-agent: dials out to a server and offers what stands beside it."""

    program = "revtunnel-agent"
    synopsis = "Usage: revtunnel-agent --server HOST:PORT --local [NAME=]HOST:PORT [options]"
    settings: AgentSettings
    read = staticmethod(read_agent)
    token: EnrolmentToken | None = None  # to be enrolled with, because there is no good certificate yet
    enroll_only = False
    settable = {
        "state-directory": ("agent", "state_directory"),
        "serial": ("agent", "serial"),
        "key-file": ("agent", "key_file"),
        "authority": ("agent", "authority"),
        "server-name": ("agent", "server_name"),
        "certificate": ("agent", "certificate"),
        "certificate-key": ("agent", "certificate_key"),
        "proxy": ("agent", "proxy"),
        "proxy-credentials": ("agent", "proxy_credentials"),
        "server-port": ("agent", "server_port"),
        "modern": ("agent", "modern"),
        "idle-end": ("agent", "idle_end"),
        "log-format": ("agent", "log_format"),
        "log-level": ("agent", "log_level"),
    }
    optFlags = [
        ["legacy", None, describe("agent", "legacy")],
        ["emo", None, describe("agent", "emo")],
        ["tls", None, "speak TLS also to a server on this machine, without an authority of our own"],
        ["plaintext", None, "INSECURE: speak no TLS, to servers on other machines neither"],
        ["once", None, describe("agent", "once")],
        ["enroll-only", None, "end when the certificate is there; so it is where nothing is offered"],
    ]
    optParameters = [
        *options_of(settable),
        ["enroll", None, None, "get a certificate with this one-time token first, unless there is a good "
         "one; - reads it from standard input (revtunnelctl enroll)"],
    ]  # fmt: skip
    examples = """\
Examples:
  revtunnel-agent --server 127.0.0.1:2065 --serial plc-7 --local 10.41.51.152:23
  revtunnel-agent --server gate-a:2065 --server gate-b:2065 \\
      --local console=[fd00::7]:23 --local http=127.0.0.1:5000 --local unix:/run/plc.sock
  revtunnel-agent --server gate.example:2065 --authority authority.pem \\
      --certificate plc-7.pem --certificate-key plc-7.key --local 10.41.51.152:23
  revtunnel-agent --server wss://gate.example --key-file plc-7.key --local 10.41.51.152:23
      where nothing but HTTPS gets out
  revtunnel-agent --enroll TOKEN --server gate.example:2065 --local 10.41.51.152:23
  revtunnel-agent --server gate.example:2065 --local 10.41.51.152:23 --once --idle-end 600
      on a metered line, started now and then; status 0: clients came, 69: no server, 75: no client came
  revtunnel-agent --emo --server gate:8080 --server-port 5010 --local 192.168.0.10:5000
  revtunnel-agent --emo --server gate:8080 5010 192.168.0.10 5000
      the same, the last three as the original's proxy program takes them
  revtunnel-agent --config /etc/revtunnel/revtunnel.ini --check-config
"""

    def parseArgs(self, *words: str) -> None:
        """With --emo: server port, address and port of the service; else no bare words."""
        if not self["emo"] or len(words) != 3:
            super().parseArgs(*words)
            return
        if self["server-port"] is not None or ("agent", "local") in self.overrides:
            raise usage.UsageError(f"{words[0][:80]!a}: --server-port and --local say the same")
        self["server-port"] = words[0]
        host = f"[{words[1]}]" if ":" in words[1] else words[1]
        self.opt_local(f"emo={host}:{words[2]}")

    def opt_server(self, value: str) -> None:
        self._repeat("server", ("agent", "servers"), value)

    opt_server.__doc__ = f"may be repeated: {describe('agent', 'servers')}"

    def opt_local(self, value: str) -> None:
        name = ("agent", "local")
        try:
            offer = parse_offer(value)
        except ValueError as error:
            raise _bad("local", value, error) from None
        names = [other.name for other in told_apart((*self.overrides.get(name, ()), offer))]
        if len(set(names)) < len(names):
            wanted = "write NAME=HOST:PORT to name one of them"
            raise usage.UsageError(f"--local {value[:120]!a}: a second offer named {offer.name}, {wanted}")
        self._add("local", name, value, (offer,))

    opt_local.__doc__ = f"may be repeated: {describe('agent', 'local')}"

    def opt_proxy_protocol(self, value: str) -> None:
        self._repeat("proxy-protocol", ("agent", "proxy_protocol"), value)

    opt_proxy_protocol.__doc__ = f"may be repeated: {describe('agent', 'proxy_protocol')}"

    def _take(self) -> None:
        for flag in ("legacy", "emo", "once"):
            if self[flag]:
                self.overrides["agent", flag] = True
        if self["tls"] and self["plaintext"]:
            raise usage.UsageError("--tls and --plaintext exclude each other")
        if self["tls"]:
            self.overrides["agent", "tls"] = "yes"
        if self["plaintext"]:
            self.overrides.update({("agent", "tls"): "no", ("agent", "allow_plaintext"): True})
        self.enroll_only = bool(self["enroll-only"])
        if self["enroll"] is not None:
            self._prepare(self._read_token(self["enroll"]))
        elif self.enroll_only:
            raise usage.UsageError("--enroll-only: nothing to enrol with, --enroll TOKEN wanted")
        super()._take()

    def _plain(self) -> list[str]:
        """Servers that are spoken to without TLS."""
        settings = self.settings
        return [str(server) for server in settings.servers if not speaks_tls(settings, server)]

    def _read_token(self, text: str) -> EnrolmentToken:
        self["enroll"] = None
        try:
            return parse_token(sys.stdin.readline(1000) if text == "-" else text)
        except ValueError as error:
            raise usage.UsageError(f"--enroll: {error}") from None

    def _prepare(self, token: EnrolmentToken) -> None:
        """See whether the token is needed. Until it was used the settings do without a certificate."""
        if self.overrides.setdefault(("agent", "serial"), token.serial) != token.serial:
            raise usage.UsageError(f"--enroll: the token is for {token.serial}")
        if ("agent", "certificate") in self.overrides:
            raise usage.UsageError("--enroll: the certificate is made, --certificate is of no use with it")
        self.overrides["agent", "certificate"] = None
        try:
            settings = self.load()
        except MissingSettings as error:
            if any(not line.startswith("no service") for line in error.errors):
                raise
            self.overrides["agent", "local"] = (parse_offer("nothing=127.0.0.1:9"),)
            self.enroll_only = True
            settings = self.load()
        if any(server.web for server in settings.servers):
            raise usage.UsageError("--enroll: a web listener does not enrol, --server HOST:PORT wanted")
        if settings.state_directory is None or settings.tls == "no":
            raise usage.UsageError(
                "--enroll: with tls = no, or without a state_directory, there is no enrolment"
            )
        if AgentFiles(settings.state_directory, token.serial).is_good(datetime.now(UTC)):
            del self.overrides["agent", "certificate"]
        else:
            self.token = token

    def enrolled(self, files: AgentFiles) -> None:
        """The token was used: take the settings with what it brought.

        Raises:
            SettingsError: they are wrong now, or they name another certificate.
        """
        self.token = None
        del self.overrides["agent", "certificate"]
        self.settings = self.load()
        if self.settings.certificate != files.certificate:
            raise SettingsError(
                [f"[agent] certificate: {files.certificate} was made, and is not what is set"]
            )

    def _summary(self) -> list[str]:
        settings = self.settings
        return [
            f"files: {', '.join(settings.files) or 'none, all defaults'}",
            f"serial: {settings.serial}, key: {settings.key_file or 'none'}",
            f"servers: {', '.join(map(str, settings.servers))}{_wire(settings)}",
            f"plaintext: {', '.join(self._plain()) or 'none'}",
            *tls_lines(agent_rules(settings) if settings.tls != "no" else None),
            f"proxy: {', '.join(_proxies(settings)) or 'none'}",
            *(f"local {offer.name}: {offer.target}" for offer in settings.local),
        ]


def _wire(settings: AgentSettings) -> str:
    """What the servers are expected to speak, if that is not rt1."""
    if settings.emo:
        return f" (EMO, port {settings.server_port})"
    return " (legacy)" if settings.legacy else ""
