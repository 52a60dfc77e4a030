"""The model of the real server: each sentence of wire/readyagent.md section 3, seen from a plain socket."""

import contextlib
import hashlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.legacy_device import LegacyDevice
from tests.support.legacy_server import LegacyServer
from tests.support.services import Banner, Echo, LogOutput, Source, digest_of, pseudo_random, reset
from tests.support.test_legacy_device import GOLDEN, LISTEN, Link, close, data
from tests.support.vectors import LEGACY

pytestmark = pytest.mark.slow

CONSOLE = (0, "10.41.51.152", 23)
CONNECT = next(vector.payload for vector in LEGACY if vector.name == "CONNECT 10.41.51.152:23")


def connect(channel: int) -> bytes:
    """The CONNECT frame for CONSOLE."""
    return bytes((0, len(CONNECT), 1, channel)) + CONNECT


def dial(server: LegacyServer, mapping: int = 0) -> socket.socket:
    """A client."""
    return socket.create_connection(("127.0.0.1", server.client_ports[mapping]), 10)


@contextlib.contextmanager
def linked(**switches: object) -> Iterator[tuple[LegacyServer, Link]]:
    """A server whose device, past LISTEN, is a plain socket."""
    with (
        LegacyServer([CONSOLE], **switches) as server,  # type: ignore[arg-type]
        socket.create_connection(("127.0.0.1", server.port), 10) as sock,
    ):
        link = Link(sock, server)  # type: ignore[arg-type]
        link.send(LISTEN)
        server.record.wait("listening")
        yield server, link


def test_golden_session() -> None:
    """CONNECT as it was recorded, DATA both ways, the device's CLOSE closes the client and is echoed."""
    with linked() as (server, link), dial(server) as client:
        link.says(GOLDEN["CONNECT 10.41.51.152:23"])
        client.sendall(b"hello")
        link.says(GOLDEN["DATA hello"])
        link.send(GOLDEN["DATA hello"], data(1, b""), GOLDEN["CLOSE 1"])
        assert client.recv(10) == b"hello" and client.recv(10) == b""
        link.says(GOLDEN["CLOSE 1"])
        assert server.wire is not None and bytes(server.wire.received).startswith(LISTEN)


def test_clients_are_refused_before_listen() -> None:
    """The ports for clients open when the device has said LISTEN."""
    with LegacyServer([CONSOLE]) as server, pytest.raises(ConnectionRefusedError):
        dial(server)


@pytest.mark.parametrize("first", [b"\0\0\4\1", b"\0\1\4\0x", b"\0\0\2\0", b"\0\0\x10\1"])
def test_a_wrong_first_frame_ends_the_program(first: bytes) -> None:
    """Only 00 00 04 00 will do."""
    with LegacyServer([CONSOLE]) as server, socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        sock.sendall(first)
        server.record.wait("exit")
        assert server.exited.wait(10)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 10)


def test_a_second_device_is_not_served() -> None:
    """It may connect, then nothing happens, also after the first has gone."""
    with linked() as (server, link), socket.create_connection(("127.0.0.1", server.port), 10) as second:
        link.sock.shutdown(socket.SHUT_RDWR)
        server.record.wait("link lost")
        second.sendall(LISTEN)
        second.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.recv(1)
        assert server.record.count("listening") == 1


def test_serving_another_device_is_a_switch() -> None:
    """Without one_device the next one is served when the first has gone."""
    with linked(one_device=False) as (server, link):
        link.sock.shutdown(socket.SHUT_RDWR)
        server.record.wait("link lost")
        with socket.create_connection(("127.0.0.1", server.port), 10) as second:
            second.sendall(LISTEN)
            server.record.wait("listening", count=2)
            with dial(server):
                assert second.recv(100) == connect(1)


def test_ids_go_round_and_an_old_client_is_closed_in_silence() -> None:
    """After 255 comes 0, then 1 again: its old client is closed, the device hears only the new CONNECT."""
    with linked(next_id=255) as (server, link), dial(server) as old:
        link.says(connect(255))
        with dial(server):
            link.says(connect(0))
        link.says(close(0))
        server.next_id = 255
        with dial(server) as new:
            link.says(connect(255))
            assert old.recv(1) == b""
            link.send(data(255, b"for the new one"))
            assert new.recv(100) == b"for the new one"


def test_telling_the_device_of_the_wrap_is_a_switch() -> None:
    """Without silent_wrap a CLOSE goes before the new CONNECT."""
    with linked(silent_wrap=False) as (server, link), dial(server):
        link.says(connect(1))
        server.next_id = 1
        with dial(server):
            link.says(close(1) + connect(1))


def test_data_comes_in_chunks_of_8188() -> None:
    """No frame towards the device is larger than 8192 bytes with its header."""
    with linked() as (server, link), dial(server) as client:
        link.says(connect(1))
        client.sendall(bytes(20_000))
        total = 0
        while total < 20_000:
            size = int.from_bytes(link.read(4)[:2], "big")
            assert size <= 8188
            total += len(link.read(size))


