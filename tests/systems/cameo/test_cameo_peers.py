"""READY: what it must say, and who is told to give up."""

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.systems.cameo.cameo_facts import shown
from revtunnel.systems.cameo.cameo_peers import PeerUnfit, read_ready
from revtunnel.systems.cameo.zmtp import encode_command, encode_ready
from revtunnel.systems.cameo.zmtp_messages import ZmtpCommand

TYPES = frozenset(("REQ", "DEALER", "ROUTER"))


def body(wire: bytes) -> ZmtpCommand:
    """The command of a short frame."""
    return ZmtpCommand(wire[2:])


def test_ready() -> None:
    """Type and identity; an empty identity is none."""
    assert read_ready(body(encode_ready(b"ROUTER", b"0:0")), TYPES) == ("ROUTER", b"0:0")
    assert read_ready(body(encode_ready(b"REQ", b"")), TYPES) == ("REQ", b"")
    assert read_ready(body(encode_ready(b"DEALER")), TYPES) == ("DEALER", b"")


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (encode_ready(b"SUB"), "socket type 'SUB', DEALER or REQ or ROUTER wanted"),
        (encode_ready(b"\xff" * 30), "socket type"),
        (encode_command(b"READY"), "socket type ''"),
        (encode_ready(b"ROUTER", b"\0abc"), "zero byte"),
    ],
)
def test_unfit_peers_are_told(wire: bytes, text: str) -> None:
    """A wrong type, an id like those we give: coming back would not help."""
    with pytest.raises(PeerUnfit, match=text):
        read_ready(body(wire), TYPES)


def test_an_identity_has_a_limit() -> None:
    """255 bytes."""
    long = ZmtpCommand(encode_ready(b"ROUTER", b"x" * 255)[9:])
    assert read_ready(long, TYPES)[1] == b"x" * 255
    with pytest.raises(PeerUnfit, match="256 bytes"):
        read_ready(ZmtpCommand(encode_ready(b"ROUTER", b"x" * 256)[9:]), TYPES)


@pytest.mark.parametrize("wire", [encode_command(b"PING", b"\0\0"), encode_command(b"HELLO")])
def test_anything_before_ready_is_an_error(wire: bytes) -> None:
    """Of NULL's handshake READY is all there is."""
    with pytest.raises(RemoteError, match="before READY"):
        read_ready(body(wire), TYPES)


def test_identities_as_text() -> None:
    """Names as they are, our ids in hexadecimal and short, no control characters."""
    assert shown(b"0:0") == "0:0"
    assert shown(b"\0" + bytes(range(16))) == "client-0001020304050607"
    assert shown(b"a\xff\n") == "a\\xff\n"
