"""``GET /tunnel``: AWS's localproxy, as a person's end of a session or as a device.

================  ===========================================================================================
local-proxy-mode  access-token is
================  ===========================================================================================
source            a nonce of a session, to be had from /control; with a ``client-token`` it is good again for
                  whoever says the same, within the session's grace
destination       the app key of a device (``revtunnelctl enroll SERIAL --app-key``), which is one while its
                  WebSocket lives
================  ===========================================================================================

Subprotocols ``aws.iot.securetunneling-1.0`` to ``-3.0``: the highest that is offered is named in the answer,
and spoken to a destination; with a source its fields decide.

Source: next/remote-sessions.md section 5.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from revtunnel.ground.facts import Report
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied
from revtunnel.link.server_link import AgentListener
from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.localproxy_device import LocalproxyDevice
from revtunnel.systems.sessions.localproxy_source import LocalproxySource, SourceLine
from revtunnel.systems.sessions.remote_sessions import Came
from revtunnel.systems.sessions.session_routes import Dial, enter
from revtunnel.trust.app_keys import AppKeys

__all__ = ["LocalproxyRoute"]

_PROTOCOL = re.compile(r"aws\.iot\.securetunneling-([123])\.0", re.ASCII)
_CLIENT_TOKEN = re.compile(r"[a-zA-Z0-9-]{32,128}", re.ASCII)


class LocalproxyRoute:
    """Both modes."""

    prefix = "/tunnel"
    browsers = False

    def __init__(
        self,
        reactor: Any,
        live: LiveSessions,
        dial: Dial,
        hub: Any,
        keys: AppKeys,
        services: Callable[[str], tuple[Offer, ...]],
        listener: Callable[[str], AgentListener | None],
        report: Report,
    ) -> None:
        """``services``: of a serial, by its record; ``listener``: what devices get; None: none may come."""
        self._reactor = reactor
        self._live = live
        self._dial = dial
        self._hub = hub
        self._keys = keys
        self._services = services
        self._listener = listener
        self._report = report

    # -- as a route

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        modes = parse_qs(call.query, max_num_fields=8).get("local-proxy-mode", [])
        spoken = [match for match in map(_PROTOCOL.fullmatch, offered) if match is not None]
        if modes not in (["source"], ["destination"]) or not spoken:
            raise HandshakeRefused(400, "local-proxy-mode and aws.iot.securetunneling-1.0 to -3.0 wanted")
        named = max(spoken, key=lambda match: match[1])
        token, client_token = _one(call, "access-token"), _one(call, "client-token")
        if client_token and not _CLIENT_TOKEN.fullmatch(client_token):
            raise HandshakeRefused(400, "client-token: 32 to 128 of a-z A-Z 0-9 - wanted")
        if modes == ["source"]:
            number = self._live.sessions.nonces.session_of(token)
            enter(self._live, call, token, number, token=client_token)
        else:
            call.found = self._device(call, token), int(named[1])
        return named[0]

    def _device(self, call: WebCall, token: str) -> tuple[str, AgentListener]:
        serial = self._keys.serial_of(token)
        if serial is None:
            call.reason = "denied"
            raise HandshakeRefused(401, "the access-token is of no device here")
        listener = self._listener(call.listener)
        if listener is None:
            raise HandshakeRefused(403, "no device may come this way: devices in [localproxy]")
        if not self._services(serial):
            raise HandshakeRefused(403, f"{serial} has no services: [device {serial}] services")
        if self._live.draining:
            raise HandshakeRefused(503, "the server is stopping")
        return serial, listener

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        if isinstance(call.found, Came):
            came = call.found
            source = LocalproxySource(
                self._reactor, self._live, came, self._dial, upgraded.end.peer, upgraded.end.origin
            )
            source.carried_by(upgraded)
            self._live.attach(came.session, came.seat, SourceLine(source, call.peer))
            return
        (serial, listener), version = call.found
        device = LocalproxyDevice(
            *(self._reactor, self._hub, listener, serial, self._services(serial), version),
            *(call.peer, upgraded.end.tls_version, self._report),
        )
        try:
            device.arrive()
        except LinkDenied as error:
            device.ended = error.word, str(error)
            self._hub.refused(device, error.word, str(error))
            upgraded.end.abort()
            return
        device.carried_by(upgraded)


def _one(call: WebCall, name: str) -> str:
    """The value of a field; "": it is not there, or more than once."""
    found = call.request.headers.get_all(name)
    return found[0].strip() if len(found) == 1 else ""
