"""The loopback services do what their names say."""

import hashlib
import socket

import pytest

from tests.support.services import (
    Banner,
    BlackHole,
    Echo,
    HalfCloseFirst,
    Hanger,
    LogOutput,
    Record,
    Refuser,
    ReplyAfterEof,
    Resetter,
    Service,
    Source,
    digest_of,
    pseudo_random,
)

pytestmark = pytest.mark.slow


def talk(service: Service, data: bytes = b"", end: bool = True) -> bytes:
    """Send, end the sending side if ``end``, and read all the answer."""
    with socket.create_connection(service.address, 10) as sock:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_echo_counts() -> None:
    """Echo returns the bytes and counts them; its connections end."""
    with Echo() as service:
        assert talk(service, b"abc" * 1000) == b"abc" * 1000
        service.record.wait("ended", 1)
        assert (service.accepted, service.received, service.sent, service.open) == (1, 3000, 3000, {})
        assert service.target == f"127.0.0.1:{service.port}"
    service.stop()


def test_ipv6() -> None:
    """A service can listen on ::1; its written form has brackets."""
    with Echo("::1") as service:
        assert talk(service, b"six") == b"six"
        assert service.target.startswith("[::1]:")


def test_sink_hashes() -> None:
    """Sink knows the digest of each connection."""
    data = b"".join(pseudo_random(200_000, 3))
    with LogOutput() as service:
        assert talk(service, data) == b""
        assert service.digests == {1: digest_of(200_000, 3)} and service.received == 200_000


def test_source_sends_what_its_digest_says() -> None:
    """Source gives every client the same bytes."""
    with Source(300_000, seed=5) as service:
        assert hashlib.sha256(talk(service)).hexdigest() == service.digest


def test_reply_after_eof() -> None:
    """The answer comes only after the question's end, whole."""
    with ReplyAfterEof(100_000) as service:
        answer = talk(service, b"question")
        assert answer[:32] == hashlib.sha256(b"question").digest()
        assert hashlib.sha256(answer[32:]).hexdigest() == digest_of(100_000, 1)


def test_half_close_first() -> None:
    """The service ends its side first and still takes what comes."""
    with HalfCloseFirst(b"bye") as service, socket.create_connection(service.address, 10) as sock:
        assert sock.recv(10) == b"bye" and sock.recv(10) == b""
        sock.sendall(b"still here")
        sock.shutdown(socket.SHUT_WR)
        service.record.wait("end of file", 1)
        assert service.received == 10


def test_banner_speaks_first() -> None:
    """Banner greets, then echoes."""
    with Banner(b"hello ") as service:
        assert talk(service, b"you") == b"hello you"


def test_refuser_refuses() -> None:
    """Nobody listens there, and nobody else can take the port."""
    with Refuser() as service, pytest.raises(ConnectionRefusedError):
        socket.create_connection(service.address, 10)


def test_hanger_hangs() -> None:
    """A connect gets no answer of any kind."""
    with Hanger() as service, pytest.raises(TimeoutError):
        socket.create_connection(service.address, 0.5)


def test_black_hole_takes_little() -> None:
    """With a small buffer, a writer is soon stuck."""
    with BlackHole(4096) as service, socket.create_connection(service.address, 10) as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(64 * 1024 * 1024))
        assert service.received == 0


@pytest.mark.parametrize(("after", "data"), [(0, b""), (3, b"abcdef")])
def test_resetter_resets(after: int, data: bytes) -> None:
    """The connection ends with a RST after that many bytes."""
    with Resetter(after) as service, pytest.raises(ConnectionResetError):
        talk(service, data, end=False)


def test_failures_are_recorded() -> None:
    """A client that resets its connection is an event, not a traceback."""
    with Echo() as service:
        sock = socket.create_connection(service.address, 10)
        service.record.wait("accepted", 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sock.close()
        service.record.wait("failed", 1, "ConnectionResetError")


def test_waiting_in_vain_shows_what_was_seen() -> None:
    """Record's complaint lists the events."""
    record = Record()
    record.add("something", 1)
    with pytest.raises(AssertionError, match="something"):
        record.wait("else", timeout=0.01)
