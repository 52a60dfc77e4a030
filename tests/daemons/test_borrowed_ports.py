"""Client ports that a worker was lent: the data plane has them there, and whoever lent them has them back."""

import socket
from collections.abc import Iterator

import pytest

from revtunnel.daemons.borrowed_ports import BorrowedPorts
from revtunnel.fleet.client_ports import OpenPort
from revtunnel.ground.facts import ClientRefused
from revtunnel.sockets.listening import Listener
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.streams.clients import Clients
from tests.support.data_world import SERIAL, DataWorld

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built"),
]


class Worker(DataWorld):
    """Its port was bound by ``self.ports``, a parent's, and is lent to ``self.borrowed``."""

    native = True

    def __init__(self) -> None:
        super().__init__()
        board = self.switchboard
        self.borrowed = BorrowedPorts(self.listeners, self._report)
        board.doors._ports = self.borrowed
        self.borrowed.served, self.borrowed.recall = board.doors._served, board.doors.recall
        self.ports.served = None
        self.lend()

    @property
    def bound(self) -> OpenPort:
        """The parent's."""
        (port,) = self.ports.of(SERIAL)
        return port

    @property
    def listener(self) -> Listener:
        """The parent's."""
        assert isinstance(self.bound.listening, Listener)
        return self.bound.listening

    def takes(self) -> Clients:
        return self.switchboard.client_streams.clients(SERIAL, self.offers[0])

    def lend(self) -> None:
        """As a parent does."""
        self.borrowed.lent(
            self.bound.lease, self.takes(), lambda came, pool, refused: came, self.listener.lend()
        )

    def short(self) -> None:
        """A client: a question, its end, the answer, its end."""
        client = self.client()
        client.send(b"question")
        service = self.service()
        assert self.hear(service, 8) == b"question"
        client.shutdown(socket.SHUT_WR)
        assert self.ending(service) == "end of file"
        service.send(b"answer")
        assert self.hear(client, 6) == b"answer"
        service.close()
        assert self.ending(client) == "end of file"
        self.until(lambda: not self.switchboard.clients, "their end")
        self.until(lambda: len(self.pool.spare) >= 2, "spare sockets")

    @property
    def doors(self) -> int:
        """Ports that the data plane has."""
        return len(self.switchboard.doors)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Its port is the data plane's, since two clients came and went."""
    with Worker() as world:
        for _ in range(2):
            world.short()
        assert world.doors == 1
        yield world


def test_the_data_plane_has_a_port_that_was_lent(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client more is accepted there, and Python makes nothing for it."""
    (port,) = worker.borrowed.of(SERIAL)
    monkeypatch.setattr(port.clients, "came", None)
    worker.short()


def test_a_port_that_is_given_back_is_accepted_at_by_its_owner(worker: Worker) -> None:
    """The plane has it no more; whoever is its client there stays."""
    client, service = worker.client(), worker.service()
    worker.borrowed.give_back(*worker.bound.lease.use)
    worker.listener.take_back()
    assert worker.doors == 0
    assert worker.borrowed.of(SERIAL) == []
    worker.carry(client, service, b"still here")
    for each in (client, service):
        each.close()
    worker.short()


def test_a_port_that_is_lent_once_more_is_the_planes_again(worker: Worker) -> None:
    """Such as of another pool; the socket is the same."""
    worker.lend()
    assert worker.doors == 0
    worker.short()
    assert worker.doors == 1


def test_a_port_that_its_owner_shuts_is_gone_for_the_plane_too(worker: Worker) -> None:
    """Nobody is let in there; that it was shut is no failure that would be tried again."""
    worker.listener.stop()
    worker.until(lambda: not worker.borrowed.of(SERIAL), "the end of the port")
    assert worker.doors == 0
    assert worker.of(ClientRefused) == []


def test_what_an_offer_leads_to_now_counts_for_the_next_client(worker: Worker) -> None:
    """The plane says CONNECT as it was told, so it has the port no more."""
    worker.borrowed.open(worker.takes(), "default", 0.0)
    assert worker.doors == 0
