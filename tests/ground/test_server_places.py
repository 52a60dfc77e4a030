"""Where a server is: link ports and URLs of web listeners, and what is neither."""

import pytest

from revtunnel.ground.server_places import ServerPlace, after, parse_server_place


@pytest.mark.parametrize(
    ("text", "place", "written"),
    [
        ("gate:2065", ServerPlace("gate", 2065), "gate:2065"),
        ("[fd00::1]:2", ServerPlace("fd00::1", 2), "[fd00::1]:2"),
        (
            "wss://Gate.example",
            ServerPlace("gate.example", 443, "/link", True),
            "wss://gate.example:443/link",
        ),
        ("wss://gate:8443/", ServerPlace("gate", 8443, "/link", True), "wss://gate:8443/link"),
        ("ws://127.0.0.1", ServerPlace("127.0.0.1", 80, "/link"), "ws://127.0.0.1:80/link"),
        (
            "wss://[fd00::1]/a/link",
            ServerPlace("fd00::1", 443, "/a/link", True),
            "wss://[fd00::1]:443/a/link",
        ),
        ("wss://[fd00::1]:9", ServerPlace("fd00::1", 9, "/link", True), "wss://[fd00::1]:9/link"),
        ("wss://[::1]", ServerPlace("::1", 443, "/link", True), "wss://[::1]:443/link"),
        ("ws://[fd00:1::5]", ServerPlace("fd00:1::5", 80, "/link"), "ws://[fd00:1::5]:80/link"),
    ],
)
def test_places(text: str, place: ServerPlace, written: str) -> None:
    """As they are read and written; what is written is read as the same."""
    assert parse_server_place(text) == place
    assert (str(place), place.web) == (written, "://" in text)
    assert parse_server_place(written) == place


@pytest.mark.parametrize(
    "text",
    [
        *("gate", "gate:0", "gate:70000", "https://gate", "http://gate/link", "wss://", "wss:///link"),
        *(
            "wss://u:p@gate",
            "wss://gate/link?x=1",
            "wss://gate/link#x",
            "wss://gate:0",
            "wss://fd00::1",
            "wss://fd00::5:1",
        ),
        *("wss://gate /x", "WSS://gate"),
    ],
)
def test_what_is_no_place(text: str) -> None:
    """One sentence."""
    with pytest.raises(ValueError, match=r"wanted|above|not a host"):
        parse_server_place(text)


def test_a_place_is_named_once() -> None:
    """What failed names it, or its host, and so does who tells of it."""
    assert after("gate:2065", "gate:2065: Connection refused") == "Connection refused"
    assert after("gate:2065", "gate: the name is unknown") == "the name is unknown"
    assert after("gate:2065", "192.0.2.1:2065: Connection refused") == "192.0.2.1:2065: Connection refused"
    assert after("gate:2065", "gate:2065 did not answer in 10 s") == "did not answer in 10 s"
    assert after("wss://gate:443/link", "gate:443: refused the connection") == "refused the connection"
