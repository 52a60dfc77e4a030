"""Two ends joined: every behaviour on socketpairs, over each mixture of carriers, on a real epoll reactor."""

import contextlib
import socket
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets import relay as module
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.ends import RECORD, End, PlainEnd, tune
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.sockets.reactor_turn import shorten_turns
from revtunnel.sockets.relay import Relay
from revtunnel.sockets.watch import OVER, Watch
from tests.sockets.test_ends import over_tls
from tests.support.depth import deep
from tests.support.pump_drive import tcp_sockets
from tests.support.web_ends import halves

LIMITS = RelayLimits(first=RECORD, turn=4 * RECORD)
CARRIERS = [(False, False), (True, False), (False, True), (True, True)]
BY_WEB: list[tuple[object, object]] = [("web", False), (False, "web"), (False, "wss")]
ROOM = memoryview(bytearray(16 * RECORD))


class Joined:
    """A client and a service, and between them a relay; nothing happens but in ``turn``."""

    def __init__(
        self,
        tls: tuple[object, object] = (False, False),
        limits: RelayLimits = LIMITS,
        connect: Callable[[bool], tuple[End, End]] | None = None,
        our_turn: bool = False,
        plane: str = "",
        after: int = 0,
    ) -> None:
        """``plane``: native, that moves in ``turn``, or thread; ``after`` so many readings of a pair."""
        connect = connect or connected
        module._All.calm = 0
        self.reactor = EPollReactor()
        if our_turn:
            shorten_turns(self.reactor)
        self.our_turn = our_turn
        self.now = 0.0
        self.reactor.seconds = lambda: self.now
        self._own = {*self.reactor.getReaders()}
        self.client, near = self._connected(connect, tls[0])
        self.service, far = self._connected(connect, tls[1])
        self.ended: list[tuple[Ended, str]] = []
        self.threaded = plane == "thread"
        self.plane = native_plane(self.reactor, after, self.threaded) if plane else None
        self.relay = Relay(self.reactor, near, far, lambda *how: self.ended.append(how), limits)

    def _connected(self, connect: Callable[[bool], tuple[End, End]], kind: object) -> tuple[End, End]:
        """With TLS or without, and perhaps a WebSocket on it."""
        ends = connect(kind in (True, "wss"))
        return halves(self.reactor, *ends) if kind in ("web", "wss") else ends

    def turn(self, count: int = 1) -> None:
        """Turns of the reactor."""
        for _ in range(count):
            if self.plane is not None and not self.threaded:
                self.plane.turn()
            self.reactor.iterate(0.001 if self.threaded else 0)

    def until(self, what: Callable[[], object], turns: int = 10_000) -> None:
        """Turn until it is so."""
        while not what():
            turns -= 1
            assert turns, "it never happened"
            self.turn()

    def fill(self, end: End, block: bytes = bytes(4 * RECORD)) -> int:
        """Write until nobody takes anything any more; how many bytes that were."""
        total, idle = 0, 0
        while idle < 20:
            taken = end.write(block)
            total += taken
            idle = 0 if taken else idle + 1
            self.turn()
        return total

    def hear(self, end: End, size: int | None = None) -> bytes:
        """Read so many bytes, or to the end of file."""
        heard = bytearray()
        while size is None or len(heard) < size:
            got = end.read_into(ROOM)
            if got == 0:
                assert size is None
                break
            heard += ROOM[: got or 0]
            if got is None:
                self.turn()
        return bytes(heard)

    def finish(self) -> None:
        """Nothing is left behind: no descriptor, no delayed call, no memory."""
        self.relay.abort(Ended.OPERATOR)
        assert len(self.ended) == 1
        assert self.relay.held == 0
        assert module._All.held == 0
        if self.plane is not None:
            assert len(self.plane) == 0
            self.plane.close()
        assert (Watch._all.get(self.reactor) is not None) is self.our_turn
        assert {*self.reactor._selectables.values()} == self._own
        assert {*self.reactor.getReaders()} == self._own
        assert self.reactor.getWriters() == []
        assert self.reactor.getDelayedCalls() == []
        self.client.abort()
        self.service.abort()
        for reader in self._own:
            reader.connectionLost(Failure(ConnectionLost()))
        self.reactor._poller.close()


