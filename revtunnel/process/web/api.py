"""The HTTP API for people: ``/api/v1/...``, each request one call of one operation.

Rule of this file: it translates and decides nothing. In order: a page of another origin is refused, then what
is not there, then whoever is nobody, who may not, and a browser's change without its CSRF word; only then
arguments are read. What changes something, and every refusal of an operation, is a log line with the
person's name and address, as at the admin socket.

Source: RFC 9110, RFC 9457; issue 13; ours.
"""

import base64
import fnmatch
import hashlib
import hmac
import re
from collections.abc import Callable
from functools import cached_property, partial
from itertools import groupby
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import resource

from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_calls import call, cursor_of, note, values_of
from revtunnel.process.admin.operation_form import PAGE, ROW, ROWS, CallerRole, Operation, Row
from revtunnel.process.admin.refusals import Invalid, OperatorError
from revtunnel.process.web.api_description import describe, described
from revtunnel.process.web.api_routes import ROOT, ApiRoute, ApiRoutes
from revtunnel.process.web.api_values import MAX_CHOICE, checked, query_of, read_body
from revtunnel.process.web.askers import Asker, Place, place_of
from revtunnel.process.web.event_streams import EventStreams
from revtunnel.process.web.http_answers import (
    JSON,
    PROBLEM_JSON,
    HttpRefused,
    answered,
    header,
    in_bytes,
    problem,
    refused_as,
    write,
)
from revtunnel.process.web.repeated_calls import RepeatedCalls
from revtunnel.process.web.web_rules import API

__all__ = ["Answer", "Api", "body_of", "failed"]

log = Logger(namespace="revtunnel.web")
LOOKED = 500  # rows that one request looks at to choose some
_KEY = re.compile(r"[!-~]{1,128}", re.ASCII)


class Answer(NamedTuple):
    """What is written; see ``http_answers.write``."""

    status: int
    body: bytes
    kind: str = JSON
    headers: dict[str, str] = {}


