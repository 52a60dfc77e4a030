"""What one caller of the admin socket gets: each command becomes one call of the operator.

Rule of this file: who may not is refused before anything is looked at; what changes something, and every
refusal, is a log line with the caller's name (the audit trail). Nothing secret is logged.

Source: faults.md C1, "Mechanisms, exact" (Admin).
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from revtunnel.process.admin.admin_boxes import in_json, paged, read, written
from revtunnel.process.admin.callers import Caller
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import PAGE, ROW, ROWS, CallerRole, Kind, Operation, Row
from revtunnel.process.admin.refusals import Denied, Invalid, OperatorError

__all__ = ["AdminCalls"]

log = Logger(namespace="revtunnel.admin")


class AdminCalls:
    """The calls of one caller. ``role`` is asked each time: a reload may change it."""

    def __init__(
        self,
        operator: DaemonOperator,
        caller: Caller,
        role: Callable[[], CallerRole],
        watch: Callable[[], None],
    ) -> None:
        self._operator = operator
        self._caller = caller
        self._role = role
        self._watch = watch

    def answer(self, operation: Operation, box: Mapping[bytes, bytes]) -> "Deferred[dict[bytes, bytes]]":
        """The values of the answer, or an OperatorError; any other one is a bug."""
        return maybeDeferred(self._carry_out, operation, box).addCallback(self._as_box, operation)

    def _carry_out(self, operation: Operation, box: Mapping[bytes, bytes]) -> Any:
        self._check(operation)
        if operation.name not in self._operator.operations:
            raise Invalid(f"this daemon has no {operation.name.lower()}")
        arguments = read(operation.asked, box)
        if operation.role is not CallerRole.OPERATOR:
            return self._call(operation, arguments)
        done = maybeDeferred(self._call, operation, arguments)
        done.addBoth(self._note, operation, arguments)
        return done

    def _check(self, operation: Operation) -> None:
        role = self._role()
        if role >= operation.role:
            return
        name, uid, what = self._caller.name, self._caller.uid, operation.name.lower()
        log.warn("admin-refused", event="admin-refused", by=name, uid=uid, command=what, reason="denied")
        raise Denied(
            f"{name} may not {'use this server' if role is CallerRole.NOBODY else f'{what}, only look'}"
        )

    def _call(self, operation: Operation, arguments: Row) -> Any:
        if operation.method == "watch":
            return self._watch()
        method = attrgetter(operation.method)(self._operator)
        given = {name: value for name, value in arguments.items() if value is not None}
        if operation.answer is not ROWS:
            return method(**given, **{"by": self._caller.name} if operation.named else {})
        page = {"after": _start(operation, arguments["after"]), "limit": arguments["limit"] or PAGE}
        rows, more = method(**{**given, **page})
        return paged(rows, more is not None, lambda row: _cursor(operation, row))

    def _note(self, result: Any, operation: Operation, arguments: Row) -> Any:
        """One line for every attempt to change something."""
        word = "done"
        if isinstance(result, Failure):
            code = result.value.code if isinstance(result.value, OperatorError) else "failed"
            word = code.lower().replace("_", "-")
        log.info(
            "admin-command",
            event="admin-command",
            command=operation.name.lower(),
            by=self._caller.name,
            uid=self._caller.uid,
            outcome=word,
            **{name: value for name, value in arguments.items() if not isinstance(value, bytes)},
        )
        return result

    def _as_box(self, result: Any, operation: Operation) -> dict[bytes, bytes]:
        """What the method gave, as the answer's values."""
        names = [each.name for each in operation.answer]
        if operation.answer is ROW:
            result = {"row": in_json(result)}
        elif not isinstance(result, dict):
            result = dict(zip(names, result if isinstance(result, tuple) else (result,), strict=False))
        if "problem" in names:
            result = {**result, "problem": self._operator.problem}
        return written({name: result[name] for name in names})


def _start(operation: Operation, cursor: str | None) -> Any:
    """Where a page begins, as the method has it."""
    kinds = {column.name: column.kind for column in operation.columns}
    shape = [kinds[name] for name in operation.key]
    if Kind.NUMBER not in shape:
        return cursor or ""
    if len(shape) == 1:
        return _number(cursor)
    text, _, number = (cursor or "/0").rpartition("/")
    return text, _number(number)


def _cursor(operation: Operation, row: Any) -> str:
    return "/".join(str(row[name]) for name in operation.key) if operation.key else str(row)


def _number(cursor: str | None) -> int:
    if not (cursor or "0").isdecimal() or len(cursor or "") > 9:
        raise Invalid(f"cursor {(cursor or '')[:80]!a}: the one of the answer before wanted")
    return int(cursor or 0)
