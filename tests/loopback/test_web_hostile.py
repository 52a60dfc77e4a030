"""What breaks the rules of WebSocket at each endpoint of remote sessions: a code, and nobody else feels it.

Rule of this file: the hostile side is a plain socket, which can say anything; whoever is beside it is the
``websockets`` package.
"""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.support.daemons import Server, laboratory
from tests.support.services import Echo
from tests.support.web_frames import BINARY, CLOSE, CONT, PING, TEXT, RawFrame, frame, frames
from tests.support.web_people import Control, Person

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
CONTROL, CLIENT, RAW = "revtunnel.control.1", "revtunnel.session.1", ""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Place(NamedTuple):
    """A session to an echo, its owner, and how she gets nonces."""

    server: Server
    ana: Person
    control: Control
    session: str

    def nonce(self) -> str:
        """One more that lets in."""
        return str(self.control.ask("nonce", session=self.session, browser=True)["nonce"])

    def path(self, kind: str) -> tuple[str, str]:
        """Where an endpoint is, and what lets in there."""
        if kind == CONTROL:
            return "/control", self.ana.token
        if kind == CLIENT:
            return f"/session/client/{self.session}", self.nonce()
        return f"/session/raw/{self.session}/echo", self.nonce()

    def ask(self, path: str, nonce: str, protocol: str = "", **changed: str) -> socket.socket:
        """A request for a WebSocket by hand; ``changed``: other fields, "" for none."""
        fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Version": "13", "Key": KEY}
        fields |= {"Protocol": protocol, "Authorization": f"Bearer {nonce}", **changed}
        names = {"Version": "Sec-WebSocket-Version", "Key": "Sec-WebSocket-Key"}
        names |= {"Protocol": "Sec-WebSocket-Protocol"}
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.web_port}"]
        lines += [f"{names.get(name, name)}: {value}" for name, value in fields.items() if value]
        sock = socket.create_connection(("127.0.0.1", self.server.web_port), 20)
        sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        return sock

    def open(self, kind: str) -> socket.socket:
        """A WebSocket at an endpoint, by hand."""
        sock = self.ask(*self.path(kind), kind)
        assert head(sock).startswith(b"HTTP/1.1 101 ")
        return sock


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Person]]:
    """A server, a device, a person."""
    with laboratory(tmp_path_factory.mktemp("hostile")) as lab, Echo() as echo:
        server, _ = lab.pair({"web main": {"address": "127.0.0.1:0"}}, echo=echo.target)
        yield server, Person(server, "ana", ("plc-7", "*"))


@pytest.fixture
def place(room: tuple[Server, Person]) -> Iterator[Place]:
    """A session, whose first connection is at the end as it was."""
    server, ana = room
    with ana.control() as control:
        session, nonce = control.start("echo")
        with ana.raw(session, "echo", nonce) as web:
            yield Place(server, ana, control, session)
            web.send(b"still here")
            assert web.recv(timeout=20) == b"still here"


def head(sock: socket.socket) -> bytes:
    """Up to the empty line, and not a byte more."""
    found = b""
    while not found.endswith(b"\r\n\r\n") and (more := sock.recv(1)):
        found += more
    return found


def heard(sock: socket.socket, enough: Callable[[list[RawFrame]], bool]) -> list[RawFrame]:
    """The frames that came when there are enough, or no more."""
    data, found = b"", list[RawFrame]()
    while not enough(found):
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            break
        data += more
        with contextlib.suppress(AssertionError, IndexError, struct.error):  # the last one is not whole yet
            found = [*frames(data)]
    return found


def code_of(sock: socket.socket) -> int:
    """Of the close that comes."""
    last = heard(sock, lambda found: found[-1:] != [] and found[-1].opcode == CLOSE)[-1]
    assert last.opcode == CLOSE
    return int.from_bytes(last.payload[:2], "big")


def size_of(found: list[RawFrame]) -> int:
    return sum(len(each.payload) for each in found)


def masked(opcode: int, payload: bytes = b"", **options: bool | int) -> bytes:
    """A frame of a client's."""
    return frame(opcode, payload, masked=True, **options)  # type: ignore[arg-type]