class Api(resource.Resource):
    """Everything below /api. ``own``: the operations that each person has for himself, by ``mine``."""

    isLeaf = True

    def __init__(
        self,
        reactor: Any,
        operator: DaemonOperator,
        own: dict[str, Operation],
        mine: Callable[[Asker], object],
        who: Callable[[Any, Place], Asker],
        events: EventStreams,
    ) -> None:
        """``who`` raises HttpRefused: nobody, or not now."""
        super().__init__()
        self.routes = ApiRoutes([*operator.operations.values(), *own.values()])
        self.beside: list[Operation] = []  # what is described here, and is elsewhere
        self._operator = operator
        self._own = own
        self._mine = mine
        self._who = who
        self._events = events
        self._repeated = RepeatedCalls(reactor)

    @cached_property
    def _description(self) -> bytes:
        return in_bytes(describe(self.routes.all, self.beside))

    @cached_property
    def _page(self) -> bytes:
        return described(self.routes.all, self.beside)

    def render(self, request: Any) -> Any:
        done = maybeDeferred(self._carry_out, request).addErrback(failed)
        return answered(request, done, write, cancels=False)

    def _carry_out(self, request: Any) -> Any:
        place = place_of(request)
        path = request.uri.partition(b"?")[0].decode("latin-1")
        if API not in place.rules.parts:
            raise HttpRefused(404, "not-found", "nothing is here")
        if path in ("/api", "/api/", "/api/openapi.json"):
            return self._about(request, path)
        routes, texts = self.routes.at(path.removeprefix(ROOT)) if path.startswith(f"{ROOT}/") else ({}, [])
        if not routes:
            raise HttpRefused(404, "not-found", "nothing is here")
        method = request.method.decode("latin-1")
        route = routes.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = ", ".join(sorted(["HEAD", *routes] if "GET" in routes else routes))
            raise HttpRefused(405, "method", f"not with this method, but {allowed}", Allow=allowed)
        asker = self._who(request, place)
        self._check(asker, route, request)
        return self._answer(request, asker, route, routes.get("GET"), texts)

    def _about(self, request: Any, path: str) -> Answer:
        """What the API is, for programs and for people; that is no secret."""
        if request.method not in (b"GET", b"HEAD"):
            raise HttpRefused(405, "method", "not with this method, but GET, HEAD", Allow="GET, HEAD")
        if path == "/api":
            return Answer(308, b"", JSON, {"Location": "/api/"})
        if path == "/api/":
            return Answer(200, self._page, "text/html; charset=utf-8", _HTML)
        return Answer(200, self._description)

    def _check(self, asker: Asker, route: ApiRoute, request: Any) -> None:
        """Whether he may, and whether it is he who asks."""
        operation = route.operation
        if asker.role < operation.role or (asker.looks_only and route.method != "GET"):
            who = {"by": asker.name, "peer": asker.place.peer}
            command = operation.name.lower()
            log.warn("admin-refused", event="admin-refused", **who, command=command, reason="denied")
            look = "look at " if route.method == "GET" else ""
            raise HttpRefused(403, "denied", f"{asker.name} may not {look}{operation.help}")
        if asker.csrf and route.method != "GET":
            said = header(request, "x-csrf-token")
            if not hmac.compare_digest(said.encode(), asker.csrf.encode()):
                raise HttpRefused(403, "csrf", "X-CSRF-Token is wanted, as /api/v1/my has it")

    # -- one operation

    def _answer(
        self, request: Any, asker: Asker, route: ApiRoute, reading: ApiRoute | None, texts: list[str]
    ) -> Any:
        operation = route.operation
        query = query_of(request.uri.partition(b"?")[2])
        raw = body_of(request)
        filters = {each.name: query.pop(each.name) for each in route.filters if each.name in query}
        if operation.method == "watch":
            return self._watch(request, asker, query, operation.role is CallerRole.NOBODY)
        if query and route.method in ("POST", "PUT", "PATCH"):
            raise Invalid(f"{next(iter(query))[:80]!a}: arguments are in the body here")
        if raw and not route.has_body:
            raise Invalid("no body is wanted here")
        body = read_body(raw) if raw else {}
        in_path = dict(zip(route.in_path, texts, strict=True))
        if both := in_path.keys() & {*query, *body}:
            raise Invalid(f"{both.pop()} is in the path")
        arguments = checked(route.asked, {**query, **in_path}, body)
        if route.method == "GET":
            return self._read(request, asker, operation, arguments, filters)
        has_key = route.method == "POST" and request.requestHeaders.hasHeader(b"idempotency-key")
        key = header(request, "idempotency-key")
        if has_key and not _KEY.fullmatch(key):
            raise Invalid("Idempotency-Key: 1 to 128 visible characters of ASCII wanted")
        if reading is not None and reading.is_record and (wanted := header(request, "if-match")):
            self._compare(asker, reading.operation, in_path, wanted)
        if not has_key:
            return self._change(asker, operation, arguments)
        whole = b"\0".join((request.method, request.uri, raw))
        done = self._repeated.once(asker.login, key, whole, lambda: self._change(asker, operation, arguments))
        return done.addCallback(
            lambda found: (
                found[0]._replace(headers={"Idempotency-Replayed": "true"}) if found[1] else found[0]
            )
        )

    def _watch(self, request: Any, asker: Asker, query: dict[str, str], own: bool) -> Any:
        unknown = query.keys() - {"event"}
        if unknown:
            raise Invalid(f"{unknown.pop()[:80]!a} is not known here")
        kinds = frozenset(filter(None, query.get("event", "").split(",")))
        if request.method == b"HEAD":
            return Answer(200, b"", "text/event-stream")
        self._events.open(request, asker, kinds, own)
        return Deferred()  # it answers by itself

    def _read(
        self, request: Any, asker: Asker, operation: Operation, arguments: Row, filters: dict[str, str]
    ) -> Any:
        if operation.answer is ROWS and filters:
            done = Deferred.fromCoroutine(self._chosen(asker, operation, arguments, filters))
        else:
            done = maybeDeferred(self._call, asker, operation, arguments)

        def tagged(row: Any) -> Answer:
            body = in_bytes(row)
            tag = _tag(body)
            same = tag in re.findall(r'"[^"]*"', header(request, "if-none-match"))
            return Answer(304 if same else 200, b"" if same else body, JSON, {"ETag": tag})

        return done.addCallback(tagged)

    def _change(self, asker: Asker, operation: Operation, arguments: Row) -> Any:
        done = maybeDeferred(self._call, asker, operation, arguments)
        if operation.role is not CallerRole.NOBODY:
            who = {"by": asker.name, "peer": asker.place.peer}
            done.addBoth(lambda result: note(result, operation, arguments, who))
        return done.addCallback(
            lambda row: Answer(200, in_bytes(row)) if operation.answer else Answer(204, b"")
        )

    def _compare(self, asker: Asker, reading: Operation, in_path: Row, wanted: str) -> None:
        """Whether a record still is as somebody has seen it."""
        now = _tag(in_bytes(self._call(asker, reading, checked(reading.asked, in_path, {}))))
        if wanted.strip() != "*" and now not in re.findall(r'"[^"]*"', wanted):
            raise HttpRefused(412, "changed", "it is not any more as it was read", ETag=now)

    def _call(self, asker: Asker, operation: Operation, arguments: Row) -> Any:
        """What the operation gives, as it is written."""
        operator = self._mine(asker) if operation.name in self._own else self._operator
        result = call(operator, operation, arguments, asker.name)
        if isinstance(result, Deferred):
            return result.addCallback(lambda value: self._as_row(operation, value))
        return self._as_row(operation, result)

    def _as_row(self, operation: Operation, result: Any) -> Any:
        if operation.answer is ROW:
            return result
        if operation.answer is ROWS:
            rows, more = result
            if more is not None and not isinstance(more, str):
                more = cursor_of(operation, rows[-1])
            return {"rows": rows, "next": more}
        row = values_of(operation, result, self._operator.problem)
        return {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }

    async def _chosen(
        self, asker: Asker, operation: Operation, arguments: Row, filters: dict[str, str]
    ) -> Row:
        """Rows that fit, and where to go on: behind the last one that was looked at."""
        limit = max(1, min(arguments["limit"] or PAGE, PAGE))
        fits = [(name, _pattern(text)) for name, text in filters.items()]
        found: list[Row] = []
        looked, more = 0, True
        after = arguments["after"]
        while more and looked < LOOKED:
            page = await maybeDeferred(
                self._call, asker, operation, {**arguments, "after": after, "limit": PAGE}
            )
            more = page["next"] is not None
            for cursor, same in groupby(page["rows"], partial(cursor_of, operation)):
                if len(found) >= limit:
                    return {"rows": found, "next": after}
                rows, after = list(same), cursor
                looked += len(rows)
                found += [row for row in rows if all(_fits(row.get(name), pattern) for name, pattern in fits)]
            after = page["next"]
            looked += not page["rows"] and LOOKED
        return {"rows": found, "next": after if more else None}