def connected(tls: bool) -> tuple[End, End]:
    """The two ends of a connection whose kernel buffers are small."""
    pair = socket.socketpair()
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    return over_tls(*pair) if tls else (PlainEnd(pair[0]), PlainEnd(pair[1]))


def native_plane(reactor: EPollReactor, after: int = 0, threaded: bool = False) -> DataPlane:
    """A data plane, where the extension was built."""
    if find_pump() is None:
        pytest.skip("revtunnel._pump was not built: python setup.py build_ext --inplace")
    return DataPlane(reactor, after, threaded)


MIXTURES = [(kind, ours, "") for kind in (*CARRIERS, *BY_WEB) for ours in (False, True)]
MIXTURES += [(kind, ours, "native") for kind in CARRIERS for ours in (False, True)]


@pytest.fixture(params=MIXTURES, ids=str)
def joined(request: pytest.FixtureRequest) -> Iterator[Joined]:
    """A relay of every mixture, on Twisted's turn and on ours, that leaves nothing behind."""
    kind, ours, plane = request.param
    joined = Joined(kind, our_turn=ours, plane=plane)
    yield joined
    joined.finish()


@pytest.fixture(params=["", "native"])
def plain(request: pytest.FixtureRequest) -> Iterator[Joined]:
    """A relay where the carrier does not matter."""
    joined = Joined(our_turn=True, plane=request.param)
    yield joined
    joined.finish()


@pytest.fixture
def lean() -> Iterator[Joined]:
    """The same, and Python moves the bytes."""
    joined = Joined(our_turn=True)
    yield joined
    joined.finish()


