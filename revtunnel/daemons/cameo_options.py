"""The command line of revtunnel-cameo."""

from revtunnel.daemons.daemon_options import DaemonOptions, options_of, written
from revtunnel.systems.cameo.cameo_settings import CameoSettings, read_cameo

__all__ = ["CameoOptions"]


class CameoOptions(DaemonOptions):
    """revtunnel-cameo: the responder relay and the publisher relay of a CAMEO site."""

    program = "revtunnel-cameo"
    synopsis = "Usage: revtunnel-cameo [options]"
    settings: CameoSettings
    read = staticmethod(read_cameo)
    settable = {
        "proxy-ports": ("cameo", "proxy_ports"),
        "bind": ("cameo", "bind"),
        "admin-socket": ("cameo", "admin_socket"),
        "log-format": ("cameo", "log_format"),
        "log-level": ("cameo", "log_level"),
    }
    optParameters = options_of(settable)
    examples = """\
Examples:
  revtunnel-cameo
      ports 10000, 10001 and 10002 at 127.0.0.1
  revtunnel-cameo --proxy-ports "12000, 12001, 12002" --bind 0.0.0.0
  revtunnel-cameo --config /etc/revtunnel/revtunnel.ini --check-config
"""

    def _summary(self) -> list[str]:
        settings = self.settings
        lines = [
            f"files: {', '.join(settings.files) or 'none, all defaults'}",
            f"ports: {', '.join(map(str, settings.proxy_ports))} at {', '.join(settings.bind)}",
        ]
        for each in settings.outside:
            ways = (("responder", each.responder), ("subscriber", each.subscriber))
            places = [f"{name} {written(found)}" for name, found in ways if found]
            ports = [f"{reported} as {advertised}" for reported, advertised in each.advertise]
            words = [f"outside {each.name}:", *places, f"advertises {', '.join(ports) or 'nothing'}"]
            lines.append(f"{' '.join(words)}, {each.requests} requests")
        return [*lines, f"admin: {settings.admin.socket}"]
