"""The way to a server's WebSockets: proxies of the environment, TCP, TLS with the server's name, the upgrade.

Rule of this file: no token and no nonce goes to a server that TLS has not named; without TLS it goes to this
machine only, unless the person says otherwise. What fails is a ``Stop``, whose sentence names the server.

Source: sockets/ways/http_proxy.py, sockets/tls/tls_stages.py, sockets/ways/websocket_upgrade.py; ours.
"""

from collections.abc import Mapping
from typing import Any

import revtunnel
from revtunnel.connect.addressing import ServerAddress
from revtunnel.connect.outcomes import CONFIG, UNREACHABLE, Stop, for_http
from revtunnel.ground.networks import is_loopback
from revtunnel.ground.server_places import after
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.tls.certificates import CertificateFiles, FaultyFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.sockets.tls.tls_stages import TlsFailed, dial_tls
from revtunnel.sockets.ways.http_proxy import open_way
from revtunnel.sockets.ways.proxy_choice import from_environment
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded, UpgradeRequest, connect_end
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits

__all__ = ["DialWay", "Refused"]


class Refused(Stop):
    """The server answered, and not with a WebSocket; ``http`` is its status."""

    def __init__(self, http: int, why: str) -> None:
        super().__init__(for_http(http), why)
        self.http = http


class DialWay:
    """How one server is reached."""

    def __init__(
        self,
        reactor: Any,
        server: ServerAddress,
        environ: Mapping[str, str],
        ca: str = "",
        plaintext: bool = False,
        timeout: float = 15.0,
    ) -> None:
        """Stop: the authority's file cannot be used, or TLS is missing."""
        self.server = server
        self.limits = WebSocketLimits(handshake=timeout)
        self._reactor = reactor
        self._timeout = timeout
        self._choice = from_environment(environ)
        self._identity: Identity | None = None
        if server.secure:
            self._identity = _identity(ca)
        elif not (plaintext or is_loopback(server.host)):
            raise Stop(CONFIG, f"{server}: without TLS only to this machine; see --plaintext")

    async def upgrade(self, path: str, subprotocol: str, bearer: str) -> Upgraded:
        """A WebSocket at a path. Stop: there is none."""
        server = self.server
        try:
            end = await self._connect()
            headers = (
                ("Authorization", f"Bearer {bearer}"),
                ("User-Agent", f"revtunnel-connect/{revtunnel.__version__}"),
            )
            asked = UpgradeRequest(server.host, server.port, path, server.secure, (subprotocol,), headers)
            upgraded = await connect_end(self._reactor, end, asked, self.limits)
        except HandshakeRefused as error:
            raise Refused(error.status, f"{server}: {error.why}") from None
        except (TlsFailed, ValueError) as error:
            raise Stop(UNREACHABLE, f"{server}: {error}") from None
        except OSError as error:
            raise Stop(UNREACHABLE, f"{server}: {after(str(server), said(error))}") from None
        if upgraded.subprotocol != subprotocol:
            upgraded.end.abort()
            raise Stop(UNREACHABLE, f"{server}: it does not speak {subprotocol}")
        return upgraded

    async def _connect(self) -> End:
        server, stages = self.server, []
        if self._identity is not None:
            stages.append(dial_tls(self._reactor, self._identity, server.host, lambda: None))
        opening = open_way(self._reactor, self._choice, server.host, server.port, self._timeout, stages)
        return await opening


def _identity(ca: str) -> Identity:
    """What a server's certificate is judged by. Stop: the file cannot be used."""
    try:
        files = CertificateFiles(TlsSide.DEVICE, authority=ca or None)
        return Identity(TlsRules(files, least="1.2", alpn=b"http/1.1"))
    except FaultyFiles as error:
        raise Stop(CONFIG, f"--ca: {error}") from None
