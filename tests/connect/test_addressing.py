"""What people type: servers, sessions handed over, devices and services."""

import pytest

from revtunnel.connect.addressing import (
    ServerAddress,
    parse_handed,
    parse_server,
    parse_services,
    parse_session,
)

ID, NONCE = "0123456789abcdef" * 2, "a_Nonce-" * 4


@pytest.mark.parametrize(
    ("text", "server", "written"),
    [
        ("https://gate.example", ServerAddress("gate.example", 443), "https://gate.example:443"),
        ("https://Gate.example:2443/", ServerAddress("gate.example", 2443), "https://gate.example:2443"),
        ("wss://gate.example:2443", ServerAddress("gate.example", 2443), "https://gate.example:2443"),
        ("gate.example:2443", ServerAddress("gate.example", 2443), "https://gate.example:2443"),
        ("http://127.0.0.1:80", ServerAddress("127.0.0.1", 80, False), "http://127.0.0.1:80"),
        ("ws://localhost", ServerAddress("localhost", 80, False), "http://localhost:80"),
        ("https://[::1]:2443", ServerAddress("::1", 2443), "https://[::1]:2443"),
        ("https://[::1]", ServerAddress("::1", 443), "https://[::1]:443"),
        ("https://[fd00:1::5]", ServerAddress("fd00:1::5", 443), "https://[fd00:1::5]:443"),
    ],
)
def test_a_server(text: str, server: ServerAddress, written: str) -> None:
    """One written form for each."""
    assert parse_server(text) == server
    assert str(server) == written
    assert parse_server(written) == server


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://x",
        "https://",
        "https://a:b@gate.example",
        "https://gate.example/path",
        "https://gate.example:0",
        "https://gate.example:65536",
        "https://gate example",
        "https://gate.example?x",
        "https://[::1",
    ],
)
def test_what_is_no_server(text: str) -> None:
    """A sentence says what is wanted."""
    with pytest.raises(ValueError, match=r"wanted|above|not a host"):
        parse_server(text)


def test_a_session_that_is_handed_over() -> None:
    """Its nonce stands in no repr."""
    handed = parse_handed(f"revtunnel://gate.example:2443/s/{ID}#{NONCE}")
    assert (handed.server, handed.session, handed.nonce) == (ServerAddress("gate.example", 2443), ID, NONCE)
    assert NONCE not in repr(handed)
    assert parse_handed(f"revtunnel://gate.example/s/{ID}#{NONCE}").server.port == 443


@pytest.mark.parametrize(
    "text",
    [
        f"revtunnel://gate.example/s/{ID}",
        f"revtunnel://gate.example/s/{ID}#short",
        f"revtunnel://gate.example/x/{ID}#{NONCE}",
        f"revtunnel://gate.example/s/{ID[:-1]}#{NONCE}",
        f"revtunnel://gate.example/s/{ID.upper()}#{NONCE}",
        f"revtunnel://me@gate.example/s/{ID}#{NONCE}",
        f"revtunnel:///s/{ID}#{NONCE}",
        f"revtunnel://gate.example:0/s/{ID}#{NONCE}",
        f"revtunnel://gate.example/s/{ID}#{NONCE} --exec=x",
        f"https://gate.example/s/{ID}#{NONCE}",
    ],
)
def test_what_is_none(text: str) -> None:
    """A browser hands over what a page wrote: nothing but the form is taken, and no nonce is repeated."""
    with pytest.raises(ValueError, match="wanted") as raised:
        parse_handed(text)
    assert NONCE not in str(raised.value)


def test_services_of_one_device() -> None:
    """Or the device alone."""
    assert parse_services(["plc-7/ssh", "plc-7/http"]) == ("plc-7", ["ssh", "http"])
    assert parse_services(["plc-7"]) == ("plc-7", [])
    assert parse_services(["a:b/SSH_1"]) == ("a:b", ["SSH_1"])


@pytest.mark.parametrize(
    "texts",
    [
        ["a/ssh", "b/ssh"],
        ["a/ssh", "a/ssh"],
        ["a", "a/ssh"],
        ["a", "a"],
        ["a/"],
        ["/ssh"],
        [""],
        ["a/b/c"],
        ["a/x y"],
    ],
)
def test_what_is_none_of_one_device(texts: list[str]) -> None:
    """Each is refused with a sentence."""
    with pytest.raises(ValueError, match=r"wanted|device|service"):
        parse_services(texts)


def test_sessions_numbers() -> None:
    """32 hexadecimal digits."""
    assert parse_session(ID) == ID
    with pytest.raises(ValueError, match="wanted"):
        parse_session("x")
