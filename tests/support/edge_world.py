"""A server with a web listener, its ThingWorx devices, and clients, in a test's own loop.

Everything is the real thing on real sockets but the device, which is ``EdgeDevice`` in threads, or one that a
test drives by hand (``RawDevice``).

::

    with own_reactor() as loop, edge_world(loop) as world:
        device = world.device("Robot1")
        client = world.client("Robot1")             # of its only service, echo
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.fleet.leases import Leases
from revtunnel.ground.facts import ChannelEnded, Fact
from revtunnel.ground.limits import EdgeLimits, LinkLimits, ServerLimits
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.handshake import ListenerRules, ServerHello
from revtunnel.link.server_link import AgentListener
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.listening import Listeners
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.thingworx.edge_system import EdgeSystem
from revtunnel.trust.app_keys import AppKeys
from tests.support.edge_device import BINARY, EdgeDevice, WebClient, auth, bind, fields_of
from tests.support.epoll import Loop
from tests.support.ports import free_ports
from tests.support.world import POOL

__all__ = ["LIMITS", "EdgeWorld", "RawDevice", "edge_world"]

LIMITS = EdgeLimits(wait=5.0, settle=0.02, quiet=0.05, first=5.0)


class RawDevice:
    """A device that does what the test says, in the test's own thread."""

    def __init__(self, world: "EdgeWorld", serial: str, up: bool = True) -> None:
        self.world = world
        self.serial = serial
        self.key = world.keys.make(serial)
        self.session = 0
        self.web = world.call(lambda: WebClient(world.dial(), "/Thingworx/WS", self.key))
        if up:
            self.say(auth(self.key))
            self.session = int.from_bytes(self.hear()[10:14], "big")
            self.say(bind(self.session, serial))
            assert self.hear()[1] == 0x40

    def say(self, message: bytes) -> None:
        """One message."""
        self.web.send(BINARY, message)

    def hear(self) -> bytes:
        """The next message of the server."""
        opcode, payload = self.world.call(self.web.receive)
        assert opcode == BINARY, payload
        return bytes(payload)

    def asked(self) -> tuple[str, dict[str, Any]]:
        """The next request of the server, which is answered: service and parameters."""
        message = self.hear()
        assert message[1] == 3
        thing, service, fields = fields_of(message[15:])
        assert thing == self.serial
        self.say(bytes((1, 0x40)) + message[2:15] + b"\0\xff")
        return service, fields

    def tunnel(self) -> tuple[WebClient, str]:
        """Bring the tunnel that is asked for next."""
        service, fields = self.asked()
        assert service == "StartTunnel"
        path = f"/Thingworx/WSTunnelServer/{fields['tid']}"
        return self.world.call(lambda: WebClient(self.world.dial(), path, self.key, 10922)), fields["tid"]


class EdgeWorld:
    """The server, and who is at it."""

    def __init__(self, loop: Loop, limits: EdgeLimits, target: tuple[str, int]) -> None:
        self.loop = loop
        self.facts: list[Fact] = []
        self.offers = (Offer("echo", Target(*target)),)
        listeners = Listeners(loop.reactor, self.report)
        self.ledger = SqliteLedger(None, lambda: 0.0)
        self.keys = AppKeys(self.ledger, os.urandom)
        self.access = AccessControl(lambda: 0.0, DeviceRecords({"*": DeviceRecord(services=self.offers)}))
        ranges = tuple((port, port) for port in sorted(free_ports(10)))
        self.ports = ClientPorts(
            listeners.listen, Leases([replace(POOL, ranges=ranges)], 0.0), {}, 50, self.report
        )
        self.board = Switchboard(
            loop.reactor,
            loop.reactor,
            ServerLimits(),
            self.ports,
            lambda _: None,
            os.urandom,
            self.report,
            5000,
            self.access,
        )
        hello = ServerHello("server", "a test", 65536)
        self.agents = agents = AgentListener(ListenerRules("web"), LinkLimits(), hello, data="link")
        self.site = EdgeSystem(
            loop.reactor,
            self.board,
            self.keys,
            limits,
            lambda serial: self.access.records.of(serial).services,
            lambda _: agents,
            os.urandom,
            self.board.report,
        )
        self.listener = WebListener(loop.reactor, ServerLimits, self.access, self.report)
        self.listener.rules["web"] = WebRules("web")
        self.listener.routes.append(self.site)
        self.port = listeners.listen("127.0.0.1", 0, 50, partial(self.listener.came, "web"))
        self.address = "127.0.0.1", self.port.port
        self.clients = listeners.listen(
            "127.0.0.1", 0, 50, self.board.client_streams.clients("Robot1", self.offers[0]).came
        )
        self.closing = contextlib.ExitStack()

    def report(self, fact: Fact) -> None:
        """Keep a fact."""
        self.facts.append(fact)

    def words(self) -> list[str]:
        """What happened."""
        return [fact.word for fact in self.facts]

    def ended(self) -> list[str]:
        """How streams ended."""
        return [fact.reason.word for fact in self.facts if isinstance(fact, ChannelEnded)]

    def dial(self) -> socket.socket:
        """A connection to the web listener."""
        sock = socket.create_connection(self.address, 20)
        self.closing.callback(sock.close)
        return sock

    def call(self, what: Callable[[], Any]) -> Any:
        """What a blocking call gives, the server's loop being turned meanwhile."""
        found: list[Any] = []

        def run() -> None:
            try:
                found.append((True, what()))
            except BaseException as error:
                found.append((False, error))

        threading.Thread(target=run, daemon=True).start()
        self.loop.until(lambda: found, "an answer")
        good, value = found[0]
        if not good:
            raise value
        return value

    def device(self, serial: str = "Robot1") -> EdgeDevice:
        """A device of its own will, that is here."""
        device = EdgeDevice(self.address, self.keys.make(serial), serial)
        self.closing.callback(lambda: self.call(device.close))
        self.call(device.__enter__)
        self.loop.until(device.bound.is_set, "its BIND")
        return device

    def client(self) -> socket.socket:
        """A client of Robot1's service."""
        sock = socket.create_connection(("127.0.0.1", self.clients.port), 20)
        self.closing.callback(sock.close)
        return sock

    def stop(self) -> None:
        """End everything; nothing may be left."""
        self.closing.close()
        self.site.stop()
        self.board.stop()
        self.listener.stop()
        self.port.stop()
        self.clients.stop()
        self.loop.until(lambda: not (self.site.links or self.board.links), "the end of the links")
        self.loop.until(lambda: not self.board.client_streams.count, "the end of the clients")
        assert not self.site._expected


@contextlib.contextmanager
def edge_world(
    loop: Loop, target: tuple[str, int] = ("127.0.0.1", 9), limits: EdgeLimits = LIMITS
) -> Iterator[EdgeWorld]:
    """A server whose devices have one service, at ``target``."""
    world = EdgeWorld(loop, limits, target)
    try:
        yield world
    finally:
        world.stop()
