"""The command line of revtunnel-cccp."""

from revtunnel.daemons.daemon_options import DaemonOptions, options_of, written
from revtunnel.systems.cccp.cccp_reading import read_cccp
from revtunnel.systems.cccp.cccp_settings import CccpSettings

__all__ = ["CccpOptions"]


class CccpOptions(DaemonOptions):
    """revtunnel-cccp: devices that register by their serial, and the API that starts proxies for them."""

    program = "revtunnel-cccp"
    synopsis = "Usage: revtunnel-cccp [options]"
    settings: CccpSettings
    read = staticmethod(read_cccp)
    settable = {
        "devices": ("cccp-project main", "address"),
        "ports": ("cccp-project main", "ranges"),
        "bind": ("cccp-project main", "bind"),
        "http": ("cccp", "http"),
        "host": ("cccp", "host"),
        "token-file": ("cccp", "token_file"),
        "state-directory": ("cccp", "state_directory"),
        "admin-socket": ("cccp", "admin_socket"),
        "log-format": ("cccp", "log_format"),
        "log-level": ("cccp", "log_level"),
    }
    paths = DaemonOptions.paths | {"token-file"}
    optParameters = options_of(settable)
    examples = """\
Examples:
  revtunnel-cccp
      devices at 127.0.0.1:2070, the API at 127.0.0.1:2080, client ports 21000-21999 at 127.0.0.1
  revtunnel-cccp --host proxy.example --bind 0.0.0.0 --ports 30000-30999
  revtunnel-cccp --config /etc/revtunnel/revtunnel.ini --check-config
"""

    def _summary(self) -> list[str]:
        settings, part = self.settings, self.settings.part
        lines = [f"files: {', '.join(settings.files) or 'none, all defaults'}"]
        token = "with a token" if part.token is not None else "without a token"
        lines.append(f"API: {written(part.http)} {token}")
        for each in part.projects:
            ranges = ", ".join(f"{low}-{high}" for low, high in each.ranges)
            tls = "TLS" if each.tls else "plain"
            lines.append(
                f"project {each.name}: devices {written(each.address)} {tls}, clients {ranges} at {each.bind}"
            )
        return [*lines, f"state: {settings.state_directory or 'none'}", f"admin: {settings.admin.socket}"]
