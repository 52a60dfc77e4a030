"""The desk where a server's strangers become TLS connections, and the agent's step: on real sockets."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from revtunnel.sockets.ends import RECORD, End, PlainEnd
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import TlsFailed, TlsHandshakes, dial_tls
from tests.sockets.tls.test_peer_verification import NAME, Careless, Room
from tests.support.epoll import Loop
from tests.support.throwaway_tls import SERVERS, Issuer


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """One authority for all tests of this file."""
    return Room(tmp_path_factory.mktemp("tls"))


class Door:
    """A desk, and strangers who came to it."""

    def __init__(self, loop: Loop, identity: Identity, most: int = 10) -> None:
        self.loop = loop
        self.identity = identity
        self.most = most
        self.pending = TlsHandshakes(loop.reactor, lambda: self.most)

    def stranger(self, seconds: float = 20.0) -> tuple[socket.socket, "Deferred[Any]", list[Any]]:
        """One more: its socket, what the server makes of it, and that again once it is known."""
        near, far = socket.socketpair()
        near.setblocking(False)
        serving = self.pending.serve(PlainEnd(far), self.identity, seconds)
        results: list[Any] = []
        serving.addBoth(results.append)
        return near, serving, results

    def dial(self, near: socket.socket, identity: Identity) -> list[Any]:
        """Let an agent shake hands over a stranger's socket."""
        stage = dial_tls(self.loop.reactor, identity, NAME, lambda: None)
        results: list[Any] = []
        Deferred.fromCoroutine(stage(PlainEnd(near))).addBoth(results.append)
        return results

    def outcome(self, results: list[Any]) -> Any:
        """What became of one of them; a failure's exception."""
        self.loop.until(lambda: results, "an outcome")
        return results[0].value if isinstance(results[0], Failure) else results[0]


def heard(loop: Loop, near: socket.socket) -> bytes:
    """All that a stranger gets, to the end of its connection."""
    found: list[bytes] = []

    def ended() -> bool:
        with contextlib.suppress(BlockingIOError):
            try:
                found.append(near.recv(RECORD))
            except ConnectionResetError:
                return True
            return found[-1] == b""
        return False

    loop.until(ended, "the end")
    return b"".join(found)


def test_both_sides_get_what_they_need(loop: Loop, room: Room) -> None:
    """The server has the device's certificate and the version of TLS; the agent has an end; bytes flow."""
    door = Door(loop, room.at_server())
    near, _, served = door.stranger()
    dialled = door.dial(near, room.at_agent())
    end = door.outcome(dialled)
    secured = door.outcome(served)

    assert (secured.end.tls_version, secured.peer.serial) == ("TLSv1.3", "plc-7")
    assert door.pending.running == 0
    secured.end.write(b"hello")
    room_for = memoryview(bytearray(RECORD))
    assert bytes(room_for[: end.read_into(room_for) or 0]) == b"hello"
    for each in (end, secured.end):
        each.close()


def test_n34_refused_agent_hears_why(loop: Loop, room: Room) -> None:
    """The server's words are its reason; the agent's alert is not lost, though it has written meanwhile."""
    door = Door(loop, room.at_server())
    near, _, served = door.stranger()
    agent = Careless(room.at_agent().rules, room.issuer.device("plc-7", file="s", uses=SERVERS))
    end = door.outcome(door.dial(near, agent))  # TLS 1.3: its own end of the handshake is done
    end.write(b"LISTEN, as agents do at once")
    failed = door.outcome(served)
    assert isinstance(failed, TlsFailed)
    assert (failed.reason, str(failed)) == (
        "certificate",
        "certificate is for another use, by its extended key usage",
    )
    with pytest.raises(OSError, match="alert"):
        while end.read_into(memoryview(bytearray(RECORD))) is None:
            loop.reactor.iterate(0.01)
    end.close()


def test_n34_refused_server_hears_why(loop: Loop, room: Room) -> None:
    """The agent closes with an alert, and the server's log can say that its certificate was not taken."""
    door = Door(loop, Careless(room.at_server().rules, room.issuer.server("other.example", file="o")))
    near, _, served = door.stranger()
    refused = door.outcome(door.dial(near, room.at_agent()))
    assert isinstance(refused, TlsFailed)
    assert str(refused) == f"certificate is for other.example, not for {NAME}"
    failed = door.outcome(served)
    assert (failed.reason, str(failed)) == (
        "certificate",
        "the other side refused our certificate: not accepted",
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (b"\0\0\4\0", "0x00; this is rt1: its agent comes without TLS, see tls in [agent]"),
        (b"GET / HTTP/1.1\r\n", "0x47; this is HTTP: "),
        (b"SSH-2.0-x\r\n", "0x53; this is SSH: "),
        (b"PROXY UNKNOWN\r\n", "0x50; this is a PROXY header: see proxy_protocol in [listener NAME]"),
        (b"C005010\n", "0x43; this is EMO: see tls in [listener NAME]"),
        (b"CLD-1\r", "0x43; this is a serial of CCCP: see tls in [cccp-project NAME]"),
    ],
)
def test_n34_what_is_no_tls_is_named_in_the_log(loop: Loop, room: Room, words: bytes, named: str) -> None:
    """With the setting that answers it; what was looked at stays unread."""
    door = Door(loop, room.at_server())
    near, _, served = door.stranger()
    near.send(words)
    near.shutdown(socket.SHUT_WR)
    assert str(door.outcome(served)).startswith(f"this is no TLS: it begins with {named}")
    near.close()


