"""The description of the HTTP API, from the table of operations: OpenAPI 3.1 for programs, a page for people.

Rule of this file: what the API does and this does not say is a fault of one of them; the tests hold every
answer against it.

Source: the OpenAPI specification 3.1; RFC 9457; ours.
"""

import re
from collections.abc import Iterable
from html import escape
from typing import Any

from revtunnel import __version__
from revtunnel.process.admin.operation_form import (
    PAGE,
    ROW,
    ROWS,
    Argument,
    CallerRole,
    Column,
    Kind,
    Operation,
)
from revtunnel.process.web.api_routes import ROOT, ApiRoute
from revtunnel.process.web.api_values import MAX_CHOICE, MAX_TEXT
from revtunnel.process.web.http_answers import JSON, PROBLEM_JSON, STATUS

__all__ = ["describe", "described"]

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_ARGUMENTS: dict[Kind, Schema] = {
    Kind.TEXT: {"type": "string", "maxLength": MAX_TEXT, "pattern": "^[^\\x00]*$"},
    Kind.NUMBER: {"type": "integer"},
    Kind.YES_NO: {"type": "boolean"},
    Kind.LIST: {"type": "array", "maxItems": MAX_TEXT, "items": {"type": "string", "maxLength": MAX_TEXT}},
    Kind.RAW: {"type": "string", "contentEncoding": "base64"},
}
_VALUES: dict[Kind, Schema] = {
    Kind.TEXT: {"type": ["string", "null"]},
    Kind.NUMBER: {"type": ["integer", "null"]},
    Kind.YES_NO: {"type": ["boolean", "null"]},
    Kind.RAW: {"type": "string", "contentEncoding": "base64"},
    Kind.LIST: {"type": ["array", "null"]},
    Kind.BYTES: {"type": ["integer", "null"], "description": "bytes"},
    Kind.SECONDS: {"type": ["number", "null"], "description": "seconds"},
    Kind.TRIP: {"type": ["number", "null"], "description": "seconds"},
    Kind.TIME: {"type": ["string", "null"], "description": "UTC"},
    Kind.OBJECT: {},
}
_FAULTS = {
    400: "An argument is missing, unknown or wrong.",
    401: "A token, or a browser that is logged in, is wanted.",
    403: "The person may not; or a page of another origin asks; or the CSRF word is missing.",
    404: "There is no such thing.",
    409: "It cannot be done in the state that things are in.",
    412: "The record is not any more as it was read.",
    413: "The body is too large.",
    414: "The request line is longer than 8 KiB.",
    415: "The body is no application/json.",
    422: "The Idempotency-Key was of another request.",
    431: "The head is longer than 16 KiB.",
    429: "The address failed, or asked, too often.",
    500: "A bug.",
    503: "Not now; later it may be possible.",
}
_ALWAYS = (400, 401, 403, 413, 415, 429, 500, 503)
_ROLES = {
    CallerRole.NOBODY: "each person, for himself",
    CallerRole.READER: "readers and administrators",
    CallerRole.OPERATOR: "administrators",
}
_PROBLEM = {
    "type": "object",
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "error": {"type": "string", "description": "one word, for programs"},
    },
    "required": ["type", "title", "status", "detail", "error"],
}


def describe(routes: Iterable[ApiRoute], beside: Iterable[Operation] = ()) -> dict[str, Any]:
    """OpenAPI 3.1. ``beside``: what stands at the root (post_pages.py)."""
    paths: dict[str, Any] = {}
    listed = list(routes)
    reads = {each.path for each in listed if each.is_record}
    for each in sorted(listed, key=lambda route: (route.path, route.method)):
        paths.setdefault(ROOT + each.path, {})[each.method.lower()] = _operation(each, each.path in reads)
    for route in _at_root(beside):
        row = _operation(route, False, repeats=False)
        # who is nobody yet asks here, but to be nobody again
        paths.setdefault(route.path, {})[route.method.lower()] = (
            row if route.path == "/logout" else {**row, "security": []}
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "revtunnel",
            "version": __version__,
            "description": "What people and their programs can see and do at a server. docs/api.rst has the "
            "rest: logins, pages, limits.",
        },
        "security": [{"token": []}, {"browser": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "browser": {"type": "apiKey", "in": "cookie", "name": "__Host-rt"},
            },
            "schemas": {"Problem": _PROBLEM},
        },
    }


def _at_root(beside: Iterable[Operation]) -> list[ApiRoute]:
    return [ApiRoute(method, path, each) for each in beside for method, path in (each.route.split(),)]


