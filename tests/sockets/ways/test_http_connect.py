"""CONNECT to an HTTP proxy: the request's exact bytes, and answers of every kind, cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.ways.http_connect import ProxyCredentials, decode_answer, encode_request

LIMIT = 8192
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def test_the_request() -> None:
    """RFC 9110 9.3.6: the authority form twice, nothing else that is not needed."""
    assert encode_request("gate.example", 2065, None) == (
        b"CONNECT gate.example:2065 HTTP/1.1\r\nHost: gate.example:2065\r\n\r\n"
    )


def test_the_request_with_credentials() -> None:
    """The example of RFC 7617 section 2, and its UTF-8 form."""
    request = encode_request("gate", 1, ProxyCredentials("Aladdin", "open sesame"))
    assert request.endswith(b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n")
    assert b"dGVzdDoxMjPCow==" in encode_request("gate", 1, ProxyCredentials("test", "123\xa3"))


def test_ipv6_goes_into_brackets() -> None:
    """And without the zone, which means nothing to a proxy."""
    assert encode_request("2001:db8::1", 443, None).startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n")
    assert b"CONNECT [fe80::1]:443 " in encode_request("fe80::1%eth0", 443, None)


def test_credentials_are_not_shown() -> None:
    """Whatever prints them prints nothing."""
    assert "sesame" not in repr(ProxyCredentials("Aladdin", "open sesame"))


@pytest.mark.parametrize(
    "head",
    [
        OK,
        b"HTTP/1.0 200 OK\r\nVia: 1.1 squid\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 9\n\n",
        b"HTTP/1.1 299 odd\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_connected(head: bytes) -> None:
    """Any 2xx is a connection, at any cut of its head, and what stands behind is the server's."""
    for end in range(len(head)):
        assert decode_answer(head[:end], LIMIT) is None
    for behind in (b"", b"\0", b"HTTP/1.1 500 no\r\n\r\n", b"\r\n\r\n"):
        answer = decode_answer(head + behind, LIMIT)
        assert answer is not None and answer.connected and answer.size == len(head)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"HTTP/1.1 403 Forbidden by rule 7\r\nX: y\r\n\r\n", "403 Forbidden by rule 7"),
        (b"HTTP/1.1 502\r\n\r\n", "502"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "302 Found"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "101 Switching"),
        (b"HTTP/1.1 500 \x1b[31m\xff\r\n\r\n", "500 ?[31m?"),
        (
            b'HTTP/1.1 407 no\r\nProxy-Authenticate: Basic realm="plant 4"\r\n\r\n',
            'Basic "plant 4"',
        ),
        (
            b"HTTP/1.1 407 no\r\nproxy-authenticate: NTLM\r\nPROXY-AUTHENTICATE:Basic realm=x\r\n\r\n",
            'NTLM, Basic "x"',
        ),
        (b"HTTP/1.1 407 no\r\n\r\n", "it says not how"),
    ],
)
def test_not_connected(head: bytes, words: str) -> None:
    """Anything else is no connection; the words say why, and are safe to log."""
    answer = decode_answer(head, LIMIT)
    assert answer is not None and not answer.connected
    assert answer[:3] == (int(head[9:12]), words, len(head))
    answer = decode_answer(head, LIMIT)
    assert answer is not None and not answer.connected


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n\r\n", b"http/1.1 200 OK\r\n", b"HTTP/1.1\0"]
)
def test_what_is_not_http(data: bytes) -> None:
    """The first wrong byte is enough, and a head needs a status."""
    with pytest.raises(RemoteError, match=r"does not speak HTTP|no status"):
        decode_answer(data + b"\r\n\r\n", LIMIT)
    with pytest.raises(RemoteError):
        decode_answer(OK[:-4].replace(b"200", b"abc") + b"\r\n\r\n", LIMIT)


def test_the_head_has_a_limit() -> None:
    """One byte over is refused, complete or not, also where many answers 1xx add up."""
    head = b"HTTP/1.1 200 OK\r\nX: " + b"y" * (LIMIT - 24) + b"\r\n\r\n"
    assert len(head) == LIMIT
    answer = decode_answer(head + b"z" * 100, LIMIT)
    assert answer is not None and answer.size == LIMIT
    for long in (head.replace(b"X:", b"XX:"), head[:20] + b"y" * LIMIT, b"HTTP/1.1 100 a\r\n\r\n" * 500):
        with pytest.raises(RemoteError, match="passes 8192 bytes"):
            decode_answer(long, LIMIT)


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(b"HTTP/1.1 200 ".__add__)))
def test_f24_random_answers(data: bytes) -> None:
    """Nothing but RemoteError, with a text that is safe to log."""
    try:
        answer = decode_answer(data, 64)
    except RemoteError as error:
        assert str(error).isprintable() and len(str(error)) < 300
    else:
        assert answer is None or (answer.words.isprintable() and answer.size <= 64)
