"""Ends by themselves: bytes, both ends of file, cuts, plain and over TLS, on socketpairs and on TCP."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from revtunnel.sockets.ends import RECORD, End, PlainEnd, TlsEnd, said, tune
from tests.support.throwaway_tls import contexts

ROOM = memoryview(bytearray(4 * RECORD))


def shake(*ends: TlsEnd) -> None:
    """Both handshakes, and the session tickets behind them."""
    done = [False for _ in ends]
    while not all(done):
        done = [was or end.handshake() for was, end in zip(done, ends, strict=True)]
    assert [take(end) for end in ends] == [None for _ in ends]


def over_tls(near: socket.socket, far: socket.socket) -> tuple[TlsEnd, TlsEnd]:
    """The two sockets as TLS client and TLS server, shaken."""
    server, client = contexts()
    ends = TlsEnd.connecting(client.getContext(), near), TlsEnd.accepting(server.getContext(), far)
    shake(*ends)
    return ends


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


@pytest.fixture(params=["plain", "tls", "tls turned round"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """Two ends of one connection on a socketpair."""
    near, far = socket.socketpair()
    ends: tuple[End, End] = (
        (PlainEnd(near), PlainEnd(far)) if request.param == "plain" else over_tls(near, far)
    )
    yield ends[::-1] if request.param.endswith("round") else ends
    near.close()
    far.close()


def take(end: End) -> bytes | None:
    """One read: bytes, empty at the end, None for nothing now."""
    size = end.read_into(ROOM)
    return None if size is None else bytes(ROOM[:size])


def test_nothing_to_read_is_none(pair: tuple[End, End]) -> None:
    """A silent connection is neither data nor an end."""
    near, far = pair
    assert (take(near), take(far), near.pending, far.pending) == (None, None, False, False)


def test_bytes_go_both_ways(pair: tuple[End, End]) -> None:
    """What one takes the other reads, as bytes or as a memoryview."""
    near, far = pair
    assert near.write(b"question") == 8
    assert far.write(memoryview(b"the answer")[4:]) == 6
    assert (take(far), take(near)) == (b"question", b"answer")


def test_one_read_takes_many_records(pair: tuple[End, End]) -> None:
    """Room for several records is filled with them, and nothing decrypted stays inside."""
    near, far = pair
    sent = os.urandom(2 * RECORD + 5)
    assert near.write(sent) == len(sent)
    assert take(far) == sent
    assert not far.pending


def test_a_full_socket_takes_nothing_and_goes_on_later(pair: tuple[End, End]) -> None:
    """Short writes say how much; the rest begins the next one, and every byte comes once."""
    near, far = pair
    data = os.urandom(4 << 20)
    sent, got, blocked = 0, b"", 0
    while len(got) < len(data):
        taken = near.write(data[sent : sent + 300_000]) if sent < len(data) else 0
        sent += taken
        blocked += not taken
        if not taken:
            got += take(far) or b""
    assert got == data
    assert blocked


def test_end_of_file_leaves_the_other_direction_alone(pair: tuple[End, End]) -> None:
    """After our end we read on, and after theirs we write on."""
    near, far = pair
    near.write(b"last")
    assert near.end_writing()
    assert (take(far), take(far), take(far)) == (b"last", b"", b"")
    for word in (b"still", b"here"):
        far.write(word)
        assert take(near) == word
    assert far.end_writing()
    assert take(near) == b""
    near.close()
    far.close()


def test_an_end_behind_bytes_is_pending_over_tls() -> None:
    """A close_notify read together with data will not wake the descriptor again, so the end says so."""
    near, far = over_tls(*socket.socketpair())
    near.write(b"last")
    near.end_writing()
    assert take(far) == b"last"
    assert far.pending
    assert take(far) == b""


def test_n28_a_fin_without_close_notify_is_a_cut() -> None:
    """Whoever ends the TCP connection in the network cannot make a stream look complete."""
    near, far = over_tls(*socket.socketpair())
    near.write(b"not all")
    near.sock.close()
    assert take(far) == b"not all"
    assert far.pending
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="close_notify"):
            far.read_into(ROOM)


def test_garbage_is_a_cut_with_a_sentence() -> None:
    """The engine's own exceptions stay inside."""
    near, far = over_tls(*socket.socketpair())
    near.sock.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(OSError, match="broke TLS: ") as caught:
        far.read_into(ROOM)
    assert said(caught.value).startswith("broke TLS: ")


def test_a_strange_first_message_fails_the_handshake() -> None:
    """Plain text at a TLS port, and a port that answers a TLS client in plain text."""
    server, client = contexts()
    near, far = socket.socketpair()
    end = TlsEnd.accepting(server.getContext(), far)
    near.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    with pytest.raises(OSError, match="broke TLS: "):
        end.handshake()
    near, far = socket.socketpair()
    other = TlsEnd.connecting(client.getContext(), near, "server.example")
    assert not other.handshake()
    assert not other.reads_when_writable
    far.close()
    with pytest.raises(OSError, match=r"close_notify|reset"):
        other.handshake()


def test_a_write_to_nobody_is_a_cut(pair: tuple[End, End]) -> None:
    """The other process is gone."""
    near, far = pair
    far.sock.close()
    with pytest.raises(OSError, match=r"pipe|reset"):
        for _ in range(3):
            near.write(b"hello?")