@pytest.mark.parametrize(
    ("words", "reason", "answer"),
    [(b"\0\0\4\0", "tls", b""), (b"GET /", "tls", b""), (b"\x16\x03\x01\0\1x" * 9, "tls", b"\x15")],
    ids=["plain link", "HTTP", "garbage"],
)
def test_n34_what_is_no_tls(loop: Loop, room: Room, words: bytes, reason: str, answer: bytes) -> None:
    """It gets no answer, or an alert where it began like TLS, and the end."""
    door = Door(loop, room.at_server())
    near, _, served = door.stranger()
    near.send(words)
    near.shutdown(socket.SHUT_WR)
    assert heard(loop, near)[:1] == answer
    assert door.outcome(served).reason == reason
    near.close()


def test_who_hangs_up_without_a_word(loop: Loop, room: Room) -> None:
    """That is no fault of TLS; balancers look in this way."""
    door = Door(loop, room.at_server())
    near, _, served = door.stranger()
    near.close()
    failed = door.outcome(served)
    assert (failed.reason, str(failed)) == ("lost", "it hung up without a word")


@pytest.mark.parametrize(
    ("words", "said"),
    [(b"", "nothing came in 0.05 s"), (b"\x16", "it did not finish its TLS handshake in 0.05 s")],
)
def test_n34_the_time_is_bounded(loop: Loop, room: Room, words: bytes, said: str) -> None:
    """Silent or stalled: when its time is up the socket is gone, and so is its turn."""
    door = Door(loop, room.at_server())
    near, _, served = door.stranger(seconds=0.05)
    near.send(words)
    failed = door.outcome(served)
    assert isinstance(failed, TimeoutError) and str(failed) == said
    assert heard(loop, near) == b""
    assert door.pending.running == 0
    near.close()


def test_n36_only_so_many_at_once(loop: Loop, room: Room) -> None:
    """Who has said nothing takes no turn; beyond the limit they wait, and come in one after the other."""
    door = Door(loop, room.at_server(), most=1)
    silent = [door.stranger() for _ in range(5)]
    stalled, stalling, _ = door.stranger()
    stalled.send(b"\x16")
    loop.until(lambda: door.pending.running == 1, "the first turn")
    good = [door.stranger() for _ in range(3)]
    dialled = [door.dial(near, room.at_agent()) for near, _, _ in good]
    loop.settle(lambda: len(dialled[0]))
    assert door.pending.running == 1 and not any(results for _, _, results in good)

    stalling.cancel()
    for _, _, results in good:
        assert door.outcome(results).peer.serial == "plc-7"
    for each, (_, _, results) in zip(dialled, good, strict=True):
        end: End = door.outcome(each)
        end.close()
        results[0].end.close()
    for near, serving, results in silent:
        serving.cancel()
        assert isinstance(door.outcome(results), CancelledError)
        near.close()
    stalled.close()
    assert door.pending.running == 0


def test_a_waiting_one_may_be_sent_away(loop: Loop, room: Room) -> None:
    """A drain ends those who wait for their turn as well, and nobody gets a turn that nobody takes."""
    door = Door(loop, room.at_server(), most=0)
    near, serving, results = door.stranger()
    dialled = door.dial(near, room.at_agent())
    loop.settle(lambda: len(dialled))
    serving.cancel()
    assert isinstance(door.outcome(results), CancelledError)
    door.most = 1
    other, _, served = door.stranger()
    again = door.dial(other, room.at_agent())
    assert door.outcome(served).peer.serial == "plc-7"
    door.outcome(again).close()
    served[0].end.close()
    assert isinstance(door.outcome(dialled), TlsFailed)


def test_many_who_fail_at_once_are_no_recursion(loop: Loop, room: Room) -> None:
    """Each that fails hands its turn on; what waits behind it may all be of the same kind."""
    door = Door(loop, room.at_server(), most=1)
    stalled, stalling, _ = door.stranger()
    stalled.send(b"\x16")
    loop.until(lambda: door.pending.running == 1, "the first turn")
    bad = [door.stranger() for _ in range(400)]
    for near, _, _ in bad:
        near.send(b"\x16\x03\x01\0\1x" * 9)
    loop.settle()
    stalling.cancel()
    for near, _, results in bad:
        failed = door.outcome(results)
        assert isinstance(failed, TlsFailed) and failed.reason == "tls", failed
        near.close()
    stalled.close()
    assert door.pending.running == 0


@pytest.mark.parametrize(
    ("words", "early", "why"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            False,
            "this is no TLS; this is HTTP: a portal on the way that wants a login, or see servers in [agent]",
        ),
        (b"<html>log in</html>", True, "this is a web page: a portal on the way that wants a login"),
        (b"220 mail\r\n", True, "this is no TLS; this is mail or FTP: see servers in [agent]"),
        (b"", False, "it hung up in the middle of the handshake: does it speak TLS? See tls in [agent]"),
    ],
)
def test_an_agent_names_what_is_no_tls(loop: Loop, room: Room, words: bytes, early: bool, why: str) -> None:
    """Also what stood there before it has said anything."""
    near, far = socket.socketpair()
    if early:
        far.send(words)
    door = Door(loop, room.at_server())
    results = door.dial(near, room.at_agent())
    loop.settle()
    if words and not early:
        far.send(words)
    far.recv(10_000)
    far.close()
    assert why in str(door.outcome(results))


def test_an_agent_says_whose_certificate_that_may_be(loop: Loop, room: Room, tmp_path: Path) -> None:
    """A proxy of the company that opens TLS shows one of its own."""
    other = Issuer(tmp_path).file
    door = Door(loop, room.at_server())
    near, _, _ = door.stranger()
    why = str(door.outcome(door.dial(near, room.at_agent(authority=other))))
    assert "signed by another authority" in why
    assert why.endswith(f"or who opens TLS on the way, which has to leave {NAME} alone")