def test_late_data_is_written_after_the_clients_end_of_file() -> None:
    """Until the device's CLOSE; which is echoed although the server's own CLOSE was first."""
    with linked() as (server, link), dial(server) as client:
        link.says(connect(1))
        client.shutdown(socket.SHUT_WR)
        link.says(close(1))
        link.send(data(1, b"late"), close(1))
        assert client.recv(10) == b"late" and client.recv(10) == b""
        link.says(close(1))


def test_late_data_is_a_switch() -> None:
    """Without it the client is gone, and the DATA is for an id that was used: skipped, answered by CLOSE."""
    with linked(late_data=False, echo_close=False) as (server, link), dial(server) as client:
        link.says(connect(1))
        client.shutdown(socket.SHUT_WR)
        link.says(close(1))
        assert client.recv(10) == b""
        link.send(data(1, b"late"), close(1), data(0, b""))
        link.says(close(1) + close(0))


def test_what_is_not_close_for_an_unknown_id_gets_a_close() -> None:
    """And the payload for a never-used id is run as frames."""
    with linked() as (_, link):
        link.send(data(7, b""), LISTEN, close(9))
        link.says(close(7) + close(0))
        link.send(data(7, data(8, b"")))
        link.says(close(7) + close(8))
    with linked(skip_stray_payload=True) as (_, link):
        link.send(data(7, data(8, b"")), data(6, b""))
        link.says(close(7) + close(6))


def test_zero_size_data_is_a_heartbeat() -> None:
    """On id 0, never used so far, it is answered by CLOSE 0."""
    with linked() as (_, link):
        link.send(GOLDEN["DATA of no bytes"])
        link.says(GOLDEN["CLOSE 0"])


def test_more_clients_than_workers_wait() -> None:
    """22 clients are served at once; the next is when one leaves."""
    with linked() as (server, link), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(server)) for _ in range(23)]
        server.record.wait("client", count=22)
        assert server.record.count("client") == 22
        link.read(22 * len(connect(1)))
        clients[5].close()
        server.record.wait("client", count=23)


def test_early_data_is_a_switch() -> None:
    """With it, what the client says at once goes before CONNECT."""
    with linked(early_data=True) as (server, link), dial(server) as client:
        client.sendall(b"eager")
        link.says(data(1, b"eager") + connect(1))


def test_after_a_severed_link_clients_hang() -> None:
    """Running clients are closed; new ones connect and wait for ever."""
    with linked() as (server, link), dial(server) as running:
        link.says(connect(1))
        link.sock.shutdown(socket.SHUT_RDWR)
        assert running.recv(1) == b""
        server.record.wait("link lost")
        with dial(server) as late:
            server.record.wait("unserved client")
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.recv(1)


def test_resetting_clients_after_a_severed_link_is_a_switch() -> None:
    """Without hang_after_loss new clients are reset, be it while they connect."""
    with linked(hang_after_loss=False) as (server, link):
        link.sock.shutdown(socket.SHUT_RDWR)
        server.record.wait("link lost")
        with pytest.raises(ConnectionResetError), dial(server) as late:
            late.recv(1)


def test_a_client_that_resets_is_a_close() -> None:
    """A reset client looks like one that closed, and is forgotten."""
    with linked() as (server, link):
        client = dial(server)
        link.says(connect(1))
        reset(client)
        link.says(close(1))


def test_split_header_misparse_is_a_switch() -> None:
    """A header in two segments is two wrong headers."""
    with linked(split_header_misparse=True) as (server, link):
        link.send(b"\0\0\3")
        server.record.wait("frame", "DATA", 0, 0)
        link.send(b"\x07")
        server.record.wait("frame", "0x00", 0, 0x0700)


def test_the_two_models_carry_a_megabyte_each_way() -> None:
    """Device and server against each other, as the originals were tried: hashes equal both ways."""
    with LogOutput() as output, Source(1_000_000, 4) as source, Banner(b"hi") as banner, Echo() as echo:
        services = (output, source, banner, echo)
        mappings = [(0, "localhost" if each is echo else "127.0.0.1", each.port) for each in services]
        with LegacyServer(mappings) as server, LegacyDevice(("127.0.0.1", server.port)) as device:
            server.record.wait("listening")
            with dial(server, 0) as client:
                for block in pseudo_random(1_000_000, 3):
                    client.sendall(block)
            with dial(server, 1) as client:
                got = b"".join(iter(lambda: client.recv(65536), b""))
            with dial(server, 2) as client:
                assert client.recv(10) == b"hi"
            with dial(server, 3) as client:
                client.sendall(b"abc")
                assert client.recv(10) == b"abc"
            output.record.wait("ended", 1)
            device.record.wait("service ended", count=4)
    assert output.received == 1_000_000
    assert hashlib.sha256(got).hexdigest() == digest_of(1_000_000, 4)


def test_as_a_process() -> None:
    """The same program runs on its own, tells its ports, and exits where the original does."""
    command = [sys.executable, "-m", "tests.support.legacy_server", "--map", "0=10.41.51.152:23"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert [line[0] for line in lines] == ["device", "clients"]
        with socket.create_connection(("127.0.0.1", int(lines[0][1])), 10) as sock:
            sock.sendall(b"none")
            assert process.wait(20) == 0
