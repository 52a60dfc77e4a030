"""Two ends joined over real TCP: volume, and the resets that socketpairs do not have."""

import hashlib
import socket
from collections.abc import Iterator

import pytest

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End, PlainEnd, tune
from tests.sockets.test_ends import over_tls, tcp_pair
from tests.sockets.test_relay import CARRIERS, Joined

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
ROOM = memoryview(bytearray(MIB))


def connected(tls: bool) -> tuple[End, End]:
    """The two ends of a connection over loopback."""
    pair = tcp_pair()
    for sock in pair:
        tune(sock)
    return over_tls(*pair) if tls else (PlainEnd(pair[0]), PlainEnd(pair[1]))


@pytest.fixture(params=[(kind, plane) for plane in ("", "thread") for kind in CARRIERS], ids=str)
def joined(request: pytest.FixtureRequest) -> Iterator[Joined]:
    """A relay of every mixture, with the limits it is shipped with."""
    kind, plane = request.param
    joined = Joined(kind, RelayLimits(), connected, plane=plane)
    yield joined
    joined.finish()


class Stream:
    """One direction: what is written and what arrives, by size and hash."""

    def __init__(self, source: End, drain: End, size: int, block: bytes) -> None:
        self.source, self.drain, self.left = source, drain, size
        self.sent, self.heard = hashlib.sha256(), hashlib.sha256()
        self.count = 0
        self._block = memoryview(block)
        self._at = 0
        self._ended = self.over = False

    def step(self) -> None:
        """Write what goes, read what came."""
        if self.left:
            data = self._block[self._at :][: self.left]
            taken = self.source.write(data)
            self.sent.update(data[:taken])
            self.left -= taken
            self._at = (self._at + taken) % len(self._block)
        elif not self._ended:
            self._ended = self.source.end_writing()
        if not self.over:
            got = self.drain.read_into(ROOM)
            self.heard.update(ROOM[: got or 0])
            self.count += got or 0
            self.over = got == 0


def test_64_mib_each_way(joined: Joined) -> None:
    """Every byte arrives, in order, in both directions at once; then both ends of file."""
    block = hashlib.shake_256(b"relay").digest(MIB + 37)
    streams = [
        Stream(joined.client, joined.service, 64 * MIB, block),
        Stream(joined.service, joined.client, 64 * MIB, block[::-1]),
    ]
    joined.relay.start()
    while not all(stream.over for stream in streams):
        for stream in streams:
            stream.step()
        joined.turn()
    joined.until(lambda: joined.ended)
    assert joined.ended == [(Ended.CLOSED, "")]
    for stream in streams:
        assert stream.count == 64 * MIB
        assert stream.heard.digest() == stream.sent.digest()
    assert joined.relay.to_far == joined.relay.to_near == 64 * MIB


@pytest.mark.parametrize("which", ["client", "service"])
def test_n28_a_reset_arrives_as_a_reset(joined: Joined, which: str) -> None:
    """Not as an end of file, on either carrier."""
    ends = [joined.client, joined.service]
    leaver, other = ends if which == "client" else ends[::-1]
    joined.relay.start()
    leaver.write(b"some")
    joined.until(lambda: joined.relay.to_far + joined.relay.to_near == 4)
    leaver.abort()
    joined.until(lambda: joined.ended)
    assert joined.ended[0][0] is Ended.RESET_BY_PEER
    with pytest.raises(ConnectionResetError):
        while other.read_into(ROOM) != 0:
            pass


@pytest.mark.parametrize("which", ["client", "service"])
def test_n28_a_reset_of_a_side_that_is_not_read(joined: Joined, which: str) -> None:
    """Bulk that nobody takes, and its source is reset: noticed at once, and what was held is lost."""
    ends = [joined.client, joined.service]
    leaver, other = ends if which == "client" else ends[::-1]
    joined.relay.start()
    joined.fill(leaver)
    held = joined.relay.held
    assert 0 < held <= RelayLimits().turn
    leaver.abort()
    joined.until(lambda: joined.ended)
    assert joined.ended[0][0] is Ended.RESET_BY_PEER
    assert joined.relay.lost == held
    with pytest.raises(OSError):
        while other.read_into(ROOM) != 0:
            pass


def test_n28_a_reset_behind_an_end_of_file(joined: Joined) -> None:
    """A client that ended its direction, and is then killed with our bytes unread."""
    joined.relay.start()
    joined.client.end_writing()
    joined.service.write(b"never read")
    joined.until(lambda: joined.relay.to_near == 10)
    joined.turn(5)
    assert joined.ended == []
    joined.client.abort()
    joined.until(lambda: joined.ended)
    assert joined.ended[0][0] is Ended.RESET_BY_PEER
    assert joined.service.read_into(ROOM) == 0
    with pytest.raises(OSError):
        joined.service.write(b"the reply")


def test_n28_a_reset_right_behind_an_end_of_file(joined: Joined) -> None:
    """Both come in one event, so the reset is told once, and only by that."""
    joined.relay.start()
    joined.client.write(b"last words")
    joined.client.end_writing()
    joined.client.abort()
    joined.until(lambda: joined.ended)
    assert joined.ended[0][0] is Ended.RESET_BY_PEER


def test_n26_the_last_bytes_survive_the_close(joined: Joined) -> None:
    """Megabytes and an end of file, read only after the relay has closed its sockets."""
    for end in (joined.client, joined.relay._near.end):
        end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    joined.relay.start()
    joined.client.end_writing()
    size = joined.service.write(bytes(100_000))
    assert joined.service.end_writing()
    joined.until(lambda: joined.ended)
    assert joined.ended == [(Ended.CLOSED, "")]
    assert len(joined.hear(joined.client)) == size == 100_000


@pytest.mark.parametrize("kind", ["web", "wss"])
def test_a_web_socket_that_has_closed_in_order_is_not_cut_behind_that(kind: str) -> None:
    """Whoever closed it answers our answer with a reset, when the client has not taken all by then."""
    joined = Joined((False, kind), RelayLimits(), connected)
    joined.relay._near.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    joined.relay.start()
    joined.client.end_writing()
    joined.until(lambda: joined.service.read_into(ROOM) == 0)
    data = hashlib.shake_256(b"answer").digest(50_000)
    assert joined.service.write(data) == len(data)
    assert joined.service.end_writing()
    joined.service.close()
    joined.until(lambda: joined.relay.held)
    joined.turn(5)
    assert joined.hear(joined.client) == data
    joined.until(lambda: joined.ended)
    assert joined.ended == [(Ended.CLOSED, "")]
    joined.finish()
