"""Records read and written past pyOpenSSL's methods are those that its methods read and write."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from OpenSSL import SSL

from revtunnel.sockets import tls_records
from revtunnel.sockets.tls_records import (
    RECORD,
    read_directly,
    read_publicly,
    write_directly,
    write_publicly,
)
from tests.support.throwaway_tls import contexts

WAYS = [(read_directly, write_directly), (read_publicly, write_publicly)]
Read = Callable[[Any, memoryview], tuple[int, Any]]
Write = Callable[[Any, Any], tuple[int, Any]]


@pytest.fixture
def pair() -> Iterator[tuple[SSL.Connection, SSL.Connection]]:
    """A client and a server, shaken, whose tickets are read."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    server, client = contexts()
    ends = SSL.Connection(client.getContext(), near), SSL.Connection(server.getContext(), far)
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except SSL.WantReadError:
                continue
    assert isinstance(read_publicly(ends[0], memoryview(bytearray(RECORD)))[1], SSL.WantReadError)
    yield ends
    near.close()
    far.close()


def test_the_direct_way_is_taken_here() -> None:
    """With the pyOpenSSL that is tested; another without its names goes the public way."""
    assert (tls_records.read_records, tls_records.write_records) == WAYS[0]


@pytest.mark.parametrize(("read", "write"), WAYS)
def test_many_records_in_one_call(
    pair: tuple[SSL.Connection, SSL.Connection], read: Read, write: Write
) -> None:
    """As long as there is room for a whole one; what is left is read by the next call."""
    near, far = pair
    data = bytes(range(256)) * 200  # 51,200: three records and a part
    assert write(near, memoryview(data)) == (len(data), None)
    room = memoryview(bytearray(3 * RECORD + 100))
    assert read(far, room) == (3 * RECORD, None)
    rest = memoryview(bytearray(4 * RECORD))
    got, stopped = read(far, rest)
    assert bytes(room[: 3 * RECORD]) + bytes(rest[:got]) == data
    assert isinstance(stopped, SSL.WantReadError)


@pytest.mark.parametrize(("read", "write"), WAYS)
def test_less_room_than_a_record_is_never_overrun(
    pair: tuple[SSL.Connection, SSL.Connection], read: Read, write: Write
) -> None:
    """A view into something larger: what is beside it stays."""
    near, far = pair
    write(near, bytes(300))
    whole = bytearray(b"\xff" * 400)
    assert read(far, memoryview(whole)[100:200]) == (100, None)
    assert whole == b"\xff" * 100 + bytes(100) + b"\xff" * 200


@pytest.mark.parametrize(("read", "write"), WAYS)
def test_a_full_socket_takes_a_part_and_goes_on_there(
    pair: tuple[SSL.Connection, SSL.Connection], read: Read, write: Write
) -> None:
    """What was not taken is written by the next call, byte for byte."""
    near, far = pair
    data = bytes(i * 7 % 256 for i in range(4 * 1024 * 1024))
    taken, stopped = write(near, data)
    assert 0 < taken < len(data)
    assert isinstance(stopped, SSL.WantWriteError)
    came, room = bytearray(), memoryview(bytearray(8 * RECORD))
    while len(came) < len(data):
        got, _ = read(far, room)
        came += room[:got]
        if taken < len(data):
            taken += write(near, memoryview(data)[taken:])[0]
    assert came == data


@pytest.mark.parametrize(("read", "write"), WAYS)
def test_an_end_or_a_cut_comes_behind_the_bytes_before_it(
    pair: tuple[SSL.Connection, SSL.Connection], read: Read, write: Write
) -> None:
    """With the exception that pyOpenSSL has for each."""
    near, far = pair
    room = memoryview(bytearray(4 * RECORD))
    write(near, b"last words")
    near.shutdown()
    got, stopped = read(far, room)
    assert bytes(room[:got]) == b"last words"
    assert isinstance(stopped, SSL.ZeroReturnError)
    far.sock_shutdown(socket.SHUT_WR)
    got, stopped = read(near, room)
    assert (got, type(stopped)) == (0, SSL.SysCallError)


@pytest.mark.parametrize(("read", "write"), WAYS)
def test_nonsense_is_the_other_side_s_fault(
    pair: tuple[SSL.Connection, SSL.Connection], read: Read, write: Write
) -> None:
    """As it would be said by pyOpenSSL."""
    near, far = pair
    write(near, b"good")
    socket.fromfd(near.fileno(), socket.AF_UNIX, socket.SOCK_STREAM).send(b"\x17\x03\x03\x00\x20" + bytes(32))
    got, stopped = read(far, memoryview(bytearray(4 * RECORD)))
    assert (got, type(stopped)) == (4, SSL.Error)
    assert "bad record mac" in str(stopped)


def test_an_error_that_another_call_left_ends_nothing(pair: tuple[SSL.Connection, SSL.Connection]) -> None:
    """The queue is empty when SSL_get_error is asked, which matters to OpenSSL before 4.0."""
    near, far = pair
    room, library = memoryview(bytearray(RECORD)), SSL._lib  # type: ignore[attr-defined]
    library.ERR_put_error(2, 0, 104, b"", 0)  # the system's ECONNRESET
    assert isinstance(read_directly(near, room)[1], SSL.WantReadError)
    assert library.ERR_peek_error() == 0
    library.ERR_put_error(2, 0, 104, b"", 0)
    assert write_directly(near, b"data") == (4, None)
    assert library.ERR_peek_error() == 0
    assert read_directly(far, room)[0] == 4
