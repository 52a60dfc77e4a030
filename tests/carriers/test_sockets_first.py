"""Over TLS a short client goes by the link, and the ones behind a long or heavy one by sockets."""

import pytest

from revtunnel.carriers.sockets_first import CROWD, HEAVY, LONG, WHILE, SocketsFirst
from tests.support.data_world import DataWorld

pytestmark = pytest.mark.slow


class TlsWorld(DataWorld):
    """A world whose link says that it is TLS, and whose time the test lets pass."""

    def start(self) -> None:
        """The link is up."""
        super().start()
        self.link.tls = "TLSv1.3"
        self.later = 0.0
        now = self.pool.now
        self.pool.now = lambda: now() + self.later  # type: ignore[method-assign]

    def carriers(self) -> list[str]:
        """Of the clients there are, in the order of their numbers, those of the link first."""
        return [row.carrier for row in self.switchboard.streams.page()]


def test_short_clients_go_by_the_link() -> None:
    """However many come one after the other; no socket is asked for."""
    with TlsWorld() as world:
        for _ in range(3):
            client, service = world.talk()
            world.carry(client, service, b"question")
            assert world.carriers() == ["link"]
            client.close()
            service.close()
            world.until(lambda: not world.switchboard.clients, "its end")
        assert world.pool.core.coming == world.pool.core.warm == 0


def test_a_heavy_one_has_sockets_for_the_next_ones() -> None:
    """Also when it has ended; a minute later they may be short again."""
    with TlsWorld() as world:
        client, service = world.talk()
        world.carry(service, client, bytes(HEAVY))
        world.talk()
        assert world.carriers() == ["link", "socket"]
        client.close()
        service.close()
        world.until(lambda: world.switchboard.clients == 1, "its end")
        world.later += WHILE / 2
        world.talk()
        assert world.carriers() == ["socket", "socket"]
        world.later += WHILE
        world.talk()
        assert world.carriers() == ["link", "socket", "socket"]


def test_a_long_one_has_sockets_for_the_next_ones() -> None:
    """Whatever it moves."""
    with TlsWorld() as world:
        world.talk()
        world.later += LONG
        world.talk()
        assert world.carriers() == ["link", "socket"]


def test_a_short_one_is_not_long_because_nobody_came_after_it() -> None:
    """A client every quarter of a minute that asks one question: none of them is worth a handshake."""
    with TlsWorld() as world:
        for _ in range(3):
            client, service = world.talk()
            world.carry(client, service, b"question")
            assert world.carriers() == ["link"]
            client.close()
            service.close()
            world.until(lambda: not world.switchboard.clients, "its end")
            world.later += LONG * 1.5


def test_a_crowd_does_not_share_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many at once the next one gets a socket."""
    assert CROWD < 255
    monkeypatch.setattr(SocketsFirst, "crowd", 2)
    with TlsWorld() as world:
        for _ in range(3):
            world.talk()
        assert world.carriers() == ["link", "link", "socket"]


def test_where_sockets_are_all_there_is_they_are_taken() -> None:
    """``data = socket``; and without TLS they cost no handshake."""
    with TlsWorld("socket") as world:
        world.talk()
        assert world.carriers() == ["socket"]
    with DataWorld() as world:
        world.talk()
        assert [row.carrier for row in world.switchboard.streams.page()] == ["socket"]
