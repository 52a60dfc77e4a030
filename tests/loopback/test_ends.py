"""How a connection ends is what the other program sees: end of file, reset, each direction by itself."""

import hashlib
import shutil
import socket
import subprocess
import time

import pytest

from tests.support.daemons import Lab
from tests.support.services import (
    Banner,
    BlackHole,
    Echo,
    HalfCloseFirst,
    Hanger,
    Refuser,
    ReplyAfterEof,
    Resetter,
    Service,
    digest_of,
    reset,
)
from tests.support.traffic import (
    MIB,
    Patterned,
    Reader,
    connect,
    end_of,
    end_of_new,
    exchange,
    in_thread,
    question,
    read_exactly,
    read_pattern,
    send_pattern,
)

pytestmark = pytest.mark.slow


class Recorder(Service):
    """Keeps how each connection ended: ("end", number, "end of file" or "reset")."""

    def serve(self, sock: socket.socket, number: int) -> None:
        """Read to the end, whatever it is."""
        try:
            self.read_to_end(sock, number)
            self.record.add("end", number, "end of file")
        except ConnectionResetError:
            self.record.add("end", number, "reset")


class Taker(Service):
    """Compares what comes with pattern 1; ("end", "end of file", "reset" or what was wrong)."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader(1)

    def serve(self, sock: socket.socket, number: int) -> None:
        """Compare to the end."""
        try:
            read_pattern(sock, self.reader)
            self.record.add("end", "end of file")
        except ConnectionResetError:
            self.record.add("end", "reset")
        except AssertionError as problem:
            self.record.add("end", str(problem))


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")
def test_n26_nc_gets_the_whole_reply_after_its_end_of_file(lab: Lab) -> None:
    """``nc -N`` sends, shuts down its writing side and waits: the answer that comes after that is whole."""
    words = b"".join(bytes([number % 251]) * 997 for number in range(500))
    with ReplyAfterEof(8 * MIB) as service:
        server, _ = lab.pair(late=service.target)
        port = server.client_port("plc-7", "late")
        command = ["nc", "-N", "127.0.0.1", str(port)]
        answer = subprocess.run(command, input=words, stdout=subprocess.PIPE, timeout=60, check=True).stdout
        assert answer[:32] == hashlib.sha256(words).digest()
        assert hashlib.sha256(answer[32:]).hexdigest() == digest_of(8 * MIB, 1)
        server.wait_event("channel-ended", reason="closed")


def test_n27_a_service_that_ends_first_still_reads(lab: Lab) -> None:
    """The client sees the end of file at once, and what it sends after that arrives whole."""
    with HalfCloseFirst(b"that was all") as service:
        server, _ = lab.pair(first=service.target)
        with connect(server.client_port("plc-7", "first")) as client:
            assert read_exactly(client, 100) == b"that was all"
            assert client.recv(1) == b""
            for _ in range(64):
                client.sendall(b"still here. " * 5000)
            client.shutdown(socket.SHUT_WR)
            service.record.wait("end of file", 1)
        assert service.digests[1] == hashlib.sha256(b"still here. " * 5000 * 64).hexdigest()
        assert server.wait_event("channel-ended")["reason"] == "closed"


def test_a_service_that_speaks_first(lab: Lab) -> None:
    """A banner comes before the client has said a word."""
    with Banner(b"220 ready\r\n") as service:
        server, _ = lab.pair(smtp=service.target)
        with connect(server.client_port("plc-7", "smtp")) as client:
            assert read_exactly(client, 11) == b"220 ready\r\n"
            client.sendall(b"HELO")
            assert read_exactly(client, 4) == b"HELO"


def test_an_empty_connection_ends_in_order(lab: Lab) -> None:
    """A client that connects, says nothing and ends gives an end of file on both sides."""
    with Recorder() as service:
        server, _ = lab.pair(it=service.target)
        with connect(server.client_port("plc-7", "it")) as client:
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        service.record.wait("end", 1, "end of file")
        assert server.wait_event("channel-ended")["reason"] == "closed"


def test_a_unix_socket_is_a_target(lab: Lab) -> None:
    """``unix:PATH`` is dialled, and carries half-close too."""
    path = lab.directory / "plc.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server, _ = lab.pair(it=f"unix:{path}")
    with connect(server.client_port("plc-7", "it")) as client, listener:
        service, _ = listener.accept()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(service, 100) == b"question"
        service.sendall(b"answer")
        service.close()
        assert read_exactly(client, 100) == b"answer"


def test_a_target_of_ipv6(lab: Lab) -> None:
    """Agent and target may meet on ``::1``."""
    with Echo("::1") as service:
        server, _ = lab.pair(six=service.target)
        with connect(server.client_port("plc-7", "six")) as client:
            client.sendall(b"six")
            assert read_exactly(client, 3) == b"six"


def test_n30_a_refused_target_is_a_reset(lab: Lab) -> None:
    """The client sees ECONNRESET, not an empty answer, and the log says refused."""
    with Refuser() as nobody:
        server, agent = lab.pair(it=nobody.target)
        assert end_of_new(server.client_port("plc-7", "it"), b"anybody there?") == "reset"
        assert server.wait_event("channel-ended")["reason"] == "refused"
        assert agent.wait_event("channel-ended")["reason"] == "refused"


def test_n31_a_target_that_hangs_stops_nobody_else(lab: Lab) -> None:
    """While connects to it wait for their time-out, other channels of the link run; then they are reset."""
    with Hanger() as hanger, Patterned() as service:
        server, _ = lab.pair(
            agent_settings={"agent": {"dial": "2 s", "dials": 4}}, hang=hanger.target, bulk=service.target
        )
        port = server.client_port("plc-7", "hang")
        waiting = [connect(port) for _ in range(3)]
        exchange(server.client_port("plc-7", "bulk"), 1, 4 * MIB, 4 * MIB)
        assert [end_of(client) for client in waiting] == ["reset"] * 3
        assert server.wait_event("channel-ended", 3, reason="timed-out")
        for client in waiting:
            client.close()


def test_n31_dials_beyond_the_limit_wait_their_turn(lab: Lab) -> None:
    """With every place taken by targets that hang, a good target is reached when a place is free."""
    with Hanger() as hanger, Echo() as echo:
        server, _ = lab.pair(
            agent_settings={"agent": {"dial": "1 s", "dials": 2}}, hang=hanger.target, echo=echo.target
        )
        waiting = [connect(server.client_port("plc-7", "hang")) for _ in range(4)]
        with connect(server.client_port("plc-7", "echo")) as client:
            client.sendall(b"patience")
            assert read_exactly(client, 8) == b"patience"
        assert [end_of(client) for client in waiting] == ["reset"] * 4
        for client in waiting:
            client.close()


def test_n32_an_unknown_name(lab: Lab) -> None:
    """A listed name that nobody knows is a reset and a word, and other channels go on."""
    with Echo() as echo:
        server, _ = lab.pair(it="nobody.invalid:9100", echo=echo.target)
        with connect(server.client_port("plc-7", "it")) as client:
            with connect(server.client_port("plc-7", "echo")) as other:
                other.sendall(b"on")
                assert read_exactly(other, 2) == b"on"
            assert end_of(client) == "reset"
        assert server.wait_event("channel-ended", reason="unreachable")


def test_n28_a_client_that_resets_resets_the_service(lab: Lab) -> None:
    """RST in front, RST behind."""
    with Recorder() as service:
        server, _ = lab.pair(it=service.target)
        client = connect(server.client_port("plc-7", "it"))
        client.sendall(b"half a word")
        service.record.wait("accepted", 1)
        reset(client)
        service.record.wait("end", 1, "reset")
        assert server.wait_event("channel-ended")["reason"] == "reset-by-peer"


def test_n28_a_client_that_leaves_with_unread_bytes_resets_the_service(lab: Lab) -> None:
    """A program that closes while bytes for it are under way makes a RST, and that reaches the service."""
    with Patterned() as service:
        server, _ = lab.pair(bulk=service.target)
        client = connect(server.client_port("plc-7", "bulk"))
        client.sendall(question(1, 0, 64 * MIB))
        client.recv(1000)
        client.close()
        server.wait_event("channel-ended", reason="reset-by-peer")
        service.record.wait("ended", 1)
        assert service.sent < 64 * MIB


def test_n28_a_service_that_resets_resets_the_client(lab: Lab) -> None:
    """What it said before is delivered or not; the end is a reset, never an end of file."""
    with Resetter(5, b"sorry") as service:
        server, _ = lab.pair(it=service.target)
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"hello")
            assert end_of(client) == "reset"
        assert server.wait_event("channel-ended")["reason"] == "reset-by-peer"


def test_n28_a_client_that_resets_while_it_is_not_read(lab: Lab) -> None:
    """The service takes nothing, so the client is not read; its reset is noticed all the same."""
    with BlackHole(4096) as hole:
        server, _ = lab.pair(it=hole.target)
        client = connect(server.client_port("plc-7", "it"), patience=1.0)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(64 * MIB))
        reset(client)
        assert server.wait_event("channel-ended", patience=15)["reason"] == "reset-by-peer"


@pytest.mark.parametrize("killed", ["agent", "server"])
def test_a_stream_to_the_client_that_is_cut_is_no_clean_end(lab: Lab, killed: str) -> None:
    """kill -9 of either daemon: the client has a prefix, byte for byte, and then a reset."""
    with Patterned() as service:
        server, agent = lab.pair(bulk=service.target)
        with connect(server.client_port("plc-7", "bulk")) as client:
            client.sendall(question(1, 0, 512 * MIB))
            reader = Reader(1 + (1 << 31))
            read_pattern(client, reader, 16 * MIB)
            {"agent": agent, "server": server}[killed].kill()
            with pytest.raises(ConnectionResetError):
                read_pattern(client, reader)
        service.record.wait("ended", 1)
        assert reader.got < 512 * MIB


@pytest.mark.parametrize("killed", ["agent", "server"])
def test_a_stream_to_the_service_that_is_cut_is_no_clean_end(lab: Lab, killed: str) -> None:
    """kill -9 of either daemon: the service has a prefix, byte for byte, and then a reset."""
    with Taker() as service:
        server, agent = lab.pair(bulk=service.target)
        with connect(server.client_port("plc-7", "bulk")) as client:
            sender = in_thread(send_pattern, client, 1, 512 * MIB)
            service.record.wait_until(lambda: service.reader.got > 16 * MIB, "bytes")
            {"agent": agent, "server": server}[killed].kill()
            service.record.wait("end", "reset")
            sender.join(10)
            assert isinstance(sender.problem, OSError)
        assert service.reader.got < 512 * MIB


@pytest.mark.parametrize("killed", ["agent", "server"])
def test_idle_streams_of_a_killed_daemon_are_reset(lab: Lab, killed: str) -> None:
    """Nothing under way, nothing unread: the end of the process is still no end of file for anybody."""
    with Recorder() as service:
        server, agent = lab.pair(it=service.target)
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"a word")
            service.record.wait_until(lambda: service.received == 6, "the word")
            {"agent": agent, "server": server}[killed].kill()
            assert end_of(client) == "reset"
            service.record.wait("end", 1, "reset")


def test_a_client_in_no_hurry(lab: Lab) -> None:
    """Single bytes, with pauses, come through as they are sent."""
    with Echo() as echo:
        server, _ = lab.pair(echo=echo.target)
        with connect(server.client_port("plc-7", "echo")) as client:
            for byte in b"slowly":
                client.sendall(bytes([byte]))
                assert client.recv(1) == bytes([byte])
                time.sleep(0.05)