def _operation(route: ApiRoute, is_read: bool, repeats: bool = True) -> dict[str, Any]:
    row = route.operation
    parameters = [_parameter(each, route) for each in route.asked if not _in_body(each, route)]
    for column in route.filters:
        schema = {"type": "string", "maxLength": MAX_CHOICE}
        text = f"Only rows that fit: {_plain(column.text)}. * is any characters, ? is one."
        parameters.append(_named(column.name, "query", schema, text))
    if row.method == "watch":
        parameters.append(_named("event", "query", _TEXT, "Only these events, with commas between."))
    if route.method == "POST" and repeats:
        key = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"}
        parameters.append(_named("Idempotency-Key", "header", key, "Asked again, it is done once."))
    if route.method != "GET" and is_read:
        parameters.append(_named("If-Match", "header", _TEXT, "The ETag with which the record was read."))
    described = {
        "operationId": row.name[0].lower() + row.name[1:],
        "summary": row.help[0].upper() + row.help[1:] + ".",
        "description": f"{_plain(row.text)} For {_ROLES[row.role]}.".strip(),
        "parameters": parameters,
        "responses": _responses(route, is_read),
    }
    if route.has_body:
        fields = [each for each in route.asked if _in_body(each, route)]
        schema = {
            "type": "object",
            "properties": {each.name: _schema(each) for each in fields},
            "required": [each.name for each in fields if not each.optional],
            "additionalProperties": False,
        }
        needed = bool(schema["required"])
        described["requestBody"] = {"required": needed, "content": {JSON: {"schema": schema}}}
    return described


def _in_body(field: Argument, route: ApiRoute) -> bool:
    return route.has_body and field.name not in route.in_path


def _named(name: str, place: str, schema: Schema, text: str, required: bool = False) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": text}


def _parameter(field: Argument, route: ApiRoute) -> Schema:
    in_path = field.name in route.in_path
    schema = _schema(field)
    if in_path and field.kind is Kind.TEXT:
        schema = {**schema, "minLength": 1}
    text = _plain(field.text) or field.name
    if field.name == "after":
        text = "The next of the page before."
    found = _named(field.name, "path" if in_path else "query", schema, text, in_path or not field.optional)
    return {**found, "style": "form", "explode": False} if field.kind is Kind.LIST else found


def _schema(field: Argument) -> Schema:
    schema = dict(_ARGUMENTS[field.kind])
    if field.kind is Kind.NUMBER:
        schema |= {"minimum": field.low, "maximum": field.high}
    if field.form:
        schema["pattern"] = f"^{field.form}$"
    if field.words:
        schema = {"type": "string", "enum": [*field.words]}
    return {**schema, "description": _plain(field.text)} if field.text else schema


def _responses(route: ApiRoute, is_read: bool) -> dict[str, Any]:
    row = route.operation
    codes = {*_ALWAYS, *(STATUS[error] for error in row.errors)}
    if route.in_path:
        codes.add(404)
    if route.method == "POST":
        codes |= {409, 422}
    if route.method != "GET" and is_read:
        codes |= {404, 412}
    found = {
        str(code): {"description": _FAULTS[code], "content": {PROBLEM_JSON: {"schema": _REFERENCE}}}
        for code in sorted(codes)
    }
    found |= {str(code): {"description": _FAULTS[code]} for code in (414, 431)}
    if row.method == "watch":
        return {"200": {"description": "Server-sent events.", "content": {"text/event-stream": {}}}, **found}
    if route.method == "GET":
        found = {"304": {"description": "It is as the ETag says."}, **found}
    if not row.answer:
        return {"204": {"description": "Done."}, **found}
    return {"200": {"description": "Done.", "content": {JSON: {"schema": _answer(route)}}}, **found}


_REFERENCE = {"$ref": "#/components/schemas/Problem"}


def _answer(route: ApiRoute) -> Schema:
    row = route.operation
    if row.answer is ROW:
        return _row(row.columns)
    if row.answer is ROWS:
        items = _row(row.columns) if row.columns else _TEXT
        rows = {"type": "array", "items": items, "maxItems": PAGE}
        return _whole(rows=rows, next={"type": ["string", "null"], "description": "for after; null: the end"})
    return _whole(**{
        each.name: {"type": ["string", "null"]} if each.optional else _VALUES[each.kind]
        for each in row.answer
    })  # fmt: skip


def _row(columns: Iterable[Column]) -> Schema:
    properties = {
        each.name: {**_VALUES[each.kind], "description": _plain(each.text)} for each in columns if each.name
    }
    return {"type": "object", "properties": properties}


def _whole(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _plain(text: str) -> str:
    """Without the marks of the manual."""
    return re.sub(r"``([^`]*)``", r"\1", text)


def described(routes: Iterable[ApiRoute], beside: Iterable[Operation] = ()) -> bytes:
    """The same for people: one page, nothing of it from elsewhere."""
    parts = []
    found = [(ROOT + each.path, each.method, each) for each in routes]
    found += [(each.path, each.method, each) for each in _at_root(beside)]
    for path, method, each in sorted(found):
        row = each.operation
        names = "".join(
            f"<li><code>{escape(field.name)}</code>"
            f"{'' if field.optional else ' (needed)'}: {escape(field.kind.words)}. "
            f"{escape(_plain(field.text))}</li>"
            for field in each.asked
        )
        parts.append(
            f"<section><h2><code>{method} {escape(path)}</code></h2>"
            f"<p>{escape(row.help)}. {escape(_plain(row.text))} For {_ROLES[row.role]}.</p>"
            + (f"<ul>{names}</ul>" if names else "")
            + "</section>"
        )
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>revtunnel: API</title>'
        '<meta name="viewport" content="width=device-width"></head><body><h1>revtunnel: API</h1>'
        '<p>For programs: <a href="/api/openapi.json">/api/openapi.json</a></p>'
    )
    return (head + "\n".join(parts) + "</body></html>").encode("utf-8")
