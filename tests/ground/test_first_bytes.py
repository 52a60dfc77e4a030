"""What is told apart by its first bytes: real beginnings, whole and as short as a link sees them."""

import re
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.daemons.schema import find
from revtunnel.ground.first_bytes import Listens, Spoken, explained, recognise
from revtunnel.ground.origin import origin_of
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.streams.commands import COMMANDS, TICKET_SIZE, Command
from revtunnel.streams.frames import encode_frame, encode_header
from revtunnel.systems.cameo.zmtp import GREETING
from revtunnel.systems.emo.emo import Emo, encode_emo


def client_hello() -> bytes:
    """As Python's own TLS begins."""
    said = ssl.MemoryBIO()
    engine = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="gate.example")
    with pytest.raises(ssl.SSLWantReadError):
        engine.do_handshake()
    return said.read()


METHODS = ("GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT", "TRACE", "PATCH")
ORIGIN = origin_of("192.0.2.1", 40001, "192.0.2.9", 443)
BEGINNINGS = [
    (Spoken.TLS, client_hello()),
    (Spoken.TLS, b"\x15\x03\x03\x00\x02\x02\x46"),  # an alert
    *((Spoken.HTTP, f"{method} /x HTTP/1.1\r\n".encode()) for method in METHODS),
    (Spoken.HTTP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (Spoken.HTTP, b"HTTP/1.1 400 Bad Request\r\n"),
    (Spoken.SSH, b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
    (Spoken.PROXY, encode_header_v1(ORIGIN)),
    (Spoken.PROXY, encode_header_v1(None)),
    (Spoken.PROXY, encode_header_v2(ORIGIN)),
    (Spoken.PROXY, encode_header_v2(None)),
    (Spoken.RT1, encode_frame(Command.LISTEN, 0)),
    (Spoken.RT1, encode_frame(Command.ATTACH, 0, bytes(TICKET_SIZE))),
    (Spoken.EMO, encode_emo(Emo.CONNECT, 5010)),
    (Spoken.EMO, encode_emo(Emo.DATA_SOCKET, 5010)),
    (Spoken.EMO, encode_emo(Emo.PING)),
    (Spoken.EMO, encode_emo(Emo.REFUSED)),
    (Spoken.ZEROMQ, GREETING),
    (Spoken.ZEROMQ, b"\xff\0\0\0\0\0\0\0\x01\x7f"),  # libzmq's, before it has heard anything
    *((Spoken.PAGE, page) for page in (b"<!DOCTYPE html>", b"<HTML><body>", b'<?xml version="1.0"?>')),
    *((Spoken.MAIL, line) for line in (b"220 mail.example ESMTP\r\n", b"220-Welcome\r\n", b"421 busy\r\n")),
    *((Spoken.MAIL, line) for line in (b"554 no\r\n", b"+OK POP3 ready\r\n", b"* OK IMAP4rev1\r\n")),
    (Spoken.TELNET, b"\xff\xfd\x18\xff\xfd\x20"),
    (Spoken.VNC, b"RFB 003.008\n"),
    (Spoken.MYSQL, b"\x4a\0\0\0\n5.7.31\0"),
    (Spoken.RDP, b"\x03\0\0\x0b\x06\xd0\0\0\x12\x34\0"),
    (Spoken.REDIS, b"-ERR unknown command\r\n"),
]


@pytest.mark.parametrize(("spoken", "first"), BEGINNINGS)
def test_beginnings(spoken: Spoken, first: bytes) -> None:
    """Whole, with something behind it, and cut anywhere behind the fourth byte."""
    assert recognise(first) is spoken
    assert recognise(first + b"more") is spoken
    assert {recognise(first[:size]) for size in range(4, len(first))} <= {spoken, None}
    assert recognise(first[:4]) is spoken


@pytest.mark.parametrize("serial", ["C", "CLD-123456", "C005010", "x" * 64])
def test_a_serial_is_recognised_by_its_return(serial: str) -> None:
    """Nothing shorter tells it from anything else."""
    assert recognise(serial.encode() + b"\r") is Spoken.CCCP
    assert recognise(serial.encode() + b"\rpayload") is Spoken.CCCP
    assert recognise(b"CLD-123456") is None
    assert recognise(b"x" * 65 + b"\r") is None


@pytest.mark.parametrize(
    "first", [b"", b"\x16", bytes(4), b"GET", b"get / ", b"GETX", b"C00501x\n", b"\r\n", b"\xff" * 9]
)
def test_what_is_not_recognised(first: bytes) -> None:
    """It gets no sentence."""
    assert recognise(first) is None
    assert explained("refused", first, Listens.LINK) == "refused"


@pytest.mark.parametrize("command", sorted(COMMANDS))
@given(size=st.integers(0, 255), channel=st.integers(0, 255))
def test_no_frame_of_a_server_looks_like_anything_else(command: int, size: int, channel: int) -> None:
    """An agent leaves a server for what is recognised; a right one's first frame is empty, or short text."""
    assert recognise(encode_header(size, command, channel)) in (None, Spoken.RT1)


@given(st.binary(max_size=100), st.sampled_from(Listens))
def test_any_bytes_at_all(first: bytes, door: Listens) -> None:
    """The words stay, and what is added is text of ours."""
    said = explained("words", first, door)
    assert said.startswith("words") and said.isascii() and said.isprintable()


@pytest.mark.parametrize("door", Listens)
@pytest.mark.parametrize("spoken", Spoken)
def test_every_door_has_an_answer_to_everything_but_its_own(door: Listens, spoken: Spoken) -> None:
    """What it looks like, and a setting or command to look at, which exists."""
    first = next((first for kind, first in BEGINNINGS if kind is spoken), b"CLD-1\r")
    said = explained("words", first, door)
    if spoken is door.value[0]:
        assert said == "words"
        return
    if (spoken, door) == (Spoken.CCCP, Listens.SERVER):  # a line of text like another one
        assert said == "words; it begins with 'CLD-1': see servers in [agent]"
        return
    assert said.startswith(f"words; this is {spoken.value}: ")
    for name, section in re.findall(r"(\w+)(?: = \w+)? in \[([a-z-]+)", said):
        assert find(section, name).name == name


def test_the_answers_of_the_table() -> None:
    """Those that somebody will look up."""
    hello = client_hello()
    listen = encode_frame(Command.LISTEN, 0)
    for first, door, said in (
        (hello, Listens.LINK, "this is TLS: see tls in [listener NAME], or --plaintext of the agent"),
        (hello, Listens.CCCP, "this is TLS: see tls in [cccp-project NAME]"),
        (hello, Listens.CAMEO, "this is TLS: nothing speaks it here"),
        (listen, Listens.TLS, "this is rt1: its agent comes without TLS, see tls in [agent]"),
        (b"SSH-2.0-x", Listens.LINK, "this is SSH: clients of devices dial the ports of revtunnelctl ports"),
    ):
        assert explained("refused", first, door) == f"refused; {said}"
