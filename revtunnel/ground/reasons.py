"""Why a channel or a link ended: one enumeration for wire, log, audit record and API.

Source: 1-13 are the RESET reasons of docs/link-protocol.rst.
"""

from enum import IntEnum

__all__ = ["Ended", "GoAway"]


class Ended(IntEnum):
    """Why one channel ended. ``word`` is what operators and programs read."""

    CLOSED = 0  # both directions ended in order, all bytes delivered
    REFUSED = 1  # the target refused the connection
    UNREACHABLE = 2  # no route, unknown name
    TIMED_OUT = 3  # the target did not answer in time
    NOT_ALLOWED = 4  # an allow list said no
    OUT_OF_RESOURCES = 5  # no channel number, descriptor or memory left
    FLOW_CONTROL = 6  # the other side sent more than its credit
    RESET_BY_PEER = 7  # the far TCP connection was reset
    IDLE = 8  # nothing flowed for the configured time
    OPERATOR = 9  # closed by an operator
    STALLED = 10  # would not take its bytes while others waited
    LINK_LOST = 11  # the link between server and agent was lost
    PROTOCOL = 12  # the other side broke the wire's rules on this channel
    NOT_HERE = 13  # between nodes of a cluster: the device is not at this node

    @property
    def word(self) -> str:
        """The name on every surface: ``link-lost``, ``refused``."""
        return self.name.lower().replace("_", "-")


class GoAway(IntEnum):
    """Why a side asks the other to leave (payload of GOAWAY). Source: ours."""

    STOPPING = 1  # the server stops or restarts
    DENIED = 2  # serial, key or listener say no; one reason for all, so that nothing can be guessed
    REPLACED = 3  # a newer link of the same serial took over
    PROTOCOL = 4  # the wire's rules were broken
    OPERATOR = 5  # kicked by an operator
    OVERLOADED = 6  # too many links
    DUPLICATE = 7  # an older link of the same serial stays, by the listener's rule
    EXPIRED = 8  # its certificate has ended and may be renewed, nothing else

    @property
    def word(self) -> str:
        """The name on every surface."""
        return self.name.lower().replace("_", "-")
