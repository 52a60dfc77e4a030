"""One call of an operator's method for one operation, whatever interface it came by.

Rule of this file: an argument that is missing has the method's own default; a listing is asked for a page
behind a cursor, which is the ``key`` of its last row in one text. What changed something is a log line.

Source: ours.
"""

from operator import attrgetter
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from revtunnel.process.admin.operation_form import PAGE, ROWS, Kind, Operation, Row
from revtunnel.process.admin.refusals import Invalid, OperatorError

__all__ = ["call", "cursor_of", "note", "values_of"]

log = Logger(namespace="revtunnel.admin")


def call(operator: object, operation: Operation, arguments: Row, by: str) -> Any:
    """What the method gives; of a listing the rows, and a cursor as the method has it, or None.

    Raises:
        OperatorError: as the operation says; Invalid: the cursor is none.
    """
    method = attrgetter(operation.method)(operator)
    given = {name: value for name, value in arguments.items() if value is not None}
    learnt = _learnt(operator, operation)
    if learnt is not None:
        return learnt.addCallback(lambda _: _carried_out(method, operation, arguments, given, by))
    return _carried_out(method, operation, arguments, given, by)


def _carried_out(method: Any, operation: Operation, arguments: Row, given: Row, by: str) -> Any:
    if operation.answer is not ROWS:
        return method(**given, **{"by": by} if operation.named else {})
    page = {"after": _start(operation, arguments["after"]), "limit": arguments["limit"] or PAGE}
    return method(**{**given, **page})


def _learnt(operator: object, operation: Operation) -> Any:
    """Fires once the operator knows what has to be asked of others first; None: there is nothing."""
    learn = getattr(operator, "learn", None)
    return learn(operation) if learn is not None else None


def note(result: Any, operation: Operation, arguments: Row, who: Row) -> Any:
    """One line for every attempt to change something; the result is passed on."""
    word = "done"
    if isinstance(result, Failure):
        code = result.value.code if isinstance(result.value, OperatorError) else "failed"
        word = code.lower().replace("_", "-")
    log.info(
        "admin-command",
        event="admin-command",
        command=operation.name.lower(),
        **who,
        outcome=word,
        **{name: value for name, value in arguments.items() if not isinstance(value, bytes)},
    )
    return result


def values_of(operation: Operation, result: Any, problem: str | None) -> Row:
    """The values of an answer that is neither a row nor rows; ``problem`` where the operation tells it."""
    names = [each.name for each in operation.answer]
    if not isinstance(result, dict):
        result = dict(zip(names, result if isinstance(result, tuple) else (result,), strict=False))
    if "problem" in names:
        result = {**result, "problem": problem}
    return {name: result[name] for name in names}


def cursor_of(operation: Operation, row: Any) -> str:
    """What the next page begins after."""
    return "/".join(str(row[name]) for name in operation.key) if operation.key else str(row)


def _start(operation: Operation, cursor: str | None) -> Any:
    """Where a page begins, as the method has it."""
    kinds = {column.name: column.kind for column in operation.columns}
    shape = [kinds[name] for name in operation.key]
    if Kind.NUMBER not in shape:
        return cursor or ""
    if len(shape) == 1:
        return _number(cursor) if cursor else -1  # a port may be 0
    text, _, number = (cursor or "/0").rpartition("/")
    return text, _number(number)


def _number(cursor: str | None) -> int:
    if not (cursor or "0").isdecimal() or len(cursor or "") > 9:
        raise Invalid(f"cursor {(cursor or '')[:80]!a}: the one of the answer before wanted")
    return int(cursor or 0)