EVERYWHERE = {
    "w2 not masked": (frame(BINARY, b"x", masked=False), 1002),
    "w2 reserved bits": (masked(BINARY, b"x", reserved=4), 1002),
    "w2 opcode 3": (masked(3, b"x"), 1002),
    "w2 opcode 11": (masked(11, b"x"), 1002),
    "w2 ping in fragments": (masked(PING, b"x", last=False), 1002),
    "w2 ping of 126": (masked(PING, b"x" * 126), 1002),
    "w2 continuation of nothing": (masked(CONT, b"x"), 1002),
    "w3 2**62 bytes": (masked(BINARY, form=64, size=1 << 62), 1009),
    "w3 2**63 bytes": (masked(BINARY, form=64, size=1 << 63), 1009),
    "w3 a GiB": (masked(BINARY, form=64, size=1 << 30), 1009),
}
COMMANDS = {
    "w3 a text of a GiB": (masked(TEXT, form=64, size=1 << 30), 1009),
    "w4 a text that does not end": (
        masked(TEXT, b"x" * 1000, last=False) + masked(CONT, b"x" * 1000, last=False) * 200,
        1009,
    ),
    "w5 a text that is no UTF-8": (masked(TEXT, b"\xff\xfe"), 1007),
}


@pytest.mark.parametrize("kind", [CONTROL, CLIENT, RAW], ids=["control", "client", "raw"])
def test_w2_w3_w4_w5_what_is_no_websocket_ends_with_its_code(place: Place, kind: str) -> None:
    """At once, whatever of it has come; the server grows by nothing, and others go on."""
    base = place.server.resident()
    cases = dict(EVERYWHERE)
    if kind == CONTROL:
        cases |= {**COMMANDS, "w5 bytes where commands are": (masked(BINARY, b"x"), 1003)}
    elif kind == CLIENT:
        cases |= COMMANDS
    for name, (sent, code) in cases.items():
        with place.open(kind) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(sent)
            assert (name, code_of(sock)) == (name, code)
    assert place.server.resident() - base < 16 * MIB


def test_w4_fragments_go_through_as_they_come_up_to_the_limit_of_a_message(place: Place) -> None:
    """Of one byte each, thousands, none of which waits for the last; then it is too large a message."""
    with place.open(RAW) as sock:
        sock.sendall(masked(BINARY, b"x", last=False) + masked(CONT, b"x", last=False) * 20_000)
        back = heard(sock, lambda found: size_of(found) > 20_000)
        assert b"".join(each.payload for each in back) == b"x" * 20_001
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                sock.sendall(masked(CONT, b"x" * 65536, last=False))
        assert code_of(sock) == 1009


def test_w8_a_handshake_that_is_refused_uses_no_nonce_up(place: Place) -> None:
    """Each fault of a request with its status, all with one nonce, which then still lets in."""
    nonce = place.nonce()
    path = f"/session/raw/{place.session}/echo"
    refused: list[tuple[int, Callable[[], socket.socket]]] = [
        (400, lambda: place.ask(path, nonce, Key="x")),
        (400, lambda: place.ask(path, nonce, Key="")),
        (400, lambda: place.ask(path, nonce, Version="12")),
        (426, lambda: place.ask(path, nonce, Upgrade="")),
        (403, lambda: place.ask(path, nonce, Origin="https://evil.example")),
        (400, lambda: place.ask(f"/session/client/{place.session}", nonce, "other")),
        (404, lambda: place.ask(f"/session/raw/../{place.session}/echo", nonce)),
        (404, lambda: place.ask(f"/session/raw/%2e%2e%2f{place.session}/echo", nonce)),
        (404, lambda: place.ask(f"{path}/..", nonce)),
    ]
    for number, (status, request) in enumerate(refused):
        with request() as sock:
            assert (number, int(head(sock).split()[1])) == (number, status)
    with place.ask(path, nonce) as sock:
        assert head(sock).startswith(b"HTTP/1.1 101 ")


def test_w9_a_nonce_lets_one_in(place: Place) -> None:
    """Twice, of another session, or wrong: refused; who had it is not disturbed."""
    nonce = place.nonce()
    path = f"/session/raw/{place.session}/echo"
    with place.ask(path, nonce) as first:
        assert head(first).startswith(b"HTTP/1.1 101 ")
        other, _ = place.control.start("echo")
        for where, what, status in (
            (path, nonce, 401),
            (f"/session/raw/{other}/echo", place.nonce(), 403),
            (path, "A" * 43, 401),
        ):
            with place.ask(where, what) as sock:
                assert int(head(sock).split()[1]) == status
        first.sendall(masked(BINARY, b"mine"))
        assert first.recv(100) == frame(BINARY, b"mine", masked=False)


def test_w11_compression_is_not_agreed_to(place: Place) -> None:
    """The answer does not name it, and a frame that is compressed all the same is a fault."""
    with place.ask(
        *place.path(RAW), Extensions="", **{"Sec-WebSocket-Extensions": "permessage-deflate"}
    ) as sock:
        answer = head(sock)
        assert answer.startswith(b"HTTP/1.1 101 ") and b"xtensions" not in answer
        sock.sendall(masked(BINARY, b"x", reserved=4))
        assert code_of(sock) == 1002
