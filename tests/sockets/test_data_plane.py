"""The data plane between a relay and the extension: handed over, asked, told, taken back."""

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets import data_plane as module
from revtunnel.sockets import tls_records
from revtunnel.sockets.data_plane import (
    AFTER,
    ASKED,
    CUT,
    DONE,
    GIVEN,
    OPENED,
    READ_ENDED,
    DataPlane,
    begin_plane,
)
from revtunnel.sockets.ends import RECORD, ends_with_reset
from revtunnel.sockets.plane_settings import find_pump
from tests.sockets.test_relay import CARRIERS, Joined
from tests.support.pump_drive import tcp_sockets

LIMITS = RelayLimits()
built = pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")


@pytest.fixture(params=CARRIERS, ids=str)
def joined(request: pytest.FixtureRequest) -> Iterator[Joined]:
    """A relay that is handed over after three readings."""
    joined = Joined(request.param, our_turn=True, plane="native", after=3)
    yield joined
    joined.finish()


def talk(joined: Joined, count: int) -> None:
    """So many questions of the client's, without answers."""
    for _ in range(count):
        joined.client.write(b"question")
        joined.turn()
        assert joined.hear(joined.service, 8) == b"question"


@built
def test_short_connections_are_not_handed_over(joined: Joined) -> None:
    """They end where they began."""
    joined.relay.start()
    talk(joined, 2)
    assert len(joined.plane or ()) == 0


@built
def test_a_pair_is_handed_over_between_two_events(joined: Joined) -> None:
    """Its counters go on, and the reactor knows its sockets no more."""
    joined.relay.start()
    talk(joined, 3)
    assert len(joined.plane or ()) == 1
    assert not {side.fileno() for side in (joined.relay._near, joined.relay._far)} & {
        *joined.reactor._selectables
    }
    talk(joined, 3)
    assert (joined.relay.to_far, joined.relay.to_near) == (48, 0)


@built
@pytest.mark.parametrize("joined", [CARRIERS[0], CARRIERS[2]], indirect=True)
def test_it_is_handed_over_with_what_it_holds_and_half_closed(joined: Joined) -> None:
    """The service has ended, and the client's bytes find no room: all arrive, then both ends of file."""
    joined.relay.start()
    joined.service.end_writing()
    assert joined.hear(joined.client) == b""
    total = joined.fill(joined.client)
    assert len(joined.plane or ()) == 1
    assert joined.relay.held_for_far == joined.relay.held > 0 == joined.relay.held_for_near
    assert joined.relay.ended == (False, True)
    joined.client.end_writing()
    joined.turn(3)
    assert joined.ended == []
    assert len(joined.hear(joined.service)) == total
    assert joined.ended == [(Ended.CLOSED, "")]
    assert joined.relay.to_far == total


