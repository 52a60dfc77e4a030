"""Proxies whose devices are at other nodes: who is asked about is not read, and what fails is no device."""

import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed

from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.facts import ClientRefused
from revtunnel.process.admin.refusals import NotFound
from revtunnel.systems.cccp.device_carrier import SERVICE
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import Life
from tests.systems.cccp.test_proxies import BothWires

FAR = "CLD-7"


class OtherNodes:
    """What another node would say, once ``answer`` is called."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.asked: list[Deferred[DeviceElsewhere | None]] = []
        self.rows = [*rows]

    def look(self, serial: str) -> "Deferred[DeviceElsewhere | None]":
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self, there: bool) -> None:
        """To all that was asked."""
        asked, self.asked = self.asked, []
        for each in asked:
            each.callback(DeviceElsewhere(FAR, "two", "cccp", "192.0.2.1:7", (SERVICE,)) if there else None)

    def proxies(self, serial: str) -> "Deferred[list[dict[str, Any]]]":
        return succeed(self.rows)

    def proxies_off(self, serial: str) -> "Deferred[int]":
        gone, self.rows = len(self.rows), []
        return succeed(gone)


def looking(world: BothWires) -> tuple[OtherNodes, socket.socket]:
    """A client of a proxy, about whose device another node is asked."""
    world.site.proxies.nodes = nodes = OtherNodes()
    client = world.visit(world.on(serial=FAR))
    client.send(b"early")
    world.until(lambda: nodes.asked, "the question")
    return nodes, client


def test_a_client_is_not_read_while_it_is_asked_where_its_device_is() -> None:
    """A second one is refused; at no node: what he says is thrown away, as ever, until the device is here."""
    with BothWires() as world:
        nodes, client = looking(world)
        proxy = world.site.proxies.get(FAR)
        assert proxy is not None and proxy.session.life is Life.WAITING
        second = world.visit(proxy)
        assert world.ending(second) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["too-many-clients"]
        nodes.answer(there=False)
        assert proxy.session.life is Life.CLIENT
        device = world.device(FAR)
        world.until(lambda: proxy.relay, "the pair")
        world.carry(client, device, b"hello")


def test_a_client_who_is_asked_about_goes_with_its_proxy() -> None:
    """What is said of his device then does not matter any more."""
    with BothWires() as world:
        nodes, client = looking(world)
        world.site.proxies.off(FAR)
        assert world.ending(client) == "reset"
        nodes.answer(there=True)
        assert world.site.proxies.clients == 0 and not world.switchboard.clients


def test_a_device_that_came_while_another_node_was_asked_has_the_client() -> None:
    """It is here by now, whatever that one said."""
    with BothWires() as world:
        nodes, client = looking(world)
        device = world.device(FAR)
        world.until(lambda: world.site.proxies.connected(FAR), "the device")
        nodes.answer(there=True)
        world.until(lambda: _heard(device), "what he said first")
        world.carry(device, client, b"hello")


def _heard(sock: socket.socket) -> bytes:
    try:
        return sock.recv(5)
    except BlockingIOError:
        return b""


def test_callers_are_answered_for_the_proxies_of_all_nodes() -> None:
    """/on waits for nobody who is there; /status and /off mean the serial."""
    with BothWires() as world:
        world.site.proxies.nodes = nodes = OtherNodes({"transferred": 3})
        operator = world.site.operator
        answers: list[Any] = []

        def ask(waited: Any) -> Any:
            waited.addCallbacks(answers.append, lambda failure: answers.append(failure.type))
            nodes.answer(there=True)
            return answers.pop()

        assert ask(operator.status(FAR)) == {"transferred": 3}
        assert ask(operator.on(OnCall(FAR, wait=5))) == world.site.proxies.get(FAR).port.number  # type: ignore[union-attr]
        assert ask(operator.status(FAR))["device_connected"]
        assert ask(operator.off(FAR)) == 1 and world.site.proxies.get(FAR) is None
        nodes.rows = []
        assert ask(operator.off(FAR)) is NotFound
        assert ask(operator.status(FAR)) is NotFound
