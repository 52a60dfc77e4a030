"""Peers of a relay without sockets, for tests of its decisions."""

from revtunnel.ground.limits import CameoLimits
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_outbox import Outbox
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.zmtp_messages import MessageDecoder, ZmtpMessage, encode_message, split_frames

__all__ = ["MAIN", "a_peer", "message", "written"]

MAIN = CameoRules("")


def a_peer(
    address: str = "127.0.0.1:1",
    local: bool = True,
    rules: CameoRules = MAIN,
    limits: CameoLimits | None = None,
) -> CameoPeer:
    """A connection whose READY has not come yet."""
    limits = limits or CameoLimits()
    return CameoPeer(address, local, rules, 0.0, Outbox(limits, CreditPool(limits.pool), lambda: None))


def message(*bodies: bytes, keep: int = 3) -> ZmtpMessage:
    """What a relay's decoder makes of a message."""
    (unit,) = MessageDecoder(1 << 30, 64, 3, keep).units(encode_message(bodies))
    assert isinstance(unit, ZmtpMessage)
    return unit


def written(peer: CameoPeer) -> list[list[bytes]]:
    """The messages that were put into a peer's outbox this turn, by their frames."""
    units = MessageDecoder(1 << 30, 64).units(b"".join(peer.outbox.turn()))
    return [split_frames(unit.rest) for unit in units if isinstance(unit, ZmtpMessage)]
