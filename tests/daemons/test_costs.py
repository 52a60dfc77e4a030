"""What happens to one device costs the same with a hundred devices and with a thousand.

Work is counted in lines of Python that run, in the server's real objects (benchmarks/herd.py). A logarithm is
granted, a walk is not: ten times the devices would be ten times the lines.
"""

from collections.abc import Callable, Iterator

import pytest

from benchmarks.herd import WEB, Herd, Nowhere
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords
from revtunnel.ground.reasons import Ended
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from tests.support.steps import steps

FEW, MANY = 100, 1000


class Crowd(Herd):
    """A server with ``size`` devices of rt1, a tenth as many of CCCP, away, with clients and sessions."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.links: dict[str, Nowhere] = {}
        self.clients: list[Nowhere] = []
        for number in range(size):
            self.come(f"plc-{number:05}")
            if number % 10 == 0:
                self.come(f"away-{number:05}").lose()
                self.registered(f"CLD-{number:05}")
                self.registered(f"EBD-{number:05}")
                self.system.proxies.on(f"EBD-{number:05}", self.project, ProxyOptions(persistent=True))
                self.clients.append(self.client(f"plc-{number:05}"))

    def come(self, serial: str) -> Nowhere:
        """A device of rt1."""
        self.links[serial] = self.agent(serial, WEB)
        return self.links[serial]


def listing(herd: Crowd) -> None:
    """A page from the middle of each listing."""
    herd.board.fleet.page("plc-00050", 10)
    herd.board.streams.page(("plc-00050", 0), 5)
    herd.leases.ports(2050, 10)
    herd.system.proxies.page("CLD-00050", 10)
    herd.system.operator.devices("CLD-00050", 10)


def counting(herd: Crowd) -> None:
    """What a status says."""
    herd.leases.counts()
    herd.system.counts()
    assert len(herd.board.fleet) > FEW


def a_tick(herd: Crowd) -> None:
    """What is done every second."""
    herd.ports.expire(herd.reactor.seconds())
    herd.board.enforcement.end_expired()
    herd.system.proxies.parking.tick()
    herd.system.check_drained()


def refusing_to_register(herd: Crowd) -> None:
    """A serial of CCCP that is here, where the oldest stays."""
    herd.project = type(herd.project)("main", herd.project.pool, newest=False)
    herd.registered("CLD-00000")
    herd.project = type(herd.project)("main", herd.project.pool)


def a_session(herd: Crowd) -> None:
    """/on and /off of a registered device."""
    herd.system.proxies.on("CLD-00010", herd.project, ProxyOptions(persistent=True))
    herd.system.operator.status("CLD-00010")
    herd.system.proxies.off("CLD-00010")


def a_record_that_ends(herd: Crowd) -> None:
    """One of as many as there are devices is over."""
    herd.wall += 10
    herd.board.enforcement.end_expired()
    assert herd.board.fleet.get("plc-00030").link is None  # type: ignore[union-attr]


EVENTS: dict[str, Callable[[Crowd], object]] = {
    "an arrival": lambda herd: herd.come("plc-new"),
    "the return of a device that was away": lambda herd: herd.come("away-00000"),
    "a second link of a serial": lambda herd: herd.come("plc-00001"),
    "a leave": lambda herd: herd.links["plc-00002"].lose(),
    "a client": lambda herd: herd.client("plc-00003"),
    "the leave of a client": lambda herd: herd.clients[3].lose(),
    "a kick": lambda herd: herd.board.kick("plc-00040", "a test", 0),
    "the end of a channel": lambda herd: herd.board.close_channel("plc-00050", 1, "a test"),
    "a registration": lambda herd: herd.registered("CLD-new"),
    "a second registration": lambda herd: herd.registered("CLD-00000"),
    "a registration that is refused": refusing_to_register,
    "a registration of another wire's serial": lambda herd: herd.registered("plc-00004"),
    "an arrival of a registered serial": lambda herd: herd.come("CLD-00020"),
    "a proxy session": a_session,
    "a page of each listing": listing,
    "a status": counting,
    "a tick": a_tick,
}


@pytest.fixture(scope="module")
def crowds() -> Iterator[tuple[Crowd, Crowd]]:
    """A small and a large server, which the tests go on using."""
    yield Crowd(FEW), Crowd(MANY)


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_costs_its_own_device(crowds: tuple[Crowd, Crowd], event: str) -> None:
    """Lines that run, few and many devices."""
    few, many = (steps(EVENTS[event], herd) for herd in crowds)
    assert few > 10
    assert many <= few * 1.3 + 30


def test_the_end_of_a_record_costs_its_own_device() -> None:
    """Each device has a record with an end of its own; one of them is over."""
    costs = []
    for size in (FEW, MANY):
        herd = Crowd(size)
        ends = {f"plc-{number:05}": DeviceRecord(expires=float(number + 1)) for number in range(100, size)}
        herd.board.enforcement.set_records(DeviceRecords({**ends, "plc-00030": DeviceRecord(expires=5.0)}))
        costs.append(steps(a_record_that_ends, herd))
    assert costs[1] <= costs[0] * 1.3 + 30


def test_ports_of_a_range_that_all_share_are_found_without_a_walk() -> None:
    """The default record names the ports of everybody; most of them are taken."""
    costs = []
    for size in (FEW, MANY):
        herd = Herd()
        herd.board.enforcement.set_records(DeviceRecords({DEFAULT: DeviceRecord(ports=((2000, 9000),))}))
        for number in range(size):
            herd.agent(f"plc-{number:05}", WEB)
        costs.append(steps(herd.agent, "plc-new", WEB))
        assert herd.ports.of("plc-new")[0].lease.port == 2000 + size
    assert costs[1] <= costs[0] * 1.3 + 30


def test_new_records_cost_each_device_the_same() -> None:
    """A reload: so many lines a device, few or many."""
    costs = []
    for size in (FEW, MANY):
        herd = Crowd(size)
        herd.board.enforcement.set_records(DeviceRecords({DEFAULT: DeviceRecord(channels=9)}))
        work = herd.board.enforcement._apply()
        costs.append(steps(list, work) / size)
    assert costs[1] <= costs[0] * 1.1


def test_leaving_links_of_a_server_that_drains_cost_the_same() -> None:
    """Whether the last stream has ended is asked at each leave, and not of every device.

    The last client has said and heard its ends of file and is gone; its device has still to say CLOSE.
    """
    costs = []
    for size in (FEW, MANY):
        herd = Crowd(size)
        fired: list[object] = []
        herd.board.drain().addCallback(fired.append)
        *others, last = herd.clients
        for client in others:
            client.lose()
        device = herd.links[f"plc-{size - 10:05}"]
        device.protocol.dataReceived(encode_frame(Command.OPENED, 1) + encode_frame(Command.EOF, 1))
        last.protocol.readConnectionLost()
        last.protocol.writeConnectionLost()
        herd.reactor.turn()
        assert (herd.board.clients, len(herd.board.streams)) == (0, 1)
        costs.append(steps(herd.links["plc-00007"].lose))
        assert fired == []
        device.lose()
        assert fired == [None]
    assert costs[1] <= costs[0] * 1.3 + 30


def test_the_end_of_all_streams_of_one_device_is_no_other_devices() -> None:
    """Streams of the others run on."""
    herd = Crowd(FEW)
    assert herd.board.streams.end_all(Ended.OPERATOR, "a test", "plc-00010")
    assert [row.serial for row in herd.board.streams.page(limit=2)] == ["plc-00000", "plc-00020"]
