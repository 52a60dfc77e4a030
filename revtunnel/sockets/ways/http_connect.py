"""How a connection is asked of an HTTP proxy: the head of a CONNECT request, and the head of its answer.

    CONNECT gate.example:2065 HTTP/1.1          HTTP/1.1 200 Connection established
    Host: gate.example:2065                     Via: 1.1 squid
    Proxy-Authorization: Basic dTpw
    (empty line)                                (empty line), then the server's own bytes

Rule of this file: an answer is bounded and refused with the first byte that is not HTTP's; the bytes behind
its head belong to the server and are not looked at. Answers 100 to 199 are skipped. Line ends may be bare.

Source: RFC 9110 sections 9.3.6, 11.7 and 15; RFC 9112 sections 2 to 4; RFC 7617.
"""

import base64
import re
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import place

__all__ = ["ProxyAnswer", "ProxyCredentials", "decode_answer", "encode_request"]

MAX_WORDS = 160  # characters of a proxy's own words in our log

_START = b"HTTP/1."
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: (.*))?", re.ASCII)
_REALM = re.compile(r'realm="?((?:[^"\\]|\\.)*)', re.IGNORECASE)


class ProxyCredentials(NamedTuple):
    """What a proxy wants to hear; never logged."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(...)"


class ProxyAnswer(NamedTuple):
    """The final answer of a proxy."""

    status: int
    words: str  # for people: printable, one line, bounded
    size: int  # bytes of all heads; the server's begin behind them
    schemes: tuple[str, ...] = ()  # of authentication that a 407 wants, such as Basic
    leads_to: str = ""  # where a page that stands in the way sends a browser

    @property
    def connected(self) -> bool:
        """Whether what follows is the server."""
        return 200 <= self.status <= 299


def encode_request(host: str, port: int, credentials: ProxyCredentials | None) -> bytes:
    """The head that asks for a connection; an IPv6 address is given without brackets, a zone is left out."""
    where = place(host.partition("%")[0], port)
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if credentials is not None:
        pair = f"{credentials.user}:{credentials.password}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode('ascii')}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def decode_answer(data: bytes, limit: int) -> ProxyAnswer | None:
    """The answer that ``data``, all that came so far, begins with; None: its head is not complete.

    Raises:
        RemoteError: it is no HTTP answer, or its head passes ``limit`` bytes.
    """
    at = 0
    while True:
        begin = data[at : at + len(_START)]
        if begin != _START[: len(begin)]:
            raise RemoteError(f"it does not speak HTTP: {_printable(data[at : at + 16])!a}")
        end = _END.search(data, at)
        if (end.end() if end else len(data)) > limit:
            raise RemoteError(f"the head of its answer passes {limit} bytes")
        if end is None:
            return None
        answer = _read(data[at : end.start()].decode("latin-1"), end.end())
        at = end.end()
        if answer.status >= 200 or answer.status == 101:
            return answer


def _read(head: str, size: int) -> ProxyAnswer:
    """One head, which ends at ``size``."""
    first, *fields = re.split("\r?\n", head)
    match = _STATUS.fullmatch(first)
    if not match:
        raise RemoteError(f"its answer has no status: {_printable(first[:80])!a}")
    named = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in fields)]
    challenges = [value for name, value in named if name == "proxy-authenticate"]
    leads_to = next((value for name, value in named if name == "location"), "")
    words = _printable(f"{match[1]} {match[2] or ''}".strip())
    schemes = tuple(_printable(each.partition(" ")[0]) for each in challenges)
    if match[1] == "407":
        words = _printable(", ".join(map(_challenge, challenges)) or "it says not how")
    return ProxyAnswer(int(match[1]), words, size, schemes, _printable(leads_to))


def _challenge(value: str) -> str:
    """Scheme and realm of one Proxy-Authenticate field."""
    scheme = value.partition(" ")[0]
    realm = _REALM.search(value)
    return f'{scheme} "{realm[1]}"' if realm else scheme


def _printable(text: str | bytes) -> str:
    shown = text.decode("latin-1") if isinstance(text, bytes) else text
    return "".join(character if " " <= character <= "~" else "?" for character in shown)[:MAX_WORDS]