@pytest.mark.parametrize("reads_first", [False, True])
def test_a_reset_is_called_one_however_often_it_is_met(reads_first: bool) -> None:
    """The engine says once what happened, and then nothing: "broke TLS: unknown fault" was said of that."""
    near, far = over_tls(*tcp_pair())
    far.abort()
    met = []
    for reads in (reads_first, not reads_first, reads_first):
        with pytest.raises(OSError) as caught:
            near.read_into(memoryview(bytearray(RECORD))) if reads else near.write(b"data")
        met.append(said(caught.value))
    near.close()
    assert met == ["reset the connection"] * 3


def test_a_closed_end_does_nothing_more(pair: tuple[End, End]) -> None:
    """Its number may be somebody else's by now, so no call reaches the system."""
    near, far = pair
    near.close()
    far.abort()
    for end in pair:
        assert end.fileno() == -1
        assert not end.pending
        for call in (lambda end=end: end.read_into(ROOM), lambda end=end: end.write(b"x"), end.end_writing):
            with pytest.raises(OSError, match=r"closed|descriptor"):
                call()
        end.close()
        end.abort()


def test_close_notify_waits_for_room() -> None:
    """A full socket does not take it either: asked again, the end sends it once."""
    near, far = over_tls(*socket.socketpair())
    with contextlib.suppress(BlockingIOError):
        while True:
            near.sock.send(bytes(RECORD))
    assert not near.end_writing()
    assert not near.end_writing()
    sizes = []
    with contextlib.suppress(BlockingIOError):
        while True:
            sizes.append(far.sock.recv_into(ROOM))
    assert near.end_writing()
    assert near.end_writing()
    assert far.sock.recv_into(ROOM) == 24  # one sealed alert
    with pytest.raises(BlockingIOError):
        far.sock.recv_into(ROOM)


def test_peer_is_written_as_everywhere() -> None:
    """A socketpair has no name; what the owner knows better is kept."""
    near, far = socket.socketpair()
    assert PlainEnd(near).peer == "unix:"
    assert PlainEnd(far, "10.0.0.1:99").peer == "10.0.0.1:99"
    assert PlainEnd(socket.socket()).peer == "?"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_options_are_set_where_they_exist(family: int) -> None:
    """A TCP socket has them; another kind and no socket are left alone."""
    with socket.socket(family) as handle:
        tune(handle)
        if family == socket.AF_INET:
            assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert handle.getsockopt(socket.IPPROTO_TCP, 18) == 0  # a program may take nothing for hours
    tune(None)


@pytest.mark.slow
def test_accepted_sockets_inherit_the_options() -> None:
    """One call for a listener does for its connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tune(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, 25) == 512 * 1024
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_n28_abort_is_a_reset(tls: bool) -> None:
    """The other side is told that the stream was cut."""
    near, far = over_tls(*tcp_pair()) if tls else map(PlainEnd, tcp_pair())
    assert near.peer.startswith("127.0.0.1:")
    near.abort()
    with pytest.raises(ConnectionResetError):
        far.read_into(ROOM)


@pytest.mark.slow
@pytest.mark.parametrize("in_order", [False, True])
def test_n28_a_socket_that_nobody_closed_in_order_ends_with_a_reset(in_order: bool) -> None:
    """As the kernel does it for a killed process; ``close`` is the word that makes it an end of file."""
    near, far = map(PlainEnd, tcp_pair())
    if in_order:
        near.close()
        assert take(far) == b""
    else:
        near.sock.close()
        with pytest.raises(ConnectionResetError):
            far.read_into(ROOM)


@pytest.mark.slow
def test_half_close_against_another_tls() -> None:
    """Python's ssl at the other side: it ends first and reads our answer; then the other way round."""
    server, _ = contexts()
    for they_end_first in (True, False):
        near, far = tcp_pair()
        end = TlsEnd.accepting(server.getContext(), far)
        heard: list[bytes] = []
        thread = threading.Thread(target=_talk, args=(near, they_end_first, heard))
        thread.start()
        end.sock.setblocking(True)
        assert end.handshake()
        if they_end_first:
            assert (take(end), take(end)) == (b"question", b"")
            end.write(b"answer")
            end.end_writing()
        else:
            end.write(b"answer")
            end.end_writing()
            assert (take(end), take(end)) == (b"question", b"")
        thread.join()
        assert heard == [b"answer"]
        end.close()


def _talk(sock: socket.socket, ends_first: bool, heard: list[bytes]) -> None:
    """The other side, with ssl's own engine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context.wrap_bio(incoming, outgoing)

    def work(step: object) -> bytes:
        while True:
            try:
                result = step()  # type: ignore[operator]
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
                continue
            sock.sendall(outgoing.read())
            return result or b""

    work(engine.do_handshake)
    if ends_first:
        engine.write(b"question")
        with contextlib.suppress(ssl.SSLWantReadError):
            engine.unwrap()
        sock.sendall(outgoing.read())
        heard.append(_rest(engine, sock, incoming))
    else:
        heard.append(work(lambda: engine.read(100)))
        engine.write(b"question")
        with contextlib.suppress(ssl.SSLWantReadError):
            engine.unwrap()
        sock.sendall(outgoing.read())
    sock.close()


def _rest(engine: ssl.SSLObject, sock: socket.socket, incoming: ssl.MemoryBIO) -> bytes:
    """What comes after our own close_notify."""
    while True:
        try:
            return engine.read(100)
        except ssl.SSLWantReadError:
            incoming.write(sock.recv(65536))
