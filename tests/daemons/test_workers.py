"""The parent of workers: what becomes of descriptors, of workers that cannot be made, and of what is cut."""

import gc
import os
import signal
import socket
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.logger import globalLogPublisher

from revtunnel.daemons.worker import Worker
from revtunnel.daemons.worker_links import WorkerCarrier, WorkerLink
from revtunnel.daemons.worker_messages import Load
from revtunnel.daemons.worker_streams import WorkerStreams
from revtunnel.daemons.workers import LEARN, LOOK, PAUSE, Workers
from revtunnel.fleet.client_ports import OpenPort
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Fact, LinkRefused, ServerState
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.descriptor_pipe import Message, WaitingPipe, pipe_pair
from revtunnel.sockets.ends import PlainEnd
from revtunnel.streams.running import Running
from tests.sockets.test_descriptor_pipe import Turns


class Parent:
    """Workers of a board that only writes down."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.facts: list[Fact] = []
        self.board: Any = Namespace(
            data=Namespace(),
            ports=Namespace(),
            report=self.facts.append,
            limits=ServerLimits(pending=2),
            listeners={},
            fleet=Namespace(get=lambda serial: None),
            access=Namespace(stranger=lambda peer, now: ""),
        )
        ledger: Any = Namespace(doubtful=None)
        settings: Any = Namespace(processes=2)
        issuer: Any = Namespace(is_set_up=False, grace=lambda: 0.0)
        self.workers = Workers(self.turns, self.board, lambda serial: None, issuer, ledger, lambda: settings)
        self.workers.take()
        self.far: list[socket.socket] = []

    def worker(self, share: int, pid: int = 0, ready: bool = False) -> Worker:
        """One more; its process only keeps its end of the pipe."""
        ours, theirs = pipe_pair()
        self.far.append(theirs)
        made = self.workers.all[share] = Worker(self.workers, share, ours)
        made.pid, made.is_ready = pid, ready
        return made

    def of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


@pytest.fixture
def parent() -> Iterator[Parent]:
    """Closed at the end."""
    made = Parent()
    yield made
    for worker in made.workers.all.values():
        worker.pid = 0  # there is no such process
    made.workers.stop()
    for each in made.far:
        each.close()


def is_open(descriptor: int) -> bool:
    """Whether it is."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def some_file() -> int:
    """A descriptor."""
    return os.open(os.devnull, os.O_RDONLY)


def test_what_is_given_to_a_worker_that_has_not_begun_is_closed(parent: Parent) -> None:
    """Nobody would ever take it."""
    given = some_file()
    parent.worker(1).tell("came", "main", "192.0.2.7:5", descriptors=(given,))
    assert not is_open(given)


@pytest.mark.parametrize("share", [1, 2])
def test_a_data_socket_of_a_worker_that_is_gone_is_refused(parent: Parent, share: int) -> None:
    """Or of its successor, which has not begun; that is told."""
    parent.worker(1)
    given = some_file()
    parent.workers.given_on(share, bytes(16), "main plc-7", "192.0.2.7:5", descriptor=given)
    assert not is_open(given)
    (refused,) = parent.of(LinkRefused)
    assert (refused.listener, refused.peer, refused.reason) == ("main", "192.0.2.7:5", "ticket")


def test_connections_that_a_worker_does_not_take_are_bounded(parent: Parent) -> None:
    """It has as many as may be strangers; then who comes is refused, and nothing is held."""
    worker = parent.worker(1, os.getpid(), ready=True)
    worker.tell("large", bytes(4_000_000))  # its pipe is full from here on
    pairs = [socket.socketpair() for _ in range(4)]
    for near, _ in pairs:
        parent.workers._came("main", PlainEnd(near, "192.0.2.7:5"))
    assert worker.pipe.giving == 2
    assert [fact.reason for fact in parent.of(LinkRefused)] == ["overloaded"] * 2
    for _, far in pairs:
        far.close()


def test_agents_that_come_together_are_given_together(parent: Parent) -> None:
    """One message for each worker, with the connections of all of its agents; no more than it may have."""
    workers = [parent.worker(share, os.getpid(), ready=True) for share in (1, 2)]
    pairs = [socket.socketpair() for _ in range(6)]
    with parent.workers.together:
        for number, (near, _) in enumerate(pairs):
            parent.workers._came("main", PlainEnd(near, f"192.0.2.7:{number}"))
        assert [worker.agents.waiting for worker in workers] == [2, 2]  # that is as many as may be strangers
    assert [worker.agents.waiting for worker in workers] == [0, 0]
    assert [fact.reason for fact in parent.of(LinkRefused)] == ["overloaded"] * 2
    heard: list[Message] = []
    for number, far in enumerate(parent.far):
        lost: list[str] = []
        WaitingPipe(parent.turns, far.dup(), heard.append, lost.append).doRead()
        name, (agents,), given = heard[number]
        assert (name, [each.peer for each in agents]) == ("came", [f"192.0.2.7:{number + i}" for i in (0, 2)])
        for each, descriptor in zip(agents, given, strict=True):
            os.write(descriptor, each.peer.encode())
            os.close(descriptor)
    assert len(heard) == 2
    for number, (_, far) in enumerate(pairs):
        assert far.recv(100) == (f"192.0.2.7:{number}".encode() if number < 4 else b"")
        far.close()


