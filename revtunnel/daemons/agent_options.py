"""The command line of revtunnel-agent, in the manner of daemon_options.py."""

import sys
from datetime import UTC, datetime

from twisted.python import usage

from revtunnel.daemons.agent_reading import read_agent
from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.daemons.daemon_options import DaemonOptions, describe, options_of, refused
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.targets import parse_offer, told_apart
from revtunnel.settings.inifile import MissingSettings
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.enrolment import EnrolmentToken, parse_token
from revtunnel.trust.tls_settings import speaks_tls
from revtunnel.trust.tls_settings_checks import agent_rules, tls_lines

__all__ = ["AgentOptions"]


def _proxies(settings: AgentSettings) -> list[str]:
    """The proxies that lead to the servers, each once."""
    ways = (settings.proxy.proxy_for(server.host, server.port) for server in settings.servers)
    return list(dict.fromkeys(str(proxy) for proxy in ways if proxy is not None))


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
  revtunnel-agent --emo --plaintext --server gate:8080 --server-port 5010 --local 192.168.0.10:5000
  revtunnel-agent --emo --plaintext --server gate:8080 5010 192.168.0.10 5000
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
            raise refused("local", value, error) from None
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
