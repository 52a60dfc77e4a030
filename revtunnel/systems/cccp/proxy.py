"""A proxy session with its sockets: where each end is, how two are joined and taken apart again.

Rule of this file: every end is in one place at a time: with an UnpairedEnd, in the PairRelay, or sent away. A
client whose device is of another wire is a client of that wire's carriers (``linked``), and only its bytes
and its leaving are looked at here. What follows is the table's (proxy_sessions.py) and its owner's.

Source: TCXN CCCP; wire/cccp.md section 2; faults.md R8.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall

from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End
from revtunnel.streams.clients import ClientSocket
from revtunnel.systems.cccp.devices_at_nodes import Nodes
from revtunnel.systems.cccp.idle_devices import Registered
from revtunnel.systems.cccp.pair_relay import PairRelay
from revtunnel.systems.cccp.proxy_ports import ProxyPort
from revtunnel.systems.cccp.proxy_sessions import Life, ProxySession, SideMode
from revtunnel.systems.cccp.registered_devices import Project
from revtunnel.systems.cccp.unpaired_end import UnpairedEnd, unread

__all__ = ["Owner", "RunningProxy"]


class Owner(Typing):
    """What a proxy tells whoever has it."""

    def client_left(self, proxy: "RunningProxy") -> None:
        """Its client is gone."""

    def device_left(self, device: Registered, reason: str, detail: str) -> None:
        """Its device is."""


class RunningProxy:
    """A session with its sockets. ``limits`` is asked for each pair."""

    def __init__(
        self,
        reactor: Any,
        session: ProxySession,
        project: Project,
        port: ProxyPort,
        owner: Owner,
        limits: Callable[[], RelayLimits],
    ) -> None:
        self.session = session
        self.project = project
        self.port = port
        self.client = ""  # host:port
        self.client_since = 0.0
        self.device: Registered | None = None
        self.timer: IDelayedCall | None = None
        self.lone: UnpairedEnd | None = None  # the client's, unless a relay has it
        self.relay: PairRelay | None = None
        self.linked: ClientSocket | None = None  # the client, if it goes by the carrier of another wire
        self.looking: End | None = None  # a client's, while it is asked at which node the device is
        self._reactor = reactor
        self._owner = owner
        self._limits = limits

    @property
    def transferred(self) -> int:
        """Payload bytes so far, both directions; exact."""
        relay, linked = self.relay, self.linked
        running = relay.to_far + relay.to_near if relay is not None else 0
        return self.session.transferred + running + (linked.moved if linked is not None else 0)

    def client_came(self, peer: str, end: End) -> None:
        """A client, whose end is ours."""
        self.client, self.client_since = peer, self._reactor.seconds()
        self.lone = UnpairedEnd(self._reactor, end, self._client_gone)

    def look(self, nodes: Nodes, end: End, found: Callable[[End, DeviceElsewhere | None], None]) -> None:
        """Ask at which node the device is, for a client who is not read meanwhile; None: at none."""
        self.looking = end

        def looked(far: DeviceElsewhere | None) -> None:
            if self.looking is end:  # else he was sent away meanwhile
                self.looking = None
                found(end, far)

        nodes.look(self.session.serial).addCallback(looked)

    def watch(self) -> None:
        """Let the ends be where the table wants them."""
        device, client, manner = self.device, self.lone, self.session.manner
        if manner is SideMode.PASS:
            if self.relay is None and device is not None and device.lone is not None and client is not None:
                self._join(device, device.lone, client)
            return
        for lone in (client, device.lone if device is not None else None):
            if lone is not None:
                lone.watch(manner)

    def part(self) -> tuple[UnpairedEnd, UnpairedEnd] | None:
        """Take a pair apart that has not ended by itself: client and device, with what each is owed."""
        relay, device = self.relay, self.device
        if relay is None or device is None:
            return None
        owed_near, owed_far = relay.part()
        near, far = self.lone, device.lone
        assert near is not None and far is not None
        near.owed, far.owed = owed_near, owed_far
        return near, far

    def part_for_good(self) -> None:
        """The same where one of them goes: what nobody has read yet is dropped, and known to be."""
        pair = self.part()
        if pair is not None:
            near, far = pair
            near.cut, far.cut = unread(far.end), unread(near.end)

    def unlink(self) -> ClientSocket | None:
        """A client of another wire is ours no more; its bytes stay counted."""
        linked, self.linked = self.linked, None
        if linked is not None:
            self.session.transferred += linked.moved
            self.client = ""
        return linked

    def release(self) -> UnpairedEnd | None:
        """The client that is alone is somebody else's from now on."""
        lone, self.lone = self.lone, None
        if lone is not None:
            lone.leave()
        return lone

    def send_client_away(self) -> None:
        """Whoever he is, in the order of his wire; with a reset where bytes for him were dropped."""
        self.part_for_good()
        linked, lone = self.unlink(), self.release()
        looking, self.looking = self.looking, None
        if looking is not None:
            looking.abort()
        if linked is not None:
            linked.end(Ended.OPERATOR, "its proxy session ended")
        if lone is not None:
            lone.send_away()
        self.client = ""

    def _join(self, device: Registered, far: UnpairedEnd, near: UnpairedEnd) -> None:
        device.lone, self.lone = None, None
        far.leave()
        near.leave()
        ended = partial(self._pair_ended, device, near.end, far.end)
        self.relay = PairRelay(self._reactor, near.end, far.end, ended, self._limits())
        device.known.channels += 1
        self.relay.start(near.owed + far.early)

    def _pair_ended(self, device: Registered, near: End, far: End, reason: Ended, detail: str) -> None:
        """Both ends are ours again."""
        relay = self.relay
        assert relay is not None
        self.session.transferred = self.transferred
        device.known.bytes_to_device += relay.to_far
        device.known.bytes_to_client += relay.to_near
        self.relay = None
        device.alone(far)
        self.lone = UnpairedEnd(self._reactor, near, self._client_gone)
        if reason is Ended.OPERATOR:  # whoever parted them goes on
            return
        if relay.far_left:
            self._owner.device_left(device, "lost" if detail else "closed", detail)
        if relay.near_left and self.session.life is not Life.ENDED:
            self._client_gone(detail)

    def _client_gone(self, detail: str) -> None:
        """It left while it was alone."""
        lone, self.lone = self.lone, None
        if lone is not None:
            lone.send_away()
        self._owner.client_left(self)