_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HTML = {"Content-Security-Policy": _CSP, "Referrer-Policy": "no-referrer"}


def failed(failure: Failure) -> Answer:
    """The answer that says what went wrong; a bug is logged."""
    error = failure.value
    if isinstance(error, OperatorError):
        error = refused_as(error)
    if not isinstance(error, HttpRefused):
        log.failure("request failed", failure)
        error = HttpRefused(500, "internal", "internal error")
    row = problem(error.status, error.word, str(error)[:2000])
    return Answer(error.status, in_bytes(row), PROBLEM_JSON, error.headers)


def body_of(request: Any) -> bytes:
    """The body of a request; HttpRefused: it has one that is no JSON."""
    raw: bytes = request.content.read()
    kind = header(request, "content-type").partition(";")[0].strip().lower()
    if raw and kind != JSON:
        raise HttpRefused(415, "media-type", f"{JSON} wanted", Accept=JSON)
    return raw


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _pattern(text: str) -> re.Pattern[str]:
    """Any characters for ``*``, one for ``?``; case does not count."""
    if len(text) > MAX_CHOICE:
        raise Invalid(f"{text[:80]!a}...: up to {MAX_CHOICE} characters wanted")
    return re.compile(fnmatch.translate(text.replace("[", "[[]")), re.IGNORECASE)


def _fits(value: Any, pattern: re.Pattern[str]) -> bool:
    if isinstance(value, list):
        return any(pattern.fullmatch(str(each)) for each in value)
    if isinstance(value, bool):
        value = str(value).lower()
    return value is not None and pattern.fullmatch(str(value)) is not None
