"""A transport of our own tells a protocol what Twisted's tells; where it does not, that is written here."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from revtunnel.ground.errors import LocalError
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.outgoing import HIGH_WATER, TURN
from tests.sockets.test_ends import over_tls, tcp_pair
from tests.support.depth import deep
from tests.support.ends import join_ends
from tests.support.epoll import QUIET, Loop
from tests.support.memory import Network, Recorder
from tests.support.test_memory import Pulled, Pushed
from tests.support.test_memory_real import SCRIPTS, play

# What each side is told (events, bytes), if it is half-closing, where that is not what Twisted's tells.
DIFFERENT = {
    "write after half close": (  # Twisted's sends it if its turn has not come yet
        ["made", "write side closed"],
        b"",
        ["made", "end of file"],
        b"",
    ),
    "write after close": (["made", "lost ConnectionDone"], b"", ["made", "end of file"], b""),
    "pull producer that stays": (  # Twisted's never closes
        ["made", "lost ConnectionDone"],
        b"",
        ["made", "data", "end of file"],
        b"01234567890123456789",
    ),
    "abort drops the buffer": (  # what was written is on its way
        ["made", "lost ConnectionAborted"],
        b"",
        ["made", "data", "lost ConnectionLost"],
        b"from near",
    ),
    "crossing closes": (  # the second close meets the reset that the first one's unread input made
        ["made", "lost ConnectionDone"],
        b"",
        ["made", "lost ConnectionLost"],
        b"",
    ),
}
OVER_TLS = {  # there the unread input is read before a close, for it may be session tickets: no reset
    **{name: told for name, told in DIFFERENT.items() if name != "crossing closes"},
    "close with unread input": (["made", "lost ConnectionDone"], b"", ["made", "end of file"], b""),
}
UNUSED = {"stopConsuming closes"}  # no protocol of ours calls it, and no interface has it
NEED_TCP = {name for name in SCRIPTS if "abort" in name or "unread" in name} | {"crossing closes"}  # resets


def told_by_twisted(name: str, make: Callable[[], Recorder]) -> list[Any]:
    """The script over Twisted's own transport, in memory; test_memory_real.py has shown it to be the same."""
    network, near, far = Network(), make(), make()
    network.join(near, far)
    return play(SCRIPTS[name], near, far, network.pump)


def told_by_ours(loop: Loop, name: str, make: Callable[[], Recorder], tls: bool, tcp: bool) -> list[Any]:
    """The script over a pair of EndTransports."""
    near, far = make(), make()

    def settle() -> None:
        loop.settle(lambda: [*near.events, *far.events, len(near.data), len(far.data)], QUIET if tcp else 0.0)

    transports = join_ends(loop, near, far, tls=tls, tcp=tcp)
    told = play(SCRIPTS[name], near, far, settle)
    for transport in transports:
        transport.abortConnection()
    return told


def compare(loop: Loop, name: str, half_closing: bool, tls: bool, tcp: bool) -> None:
    make = Recorder.half_closing if half_closing else Recorder
    told = told_by_ours(loop, name, make, tls, tcp)
    different = OVER_TLS if tls else DIFFERENT
    if name not in different:
        assert told == told_by_twisted(name, make)
    elif half_closing:
        assert tuple(told[:4]) == different[name]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("half_closing", [True, False], ids=["half-closing", "whole"])
@pytest.mark.parametrize("name", sorted({*SCRIPTS} - NEED_TCP - UNUSED))
def test_a_protocol_is_told_what_twisted_tells(loop: Loop, name: str, half_closing: bool, tls: bool) -> None:
    """Events, bytes and producer calls are equal, over TLS as well, half-close included."""
    compare(loop, name, half_closing, tls, tcp=False)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("half_closing", [True, False], ids=["half-closing", "whole"])
@pytest.mark.parametrize("name", sorted({*SCRIPTS} - UNUSED))
def test_a_protocol_is_told_what_twisted_tells_over_tcp(
    loop: Loop, name: str, half_closing: bool, tls: bool
) -> None:
    """The same with resets, which only TCP has."""
    compare(loop, name, half_closing, tls, tcp=True)


# -- what is ours


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def joined(
    loop: Loop, request: pytest.FixtureRequest
) -> Iterator[tuple[EndTransport, EndTransport, Recorder, Recorder]]:
    """Two half-closing recorders and their transports."""
    near, far = Recorder.half_closing(), Recorder.half_closing()
    transports = join_ends(loop, near, far, tls=request.param)
    yield *transports, near, far
    for transport in transports:
        transport.abortConnection()
    loop.settle()


