"""How targets, endpoints and offers are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.targets import (
    Offer,
    Target,
    parse_endpoint,
    parse_endpoint_or,
    parse_offer,
    parse_target,
    target_of,
    told_apart,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.41.51.152:23", Target("10.41.51.152", 23)),
        ("[::1]:23", Target("::1", 23)),
        ("[2001:DB8:0:0::1]:443", Target("2001:db8::1", 443)),
        ("[fe80::1%eth0.5]:23", Target("fe80::1%eth0.5", 23)),
        ("[::ffff:10.0.0.1]:23", Target("10.0.0.1", 23)),
        ("Printer.Local.:9100", Target("printer.local", 9100)),
        ("a_b-c.d:1", Target("a_b-c.d", 1)),
        ("plc7:65535", Target("plc7", 65535)),
        ("unix:/run/plc/console.sock", Target("unix:/run/plc/console.sock", 0)),
    ],
)
def test_c8_written_targets(text: str, target: Target) -> None:
    """Every form of a target reads as one canonical value, whose written form reads back."""
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":23",
        "host",
        "host:",
        "host:0",
        "host:99999",
        "host:123456",
        "host:-1",
        "host:+1",
        "host: 23",
        "host:23 ",
        "host:٢٣",
        "ho st:23",
        "::1:23",
        "[::1]",
        "[::1]:",
        "[::1]:0",
        "[10.0.0.1]:23",
        "[host]:23",
        "[]:23",
        "10.0.0.256:23",
        "1.2.3:23",
        "[::1%]:23",
        "[::1%a b]:23",
        "[fe80::1%" + "e" * 16 + "]:23",
        "-a:23",
        "a-:23",
        "a..b:23",
        "a" * 64 + ":23",
        ".".join(["a" * 50] * 6) + ":23",
        "unix:",
        "unix:/",
        "unix:run/x",
        "unix:/a b",
        "unix:/" + "x" * 101,
        "http://host:23",
    ],
)
def test_c8_what_is_no_target(text: str) -> None:
    """Anything else is an error that names the value, in one printable line."""
    with pytest.raises(ValueError) as caught:
        parse_target(text)
    shown = str(caught.value)
    host, _, port = text.rpartition(":")
    assert shown.isprintable()
    assert ascii(text)[1:80] in shown or ascii(host.strip("[]"))[1:80] in shown or f"port {port}" in shown


def test_path_and_literal() -> None:
    """A target knows whether it is a path and whether it needs no name resolution."""
    assert parse_target("unix:/run/x").path == "/run/x"
    assert parse_target("10.0.0.1:1").path is None
    assert parse_target("10.0.0.1:1").is_literal and parse_target("[::1]:1").is_literal
    assert not parse_target("localhost:1").is_literal and not parse_target("unix:/run/x").is_literal


def test_target_of_checks_what_a_connect_says() -> None:
    """Ports and paths of a CONNECT are held to the same rules."""
    for host, port in (("unix:/x", 1), ("unix:x", 0), ("h", 0), ("h", 65536), ("", 1), ("a\n", 1)):
        with pytest.raises(ValueError, match=r"wanted|is not a host"):
            target_of(host, port)
    assert target_of("h", 1) == Target("h", 1)


def test_endpoints_may_have_port_0() -> None:
    """Where we listen, 0 means any port; the rest is as in targets."""
    assert parse_endpoint("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_endpoint("[::]:2065") == ("::", 2065)
    for text in ("127.0.0.1:65536", "127.0.0.1", "unix:/x", ":1"):
        with pytest.raises(ValueError):
            parse_endpoint(text)


def test_endpoints_without_a_port() -> None:
    """Brackets say where an address ends; a port to be dialled is not 0."""
    for text in ("gate", "[::1]", "[fd00:1::5]", "10.0.0.1"):
        assert parse_endpoint_or(text, 443) == (text.strip("[]"), 443)
        assert (
            parse_endpoint_or(f"{text}:9", 443)
            == parse_endpoint_or(f"{text}:9", None)
            == (text.strip("[]"), 9)
        )
        for wrong, port in ((text, None), (f"{text}:0", 443), (f"{text}:", 443), (f"{text}:65536", 443)):
            with pytest.raises(ValueError, match=r"wanted|above"):
                parse_endpoint_or(wrong, port)
    for text in ("::1", "fd00:1::5", "fd00::1:9"):
        with pytest.raises(ValueError, match="IPv6 in brackets"):
            parse_endpoint_or(text, 443)


@pytest.mark.parametrize(
    ("text", "offer"),
    [
        ("10.41.51.152:23", Offer("tcp-23", Target("10.41.51.152", 23))),
        ("http=127.0.0.1:5000", Offer("http", Target("127.0.0.1", 5000))),
        ("v6=[::1]:80", Offer("v6", Target("::1", 80))),
        ("unix:/run/plc.sock", Offer("unix-plc.sock", Target("unix:/run/plc.sock", 0))),
        ("console=unix:/run/plc.sock", Offer("console", Target("unix:/run/plc.sock", 0))),
        ("unix:/run/a=b", None),
        ("a=unix:/run/a=b", Offer("a", Target("unix:/run/a=b", 0))),
        ("unix:/run/" + "x" * 60, Offer("unix-" + "x" * 27, Target("unix:/run/" + "x" * 60, 0))),
    ],
)
def test_c8_offers(text: str, offer: Offer | None) -> None:
    """A --local is a target with or without a name; a name it cannot derive is asked for."""
    if offer is None:
        with pytest.raises(ValueError, match="name"):
            parse_offer(text)
    else:
        assert parse_offer(text) == offer


@pytest.mark.parametrize(
    "text", ["", "=1.2.3.4:5", "a b=1.2.3.4:5", "x" * 33 + "=h:1", "http=", "http=host", "é=h:1"]
)
def test_c8_what_is_no_offer(text: str) -> None:
    """A bad name or a bad target is an error."""
    with pytest.raises(ValueError, match=r"wanted|a name is"):
        parse_offer(text)


@given(st.text(max_size=40))
def test_f24_any_text_is_a_target_or_a_value_error(text: str) -> None:
    """The parsers raise ValueError and nothing else, and what they take is stable."""
    for parse in (parse_target, parse_endpoint, parse_offer):
        try:
            value = parse(text)  # type: ignore[operator]
        except ValueError as error:
            assert str(error).isprintable()
        else:
            assert parse(text) == value  # type: ignore[operator]


def test_offers_of_one_port_are_told_apart_by_their_hosts() -> None:
    """All of them, whatever their order; a name that somebody gave is kept."""
    written = ["10.0.0.1:23", "plc.example:23", "http=10.0.0.1:80", "10.0.0.1:81", "tcp-81=10.0.0.2:9"]
    names = [offer.name for offer in told_apart([parse_offer(text) for text in written])]
    assert names == ["10.0.0.1-23", "plc.example-23", "http", "10.0.0.1-81", "tcp-81"]
    long = f"{'x' * 40}.example:65535"
    (first, _) = told_apart([parse_offer(long), parse_offer("10.0.0.1:65535")])
    assert (first.name, len(first.name)) == (f"{'x' * 26}-65535", 32)