def test_who_has_ended_while_the_other_takes_nothing_is_not_cut(
    lean: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have said their ends of file, and the last answer does not fit at once: it is whole."""
    lean.relay.start()
    lean.client.end_writing()
    lean.turn(3)
    near, write, takes = lean.relay._near.end, PlainEnd.write, iter((10, 0, 0))

    def takes_little(end: PlainEnd, data: memoryview) -> int:
        size = next(takes, 0) if end is near else len(data)
        return write(end, data[:size]) if size else 0

    monkeypatch.setattr(PlainEnd, "write", takes_little)
    lean.service.write(b"a" * 1000)
    lean.service.end_writing()
    lean.service.close()
    lean.turn(3)
    assert lean.ended == []
    monkeypatch.undo()
    lean.relay._near.flush()
    assert lean.hear(lean.client) == b"a" * 1000
    assert lean.ended == [(Ended.CLOSED, "")]


def test_bytes_go_both_ways_and_are_counted(joined: Joined) -> None:
    """Question and answer, each in one turn of the reactor."""
    joined.relay.start()
    joined.client.write(b"question")
    joined.turn()
    assert joined.hear(joined.service, 8) == b"question"
    joined.service.write(b"the answer")
    joined.turn()
    assert joined.hear(joined.client, 10) == b"the answer"
    assert (joined.relay.to_far, joined.relay.to_near, joined.relay.lost) == (8, 10, 0)


@pytest.mark.slow
@pytest.mark.parametrize("plane", ["", "native"])
@pytest.mark.parametrize("our_turn", [False, True])
def test_urgent_data_stays_in_its_place_and_stops_nothing(plane: str, our_turn: bool) -> None:
    """A reading stops short where urgent data is, such as a Telnet interrupt: what is behind it goes on."""
    sent: list[socket.socket] = []

    def urgent(tls: bool) -> tuple[End, End]:
        ours, theirs = tcp_sockets()
        tune(theirs)
        sent.append(ours)
        return PlainEnd(ours), PlainEnd(theirs)

    joined = Joined(connect=urgent, our_turn=our_turn, plane=plane)
    for number in range(2):
        sent[0].send(b"before")
        sent[0].send(b"!", socket.MSG_OOB)
        sent[0].send(b"behind")
        if not number:
            joined.relay.start()
        heard = b""
        for _ in range(200):
            joined.turn()
            size = joined.service.read_into(ROOM)
            heard += ROOM[: size or 0]
        assert heard == b"before!behind"
    joined.finish()


def test_a_head_comes_first(joined: Joined) -> None:
    """What was read before the ends were joined goes in front of what follows, and counts."""
    joined.service.write(b" world")
    joined.relay.start(b"hello")
    assert joined.hear(joined.client, 11) == b"hello world"
    assert (joined.relay.to_far, joined.relay.to_near) == (0, 11)


def test_a_head_too_large_for_the_socket_waits_in_front(joined: Joined) -> None:
    """It is held, and the service not read until it has gone."""
    head = bytes(range(256)) * 1024
    joined.service.write(b"behind")
    joined.relay.start(head)
    joined.turn(5)
    assert joined.relay.held
    assert joined.hear(joined.client, len(head) + 6) == head + b"behind"


def test_n26_the_client_ends_first(joined: Joined) -> None:
    """Its end of file arrives, and the reply is complete; then all is closed in order."""
    joined.relay.start()
    joined.client.write(b"all I have")
    joined.client.end_writing()
    assert joined.hear(joined.service) == b"all I have"
    joined.turn(5)
    assert joined.ended == []
    joined.service.write(b"the reply, ")
    joined.turn(3)
    joined.service.write(b"complete")
    joined.service.end_writing()
    assert joined.hear(joined.client) == b"the reply, complete"
    assert joined.ended == [(Ended.CLOSED, "")]
    assert (joined.relay.to_far, joined.relay.to_near, joined.relay.lost) == (10, 19, 0)


def test_n27_the_service_ends_first(joined: Joined) -> None:
    """The same mirrored."""
    joined.relay.start()
    joined.service.end_writing()
    assert joined.hear(joined.client) == b""
    joined.client.write(b"still sending")
    joined.turn(3)
    assert joined.hear(joined.service, 13) == b"still sending"
    joined.client.end_writing()
    assert joined.hear(joined.service) == b""
    assert joined.ended == [(Ended.CLOSED, "")]


def test_an_end_of_file_waits_behind_held_bytes(joined: Joined) -> None:
    """Nothing is cut off by it, and nothing more is read."""
    joined.relay.start()
    total = joined.fill(joined.client)
    rest = bytes(4 * RECORD)
    heard = 0
    while rest:
        rest = rest[joined.client.write(rest) :]
        heard += joined.service.read_into(ROOM) or 0
        joined.turn()
    total += 4 * RECORD
    joined.client.end_writing()
    joined.turn(5)
    assert heard + len(joined.hear(joined.service)) == total
    joined.service.end_writing()
    joined.until(lambda: joined.ended)
    assert joined.ended == [(Ended.CLOSED, "")]
    assert joined.relay.to_far == total


def test_both_ends_at_once(joined: Joined) -> None:
    """Two empty streams."""
    joined.client.end_writing()
    joined.service.end_writing()
    joined.relay.start()
    assert joined.hear(joined.client) == joined.hear(joined.service) == b""
    assert joined.ended == [(Ended.CLOSED, "")]


def test_n4_a_side_that_takes_nothing_stops_the_other(joined: Joined) -> None:
    """At most one reading is held, and all of it arrives when the service reads again."""
    joined.relay.start()
    total = joined.fill(joined.client)
    assert 0 < joined.relay.held <= LIMITS.turn
    assert joined.relay._near not in joined.reactor.getReaders()
    assert joined.relay.to_far < total < 1 << 20
    joined.service.write(b"the other way is open")
    assert joined.hear(joined.client, 21) == b"the other way is open"
    assert len(joined.hear(joined.service, total)) == total
    sizes = [0]
    joined.until(lambda: sizes.append(joined.client.write(bytes(4 * RECORD))) or sizes[-1])
    assert len(joined.hear(joined.service, sizes[-1])) == sizes[-1]


def test_n5_and_the_other_way_round(joined: Joined) -> None:
    """A client that takes nothing."""
    joined.relay.start()
    total = joined.fill(joined.service)
    assert 0 < joined.relay.held <= LIMITS.turn
    assert len(joined.hear(joined.client, total)) == total


def test_a_turn_moves_a_bounded_number_of_bytes(plain: Joined) -> None:
    """However much waits in the kernel, other connections get their turn behind one reading."""
    for sock in (plain.client.sock, plain.service.sock, plain.relay._far.end.sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert plain.client.write(bytes(200_000)) > 100_000
    plain.relay.start()
    moved = []
    for _ in range(4):
        before = plain.relay.to_far
        plain.turn()
        moved.append(plain.relay.to_far - before)
    assert moved[:3] == [RECORD, 2 * RECORD, 4 * RECORD]
    assert max(moved) <= LIMITS.turn


def test_a_small_message_keeps_the_readings_of_bulk_small() -> None:
    """Somebody types beside a bulk stream: it moves less at once for as many readings as the limit says."""
    limits = RelayLimits(first=RECORD, turn=4 * RECORD, calm=2)
    bulk, typing = Joined(limits=limits), Joined(limits=limits)
    bulk.relay._near.room = 4 * RECORD
    for sock in (bulk.client.sock, bulk.relay._far.end.sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert bulk.client.write(bytes(12 * RECORD)) > 6 * RECORD
    typing.relay.start()
    typing.client.write(b"l")
    typing.turn()
    bulk.relay.start()
    moved = []
    for _ in range(3):
        before = bulk.relay.to_far
        bulk.turn()
        moved.append(bulk.relay.to_far - before)
    assert moved == [RECORD, RECORD, 4 * RECORD]
    bulk.finish()
    typing.finish()


def test_when_much_is_held_readings_are_small() -> None:
    """A crowd that stalls holds what the pool has, and 16 KiB each beyond it."""
    limits = RelayLimits(first=8 * RECORD, turn=8 * RECORD, pool=1)
    crowd = [Joined(limits=limits) for _ in range(3)]
    for joined in crowd:
        joined.relay.start()
        joined.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        joined.fill(joined.client)
    assert 0 < crowd[0].relay.held <= 8 * RECORD
    assert all(0 < joined.relay.held <= RECORD for joined in crowd[1:])
    for joined in crowd:
        joined.relay.abort(Ended.OPERATOR)
    for joined in crowd:
        joined.finish()


def leave_rudely(joined: Joined, leaver: End, other: End) -> None:
    """Close with unread input, which is the reset that socketpairs have (for plain carriers)."""
    other.write(b"never read")
    joined.turn(2)
    leaver.sock.close()


@pytest.mark.parametrize("which", ["client", "service"])
def test_n28_a_reset_of_either_side_resets_the_other(joined: Joined, which: str) -> None:
    """One line says who it was; the other side is gone too."""
    ends = [joined.client, joined.service]
    leaver, other = ends if which == "client" else ends[::-1]
    joined.relay.start()
    leave_rudely(joined, leaver, other)
    joined.until(lambda: joined.ended)
    [(reason, detail)] = joined.ended
    assert reason is Ended.RESET_BY_PEER
    assert detail.startswith("near: " if which == "client" else "far: ")
    assert joined.relay._near.fileno() == joined.relay._far.fileno() == -1


def test_n28_a_reset_of_a_side_that_is_not_read(joined: Joined) -> None:
    """The client is paused, because the service takes nothing; its reset is noticed all the same."""
    joined.relay.start()
    joined.service.write(b"never read")
    joined.turn(2)
    total = joined.fill(joined.client)
    held = joined.relay.held
    assert held
    joined.client.sock.close()
    joined.turn(3)
    [(reason, detail)] = joined.ended
    assert (reason, detail[:6]) == (Ended.RESET_BY_PEER, "near: ")
    assert joined.relay.lost == held
    assert joined.relay.to_far + held <= total


def test_n28_a_reset_behind_an_end_of_file(joined: Joined) -> None:
    """A client that has ended its direction is not read any more, and can still be reset."""
    joined.relay.start()
    joined.client.end_writing()
    joined.service.write(b"never read")
    joined.turn(3)
    assert joined.ended == []
    joined.client.sock.close()
    joined.turn(3)
    assert [reason for reason, _ in joined.ended] == [Ended.RESET_BY_PEER]


@pytest.mark.parametrize("kind", ["web", "wss"])
def test_a_fin_behind_an_end_of_file_that_is_in_band_is_a_cut(kind: str) -> None:
    """A WebSocket that has ended one direction is read no more; a balancer passes a reset on as a FIN."""
    joined = Joined((False, kind))
    joined.relay.start()
    joined.service.write(b"all of it")
    assert joined.service.end_writing()
    assert joined.hear(joined.client) == b"all of it"
    assert joined.ended == []
    joined.service.sock.shutdown(socket.SHUT_WR)
    joined.until(lambda: joined.ended)
    assert joined.ended == [(Ended.RESET_BY_PEER, "far: it hung up before its stream had ended both ways")]
    joined.finish()


def test_a_fin_that_comes_while_an_end_of_file_in_band_waits_is_a_cut() -> None:
    """The service's side is not read when it hangs up, and its last bytes are still delivered."""
    joined = Joined((False, "web"))
    joined.relay.start()
    total = 0
    while joined.relay.held == 0:
        total += joined.service.write(bytes(RECORD))
        joined.turn()
    joined.until(lambda: joined.service.end_writing())
    joined.turn(3)
    joined.service.sock.shutdown(socket.SHUT_WR)
    joined.turn(3)
    assert joined.ended == []
    heard = 0
    while not joined.ended:
        with contextlib.suppress(OSError):
            heard += joined.client.read_into(ROOM) or 0
        joined.turn()
    assert joined.ended == [(Ended.RESET_BY_PEER, "far: it hung up before its stream had ended both ways")]
    assert heard
    joined.finish()


def test_a_reset_of_a_side_that_is_read_again(plain: Joined) -> None:
    """Once paused, now read: what it sent before its reset is delivered first."""
    plain.relay.start()
    total = plain.fill(plain.client)
    assert len(plain.hear(plain.service, total)) == total
    plain.service.write(b"never read")
    plain.turn(2)
    plain.client.write(b"last words")
    plain.client.sock.close()
    assert plain.service.read_into(ROOM) is None
    plain.until(lambda: plain.ended)
    assert plain.relay.to_far == total + 10
    assert plain.ended[0][0] is Ended.RESET_BY_PEER


def test_n29_a_write_that_fails_counts_what_was_lost(joined: Joined) -> None:
    """The service is gone with bytes held for it."""
    joined.relay.start()
    joined.fill(joined.client)
    held = joined.relay.held
    joined.service.sock.close()
    joined.until(lambda: joined.ended)
    assert joined.ended[0][0] is Ended.RESET_BY_PEER
    assert joined.ended[0][1].startswith("far: ")
    assert joined.relay.lost == held


def test_n29_bytes_for_a_service_that_is_gone(plain: Joined) -> None:
    """Nothing was held; the reading that could not be written is what was lost."""
    plain.relay.start()
    plain.service.sock.shutdown(socket.SHUT_RD)
    plain.client.write(b"hello?")
    plain.until(lambda: plain.ended)
    assert plain.ended == [(Ended.RESET_BY_PEER, "far: reset the connection")]
    assert (plain.relay.lost, plain.relay.to_far) == (6, 0)


def test_a_head_for_a_client_that_is_gone(plain: Joined) -> None:
    """The end is told inside ``start``."""
    plain.client.sock.close()
    plain.relay.start(b"head")
    assert [reason for reason, _ in plain.ended] == [Ended.RESET_BY_PEER]
    assert plain.relay.lost == 4


@pytest.mark.parametrize("plane", ["", "native"])
@pytest.mark.parametrize(
    ("garbage", "why"),
    [
        (b"", "cut the connection: no TLS close_notify"),
        (b"GET / HTTP/1.1\r\n\r\n", "broke TLS: bad record type"),
        (b"\x17\x03\x03\0\x20" + bytes(32), "broke TLS: decryption failed or bad record mac"),
    ],
)
def test_n28_over_tls_a_cut_is_no_end_of_file(plane: str, garbage: bytes, why: str) -> None:
    """A FIN without close_notify resets the other side, as does what is not TLS, behind good bytes."""
    joined = Joined((True, False), plane=plane)
    joined.relay.start()
    joined.client.write(b"not all of it")
    joined.client.sock.send(garbage)
    joined.client.sock.shutdown(socket.SHUT_WR)
    joined.until(lambda: joined.ended)
    [(reason, detail)] = joined.ended
    assert reason is Ended.RESET_BY_PEER
    assert detail.startswith(f"near: {why}")
    assert joined.relay.to_far == 13
    joined.finish()


def test_abort_ends_both_at_once(joined: Joined) -> None:
    """The owner's reason is what is said, once."""
    joined.relay.start()
    joined.fill(joined.client)
    joined.relay.abort(Ended.OPERATOR, "kicked")
    joined.relay.abort(Ended.IDLE)
    joined.turn(3)
    assert joined.ended == [(Ended.OPERATOR, "kicked")]


def test_abort_before_the_start(plain: Joined) -> None:
    """A relay that never began ends in the same way, and does not begin later."""
    plain.relay.abort(Ended.OPERATOR)
    plain.relay.start(b"head")
    assert plain.ended == [(Ended.OPERATOR, "")]
    assert plain.relay.to_far == 0


@pytest.mark.parametrize("plane", ["", "native"])
@pytest.mark.parametrize("tls", [False, True])
def test_last_bytes_that_nobody_takes(tls: bool, plane: str) -> None:
    """Both programs have ended; the service keeps its minute as long as it takes something now and then."""
    joined = Joined((False, tls), plane=plane)
    joined.relay.start()
    joined.service.end_writing()
    joined.fill(joined.client)
    joined.now += 1000.0  # as long as the client has not ended nobody is in a hurry
    joined.turn(3)
    assert joined.reactor.getDelayedCalls() == []
    joined.client.end_writing()
    joined.turn(3)
    before = joined.relay.to_far
    while joined.relay.to_far == before:
        joined.service.read_into(ROOM[:RECORD])
        joined.turn()
    joined.now += LIMITS.flush + 1
    joined.turn()
    assert joined.ended == []
    joined.now += LIMITS.flush + 1
    joined.turn()
    assert joined.ended == [(Ended.STALLED, "the last bytes were not taken")]
    assert joined.relay.lost > 0
    joined.finish()


@pytest.mark.parametrize("plane", ["", "native"])
def test_a_tls_end_of_file_that_nobody_takes(plane: str) -> None:
    """Both directions are at their end, but close_notify finds no room."""
    joined = Joined((False, True), plane=plane)
    joined.relay.start()
    far = joined.relay._far.end
    with contextlib.suppress(BlockingIOError):
        while True:
            far.sock.send(bytes(RECORD))  # as if it were bytes of the relay that nobody reads
    joined.client.end_writing()
    joined.service.end_writing()
    joined.turn(5)
    assert joined.ended == []
    joined.now += LIMITS.flush + 1
    joined.turn()
    assert [reason for reason, _ in joined.ended] == [Ended.STALLED]
    joined.finish()


def test_idle_pairs_cost_little(plain: Joined) -> None:
    """Two sockets, two ends, two sides, and the pair: within 2 KiB of Python's memory."""
    pairs = [(socket.socketpair()[0], socket.socketpair()[0]) for _ in range(100)]
    ended: list[Ended] = []
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    relays = [
        Relay(plain.reactor, PlainEnd(a), PlainEnd(b), lambda reason, detail: ended.append(reason), LIMITS)
        for a, b in pairs
    ]
    for relay in relays:
        relay.start()
    cost = (tracemalloc.get_traced_memory()[0] - before) / len(relays)
    tracemalloc.stop()
    for relay in relays:
        relay.abort(Ended.OPERATOR)
    assert cost < 2048


def test_a_hang_up_that_was_another_connections_is_not_believed(plain: Joined) -> None:
    """The reactor's events of one batch are told by number, and a number may have a new owner."""
    plain.relay.start()
    for side in (plain.relay._near, plain.relay._far):
        side.happened(OVER)
    plain.client.write(b"alive")
    assert plain.hear(plain.service, 5) == b"alive"


def test_a_fault_of_ours_is_a_cut(lean: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was read by then nobody knows how much has gone on."""

    def fails(end: End, data: bytes) -> int:
        raise MemoryError("no memory")

    lean.relay.start()
    monkeypatch.setattr(PlainEnd, "write", fails)
    lean.client.sock.send(b"lost")
    lean.turn(3)
    assert lean.ended == [(Ended.RESET_BY_PEER, "near: no memory")]


def test_a_side_that_is_told_again_still_waits_for_room(plain: Joined) -> None:
    """Its end was another's before, who had left something unread: what is held goes on all the same."""
    blocked = plain.fill(plain.relay._far.end)
    plain.relay.start(unsent=b"unsent")
    Watch.of(plain.reactor).untold(plain.relay._far.fileno())
    assert plain.hear(plain.service, blocked + 6).endswith(b"unsent")


class Wayward(PlainEnd):
    """An end that waits for the other event once, and has something inside at first."""

    __slots__ = ("inside", "waits")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.inside, self.waits = b"", False

    @property
    def pending(self) -> bool:
        return bool(self.inside)

    def read_into(self, view: memoryview) -> int | None:
        waits, self.waits = self.waits, False
        self.reads_when_writable = waits
        if waits:
            return None
        inside, self.inside = self.inside, b""
        view[: len(inside)] = inside
        return len(inside) or super().read_into(view)


@pytest.fixture
def wayward() -> Iterator[tuple[Joined, Wayward]]:
    """A relay whose client's end is one."""
    ends: list[Wayward] = []

    def connect(tls: bool) -> tuple[End, End]:
        theirs, ours = connected(tls)
        if ends:
            return theirs, ours
        ends.append(Wayward(ours.sock))
        return theirs, ends[0]

    joined = Joined(connect=connect)
    yield joined, ends[0]
    joined.finish()


def test_an_end_that_waited_until_it_was_writable_is_read_again(wayward: tuple[Joined, Wayward]) -> None:
    """TLS that renews its keys, or a WebSocket behind many pings: bytes that come later are told as ever."""
    joined, end = wayward
    joined.relay.start()
    end.waits = True
    joined.client.write(b"first")
    assert joined.hear(joined.service, 5) == b"first"
    joined.turn(3)
    joined.client.write(b"second")
    joined.turn(3)
    assert joined.service.read_into(ROOM) == 6


def test_what_is_inside_at_the_start_may_find_no_room(wayward: tuple[Joined, Wayward]) -> None:
    """The service takes nothing yet: it waits, and follows."""
    joined, end = wayward
    end.inside = b"inside"
    blocked = joined.fill(joined.relay._far.end)
    joined.relay.start()
    assert joined.relay.held_for_far == 6
    assert joined.hear(joined.service, blocked + 6).endswith(b"inside")


@pytest.mark.parametrize("size", range(20_000, 80_000, 1_000))
def test_what_tls_holds_back_follows_when_the_other_side_takes_again(size: int) -> None:
    """The kernel has nothing left to report then: the last record, and the end behind it, are inside."""
    joined = Joined((True, False))
    joined.relay.start()
    data = bytes(i % 251 for i in range(size))
    rest = memoryview(data)
    while rest:
        rest = rest[joined.client.write(rest) :]
        joined.turn()
        if rest and joined.relay.held:
            break
    heard = bytearray()
    while rest:
        got = joined.service.read_into(ROOM[:RECORD])
        heard += ROOM[: got or 0]
        rest = rest[joined.client.write(rest) :]
        joined.turn()
    joined.client.end_writing()
    joined.turn(3)
    heard += joined.hear(joined.service, size - len(heard))
    joined.until(lambda: joined.service.read_into(ROOM) == 0)
    assert heard == data
    joined.finish()


@settings(max_examples=deep(60), deadline=None)
@given(
    st.sampled_from(
        [(kind, None) for kind in (*CARRIERS, *BY_WEB)] + [(kind, n) for kind in CARRIERS for n in (0, 1, 4)]
    ),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 80_000)), max_size=40),
    st.integers(0, 3000),
)
def test_whatever_the_pace_every_byte_arrives_once(
    how: tuple[tuple[object, object], int | None], steps: list[tuple[int, int]], head: int
) -> None:
    """Random writes, reads, and turns; then both end, and both streams are what was sent."""
    kind, after = how
    joined = Joined(kind, plane="" if after is None else "native", after=after or 0)
    pattern = memoryview(bytes(i * 7 % 251 for i in range(251)) * 400)
    ends = [joined.client, joined.service]
    sent, heard, unsent = [bytearray(), bytearray()], [bytearray(), bytearray()], [b"", b""]

    def write(who: int, data: bytes) -> None:
        taken = ends[who].write(data) if data else 0
        unsent[who] = data[taken:]

    def read(who: int, most: int) -> None:
        got = ends[who].read_into(ROOM[: max(most, RECORD)])
        heard[1 - who].extend(ROOM[: got or 0])

    sent[1] += pattern[:head]
    joined.relay.start(bytes(pattern[:head]))
    for action, size in steps:
        if action < 2:
            data = bytes(pattern[size % 251 :][:size])
            sent[action] += data
            write(action, unsent[action] + data)
        elif action < 4:
            read(action - 2, size)
        else:
            joined.turn(1 + size % 3)
    for who in (0, 1):
        while unsent[who]:
            write(who, unsent[who])
            read(1 - who, RECORD)
            joined.turn()
        while not ends[who].end_writing():
            read(1 - who, RECORD)
            joined.turn()
    for who in (0, 1):
        heard[1 - who] += joined.hear(ends[who])
    joined.until(lambda: joined.ended)
    assert joined.ended == [(Ended.CLOSED, "")]
    assert heard == sent
    assert (joined.relay.to_far, joined.relay.to_near) == (len(sent[0]), len(sent[1]))
    joined.finish()


def test_an_end_that_can_say_why_is_told() -> None:
    """The word only: details are for operators."""
    said: list[tuple[Ended, str]] = []

    class Saying(PlainEnd):
        def because(self, reason: Ended, detail: str = "") -> None:
            said.append((reason, detail))

    pair = Joined(connect=lambda _: (PlainEnd((both := socket.socketpair())[0]), Saying(both[1])))
    pair.relay.start()
    pair.relay.abort(Ended.OPERATOR, "kicked by anna")
    assert said == [(Ended.OPERATOR, "")] * 2 and pair.ended == [(Ended.OPERATOR, "kicked by anna")]
    pair.finish()