@built
@pytest.mark.parametrize(("kind", "why"), [((False, "web"), ""), ((True, False), "no functions")])
def test_other_relays_stay_in_python(
    kind: tuple[object, object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a WebSocket, and TLS where nobody says where OpenSSL is."""
    if why:
        monkeypatch.setattr(tls_records, "_FUNCTIONS", ("SSL_read", "no_such_function"))
    joined = Joined(kind, our_turn=True, plane="native")
    joined.relay.start()
    talk(joined, 3)
    assert len(joined.plane or ()) == 0
    joined.finish()


@built
def test_a_relay_that_cannot_be_handed_over_stays(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory, or the kernel watches no more sockets: it goes on in Python."""

    def fails(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert joined.plane is not None
    monkeypatch.setattr(joined.plane, "join", fails)
    joined.relay.start()
    talk(joined, 20)
    assert joined.relay.to_far == 160


@built
def test_a_descriptor_that_epoll_does_not_take_is_refused() -> None:
    """And nothing of the pair stays."""
    plane = DataPlane(EPollReactor(), threaded=False)
    ours, theirs = socket.socketpair()
    with open(__file__, "rb") as file, ours, theirs:
        for numbers in ((ours.fileno(), file.fileno()), (file.fileno(), ours.fileno())) * 2:
            near, far = ((number, 0, 0, b"held", 0) for number in numbers)
            with pytest.raises(PermissionError):
                plane.join(None, near, far, LIMITS)  # type: ignore[arg-type]
    assert len(plane) == 0
    plane.close()


@built
def test_a_pair_that_was_taken_back_is_not_there() -> None:
    """Nor is the next one in its place taken for it."""
    pairs = [socket.socketpair() for _ in range(2)]
    pump = find_pump()()  # type: ignore[misc]
    given = [(each.fileno(), 0, 0, b"", 0) for pair in pairs for each in pair]
    first = pump.join(given[0], given[2], (RECORD, RECORD, 0, RECORD))
    assert pump.leave(first) == ((0, 0, 0, b""), (0, 0, 0, b""))
    second = pump.join(given[0], given[2], (RECORD, RECORD, 0, RECORD))
    assert second != first
    for call in (pump.counts, pump.leave):
        with pytest.raises(KeyError):
            call(first)
    with pytest.raises(TypeError):
        pump.counts("first")  # type: ignore[arg-type]
    pairs[0][1].send(b"said")
    pump.turn()
    assert pump.counts(second) == ((0, 0, 0), (4, 0, 0))


@built
def test_news_of_many_pairs_comes_in_parts() -> None:
    """One telling after the other; the descriptor stays readable until the last."""
    pump = find_pump()()  # type: ignore[misc]
    pairs = [(socket.socketpair(), socket.socketpair()) for _ in range(100)]
    handles = {}
    for number, (left, right) in enumerate(pairs):
        joint = pump.join(
            *((each.fileno(), 0, 0, b"", 0) for each in (left[0], right[0])), (RECORD, RECORD, 0, RECORD)
        )
        handles[joint] = number
        left[1].close()
        if number % 2:
            right[1].send(b"never read")
        right[1].close()
    for _ in range(10):  # batches of events
        pump.turn()
    told = []
    while news := pump.take(False):
        told += news
    assert {handle for handle, *_ in told} == {*handles}
    assert {news for _, news, *_ in told} <= {DONE, DONE | 1, CUT, CUT | 1}
    assert {number for _, news, _, number in told if news & CUT} <= {errno.EPIPE, errno.ECONNRESET}
    (near, far) = pump.leave(told[0][0])
    assert near[2] & READ_ENDED or far[2] & READ_ENDED or told[0][1] & CUT


@built
def test_a_relay_that_fails_is_cut_and_the_others_are_told(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours costs one pair."""
    joined.relay.start()
    talk(joined, 3)
    monkeypatch.setattr(module.log, "err", lambda: None)
    monkeypatch.setattr(type(joined.relay), "told", lambda *_: 1 / 0)
    joined.client.end_writing()
    joined.service.end_writing()
    joined.turn(3)
    assert joined.ended == [(Ended.RESET_BY_PEER, "division by zero")]


def test_which_plane_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the setting says; what cannot be had is an error of it."""
    reactor = EPollReactor()
    assert begin_plane(reactor, "python", "server") == "python"
    monkeypatch.setattr(module, "find_pump", lambda: None)
    assert begin_plane(reactor, "auto", "server") == "python"
    with pytest.raises(SettingsError) as raised:
        begin_plane(reactor, "native", "agent")
    assert raised.value.errors[0].startswith("[agent] data_plane: native: it was not built")
    assert DataPlane.of(reactor) is None


@built
def test_there_is_one_plane_for_a_reactor() -> None:
    """Where it was built, that is what auto means."""
    reactor = EPollReactor()
    assert begin_plane(reactor, "auto", "server") == begin_plane(reactor, "native", "agent") == "native"
    plane = DataPlane.of(reactor)
    assert plane is not None and plane.after == AFTER
    plane.close()


@built
def test_news_is_told_in_order_also_if_more_is_fetched_meanwhile() -> None:
    """Whoever is told may want to know all, and finds what is still to be told counted."""
    plane = DataPlane(EPollReactor(), threaded=False)
    told: list[tuple[int, int]] = []

    class Relays:
        """Who has all pairs."""

        def __init__(self, number: int) -> None:
            self.number = number

        def told(self, news: int, side: int, number: int) -> None:
            told.append((self.number, plane.untold))
            if self.number == 1:
                plane.fetch()

    for number in range(4):
        plane.adopted(Relays(number), number)  # type: ignore[arg-type]
    plane._tell([(number, DONE, 0, 0) for number in range(4)])
    assert told == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert plane.untold == 0
    plane.close()


@built
@pytest.mark.parametrize("news", [GIVEN, GIVEN | ASKED, OPENED, OPENED | CUT])
def test_a_client_of_whom_nobody_wants_to_know_is_cut(news: int) -> None:
    """Its descriptors belong to nobody else, and its peers see that it is over."""
    plane = DataPlane(EPollReactor(), threaded=False)
    near, far = tcp_sockets(), tcp_sockets()
    handle, numbers = 0, (-1, -1)
    if not news & CUT:
        numbers = near[1].fileno(), far[1].fileno()
    if news == OPENED:
        first, second = ((each, 0, 0, b"", 0) for each in numbers)
        handle = plane.pump.join(first, second, (RECORD, RECORD, 0, RECORD))
    for end in (near[1], far[1]) if not news & CUT else ():
        ends_with_reset(end)
        end.detach()
    made = (99, 256, numbers, (0, 0), (0.0, -1.0, -1.0), (), b"", b"", 0)
    plane._tell([(handle, news, 0, 0, *made)])
    if not news & CUT:
        for end in (near[0], far[0]):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    if news == OPENED:
        with pytest.raises(KeyError):
            plane.pump.counts(handle)
    plane.close()
