"""The command line of revtunnel-server, in the manner of daemon_options.py."""

from datetime import UTC, datetime
from typing import Any

from twisted.python import usage

from revtunnel.daemons.daemon_options import DaemonOptions, describe, options_of, written
from revtunnel.daemons.own_authority import PUBLIC, authority_of, public_settings
from revtunnel.daemons.server_doubts import doubts
from revtunnel.daemons.server_reading import read_server
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.tls_settings_checks import listener_rules, tls_lines

__all__ = ["ServerOptions"]


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
        for web in settings.web:
            lines.append(f"web {web.name}: {written(web.address)}")
            lines += [f"web {web.name}: {line}" for line in tls_lines(listener_rules(web))]
        for pool in settings.pools:
            ranges = ", ".join(f"{low}-{high}" for low, high in pool.ranges)
            lines.append(f"pool {pool.name}: {ranges} at {pool.bind}")
        lines.append(f"reservations: {len(settings.reservations)}")
        lines += [f"warning: {doubt}" for doubt in doubts(settings)]
        return [*lines, f"state: {settings.state_directory or 'none'}", f"admin: {settings.admin.socket}"]
