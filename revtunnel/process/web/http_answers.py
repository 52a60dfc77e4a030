"""How requests are answered that are no WebSocket: one JSON object, or a problem as RFC 9457 has it.

Rule of this file: an answer is whole and of known length, nobody keeps it, and no browser guesses what it is.

Source: RFC 9457, RFC 9110; ours.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from twisted.web.server import NOT_DONE_YET

from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid, NotFound, OperatorError

__all__ = [
    "JSON",
    "PROBLEM_JSON",
    "STATUS",
    "HttpRefused",
    "answered",
    "header",
    "in_bytes",
    "problem",
    "refused_as",
    "write",
    "write_json",
]

log = Logger(namespace="revtunnel.http")
JSON, PROBLEM_JSON = "application/json", "application/problem+json"
STATUS: dict[type[OperatorError], int] = {Invalid: 400, Denied: 403, NotFound: 404, Conflict: 409, Busy: 503}
_TITLES = {413: "Content Too Large", 421: "Misdirected Request", 422: "Unprocessable Content",
           428: "Precondition Required", 429: "Too Many Requests"}  # fmt: skip


class HttpRefused(Exception):
    """A request that is not carried out: status, one word for programs, a sentence for people."""

    def __init__(self, status: int, word: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.word = word
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem(status: int, word: str, detail: str) -> dict[str, Any]:
    """A problem as its object; ``error`` is a word that programs can rely on."""
    title = _TITLES.get(status) or RESPONSES.get(status, b"").decode()
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": word}


def refused_as(error: OperatorError) -> HttpRefused:
    """What an operator's refusal is by HTTP."""
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    return HttpRefused(status, error.code.lower().replace("_", "-"), str(error))


def header(request: Any, name: str) -> str:
    """A field of a request, the first of its name; "" where there is none. Any byte is a character."""
    found: list[bytes] = request.requestHeaders.getRawHeaders(name.encode("ascii"), [b""])
    return found[0].decode("latin-1")


def answered(request: Any, done: "Deferred[Any]", write: Callable[..., None], cancels: bool) -> Any:
    """Answer a request with what ``done`` gives, unless the caller hangs up; ``cancels``: that ends it."""
    gone: list[bool] = []

    def hung_up(_: Failure) -> None:
        gone.append(True)
        if cancels:
            done.cancel()

    request.notifyFinish().addErrback(hung_up)
    done.addCallback(lambda answer: None if gone else write(request, *answer))
    done.addErrback(lambda bug: log.failure("answering failed", bug))
    return NOT_DONE_YET


def write(request: Any, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
    """Answer, and be done with it."""
    request.setResponseCode(status)
    fields = {"Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    for name, value in {**fields, **headers}.items():
        request.setHeader(name, value)
    if status != 204:
        request.setHeader("Content-Length", str(len(body)))
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


def write_json(request: Any, status: int, row: Any, headers: Mapping[str, str], kind: str = JSON) -> None:
    """Answer with an object; its bytes depend on nothing but its values."""
    write(request, status, in_bytes(row), kind, headers)


def in_bytes(row: Any) -> bytes:
    """An object as JSON in ASCII."""
    return json.dumps(row, separators=(",", ":"), default=str).encode("ascii")
