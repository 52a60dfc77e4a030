"""The model of the real device: each sentence of wire/readyagent.md section 2, seen from a plain socket."""

import contextlib
import hashlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.legacy_device import LegacyDevice
from tests.support.services import (
    BlackHole,
    Echo,
    HalfCloseFirst,
    Hanger,
    Refuser,
    Service,
    Source,
    digest_of,
)
from tests.support.vectors import LEGACY

pytestmark = pytest.mark.slow

GOLDEN = {vector.name: vector.wire for vector in LEGACY}
LISTEN = GOLDEN["LISTEN"]


def connect(channel: int, service: Service, host: str = "") -> bytes:
    """A CONNECT frame."""
    name = (host or service.host).encode()
    payload = len(name).to_bytes(2, "big") + name + service.port.to_bytes(2, "big")
    return len(payload).to_bytes(2, "big") + bytes((1, channel)) + payload


def data(channel: int, payload: bytes) -> bytes:
    """A DATA frame."""
    return len(payload).to_bytes(2, "big") + bytes((3, channel)) + payload


def close(channel: int) -> bytes:
    """A CLOSE frame."""
    return bytes((0, 0, 2, channel))


PING, PONG = GOLDEN["DATA on id 0"], GOLDEN["CLOSE 0"]


class Link:
    """The server's end of the link, by hand."""

    def __init__(self, sock: socket.socket, device: LegacyDevice) -> None:
        self.sock = sock
        self.device = device
        sock.settimeout(10)

    def send(self, *frames: bytes) -> None:
        """Frames in one segment."""
        self.sock.sendall(b"".join(frames))

    def read(self, size: int) -> bytes:
        """Exactly that many bytes."""
        got = b""
        while len(got) < size and (more := self.sock.recv(size - len(got))):
            got += more
        return got

    def says(self, expected: bytes) -> None:
        """The device's next bytes are these."""
        assert self.read(len(expected)) == expected

    def is_silent(self) -> None:
        """Nothing is on its way: the answer to a ping comes first."""
        self.send(PING)
        self.says(PONG)


@contextlib.contextmanager
def linked(**switches: object) -> Iterator[Link]:
    """A device with its link, past LISTEN."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        LegacyDevice(listener.getsockname(), **switches) as device,  # type: ignore[arg-type]
        listener.accept()[0] as sock,
    ):
        link = Link(sock, device)
        link.says(LISTEN)
        yield link


def test_golden_session() -> None:
    """LISTEN first; CONNECT and DATA in one segment; echo; CLOSE and its echo. The tap has both ways."""
    with Echo() as service, linked() as link:
        link.send(connect(1, service), GOLDEN["DATA hello"])
        link.says(GOLDEN["DATA hello"])
        link.send(GOLDEN["CLOSE 1"])
        link.says(GOLDEN["CLOSE 1"])
        wire = link.device.link.wire
        assert bytes(wire.sent) == LISTEN + GOLDEN["DATA hello"] + GOLDEN["CLOSE 1"]
        assert bytes(wire.received) == connect(1, service) + GOLDEN["DATA hello"] + GOLDEN["CLOSE 1"]
        assert link.device.record.count("frame", "DATA", 1) == 1


def test_no_server_is_the_callers_error() -> None:
    """A refused dial raises and is not tried again."""
    with Refuser() as nobody, pytest.raises(ConnectionRefusedError):
        LegacyDevice(nobody.address).start()


@pytest.mark.parametrize("host", ["", "no-such-name.invalid"])
def test_refused_and_unknown_targets_get_a_close(host: str) -> None:
    """A service that refuses and a name that does not exist look the same."""
    with Refuser() as service, linked() as link:
        link.send(connect(9, service, host))
        link.says(close(9))


@pytest.mark.parametrize(
    "frame",
    [b"\0\0\1\5", b"\0\1\1\5\0", b"\0\5\1\5\0\x0ahos", b"\0\3\1\5\0\0\0"],
    ids=["0", "1", "cut", "no port"],
)
def test_malformed_connect_is_met_with_silence(frame: bytes) -> None:
    """No CLOSE and no step lost; with the switch, a CLOSE."""
    with linked() as link:
        link.send(frame)
        link.is_silent()
    with linked(silent_on_malformed=False) as link:
        link.send(frame)
        link.says(close(5))


def test_connect_on_a_used_id_is_followed_by_a_stray_close() -> None:
    """The new service lives, though a CLOSE for its id has been sent."""
    with Echo() as first, Echo() as second, linked() as link:
        link.send(connect(3, first), data(3, b"one"))
        link.says(data(3, b"one"))
        link.send(connect(3, second))
        link.says(close(3))
        link.send(data(3, b"two"))
        link.says(data(3, b"two"))
        first.record.wait("ended", 1)
        assert second.received == 3


def test_close_without_echo_and_close_of_nothing() -> None:
    """The echo can be switched off; CLOSE on an unknown id never has an answer."""
    with Echo() as service, linked(echo_close=False) as link:
        link.send(connect(1, service), data(1, b"x"))
        link.says(data(1, b"x"))
        link.send(close(1), close(77))
        service.record.wait("ended", 1)
        link.is_silent()


def test_data_on_an_unknown_id() -> None:
    """One CLOSE for each DATA with bytes; none, and no harm, for one without."""
    with linked() as link:
        link.send(data(8, b"abc"), data(8, b""), data(8, b"d"), data(255, b""))
        link.says(close(8) * 2)
        link.is_silent()
        link.device.record.wait("empty DATA", count=2)


def test_a_service_that_sends_and_closes() -> None:
    """All data first, then CLOSE; no frame over 65535 bytes."""
    with Source(500_000) as service, linked() as link:
        link.send(connect(255, service))
        digest, total = hashlib.sha256(), 0
        while True:
            size, command, channel = int.from_bytes(link.read(2), "big"), *link.read(2)
            assert channel == 255
            if command == 2:
                break
            digest.update(link.read(size))
            total += size
        assert total == 500_000 and digest.hexdigest() == digest_of(500_000)


def test_half_close_is_full_close() -> None:
    """A service's end of file closes both ways; DATA after it is for an unknown id."""
    with HalfCloseFirst(b"bye") as service, linked() as link:
        link.send(connect(4, service))
        link.says(data(4, b"bye") + close(4))
        link.send(data(4, b"late"))
        link.says(close(4))
        service.record.wait("ended", 1)
        assert service.received == 0


