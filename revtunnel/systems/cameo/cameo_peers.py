"""One connection of a relay, as the decisions see it, and what its READY must say.

Source: wire/cameo.md section 5.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from revtunnel.ground.errors import RemoteError
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_outbox import Outbox
from revtunnel.systems.cameo.zmtp import MAX_IDENTITY, decode_command, decode_properties
from revtunnel.systems.cameo.zmtp_messages import ZmtpCommand

__all__ = ["CameoPeer", "PeerUnfit", "read_ready"]


class PeerUnfit(RemoteError):
    """The peer is a socket that can never be served here: it is told so with ERROR and gives up."""


@dataclass(slots=True, eq=False)
class CameoPeer:
    """A connection. ``owner`` is the Protocol that writes to it."""

    address: str  # host:port
    local: bool
    rules: CameoRules
    since: float
    outbox: Outbox
    owner: Any = None
    socket_type: str = ""  # empty before READY
    identity: bytes = b""  # under which others address it
    envelope: bytes = b""  # the first three frames of messages from it
    ready: bool = False  # it has our READY
    messages_received: int = 0
    bytes_received: int = 0
    requests: int = 0  # to the CAMEO server
    other_requests: int = 0
    last_type: int | None = None  # of its last request to the CAMEO server, where watched

    @property
    def named(self) -> bool:
        """Whether it brought its identity itself."""
        return bool(self.identity) and self.identity[0] != 0


def read_ready(command: ZmtpCommand, allowed: Collection[str]) -> tuple[str, bytes]:
    """Socket type and identity of a peer whose first command this is.

    Raises:
        RemoteError: it is not READY, or broken.
        Unfit: the type, or a name that nobody may have.
    """
    name, data = decode_command(command.body)
    if name != b"READY":
        raise RemoteError(f"{name[:20]!a} before READY")
    properties = decode_properties(data)
    socket_type = properties.get(b"socket-type", b"").decode("ascii", "backslashreplace")
    identity = properties.get(b"identity", b"")
    if socket_type not in allowed:
        raise PeerUnfit(f"socket type {socket_type[:20]!a}, {' or '.join(sorted(allowed))} wanted")
    if len(identity) > MAX_IDENTITY:
        raise PeerUnfit(f"identity of {len(identity)} bytes, limit {MAX_IDENTITY}")
    if identity[:1] == b"\0":
        raise PeerUnfit("an identity that begins with a zero byte")
    return socket_type, identity
