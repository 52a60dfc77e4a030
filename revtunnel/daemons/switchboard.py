"""The server in the middle: links on one side, clients on the other, one fleet and one allocator between.

Rule of this file: what happens to devices. Who may connect is link_admission.py's; who may have a stream is
client_streams.py's; what records allow is enforcement.py's; how a stream is carried is its carrier's
(streams/carrier.py).

Source: wire/readyagent.md section 5.7; wire/link-extension.md "Liveness"; faults.md R8 to R10.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.carriers.sockets_first import SocketsFirst
from revtunnel.daemons.client_streams import ClientStreams
from revtunnel.daemons.enforcement import Enforcement
from revtunnel.daemons.lent_doors import LentDoors
from revtunnel.daemons.link_admission import LinkAdmission
from revtunnel.daemons.offer_changes import OfferChanges
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.device_consent import DeviceConsent
from revtunnel.fleet.fleet import Fleet, TwoHolders
from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.ground.facts import (
    ChannelEnded,
    ClientRefused,
    Fact,
    LeftEarly,
    LinkDown,
    LinkRefused,
    LinkUp,
    PeerGlitch,
    Report,
    WebRefused,
)
from revtunnel.ground.limits import DataLimits, ServerLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied, ServerUp
from revtunnel.link.keys import Verifier
from revtunnel.link.server_link import AgentListener, LinkMaker, ServerLink
from revtunnel.sockets.listening import Came
from revtunnel.streams.offer_messages import Answer
from revtunnel.systems.emo.emo_modern import deny_machine

__all__ = ["Switchboard"]

_REFUSALS = ClientRefused | LinkRefused | LinkDown | WebRefused  # counted by their reasons as well

# why a link went, if its streams go with it: its path is dead, its agent faulty, or we stop
ENDS_STREAMS = frozenset(("silent", "protocol", "stopping"))


class Switchboard:
    """Everything that is running in one server. ``descriptors`` is how many sockets it may have in all."""

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        limits: ServerLimits,
        ports: ClientPorts,
        key_of: Callable[[str], Verifier | None],
        random_bytes: Callable[[int], bytes],
        report: Report,
        descriptors: int,
        access: AccessControl | None = None,
    ) -> None:
        self.limits = limits
        self.access = access or AccessControl(lambda: 0.0)
        self.ports = ports
        self.fleet: Fleet[Any] = Fleet(limits, self.report)
        self.links: set[ServerLink] = set()
        self.counts: Counter[str] = Counter()
        self.draining = False
        self.not_yet = ""  # why agents are refused for now
        self.elsewhere: Callable[[], str] = lambda: ""  # where one that is refused so may go instead
        self.beside: Callable[[], int] = lambda: 0  # sockets that others have in this server
        self.far_links: Callable[[], int] = lambda: 0  # of ``links``: their sockets are another process's
        self.on_arrived: Callable[[str], None] = lambda serial: None
        self.on_departed: Callable[[str], None] = lambda serial: None  # a link of it is gone
        self._clock = clock
        self._tell = report
        self._descriptors = descriptors
        self._drained: list[Deferred[None]] = []
        self.data = DataSockets(
            reactor, DataLimits(), random_bytes, lambda: descriptors - self._sockets(), self.report
        )
        self.admission = LinkAdmission(
            reactor, clock, limits, self.access, key_of, random_bytes, self.report, self.data
        )
        self.admission.full = lambda: self._sockets() >= self._descriptors + self.limits.descriptors_kept
        self.listeners = self.admission.listeners
        self.streams = StreamsOfDevices()
        self.client_streams = ClientStreams(
            reactor, limits, self.fleet, self.streams, self.access, self.report
        )
        self.say = DeviceConsent(self.fleet, lambda serial: self.access.records.of(serial))
        self.client_streams.make_room = self._make_room
        self.client_streams.on_left = self.check_drained
        self.enforcement = Enforcement(
            *(clock, self.access, self.fleet, ports, self.streams, self.client_streams, self.report),
            listeners=self.listeners,
            most=descriptors // 2,
        )
        left = lambda: descriptors - self._sockets()  # noqa: E731
        told = self.fleet, ports, self.streams, self.client_streams, self.access
        self.doors = LentDoors(reactor, *told, left, self.data.gates)
        self.offer_changes = OfferChanges(clock, self.fleet, ports, self.enforcement.open_ports)

    @property
    def clients(self) -> int:
        """Sockets of clients, those that are being turned away included."""
        return self.client_streams.count

    def _sockets(self) -> int:
        strangers = len(self.admission.strangers)
        links = len(self.links) - self.far_links()
        return self.client_streams.count + links + strangers + self.data.count + self.beside()

    def _make_room(self) -> bool:
        """Whether one more client can be had."""
        return self._sockets() <= self._descriptors or self.data.give_way()

    # -- what links ask (server_link.Hub)

    def agents(self, name: str) -> Came:
        """What to listen with for agents at ``listeners[name]``, whose rules may change for later links."""
        return partial(self.admission.came, self, name)

    def attach(self, link: ServerLink, ticket: bytes) -> None:
        self.admission.attach(link, ticket)

    def enrol(self, link: ServerLink, payload: bytes) -> bytes | None:
        return self.admission.enrol(link, payload)

    def refused(self, link: ServerLink, reason: str, detail: str) -> None:
        self.admission.refused(link, reason, detail)

    def refused_for(self, link: ServerLink, word: str) -> int:
        return self.admission.refused_for(link, word)

    def no_stranger(self, link: ServerLink) -> None:
        self.admission.no_stranger(link)

    def instead(self, link: ServerLink, make: LinkMaker) -> ServerLink:
        return self.admission.instead(self, link, make)

    def next_stream(self) -> int:
        return self.data.numbering.take()

    def expects(self, source: str, change: int) -> None:
        self.data.expect(source, change)

    def holds(self, change: int) -> None:
        self.data.sockets += change

    def port_is_open(self, serial: str, target: str) -> bool:
        return self.ports.is_open(serial, target)

    def admit(self, link: ServerLink, up: ServerUp) -> Verifier | None:
        now = self._clock.seconds()
        if self.draining or self.not_yet:
            why = self.not_yet or "the server is stopping"
            raise LinkDenied(GoAway.STOPPING, why, up.serial, place=self.elsewhere())
        if up.hello is not None:
            deny_machine(up.hello)
        self.access.device(up.serial, link.peer, now, link.certificate is not None)
        offers = up.hello.offers if up.hello is not None else link.offers
        try:
            old = self.fleet.arrive(
                *(up.serial, link, now, up.authenticated, link.listener.duplicate, offers),
                system=link.system,
                peer=link.peer,
                listener=link.listener.rules.name,
                pool=link.listener.pool,
                instance=up.hello.instance if up.hello is not None else b"",
            )
        except TwoHolders:
            self.kick(up.serial, "its serial has two holders", 0)
            raise
        if link.certificate is not None:
            self.admission.used(link.certificate.serial, link.certificate.fingerprint)
        self.no_stranger(link)
        self.links.add(link)
        if up.authenticated:
            self.access.arrived(link.peer)
        if old is not None:
            link.replaced = True
            old.dismiss("replaced", f"by {link.peer}", GoAway.REPLACED)
        return None

    def arrived(self, link: ServerLink) -> None:
        listener = link.listener
        self.report(
            LinkUp(
                link.serial,
                link.peer,
                link.system,
                listener.rules.name,
                link.authenticated,
                link.replaced,
                link.tls,
            )
        )
        if link.takes_sockets and listener.data != "link":
            link.carrier = SocketsFirst(self.data, link, link.channels, listener.data == "socket")
        self.streams.add(link.carrier)
        self.doors.recall_device(link.serial)  # to an older link's
        device = self.fleet.get(link.serial)
        if device is not None and device.link is link:
            device.carrier = link.carrier
            self.enforcement.follow(link, device)  # settings may have changed since it connected
        self.enforcement.open_ports(link)
        self.say.arrived(link.serial)
        self.on_arrived(link.serial)
        self.client_streams.device_came(link.serial)

    def consented(self, link: ServerLink, session: str, yes: bool, why: str) -> None:
        device = self.fleet.get(link.serial)
        ours = device is not None and device.link is link
        if ours and not self.say.consented(link.serial, session, yes, why) and yes:
            self.report(PeerGlitch(link.serial, link.peer, "a yes to a session that nobody asked for"))

    def offered(self, link: ServerLink, offers: tuple[Offer, ...], answer: Answer | None) -> None:
        self.offer_changes.offered(link, offers, answer)

    def leaving(self, link: ServerLink) -> None:
        """The agent takes no new channels; what runs goes on until it closes the link."""
        link.carrier.close()
        now = self._clock.seconds()
        self.fleet.leave(link.serial, link, now)
        device = self.fleet.get(link.serial)
        if not self.draining and (device is None or device.link not in self.links):
            self.ports.leave(link.serial, now)

    def departed(self, link: ServerLink, reason: str, detail: str, cut: int) -> None:
        if link in self.links and link.authenticated:
            self.access.left(link.peer, self._clock.seconds())
        self.links.discard(link)
        self.offer_changes.gone(link)
        lived = round(self._clock.seconds() - (link.up_since or 0.0), 3)
        self.report(LinkDown(link.serial, link.peer, reason, detail, lived, cut))
        self.leaving(link)
        if reason in ENDS_STREAMS:
            link.carrier.end_streams(Ended.LINK_LOST, detail)
        self.streams.leave(link.carrier)
        self.check_drained()
        self.on_departed(link.serial)

    # -- what operators and settings do

    def labels_of(self, serial: str) -> tuple[str, ...]:
        """What its record calls a device by."""
        return self.access.records.of(serial).labels

    def set_limits(self, limits: ServerLimits) -> None:
        """Other limits from now on; what runs stays."""
        self.doors.recall_all()
        self.limits = self.fleet.limits = self.admission.limits = self.client_streams.limits = limits
        self.admission.pool.limit = limits.pool

    def set_listeners(self, listeners: Mapping[str, AgentListener]) -> None:
        """Other listeners for who comes from now on; who is here goes by them when he is looked at."""
        self.doors.recall_all()
        self.listeners.clear()
        self.listeners.update(listeners)

    def report(self, fact: Fact) -> None:
        """Count a fact, keep the device's sums, pass it on."""
        self.counts[fact.word] += 1
        if isinstance(fact, ChannelEnded):
            self.counts[f"channel-ended {fact.reason.word}"] += 1
            device = self.fleet.get(fact.serial)
            if device is not None:
                device.bytes_to_device += fact.bytes_to_device
                device.bytes_to_client += fact.bytes_to_client
        elif isinstance(fact, _REFUSALS):
            self.counts[f"{fact.word} {fact.reason}"] += 1
        elif isinstance(fact, PeerGlitch):
            self.counts["glitches"] += 1
        elif isinstance(fact, LeftEarly):
            self.counts[fact.word] += fact.connections - 1
        self._tell(fact)

    def kick(self, serial: str, detail: str, retry_after: int, by: str = "") -> bool:
        """End a device's link; it may come back after ``retry_after`` seconds. False: it is not here.

        The agent is told ``detail``; ``by`` stays here.
        """
        device = self.fleet.get(serial)
        link = device.link if device is not None else None
        if link is not None:
            link.dismiss("kicked", detail, GoAway.OPERATOR, retry_after, by)
        ended = self.streams.end_all(Ended.OPERATOR, detail, serial)
        return ended or link is not None

    def close_channel(self, serial: str, number: int, detail: str) -> bool:
        """End one channel with a reset; False: there is none."""
        return self.streams.end(serial, number, Ended.OPERATOR, detail)

    def drain(self) -> "Deferred[None]":
        """Take no new ones and ask agents to leave; fires when the last channel has ended."""
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        if not self.draining:
            self.draining = True
            self.client_streams.stop()
            self.enforcement.stop()
            self.ports.close_all()
            self.admission.stop()
            for link in list(self.links):
                link.carrier.drain()
                link.goaway(GoAway.STOPPING, self.limits.retry_after, "the server stops")
        self.check_drained()
        return drained

    def stop(self) -> None:
        """End every link at once; running channels are reset."""
        self.draining = self.admission.draining = True
        self.client_streams.stop()
        self.enforcement.stop()
        self.ports.close_all()
        for link in [*self.admission.strangers, *self.links]:
            link.dismiss("stopping", "the server stops", GoAway.STOPPING, self.limits.retry_after)
        self.streams.end_all(Ended.LINK_LOST, "the server stops")
        self.admission.say_left()

    def check_drained(self) -> None:
        """Whoever waits for the last stream hears of it."""
        if not self._drained or self.client_streams.count or not self.streams.at_rest():
            return
        drained, self._drained = self._drained, []
        for waiting in drained:
            waiting.callback(None)
