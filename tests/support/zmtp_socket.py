"""The connecting side of a ZeroMQ socket in memory, as far as tests of the CAMEO relays drive it by hand.

::

    site = Site()
    server = site.connect("responder", "ROUTER", b"0:0")
    client = site.connect("responder", "REQ")
    client.send(b"", b"0:0", b"", b'{"type":1}')
    site.pump()
    assert server.messages[0][3] == b'{"type":1}'
"""

import itertools
from typing import Any

from revtunnel.ground.facts import Fact
from revtunnel.ground.limits import CameoLimits
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules
from revtunnel.systems.cameo.relays import CameoRelay, PublisherRelay, ResponderRelay
from revtunnel.systems.cameo.zmtp import GREETING, decode_command, encode_ready
from revtunnel.systems.cameo.zmtp_messages import MessageDecoder, ZmtpCommand, encode_message, split_frames
from tests.support.memory import Network, OurSide, Pair, Recorder

__all__ = ["PUBLISHER", "RESPONDER", "SUBSCRIBER", "Site", "ZmtpSocket"]

RESPONDER, SUBSCRIBER, PUBLISHER = "responder", "subscriber", "publisher"


class ZmtpSocket(Recorder):
    """A peer of a relay; what came is read when it is asked for."""

    pair: Pair

    @property
    def open(self) -> bool:
        """Whether the connection is there."""
        return self.lost is None

    @property
    def units(self) -> list[Any]:
        """Messages as lists of frames, commands as pairs of name and data, all that came so far."""
        units = MessageDecoder(1 << 30, 1 << 20).units(bytes(self.data[len(GREETING) :]))
        return [
            decode_command(unit.body) if isinstance(unit, ZmtpCommand) else split_frames(unit.rest)
            for unit in units
        ]

    @property
    def messages(self) -> list[list[bytes]]:
        """The messages that came so far."""
        return [unit for unit in self.units if isinstance(unit, list)]

    @property
    def commands(self) -> list[bytes]:
        """The names of the commands that came so far."""
        return [unit[0] for unit in self.units if isinstance(unit, tuple)]

    def say(self, data: bytes) -> None:
        """Write raw bytes."""
        self.pair.near.write(data)

    def send(self, *bodies: bytes) -> None:
        """Write a message."""
        self.say(encode_message(bodies))


class Site:
    """Both relays and their peers. ``options`` are those of ``Network.join``, for every connection."""

    def __init__(
        self, limits: CameoLimits | None = None, rules: CameoRules | None = None, **options: Any
    ) -> None:
        self.network = Network()
        self.facts: list[Fact] = []
        self.limits = limits or CameoLimits()
        self.pool = CreditPool(self.limits.pool)
        self.admission = CameoAdmission(self.limits)
        self.rules = rules or CameoRules("")
        self.options = options
        numbers = itertools.count(1)
        common = (self.network, self.limits, self.admission, self.pool, self.facts.append)
        self.responder = ResponderRelay(
            *common, random_bytes=lambda size: next(numbers).to_bytes(size, "big")
        )
        self.publisher = PublisherRelay(*common)

    def relays(self) -> tuple[CameoRelay, CameoRelay]:
        """Both."""
        return self.responder, self.publisher

    def dial(self, where: str, rules: CameoRules | None = None, **options: Any) -> ZmtpSocket:
        """A connection that has said nothing yet."""
        rules = rules or self.rules
        port = {
            RESPONDER: self.responder.port,
            SUBSCRIBER: self.publisher.subscribers,
            PUBLISHER: self.publisher.publishers,
        }[where](rules)
        socket = ZmtpSocket()
        socket.pair = pair = self.network.join(socket, None, **{**self.options, **options})
        assert isinstance(pair.far, OurSide)
        port.came(pair.far.plain)
        return socket

    def connect(
        self, where: str, kind: str, identity: bytes = b"", rules: CameoRules | None = None, **options: Any
    ) -> ZmtpSocket:
        """A connection after its READY."""
        socket = self.dial(where, rules, **options)
        named = kind in ("REQ", "DEALER", "ROUTER")
        socket.say(GREETING + encode_ready(kind.encode(), identity if named else None))
        self.pump()
        return socket

    def pump(self) -> None:
        """Until nothing moves."""
        self.network.pump()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.network.advance(seconds)

    def seen(self, kind: type[Fact]) -> list[Any]:
        """Facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def finish(self) -> None:
        """Everybody leaves; nothing may be left of them."""
        for relay in self.relays():
            relay.abort()
        self.pump()
        assert self.pool.used == 0 and self.admission.connections == 0
        assert not any(relay.connections for relay in self.relays())
        assert not self.responder.responders.peers and not len(self.publisher.publications.topics)
        assert not [call for call in self.network.clock.getDelayedCalls() if call.active()]
