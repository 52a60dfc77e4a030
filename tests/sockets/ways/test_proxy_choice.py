"""Which proxy leads to a server: the setting, the environment and what it excepts, and no password shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.sockets.ways.http_connect import ProxyCredentials
from revtunnel.sockets.ways.proxy_choice import (
    DIRECT,
    Exceptions,
    HttpProxy,
    ProxyChoice,
    from_environment,
    parse_credentials,
    parse_proxy,
)

PROXY = HttpProxy("proxy.plant", 3128)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.plant:3128", PROXY),
        ("HTTP://Proxy.Plant:3128/", PROXY),
        ("http://10.0.0.1:8080", HttpProxy("10.0.0.1", 8080)),
        ("http://[fd00::1]:8080", HttpProxy("fd00::1", 8080)),
    ],
)
def test_a_proxy_in_the_settings(text: str, proxy: HttpProxy) -> None:
    """A URL with host and port; its written form reads back."""
    assert parse_proxy(text) == proxy
    assert parse_proxy(str(proxy)) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "http://proxy",
        "http://proxy:0",
        "http://proxy:99999",
        "http://fd00::1:8080",
        "http://proxy:3128/path",
        "http://pro xy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://:3128",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    """The words say what is wanted."""
    with pytest.raises(ValueError, match="http://HOST:PORT wanted"):
        parse_proxy(text)


@pytest.mark.parametrize(
    "text", ["http://u:s3cret@proxy:1", "http://s3cret@proxy:1", "http://u:s3/cr@et@p:1"]
)
def test_no_password_in_the_settings(text: str) -> None:
    """Everybody may read an ini file and a command line: a file of its own is asked for, nothing repeated."""
    with pytest.raises(ValueError, match="proxy_credentials") as refused:
        parse_proxy(text)
    assert "s3" not in str(refused.value)


def test_credentials_of_a_file() -> None:
    """One line; the first colon parts user and password."""
    assert parse_credentials("me:p:w \xe9\n") == ProxyCredentials("me", "p:w \xe9")
    assert parse_credentials("me:\r\n") == ProxyCredentials("me", "")
    for text in ("", "me", ":pw", "me:pw\nmore", "me:\0"):
        with pytest.raises(ValueError, match="one line user:password"):
            parse_credentials(text)


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy.plant:3128"}, PROXY),
        ({"HTTPS_PROXY": "proxy.plant:3128"}, PROXY),
        ({"ALL_PROXY": "http://proxy.plant:3128/"}, PROXY),
        ({"HTTP_PROXY": "http://proxy.plant:3128"}, None),
        ({"https_proxy": "http://proxy.plant:3128", "HTTPS_PROXY": "http://other:1"}, PROXY),
        ({"https_proxy": "", "HTTPS_PROXY": "http://other:1", "ALL_PROXY": "http://other:1"}, None),
        ({"https_proxy": " http://proxy.plant ", "all_proxy": "socks5://x"}, HttpProxy("proxy.plant", 80)),
        ({"https_proxy": "[fd00::1]"}, HttpProxy("fd00::1", 80)),
        (
            {"https_proxy": "http://me:p%40w@proxy.plant:3128"},
            HttpProxy("proxy.plant", 3128, ProxyCredentials("me", "p@w")),
        ),
    ],
)
def test_the_environment(environ: dict[str, str], proxy: HttpProxy | None) -> None:
    """The usual variables in the usual order; a user may stand there, in URL form."""
    found = from_environment(environ).proxy_for("gate.example", 2065)
    assert found == proxy
    assert found is None or proxy is None or found.credentials == proxy.credentials


def test_credentials_for_the_environments_proxy() -> None:
    """The file serves where the variable names no user."""
    mine = ProxyCredentials("file", "x")
    without = from_environment({"ALL_PROXY": "http://proxy:1"}, mine).proxy_for("gate", 1)
    within = from_environment({"ALL_PROXY": "http://me:pw@proxy:1"}, mine).proxy_for("gate", 1)
    assert without is not None and without.credentials == mine
    assert within is not None and within.credentials == ProxyCredentials("me", "pw")


@pytest.mark.parametrize(
    "text", ["socks5://u:s3cret@proxy:1", "http://u:s3cret@", "u:s3/cret@pro:xy", "x:y:z"]
)
def test_an_environment_that_cannot_be_used(text: str) -> None:
    """It is a fault only where it is needed; the words name the variable and no password."""
    choice = from_environment({"ALL_PROXY": text, "NO_PROXY": "inside"})
    assert choice.proxy_for("127.0.0.1", 1) is None
    assert choice.proxy_for("inside", 1) is None
    with pytest.raises(ValueError, match="ALL_PROXY: ") as refused:
        choice.proxy_for("gate", 1)
    assert "s3" not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
)
def test_servers_on_this_machine(host: str) -> None:
    """The environment's proxy never leads to them; a proxy that the settings name does."""
    assert from_environment({"ALL_PROXY": "http://proxy.plant:3128"}).proxy_for(host, 1) is None
    assert ProxyChoice(PROXY).proxy_for(host, 1) == PROXY
    assert DIRECT.proxy_for(host, 1) is None


@pytest.mark.parametrize(
    ("text", "host", "covered"),
    [
        ("*", "anything", True),
        ("gate.example", "gate.example", True),
        ("gate.example", "a.gate.example", True),
        ("gate.example", "notgate.example", False),
        ("gate.example", "example", False),
        (".example", "gate.example", True),
        (".example", "example", True),
        ("*.example", "gate.example", True),
        ("GATE.Example.", "gate.example", True),
        ("gate.example:2065", "gate.example", True),
        ("gate.example:2066", "gate.example", False),
        ("a, b  gate,c", "gate", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.11", False),
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "2001:db8::1", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("fd00::/8", "fd00::7", True),
        ("[fd00::7]:2065", "fd00::7", True),
        ("[fd00::7]:1", "fd00::7", False),
        ("fd00::7", "fd00::7", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("10.0.0.0/8", "ten.example", False),
        ("10.0.0.0/99", "10.0.0.1", False),
        ("", "gate", False),
        (".", "gate", False),
        ("*.", "gate", False),
        (":2065", "gate", False),
    ],
)
def test_exceptions(text: str, host: str, covered: bool) -> None:
    """Every usual form of NO_PROXY, with and without a port."""
    assert Exceptions(text).cover(host, 2065) is covered


def test_equal_exceptions() -> None:
    """Two readings of one text are one value, so that a reload sees no change."""
    environ = {"https_proxy": "http://proxy:1", "no_proxy": "a"}
    assert from_environment(environ) == from_environment(dict(environ))
    assert from_environment(environ) != from_environment({**environ, "no_proxy": "b"})
    assert len({Exceptions("a"), Exceptions("a")}) == 1


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str, exceptions: str) -> None:
    """No variable makes the agent fail with anything but words, and never with what stands before an @."""
    choice = from_environment({"ALL_PROXY": f"s3cret{text}@", "NO_PROXY": exceptions})
    try:
        choice.proxy_for("gate.example", 1)
    except ValueError as error:
        assert str(error).isprintable() and "s3cret" not in str(error)
    for read in (parse_proxy, parse_credentials):
        try:
            read(text)
        except ValueError as error:
            assert str(error).isprintable()