def test_half_close_can_be_kinder() -> None:
    """With the switch, the service still gets what comes until the server's CLOSE."""
    with HalfCloseFirst(b"bye") as service, linked(half_close_is_close=False) as link:
        link.send(connect(4, service))
        link.says(data(4, b"bye") + close(4))
        link.send(data(4, b"late"), close(4))
        service.record.wait("end of file", 1)
        assert service.received == 4


@pytest.mark.parametrize("command", [0x02, 0x04, 0x10, 0x99])
def test_a_stray_payload_is_run_as_frames(command: int) -> None:
    """The payload of what should have none is the next frame: here CLOSE 5, as it was seen."""
    frame = bytes((0, 4, command, 0)) + GOLDEN["CLOSE 5"]
    with Echo() as service, linked() as link:
        link.send(connect(5, service), data(5, b"x"))
        link.says(data(5, b"x"))
        link.send(frame)
        link.says(close(5))
    with linked(skip_stray_payload=True) as link:
        link.send(frame)
        link.is_silent()
        assert link.device.record.count("frame", "CLOSE", 5) == 0


def test_the_probe_of_rt1_is_harmless() -> None:
    """An unknown command of no bytes, and LISTEN from the server, are skipped."""
    with linked() as link:
        link.send(b"\0\0\x10\x01", LISTEN)
        link.is_silent()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_hanging_connect_stalls_the_link(blocking: bool) -> None:
    """Nothing else is read while a connect hangs; with the switch off, all goes on."""
    with Hanger() as hanger, Echo() as service, linked(blocking_connect=blocking) as link:
        link.send(connect(1, hanger), data(1, b"held"), connect(2, service), data(2, b"hello"))
        if blocking:
            link.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                link.sock.recv(1)
        else:
            link.says(data(2, b"hello"))


def test_a_slow_service_stalls_the_link() -> None:
    """One reader, no flow control: when a service does not read, a ping is not answered."""
    with BlackHole(4096) as slow, linked() as link:
        link.send(connect(1, slow))
        link.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(2000):
                link.send(data(1, bytes(65535)))


def test_a_severed_link_closes_every_service_and_is_not_dialled_again() -> None:
    """Services end, and that is all."""
    with Echo() as service, linked() as link:
        link.send(connect(1, service), connect(2, service))
        service.record.wait("accepted", count=2)
        link.sock.shutdown(socket.SHUT_RDWR)
        service.record.wait("ended", count=2)
        link.device.record.wait("link lost")
        assert len(link.device.links) == 1


def test_a_second_command_replaces_the_link() -> None:
    """TCPRemoteConnect while up drops the old link and opens a new one."""
    with socket.create_server(("127.0.0.1", 0)) as listener, LegacyDevice(listener.getsockname()) as device:
        first, _ = listener.accept()
        device.tcp_remote_connect()
        second, _ = listener.accept()
        with first, second:
            assert first.recv(5) == LISTEN and first.recv(5) == b""
            assert second.recv(5) == LISTEN


def test_reconnecting_is_a_switch() -> None:
    """With it, a severed link comes back."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        LegacyDevice(listener.getsockname(), reconnects=True) as device,
    ):
        listener.accept()[0].close()
        with listener.accept()[0] as again:
            assert again.recv(5) == LISTEN
        device.record.wait("link lost")


def test_split_header_misparse_is_a_switch() -> None:
    """A header in two segments is two wrong headers with it, and one right one without."""
    for misparse in (True, False):
        with linked(split_header_misparse=misparse) as link:
            link.send(b"\0\0\x02")
            if misparse:
                link.device.record.wait("frame")
            link.send(b"\x07")
            if misparse:
                link.device.record.wait("frame", count=2)
                assert [event[1:] for event in link.device.record.events][:2] == [
                    ("CLOSE", 0, 0),
                    ("0x00", 0, 0x0700),
                ]
            else:
                link.device.record.wait("frame", "CLOSE", 7)


def test_as_a_process() -> None:
    """The same program runs on its own and ends with its link."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "tests.support.legacy_device",
            f"127.0.0.1:{port}",
            "--no-echo-close",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            with listener.accept()[0] as sock:
                assert sock.recv(5) == LISTEN
            assert process.communicate(timeout=20)[0] == "linked\nlink lost\n"
            assert process.returncode == 0
