"""What a worker does by itself, with a parent that only writes down what it is told."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from revtunnel.daemons.server_options import ServerOptions
from revtunnel.daemons.worker_board import WorkerBoard
from revtunnel.daemons.worker_messages import Came, WorkerOrders
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.facts import Fact, LinkRefused
from revtunnel.link.handshake import AgentHandshake, AgentHello, ServerUp
from revtunnel.link.keys import Verifier, verifier_of
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.loopback_pair import loopback_pair
from revtunnel.sockets.plane_settings import find_pump
from tests.daemons.test_options import parse
from tests.link.test_handshake import End
from tests.sockets.test_descriptor_pipe import Turns
from tests.support.memory import Recorder
from tests.support.reactor import MemoryReactor

TICKET = b"\0\0\1\1" + bytes(12)


class Told:
    """A parent."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.said: list[tuple[Any, ...]] = []

    def fact(self, fact: Fact) -> None:
        self.facts.append(fact)

    def expects(self, source: str, change: int) -> None:
        """Nothing."""

    def tell(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        self.said.append((name, *values))
        for each in descriptors:
            os.close(each)

    def call(self, name: str, *values: Any) -> Any:
        self.said.append(("asked", name))
        return self.answer(name, *values)

    def answer(self, name: str, *values: Any) -> Any:
        raise NotImplementedError


class One:
    """A worker, the first of two processes."""

    def __init__(self, folder: Path, text: str = "[listener main]\n", reactor: Any = None) -> None:
        path = folder / "r.ini"
        path.write_text(text)
        self.turns = reactor or Turns()
        self.told = Told()
        self.orders = WorkerOrders(parse(ServerOptions, "--config", str(path)).settings, False, False, 0.0)
        parent: Any = self.told
        self.board = WorkerBoard(self.turns, parent, self.orders, 1, 3)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[One]:
    """With plain listeners."""
    yield One(tmp_path)


@pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")
@pytest.mark.parametrize("wanted", ["native", "python"])
def test_bytes_are_moved_by_the_data_plane_that_is_wanted(tmp_path: Path, wanted: str) -> None:
    """A worker has one of its own, as a server without workers has."""
    one = One(tmp_path, f"[server]\ndata_plane = {wanted}\n[listener main]\n")
    plane = DataPlane.of(one.turns)
    assert (plane is not None) is (wanted == "native")
    if plane is not None:
        plane.close()


def test_a_ticket_that_was_given_on_and_is_wrong_costs_its_address_what_any_does(one: One) -> None:
    """It is refused with a reset."""
    near, far = socket.socketpair()
    with near:
        one.board.attached(TICKET, "main ", "192.0.2.7:5", far.detach())
        assert near.recv(1) == b""
    assert ("failed", "192.0.2.7:5", "ticket", "", False) in one.told.said
    (refused,) = one.told.facts
    assert isinstance(refused, LinkRefused) and refused.reason == "ticket"


def test_a_pool_whose_clients_have_a_header_is_known_as_such(tmp_path: Path) -> None:
    """Its ports are not the data plane's to accept at, which reads none."""
    text = "[listener main]\n[pool default]\nproxy_protocol = v2\nproxy_from = 192.0.2.0/24\n[pool other]\n"
    one = One(tmp_path, text + "ranges = 30000-30001\n")
    assert [one.board.borrowed.heads(name) for name in ("default", "other")] == [True, False]


def test_what_records_say_holds_also_where_a_certificate_cannot_be_read(one: One, tmp_path: Path) -> None:
    """That is said; listeners stay as they were."""
    settings = one.orders.settings
    (listener,) = settings.listeners
    broken = replace(listener, tls=True, certificate=tmp_path / "none", certificate_key=tmp_path / "none")
    records = DeviceRecords({"plc-7": DeviceRecord(channels=1)})
    told = replace(settings, listeners=(broken,), records=records)
    before = dict(one.board.listeners)
    one.board.change(one.orders._replace(settings=told))
    assert [said[0] for said in one.told.said] == ["faulty"]
    assert one.board.listeners == before
    assert one.board.access.records.of("plc-7").channels == 1


def test_one_agent_that_is_a_fault_of_ours_costs_the_others_nothing(
    one: One, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came in one message; he is reset, and that is logged. Nobody waits for their bytes."""
    let_in: list[PlainEnd] = []

    def came(hub: Any, listener: str, end: PlainEnd) -> None:
        if end.peer.endswith(":6"):
            raise ValueError("ours")
        let_in.append(end)

    monkeypatch.setattr(one.board.admission, "came", came)
    pairs = [loopback_pair() for _ in range(3)]
    agents = [Came("main", f"192.0.2.7:{number}", socket.AF_INET) for number in (5, 6, 7)]
    failures: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(failures.append)
    one.board.came(agents, *[near.detach() for near, _ in pairs])
    globalLogPublisher.removeObserver(failures.append)
    assert [each["peer"] for each in failures if "log_failure" in each] == ["192.0.2.7:6"]
    assert [end.peer for end in let_in] == ["192.0.2.7:5", "192.0.2.7:7"]
    for end in let_in:
        assert (end.sock.gettimeout(), end.sock.type, os.get_blocking(end.fileno())) == (
            *(0.0, socket.SOCK_STREAM),
            False,
        )
        end.abort()
    with pytest.raises(ConnectionResetError):
        pairs[1][1].recv(1)
    for _, far in pairs:
        far.close()


def test_who_came_when_no_descriptor_was_left_is_refused_by_name(one: One, tmp_path: Path) -> None:
    """Agents, data sockets and clients; the others of the same message are taken, and nobody else notices."""
    let_in: list[PlainEnd] = []
    one.board.admission.came = lambda hub, name, end: let_in.append(end)  # type: ignore[method-assign]
    near, far = loopback_pair()
    agents = [Came("main", f"192.0.2.7:{number}", socket.AF_INET) for number in (5, 6, 7)]
    one.board.came(agents, near.detach(), -1, -1)
    one.board.attached(TICKET, "main ", "192.0.2.7:8", -1)
    one.board.client("plc-7", "ssh", "192.0.2.7:9", None, "", -1)
    one.board.join("plc-7", "ssh", "192.0.2.7:10", None, "", True, -1)
    assert [end.peer for end in let_in] == ["192.0.2.7:5"]
    told = [(type(fact).__name__, fact.peer, fact.reason) for fact in one.told.facts]  # type: ignore[attr-defined]
    assert told == [
        ("LinkRefused", "192.0.2.7:6", "descriptors"),
        ("LinkRefused", "192.0.2.7:7", "descriptors"),
        ("LinkRefused", "192.0.2.7:8", "descriptors"),
        ("ClientRefused", "192.0.2.7:9", "descriptors"),
        ("ClientRefused", "192.0.2.7:10", "descriptors"),
    ]
    let_in[0].abort()
    far.close()


def test_a_port_for_which_no_descriptor_was_left_is_given_back(one: One) -> None:
    """Nobody would accept there."""
    lease: Any = SimpleNamespace(use=("plc-7", "ssh"))
    one.board.port(lease, -1)
    assert one.told.said == [("not_lent", "plc-7", "ssh")]
    assert one.board.borrowed.of("plc-7") == []


def test_who_left_early_is_told_of_before_a_worker_leaves(one: One) -> None:
    """Not an hour later."""
    spoken: list[str] = []
    one.board.admission.say_left = lambda: spoken.append("said")  # type: ignore[method-assign]
    one.board.leave()
    assert spoken == ["said"] and one.told.said == [("drained",)]


def test_round_trips_of_many_links_are_said_a_few_a_second_and_all_when_somebody_asks(one: One) -> None:
    """Else 10,000 idle links would cost two processes some milliseconds each second."""
    links = {number: SimpleNamespace(round_trip=number / 1000 or None) for number in range(250)}
    one.board._by_number = links  # type: ignore[assignment]

    def said() -> set[int]:
        return set(one.told.said[-1][1].trips)

    seen = list[int]()
    for _ in range(3):
        one.board.look(False)
        assert len(said()) <= 100
        seen += said()
    assert sorted(seen) == [*range(1, 250)]
    one.board.look(True)
    assert said() == {*range(1, 250)}
    links.clear()
    one.board.look(False)
    assert said() == set()


KEY = bytes(range(32))


class Arrivals:
    """Agents at a worker; ``keys`` are what its parent knows."""

    def __init__(self, folder: Path, keys: str = "enrolled") -> None:
        self.reactor = MemoryReactor()
        text = f"[server]\ndata_plane = python\n[listener main]\nkeys = {keys}\n"
        self.one = One(folder, text, self.reactor)
        self.keys: dict[str, Verifier] = {}
        self.one.told.answer = self._answer  # type: ignore[method-assign]
        self.reactor.serve("192.0.2.1", 2065, self.one.board.agents("main"))

    def _answer(self, name: str, *values: Any) -> Any:
        if name == "refused_after":
            return 0.0
        if name == "key":
            return self.keys.get(values[0])
        up: ServerUp = values[0].up
        return None if up.authenticated else self.keys.get(up.serial)

    def come(self, key: bytes | None = None) -> End:
        """One agent, until nobody says more."""
        agent, wire = End(AgentHandshake(AgentHello("plc-7", bytes(32), ()), key, False)), Recorder()
        assert self.reactor.dial(2065, wire, "203.0.113.9", "192.0.2.1") is not None
        assert isinstance(agent.shake, AgentHandshake)
        says = agent.shake.start()
        while says:
            wire.transport.write(says)  # type: ignore[union-attr]
            self.reactor.pump()
            heard, wire.data[:] = bytes(wire.data), b""
            says = agent.feed(heard) if heard else b""
        return agent

    def said(self, word: str) -> list[tuple[Any, ...]]:
        return [said[1:] for said in self.one.told.said if said[0] == word]


def test_an_arrival_asks_the_parent_once(tmp_path: Path) -> None:
    """Whether it may come in, and with that whether it has to prove a key."""
    there = Arrivals(tmp_path)
    assert there.come().up is not None
    assert there.said("asked") == [("admit",)]
    assert len(there.said("arrived")) == 1


def test_who_has_a_key_proves_it_before_it_is_let_in(tmp_path: Path) -> None:
    """The server does so, too: the agent would else not go on."""
    there = Arrivals(tmp_path)
    there.keys["plc-7"] = verifier_of(KEY, "plc-7")
    agent = there.come(KEY)
    assert agent.error is None and agent.up is not None
    assert there.said("asked") == [("admit",), ("admit",)]
    (link,) = there.one.board.links
    assert link.authenticated


@pytest.mark.parametrize(("key", "why"), [(None, "silent"), (bytes(32), "denied")])
def test_who_has_another_key_or_none_is_no_link(tmp_path: Path, key: bytes | None, why: str) -> None:
    """And that he knew the rest of the handshake is no excuse: it counts as any stranger's failure."""
    there = Arrivals(tmp_path)
    there.keys["plc-7"] = verifier_of(KEY, "plc-7")
    assert there.come(key).error is not None
    there.reactor.advance(60.0)
    assert there.said("arrived") == []
    assert not there.one.board.links
    (failed,) = there.said("failed")
    assert failed[1:] == (why, "plc-7" if key else "", False)


def test_where_all_need_keys_the_parent_is_asked_for_them_first(tmp_path: Path) -> None:
    """One that is not enrolled cannot tell that from a wrong key."""
    there = Arrivals(tmp_path, "required")
    there.keys["plc-7"] = verifier_of(KEY, "plc-7")
    assert there.come(KEY).up is not None
    assert there.said("asked") == [("key",), ("admit",)]
