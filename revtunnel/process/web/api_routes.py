"""Which operation a method and a path are: from the table of operations, and from nothing else.

Rule of this file: a row without ``route`` has ``GET /name`` where it looks, ``POST /name`` where it changes.
Arguments that are no part of the path are in the query for GET and DELETE, else in the body. A listing's rows
can be chosen by their texts and truths beside that.

Source: process/admin/operation_form.py; ours.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from revtunnel.process.admin.operation_form import ROW, ROWS, Argument, CallerRole, Column, Kind, Operation
from revtunnel.process.admin.refusals import Invalid

__all__ = ["ROOT", "ApiRoute", "ApiRoutes"]

ROOT = "/api/v1"
_CHOSEN = (Kind.TEXT, Kind.YES_NO, Kind.LIST)


class ApiRoute(NamedTuple):
    """One operation at its place."""

    method: str
    path: str  # below ROOT, arguments in braces
    operation: Operation

    @property
    def in_path(self) -> tuple[str, ...]:
        """Names of arguments."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    @property
    def has_body(self) -> bool:
        """Whether arguments are in a body."""
        return self.method in ("POST", "PUT", "PATCH") and len(self.in_path) < len(self.operation.arguments)

    @property
    def is_record(self) -> bool:
        """Whether it reads one thing, which can be compared before it is changed."""
        return self.method == "GET" and self.operation.answer is ROW

    @property
    def filters(self) -> tuple[Column, ...]:
        """Columns by which rows of a listing can be chosen."""
        row = self.operation
        taken = {each.name for each in row.asked}
        columns = row.columns if row.answer is ROWS else ()
        return tuple(
            each for each in columns if each.kind in _CHOSEN and each.name and each.name not in taken
        )

    @property
    def asked(self) -> tuple[Argument, ...]:
        """What the operation is asked with."""
        return self.operation.asked


class ApiRoutes:
    """All of them."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.all = [_route(each) for each in operations]
        self._found: dict[tuple[str, ...], dict[str, ApiRoute]] = {}
        for each in sorted(self.all, key=lambda route: len(route.in_path)):  # what is named comes first
            self._found.setdefault(_shape(each.path), {})[each.method] = each

    def at(self, path: str) -> tuple[Mapping[str, ApiRoute], list[str]]:
        """What is at a path below ROOT, by method, and the texts of its arguments; nothing: no such place.

        Raises:
            Invalid: a part of the path is no text.
        """
        parts = path.split("/")[1:]
        if not all(parts):
            return {}, []
        for shape, routes in self._found.items():  # a few dozens
            if len(shape) == len(parts) and all(a in ("{}", b) for a, b in zip(shape, parts, strict=True)):
                texts = [_decoded(b) for a, b in zip(shape, parts, strict=True) if a == "{}"]
                return routes, texts
        return {}, []


def _route(operation: Operation) -> ApiRoute:
    if operation.route:
        method, _, path = operation.route.partition(" ")
        return ApiRoute(method, path, operation)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", operation.name).lower()
    return ApiRoute("POST" if operation.role is CallerRole.OPERATOR else "GET", f"/{name}", operation)


def _shape(path: str) -> tuple[str, ...]:
    return tuple("{}" if part.startswith("{") else part for part in path.split("/")[1:])


def _decoded(part: str) -> str:
    try:
        return unquote_to_bytes(part).decode()
    except ValueError:
        raise Invalid("a part of the path is not UTF-8") from None