def test_a_worker_that_cannot_be_made_is_tried_again(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of descriptors or memory; that is told each time."""
    tries: list[int] = []

    def ask(self: Workers, share: int, theirs: socket.socket) -> None:
        tries.append(share)
        if len(tries) < 3:
            raise OSError(24, "Too many open files")
        parent.far.append(theirs.dup())

    monkeypatch.setattr(Workers, "_ask_nursery", ask)
    parent.workers.ended(parent.worker(1), "the other process is gone")
    for _ in range(3):
        parent.turns.advance(PAUSE)
    assert tries == [1, 1, 1] and 1 in parent.workers.all
    assert sum("Too many open files" in fact.detail for fact in parent.of(ServerState)) == 2


def test_a_port_that_cannot_be_lent_stays_the_parents(parent: Parent) -> None:
    """Its clients are accepted here, and given on one by one."""

    class Listening:
        def lend(self) -> int:
            raise OSError(24, "Too many open files")

        def take_back(self) -> None:
            raise NotImplementedError

        def stop(self) -> None:
            raise NotImplementedError

    worker = parent.worker(1, os.getpid(), ready=True)
    far_link(parent, worker)
    lease: Any = Namespace(use=("plc-7", "ssh"), pool="default")
    clients: Any = None
    port = OpenPort(lease, clients, Listening())
    parent.workers._opened(port)
    assert parent.workers._lent.get("plc-7", {}) == {}


def test_a_port_that_a_worker_had_no_room_for_is_the_parents_again(parent: Parent) -> None:
    """Its clients would else wait for nobody."""
    said: list[str] = []

    class Listening:
        def lend(self) -> int:
            said.append("lent")
            return some_file()

        def take_back(self) -> None:
            said.append("back")

        def stop(self) -> None:
            raise NotImplementedError

    worker, other = (parent.worker(share, os.getpid(), ready=True) for share in (1, 2))
    far_link(parent, worker)
    lease: Any = Namespace(use=("plc-7", "ssh"), pool="default")
    clients: Any = None
    parent.workers._opened(OpenPort(lease, clients, Listening()))
    other.heard_not_lent("plc-7", "ssh")
    assert said == ["lent"], "it is another's"
    worker.heard_not_lent("plc-7", "ssh")
    worker.heard_not_lent("plc-7", "ssh")
    assert said == ["lent", "back"]


def test_whom_the_parent_has_no_room_for_is_refused(parent: Parent) -> None:
    """A data socket of another worker, a client whose device has left: one line each, and no worker ends."""
    worker = parent.worker(1, os.getpid(), ready=True)
    worker.heard_attach(2, bytes(16), "main plc-7", "192.0.2.7:5", -1)
    worker.heard_client("plc-7", "ssh", "192.0.2.7:6", None, -1)
    told = [(type(fact).__name__, fact.peer, fact.reason) for fact in parent.facts]  # type: ignore[attr-defined]
    assert told == [
        ("LinkRefused", "192.0.2.7:5", "descriptors"),
        ("ClientRefused", "192.0.2.7:6", "descriptors"),
    ]


def far_link(parent: Parent, worker: Worker) -> None:
    """A device of that worker, as far as ports see."""
    link = WorkerLink.__new__(WorkerLink)
    link.worker = worker
    parent.board.fleet.get = lambda serial: Namespace(link=link, channels=0)


def test_streams_that_are_not_known_yet_are_ended_too(parent: Parent) -> None:
    """They are told of a little later; only an older carrier of the same device ends nothing."""
    said: list[tuple[Any, ...]] = []
    streams = WorkerStreams(parent.turns)
    worker: Any = Namespace(streams=streams, tell=lambda *told: said.append(told))
    older, newest = WorkerCarrier(worker, "plc-7"), WorkerCarrier(worker, "plc-7")
    for each in (older, newest):
        streams.came(each)
    assert not older.end_streams(Ended.OPERATOR, "kicked")
    assert said == []
    assert not newest.end_streams(Ended.OPERATOR, "kicked")
    assert said == [("end", "plc-7", None, Ended.OPERATOR, "kicked")]


def test_a_stream_counts_for_its_device_once_whether_it_was_opened_or_not(parent: Parent) -> None:
    """As in one process, which counts whoever is given to the device."""
    worker, device = parent.worker(1, os.getpid(), ready=True), Namespace(link=None, channels=0)
    parent.board.fleet.get = lambda serial: device
    ended = Ended.CLOSED, "", 1.0, 0, 0
    row = Running("plc-7", 262, "ssh", "192.0.2.1:5", "socket", "opening", 0.0, 0, 0, 0, 0)
    told = [
        (ChannelOpened, ("plc-7", 256, "ssh", "192.0.2.1:5", 1.0)),
        (ChannelEnded, ("plc-7", 256, "ssh", "192.0.2.1:5", *ended)),
        (ChannelEnded, ("plc-7", 259, "ssh", "192.0.2.1:6", *ended)),
    ]
    worker.heard_news(told, {})
    assert device.channels == 2
    worker.heard_load(Load(0, 0, {}, (row, row._replace(number=265))))  # somebody looks
    worker.heard_news([(ChannelEnded, ("plc-7", 262, "ssh", "192.0.2.1:5", *ended))], {})
    assert device.channels == 3
    worker.heard_news([(ChannelOpened, ("plc-7", 265, "ssh", "192.0.2.1:5", 1.0))], {})
    worker.heard_news([(ChannelEnded, ("plc-7", 265, "ssh", "192.0.2.1:5", *ended))], {})
    assert device.channels == 4


def test_what_a_stop_cuts_is_told(parent: Parent) -> None:
    """Streams and links of workers end for the log, as those of one process do."""
    worker = parent.worker(1, os.getpid(), ready=True)
    departed: list[tuple[str, str]] = []
    link: Any = Namespace(number=4, serial="plc-7", up_since=1.0, carrier=WorkerCarrier(worker, "plc-7"))
    worker.links[4] = link
    parent.board.departed = lambda link, reason, detail, cut: departed.append((link.serial, reason))
    parent.board.ports.is_open = lambda serial, name: False
    worker.heard_news([(ChannelOpened, ("plc-7", 256, "ssh", "192.0.2.1:5", 1.0))], {})
    parent.workers.stop()
    assert [fact.reason for fact in parent.of(ChannelEnded)] == [Ended.LINK_LOST]
    assert departed == [("plc-7", "stopping")]


def test_a_listing_does_not_wait_long_for_a_worker_that_hangs(parent: Parent) -> None:
    """What was known of it is listed, and nothing is left that fails later."""
    worker, done, errors = parent.worker(1, ready=True), [], list[dict[str, Any]]()
    learnt = parent.workers.learn(cast(Any, Namespace(method="devices")))
    assert learnt is not None
    learnt.addCallback(done.append)
    asked = worker._asked[-1]
    parent.turns.advance(LEARN)
    assert done == [None]
    globalLogPublisher.addObserver(errors.append)
    del learnt
    worker._asked.clear()
    del asked
    gc.collect()
    globalLogPublisher.removeObserver(errors.append)
    assert errors == []


def test_a_worker_that_hangs_is_ended_and_one_is_not_for_a_pause_of_its_parent(parent: Parent) -> None:
    """Seconds in which nobody listened are no silence."""
    worker = parent.worker(1)
    parent.workers._look()
    parent.turns.advance(100.0)
    assert not worker.is_over
    for _ in range(28):
        parent.turns.advance(LOOK)
    assert not worker.is_over
    parent.turns.advance(LOOK)
    assert worker.is_over
    assert "it has said nothing for 30 s" in parent.of(ServerState)[0].detail


@pytest.mark.parametrize("looks", [1, 2])
def test_a_worker_that_hangs_while_its_parent_stops_is_killed(parent: Parent, looks: int) -> None:
    """It would not notice that its pipe is closed; one that answers ends by itself."""
    with subprocess.Popen(["sleep", "60"]) as process:
        worker = parent.worker(1, process.pid, ready=True)
        worker.looks = looks
        parent.workers.stop()
        if looks == 1:
            assert process.poll() is None
            process.terminate()
        assert process.wait(10) == (-signal.SIGTERM if looks == 1 else -signal.SIGKILL)


def test_whoever_waits_for_the_last_stream_hears_of_a_worker_s(parent: Parent) -> None:
    """A client that came to the parent may have been that worker's all along."""
    looked: list[bool] = []
    parent.board.check_drained = lambda: looked.append(drained.called)
    worker = parent.worker(1, ready=True)
    drained = worker.drain()
    worker.heard_drained()
    assert looked == [False]
    assert drained.called
