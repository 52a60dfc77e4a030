"""One running channel as listings show it, whatever carries it: a number of the link, or a data socket.

Source: issue "Admin"; ours.
"""

from typing import NamedTuple

from revtunnel.streams.channel import Channel

__all__ = ["Running", "of_link", "relayed_state", "sided"]

_RELAYED = {
    (False, False): "open",
    (True, False): "sent-eof",
    (False, True): "got-eof",
    (True, True): "ended",
}


class Running(NamedTuple):
    """What is known of a running channel now."""

    serial: str
    number: int  # 1 to 255 on the link, 256 and more on a data socket
    target: str  # the name of the offer
    client: str  # host:port
    carrier: str  # "link", "socket", "tunnel", "device" or "pair"
    state: str
    since: float  # monotonic seconds
    bytes_to_device: int
    bytes_to_client: int
    waiting_to_device: int
    waiting_to_client: int


def relayed_state(ended: tuple[bool, bool]) -> str:
    """The state of two ends joined, by the ends of file of client and device; words as of channel.py."""
    return _RELAYED[ended]


def of_link(serial: str, channel: Channel) -> Running:
    """A channel with a number of the link's, which has a client."""
    client = channel.owner
    return Running(
        serial,
        channel.number,
        client.name,
        client.peer,
        "link",
        channel.state.name.lower().replace("_", "-"),
        client.since,
        channel.bytes_sent,
        channel.bytes_received,
        channel.queued,
        channel.window.held if channel.window is not None else channel.owed,
    )


def sided(detail: str, near: str, far: str) -> str:
    """What a relay says of its sides, with their names."""
    for side, name in (("near", near), ("far", far)):
        if detail.startswith(f"{side}: "):
            return f"{name}{detail[len(side) :]}"
    return detail
