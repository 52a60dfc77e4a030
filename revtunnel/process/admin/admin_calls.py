"""What one caller of the admin socket gets: each command becomes one call of the operator.

Rule of this file: who may not is refused before anything is looked at; what changes something, and every
refusal, is a log line with the caller's name (the audit trail). Nothing secret is logged.

Source: faults.md C1, "Mechanisms, exact" (Admin).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from revtunnel.process.admin.admin_boxes import in_json, paged, read, written
from revtunnel.process.admin.callers import Caller
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_calls import call, cursor_of, note, values_of
from revtunnel.process.admin.operation_form import ROW, ROWS, CallerRole, Operation, Row
from revtunnel.process.admin.refusals import Denied, Invalid

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
        who = {"by": self._caller.name, "uid": self._caller.uid}
        done.addBoth(lambda result: note(result, operation, arguments, who))
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
        found = call(self._operator, operation, arguments, self._caller.name)
        if operation.answer is not ROWS:
            return found

        def page(found: Any) -> Row:
            rows, more = found
            return paged(rows, more is not None, partial(cursor_of, operation))

        return found.addCallback(page) if isinstance(found, Deferred) else page(found)

    def _as_box(self, result: Any, operation: Operation) -> dict[bytes, bytes]:
        """What the method gave, as the answer's values."""
        if operation.answer is ROW:
            result = {"row": in_json(result)}
        return written(values_of(operation, result, self._operator.problem))