Joined = tuple[EndTransport, EndTransport, Recorder, Recorder]


def bare(loop: Loop, protocol: Recorder) -> tuple[EndTransport, socket.socket]:
    """A transport, and the bare socket at its other side."""
    near, far = socket.socketpair()
    transport = EndTransport(loop.reactor, PlainEnd(near), protocol)
    transport.start()
    far.setblocking(False)
    return transport, far


def test_it_has_the_interfaces_and_no_room_for_more(joined: Joined) -> None:
    """What mypy cannot see: zope's interfaces hold, and a transport has no dictionary."""
    for interface in (IConsumer, IPushProducer, IReadWriteDescriptor):
        assert verifyObject(interface, joined[0])
    assert not hasattr(joined[0], "__dict__")


def test_a_write_leaves_at_once(loop: Loop) -> None:
    """No turn of the reactor is needed for what the kernel takes."""
    transport, far = bare(loop, Recorder())
    with far:
        transport.write(b"now")
        assert far.recv(10) == b"now"
        assert loop.reactor.getWriters() == []


def test_a_turn_is_bounded(loop: Loop) -> None:
    """Even if the reader keeps up, 256 KiB leave in one turn; the rest follows."""
    transport, far = bare(loop, Recorder())
    got = 0
    with far:
        for _ in range(TURN // 1024 + 100):
            transport.write(bytes(1024))
            with_more = far.recv(65536) if got < TURN else b""
            got += len(with_more)
        assert got == TURN
        loop.settle()
        assert len(far.recv(1 << 20)) == 100 * 1024


def test_a_full_kernel_pauses_the_producer_and_an_empty_one_resumes_it(loop: Loop, joined: Joined) -> None:
    """Beyond 64 KiB waiting a push producer is asked to pause, once; it goes on when nothing waits."""
    near, far, _, reader = joined
    producer = Pushed()
    near.registerProducer(producer, True)
    far.pauseProducing()
    data = bytes(range(256)) * (4096 * 5)
    near.write(data[: len(data) // 2])
    near.write(data[len(data) // 2 :])
    assert producer.told == ["pause"]
    far.resumeProducing()
    loop.until(lambda: len(reader.data) == len(data))
    assert reader.data == data
    assert producer.told == ["pause", "resume"]
    assert len(data) > HIGH_WATER


def test_a_pull_producer_is_asked_again_without_recursion(loop: Loop, joined: Joined) -> None:
    """Thousands of small pieces, each taken at once, are drawn in a loop; one with nothing is left alone."""
    near, _, _, reader = joined
    pieces = deep(20_000, 2_000)
    pulled = Pulled(near, pieces, leaves=False)  # type: ignore[arg-type]
    near.registerProducer(pulled, False)
    loop.until(lambda: len(reader.data) == 10 * pieces)
    assert pulled.count == 0
    loop.settle()
    assert loop.reactor.getWriters() == [] and loop.reactor.getDelayedCalls() == []


def test_a_producer_that_waits_does_not_hold_back_the_close(loop: Loop, joined: Joined) -> None:
    """With Twisted's own this connection stays for ever."""
    near, far, writer, reader = joined
    producer = Pushed()
    near.registerProducer(producer, True)
    far.pauseProducing()
    near.write(bytes(1 << 20))
    near.loseConnection()
    far.resumeProducing()
    loop.until(lambda: writer.lost)
    loop.until(lambda: reader.events[-1] == "end of file")
    assert len(reader.data) == 1 << 20
    assert producer.told == ["pause", "stop"]


def test_bytes_that_are_given_up_do_not_end_cleanly(loop: Loop) -> None:
    """A protocol without half-close is lost at an end of file; what it had not sent is seen to be missing."""
    writer, reader = Recorder(), Recorder.half_closing()
    near, far = join_ends(loop, writer, reader, tls=True)
    far.pauseProducing()
    near.write(bytes(1 << 20))
    far.loseWriteConnection()
    loop.until(lambda: writer.lost)
    far.resumeProducing()
    loop.until(lambda: reader.lost)
    assert writer.lost is ConnectionDone and reader.lost is ConnectionLost


def test_what_came_before_a_cut_is_delivered_and_the_cut_is_no_end_of_file(loop: Loop) -> None:
    """The write that meets the reset takes it from the kernel, which then reports an end of file instead."""
    protocol = Recorder.half_closing()
    transport, far = bare(loop, protocol)
    transport.write(b"never read")
    far.send(b"last words")
    far.close()
    transport.write(b"too late")
    assert protocol.events == ["made"]  # nothing is told inside a call
    loop.until(lambda: protocol.lost)
    assert protocol.data == b"last words"
    assert protocol.events == ["made", "data", "lost ConnectionLost"]


def test_a_protocol_that_raises_loses_its_connection(loop: Loop, joined: Joined) -> None:
    """The exception becomes the reason, which the reactor logs."""
    near, _, writer, _ = joined

    def faulty(_: bytes) -> None:
        raise ValueError("a bug")

    writer.dataReceived = faulty  # type: ignore[method-assign]
    joined[1].write(b"x")
    loop.until(lambda: writer.lost)
    assert writer.lost is ValueError
    assert near.getHandle() is None


def test_a_protocol_that_raises_makes_no_end_in_order(loop: Loop) -> None:
    """The other side must not take what it has for all there was."""
    near, far = over_tls(*socket.socketpair())
    writer = Recorder.half_closing()

    def faulty(_: bytes) -> None:
        raise ValueError("a bug")

    writer.dataReceived = faulty  # type: ignore[method-assign]
    EndTransport(loop.reactor, near, writer).start()
    far.write(b"x")
    loop.until(lambda: writer.lost)
    with pytest.raises(OSError, match=r"close_notify|reset"):
        far.read_into(memoryview(bytearray(65536)))
    far.close()


@pytest.mark.slow
def test_bytes_that_are_not_sent_any_more_make_the_end_a_cut(loop: Loop) -> None:
    """A protocol that cannot half-close is over with the other side's end of file, whatever it wrote."""
    near, far = map(PlainEnd, tcp_pair())
    writer = Recorder()
    transport = EndTransport(loop.reactor, near, writer)
    transport.start()
    transport.write(bytes(32 * 1024 * 1024))
    far.end_writing()
    loop.until(lambda: writer.lost)
    assert writer.lost is ConnectionDone
    room = memoryview(bytearray(65536))
    with pytest.raises(ConnectionResetError):
        while far.read_into(room) != 0:
            pass
    far.close()


def test_a_hang_up_of_a_former_owner_of_the_descriptor_is_not_believed(loop: Loop, joined: Joined) -> None:
    """epoll reports a batch; a descriptor of it may be another's by the time its turn comes."""
    near, far, writer, _ = joined
    loop.reactor.removeReader(near)  # as the reactor does before it tells
    near.connectionLost(Failure(ConnectionLost()))
    far.write(b"still here")
    loop.until(lambda: writer.data == b"still here")
    assert writer.lost is None


def test_an_abort_frees_the_descriptor_at_once_and_tells_later(loop: Loop, joined: Joined) -> None:
    """Within a call of the protocol's nothing is told; its calls after it do nothing."""
    near, _, writer, _ = joined
    near.abortConnection()
    assert near.getHandle() is None and near.fileno() == -1 and writer.lost is None
    near.write(b"x")
    near.pauseProducing()
    near.resumeProducing()
    near.loseWriteConnection()
    near.loseConnection()
    near.abortConnection()
    producer = Pushed()
    near.registerProducer(producer, True)
    assert producer.told == ["stop"]
    loop.until(lambda: writer.lost)
    assert writer.events == ["made", "lost ConnectionAborted"]
    assert writer.lost is ConnectionAborted


# -- taking over


def test_an_end_is_taken_over_with_what_is_in_it(loop: Loop, joined: Joined) -> None:
    """The protocol is told nothing any more; bytes that it has not seen are the new owner's."""
    near, far, writer, _ = joined
    near.registerProducer(Pushed(), True)
    near.pauseProducing()
    far.write(b"for the next owner")
    end = near.take()
    room = memoryview(bytearray(65536))
    assert room[: end.read_into(room) or 0] == b"for the next owner"
    near.write(b"ignored")
    near.abortConnection()
    far.loseConnection()
    loop.settle()
    assert writer.events == ["made"]
    assert end.read_into(room) == 0
    end.close()


def test_an_end_with_bytes_to_write_or_a_cut_cannot_be_taken(loop: Loop) -> None:
    """The bytes would be lost, or the cut would be."""
    transport, far = bare(loop, protocol := Recorder())
    transport.write(bytes(1 << 20))
    with pytest.raises(LocalError):
        transport.take()
    far.close()
    loop.until(lambda: protocol.lost)
    with pytest.raises(OSError):
        transport.take()
    transport, far = bare(loop, protocol)
    far.close()
    transport.write(b"x")
    with pytest.raises(OSError, match="it reset the connection"):
        transport.take()


def test_a_reading_is_as_large_as_the_protocol_wants(loop: Loop) -> None:
    """64 KiB, or what was asked for."""
    protocol = Recorder()
    transport, far = bare(loop, protocol)
    with far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = far.send(bytes(150_000))
        assert sent == 150_000
        loop.reactor.iterate(0)
        transport.read_size = TURN
        loop.until(lambda: len(protocol.data) == sent)
        assert protocol.pieces == [65536, sent - 65536]


def test_a_view_is_of_the_shared_buffer(loop: Loop) -> None:
    """For protocols that ask for one; others get bytes of their own."""
    kinds: list[type] = []

    class Looking(Recorder):
        def dataReceived(self, data: bytes) -> None:
            kinds.append(type(data))
            super().dataReceived(bytes(data))

    protocol = Looking()
    transport, far = bare(loop, protocol)
    with far:
        for gives_views in (False, True):
            transport.gives_views = gives_views
            far.send(b"one")
            loop.settle()
    assert kinds == [bytes, memoryview] and protocol.data == b"oneone"


def test_a_view_stays_as_it_is_while_its_protocol_has_it(loop: Loop) -> None:
    """Also when another connection is read meanwhile, as a client's once a link's frame freed a number."""
    seen: list[bytes] = []
    other = Recorder()
    second, far_of_second = bare(loop, other)

    class Busy(Recorder):
        def dataReceived(self, data: bytes) -> None:
            second.doRead()
            seen.append(bytes(data))

    transport, far = bare(loop, Busy())
    transport.gives_views = True
    with far, far_of_second:
        second.pauseProducing()
        loop.settle()
        far_of_second.send(b"another")
        second.resumeProducing()
        far.send(b"one")
        transport.doRead()
        loop.settle()
    assert seen == [b"one"] and other.data == b"another"


def test_a_reading_goes_where_the_protocol_has_room(loop: Loop) -> None:
    """If there is room for a record; else as ever."""
    told: list[int] = []

    class Roomy(Recorder):
        def filled(self, size: int) -> None:
            told.append(size)

    protocol = Roomy()
    transport, far = bare(loop, protocol)
    room = memoryview(bytearray(20_000))
    with far:
        transport.into = room
        far.send(b"x" * 5_000)
        loop.settle()
        transport.into = room[5_000:15_000]
        far.send(b"y" * 5_000)
        loop.settle()
    assert told == [5_000] and bytes(room) == b"x" * 5_000 + bytes(15_000)
    assert protocol.data == b"y" * 5_000


@pytest.mark.parametrize("pieces", [[b"a", b"bc"], [b"head", bytes(range(256)) * 400], [b"x" * 100] * 2000])
def test_pieces_arrive_as_one(loop: Loop, joined: Joined, pieces: list[bytes]) -> None:
    """Few, large and more than one call may have; behind what waits as well."""
    near, far, _, reader = joined
    for _ in range(3):
        near.writeSequence(pieces)
    far.pauseProducing()
    near.write(bytes(4 << 20))
    near.writeSequence(iter(pieces))
    far.resumeProducing()
    whole = b"".join(pieces)
    wanted = whole * 3 + bytes(4 << 20) + whole
    loop.until(lambda: len(reader.data) == len(wanted))
    assert reader.data == wanted


def test_pieces_that_do_not_fit_pause_the_producer(loop: Loop, joined: Joined) -> None:
    """As a write does, and the rest of them follows when there is room."""
    near, far, _, reader = joined
    producer = Pushed()
    near.registerProducer(producer, True)
    far.pauseProducing()
    pieces = [bytes([number]) * 100_000 for number in range(100)]
    near.writeSequence(pieces)
    assert producer.told == ["pause"]
    far.resumeProducing()
    loop.until(lambda: len(reader.data) == 10_000_000)
    assert reader.data == b"".join(pieces)
    loop.until(lambda: producer.told == ["pause", "resume"])


def test_pieces_for_a_peer_that_is_gone_are_a_cut(loop: Loop) -> None:
    """Told by ``connectionLost``, not by an exception."""
    protocol = Recorder()
    transport, far = bare(loop, protocol)
    far.close()
    transport.writeSequence([bytes(50_000), bytes(50_000)])
    loop.until(lambda: protocol.lost)
    assert protocol.lost is ConnectionLost
