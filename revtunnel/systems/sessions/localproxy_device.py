"""AWS's localproxy in destination mode as a device of this server: its WebSocket is link and carrier at once.

What it dials is said on its own command line (``-d SERVICE=HOST:PORT``); here only names are known, those of
the record's ``services``.

The rules: a destination has no half-close, so a client's end of file is held until the service ends, or for
30 s of silence. A reset before any byte came back is a refusal, which is a reset for the client; one behind a
byte is an end in order, for the wire has no other. What begins a connection is answered by nothing: a client
is read at once.

Source: next/remote-sessions.md section 5; streams/carrier.py; ours.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Report
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import ServerUp
from revtunnel.link.server_link import AgentListener
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running
from revtunnel.systems.sessions.localproxy import MAX_CONNECTIONS, MAX_NAMES, LocalproxyConnections
from revtunnel.systems.sessions.localproxy_link import LocalproxyChannel, LocalproxyLink

__all__ = ["LocalproxyDevice"]

HOLD = 30.0  # seconds of silence behind a client's end of file
LOOK = 1.0  # seconds between looks at clients that are not read
_ENDS = {"kicked": Ended.OPERATOR, "expired": Ended.NOT_ALLOWED, "stopping": Ended.LINK_LOST}


class LocalproxyDevice(LocalproxyLink):
    """One device, in the forms that the switchboard knows links by and clients know carriers by."""

    system = "localproxy"
    takes_sockets = False
    by_web = True
    handshake = None
    certificate = None
    round_trip = None

    def __init__(
        self,
        reactor: Any,
        hub: Any,
        listener: AgentListener,
        serial: str,
        offers: tuple[Offer, ...],
        version: int,
        peer: str,
        tls: str,
        report: Report,
    ) -> None:
        names = tuple(offer.name for offer in offers[:MAX_NAMES])
        super().__init__(reactor, LocalproxyConnections(names, source=False, version=version))
        self.serial = serial
        self.offers = offers[:MAX_NAMES]
        self.peer = peer
        self.tls = tls
        self.software = f"aws localproxy, V{version}"
        self.listener = listener
        self.carrier = self
        self.on_rest: Callable[[], None] | None = None  # never: its streams end with the link
        self.authenticated = True
        self.replaced = False
        self.up_since: float | None = None
        self.ended: tuple[str, str] | None = None
        self._hub = hub
        self._report = report
        self._closing = False  # it takes no new clients
        self._leaving = False
        self._looks: IDelayedCall | None = None

    def arrive(self) -> None:
        """It is here. LinkDenied: it may not be."""
        self._hub.admit(self, ServerUp(self.serial, None, True))
        self.up_since = self.clock.seconds()
        self._hub.arrived(self)

    # -- as a link

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """The wire has no word for it: it is closed when no client is left."""
        self._leaving = True
        self._leave_if_idle()

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        """End it from our side, its streams with it."""
        self.fail(_ENDS.get(reason, Ended.LINK_LOST), reason, f"{detail}, {by}" if by else detail)

    # -- as a carrier

    @property
    def running(self) -> int:
        return len(self.channels)

    @property
    def at_once(self) -> bool:
        return True  # nobody waits

    def open(self, client: ClientSocket) -> str:
        """A connection, at once; before version 3 there is one for a service."""
        if self._closing or self._closed:
            return "device-absent"
        if client.name not in self.connections.services:
            return "not-allowed"
        started = self.connections.start(client.name)
        if started is None:
            return "too-many-clients" if self.running >= MAX_CONNECTIONS else "no-channel"
        key, data = started
        channel = self.add(key, client.name, self._hub.next_stream())
        self.say(data)
        milliseconds = round((self.clock.seconds() - client.since) * 1000, 3)
        self._report(ChannelOpened(self.serial, channel.number, client.name, client.peer, milliseconds))
        client.attach(self, channel)  # type: ignore[arg-type]
        client.may_read()
        self._look_later()
        return ""

    def numbers(self, clients: Collection[ClientSocket]) -> None:
        """Nobody at its end waits for a stream to be closed."""

    def rows(self) -> Iterable[Running]:
        for channel in [*self.channels.values()]:
            client, state = channel.owner, "half-closed" if channel.ended else "open"
            sums = channel.bytes_sent, channel.bytes_received, 0, channel.owed
            who = self.serial, channel.number, client.name, client.peer
            yield Running(*who, "link", state, client.since, *sums)

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        for channel in self.channels.values():
            if channel.number == number:
                self.finish(channel, reason, detail)
                return True
        return False

    def end_streams(self, reason: Ended, detail: str) -> bool:
        found = [*self.channels.values()]
        for channel in found:
            self.finish(channel, reason, detail)
        return bool(found)

    def close(self) -> None:
        self._closing = True

    drain = close

    # -- as a LocalproxyLink

    def begun(self, key: int, service: str) -> None:
        """Never: a destination begins nothing."""

    def cut_off(self, channel: LocalproxyChannel) -> None:
        if channel.bytes_received:
            channel.owner.end_of_file()
            self.finish(channel, Ended.CLOSED)
        else:
            self.finish(channel, Ended.REFUSED, "the service refused, or ended without a byte")

    def local_ended(self, channel: LocalproxyChannel) -> None:
        self._wait(channel)

    def noted(self, channel: LocalproxyChannel, reason: Ended, detail: str) -> None:
        client: ClientSocket = channel.owner
        seconds = round(self.clock.seconds() - client.since, 3)
        who = self.serial, channel.number, client.name, client.peer
        sums = channel.bytes_sent, channel.bytes_received
        self._report(ChannelEnded(*who, reason, detail, seconds, *sums))
        if self._leaving:
            self.clock.callLater(0, self._leave_if_idle)

    def gone(self, reason: str, detail: str) -> None:
        self.ended = reason, detail
        if self._looks is not None and self._looks.active():
            self._looks.cancel()
        if self.up_since is not None:
            self._hub.departed(self, reason, detail, 0)

    # -- inside

    def _wait(self, channel: LocalproxyChannel) -> None:
        received = channel.bytes_received
        channel.patience = self.clock.callLater(HOLD, self._unanswered, channel, received)

    def _unanswered(self, channel: LocalproxyChannel, received: int) -> None:
        waits = self._socket is not None and (self._pending or self._socket.waiting)
        if channel.bytes_received > received or waits:
            self._wait(channel)
        else:
            detail = f"nothing came for {HOLD:g} s behind an end of file, which the wire cannot carry"
            self.finish(channel, Ended.IDLE, detail)

    def _leave_if_idle(self) -> None:
        if self._leaving and not self.channels:
            self.fail(Ended.LINK_LOST, "stopping", "")

    def _look_later(self) -> None:
        if self._looks is None:
            self._looks = self.clock.callLater(LOOK, self._look)

    def _look(self) -> None:
        """Notice clients that left and are not read at present."""
        self._looks = None
        for channel in [*self.channels.values()]:
            channel.owner.look()
        if self.channels:
            self._look_later()
