"""Endpoint strings for services of devices: what ``twisted/plugins`` gives to ``clientFromString``.

Rule of this file: it is imported wherever Twisted looks for plugins, so it imports nothing of ours before a
string is read.

Source: Twisted's IStreamClientEndpointStringParserWithReactor.
"""

from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer

__all__ = ["EndpointParser"]

MOST = 3600  # seconds of a timeout


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class EndpointParser:
    """``revtunnel:serial=SERIAL:target=TARGET[:server=URL][:ca=FILE][:timeout=S]``"""

    prefix = "revtunnel"

    def parseStreamClient(  # type: ignore[override]
        self, reactor: Any, serial: str, target: str, server: str = "", ca: str = "", timeout: str = "30"
    ) -> IStreamClientEndpoint:
        """Twisted's. ValueError: it names no service of a device."""
        from revtunnel.connect.addressing import parse_services
        from revtunnel.connect.device_endpoint import DeviceEndpoint

        found, _ = parse_services([f"{serial}/{target}"])
        seconds = float(timeout)
        if not 0 < seconds <= MOST:
            raise ValueError(f"timeout={timeout[:80]}: seconds up to {MOST} wanted")
        return DeviceEndpoint(reactor, found, target, server, ca, seconds)
