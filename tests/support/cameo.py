"""Peers of a relay without sockets, for tests of its decisions."""

from revtunnel.ground.policy import CameoLimits
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import Door
from revtunnel.systems.cameo.cameo_outbox import Outbox
from revtunnel.systems.cameo.cameo_peers import Peer
from revtunnel.systems.cameo.zmtp_messages import Message, MessageDecoder, encode_message, split_frames

__all__ = ["MAIN", "a_peer", "message", "written"]

MAIN = Door("")


def a_peer(
    address: str = "127.0.0.1:1", local: bool = True, door: Door = MAIN, limits: CameoLimits | None = None
) -> Peer:
    """A connection whose READY has not come yet."""
    limits = limits or CameoLimits()
    return Peer(address, local, door, 0.0, Outbox(limits, CreditPool(limits.pool), lambda: None))


def message(*bodies: bytes, keep: int = 3) -> Message:
    """What a relay's decoder makes of a message."""
    (unit,) = MessageDecoder(1 << 30, 64, 3, keep).units(encode_message(bodies))
    assert isinstance(unit, Message)
    return unit


def written(peer: Peer) -> list[list[bytes]]:
    """The messages that were put into a peer's outbox this turn, by their frames."""
    units = MessageDecoder(1 << 30, 64).units(b"".join(peer.outbox.turn()))
    return [split_frames(unit.rest) for unit in units if isinstance(unit, Message)]
