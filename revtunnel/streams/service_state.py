"""Whether a service beside an agent answers: SERVICE on the link.

::

    SERVICE   u8 1: it answers, 0: it does not   u8 length   name of an offer   text, UTF-8, at most 200 bytes

Source: docs/link-protocol.rst "Services that are looked at"; ours.
"""

from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import Fact, ServiceDown, ServiceUp
from revtunnel.ground.targets import is_label
from revtunnel.streams.commands import cut, plain

__all__ = ["ServiceState", "decode_service", "encode_service"]


class ServiceState(NamedTuple):
    """What was found at the last look."""

    name: str  # of the offer
    up: bool
    detail: str = ""  # what was found

    def fact(self, serial: str) -> Fact:
        """It as a fact."""
        return (ServiceUp if self.up else ServiceDown)(serial, self.name, self.detail)


def encode_service(state: ServiceState) -> bytes:
    """SERVICE's payload; a text over 200 bytes is cut."""
    name = state.name.encode("ascii")
    return bytes((state.up, len(name))) + name + cut(state.detail)


def decode_service(payload: bytes) -> ServiceState:
    """What SERVICE says.

    Raises:
        RemoteError: it is cut, neither yes nor no, or of a name that no offer has.
    """
    if len(payload) < 2 or payload[0] > 1 or len(payload) < 2 + payload[1]:
        raise RemoteError(f"SERVICE of {len(payload)} bytes, 0 or 1 and a name wanted")
    name = payload[2 : 2 + payload[1]].decode("latin-1")
    if not is_label(name):
        raise RemoteError(f"SERVICE of {name[:80]!a}, which is no name of an offer")
    return ServiceState(name, bool(payload[0]), plain(payload[2 + payload[1] :]))
