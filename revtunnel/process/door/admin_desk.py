"""What one caller of the admin door gets: each command becomes one call of the operator.

Rule of this file: who may not is refused before anything is looked at; what changes something, and every
refusal, is a log line with the caller's name (the audit trail). Nothing secret is logged.

Source: faults.md C1, "Mechanisms, exact" (Admin).
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from revtunnel.process.door.admin_commands import ERRORS, AdminCommand, Role, in_json, paged
from revtunnel.process.door.callers import Caller
from revtunnel.process.door.caretaker import PAGE
from revtunnel.process.door.refusals import Denied, Invalid

__all__ = ["Desk"]

log = Logger(namespace="revtunnel.admin")
MAX_WHY = 2000  # characters of an error's text


class Desk:
    """The commands of one caller. ``role`` is asked each time: a reload may change it.

    ``operator`` is a Caretaker with a method for each command that it ``knows``.
    """

    def __init__(
        self, operator: Any, caller: Caller, role: Callable[[], Role], watch: Callable[[], None]
    ) -> None:
        self._operator = operator
        self._caller = caller
        self._role = role
        self._start_watch = watch

    def answer(self, command: type[AdminCommand], box: Any, protocol: Any) -> "Deferred[Any]":
        """The answer's box, or a RemoteAmpError with one of ``ERRORS``; anything else is a bug of ours."""
        done = maybeDeferred(self._carry_out, command, box, protocol)
        done.addCallback(command.makeResponse, protocol)
        done.addErrback(_as_answer)
        return done

    def _carry_out(self, command: type[AdminCommand], box: Any, protocol: Any) -> Any:
        self._check(command)
        if not self._operator.knows(command.__name__):
            raise Invalid(f"this daemon has no {command.__name__.lower()}")
        arguments = _read(command, box, protocol)
        call = getattr(self, f"_{command.__name__.lower()}")
        if command.role is not Role.OPERATOR:
            return call(**arguments)
        done = maybeDeferred(call, **arguments)
        done.addBoth(self._note, command, arguments)
        return done

    def _check(self, command: type[AdminCommand]) -> None:
        role = self._role()
        if role >= command.role:
            return
        name, uid, what = self._caller.name, self._caller.uid, command.__name__.lower()
        log.warn("admin-refused", event="admin-refused", by=name, uid=uid, command=what, reason="denied")
        raise Denied(f"{name} may not {'use this server' if role is Role.NOBODY else f'{what}, only look'}")

    def _note(self, result: Any, command: type[AdminCommand], arguments: dict[str, Any]) -> Any:
        """One line for every attempt to change something."""
        word = "done"
        if isinstance(result, Failure):
            word = (_code_of(result) or b"failed").decode("ascii").lower().replace("_", "-")
        log.info(
            "admin-command",
            event="admin-command",
            command=command.__name__.lower(),
            by=self._caller.name,
            uid=self._caller.uid,
            outcome=word,
            **{name: value for name, value in arguments.items() if not isinstance(value, bytes)},
        )
        return result

    # -- looking

    def _ping(self) -> dict[str, Any]:
        return {"row": in_json(self._operator.ping())}

    def _status(self) -> dict[str, Any]:
        return {"row": in_json(self._operator.status())}

    def _devices(self, after: str | None, limit: int | None) -> dict[str, Any]:
        rows, more = self._operator.devices(after or "", limit or PAGE)
        return paged(rows, more is not None, lambda row: str(row["serial"]))

    def _record(self, serial: str) -> dict[str, Any]:
        return {"row": in_json(self._operator.record(serial))}

    def _ports(self, after: str | None, limit: int | None) -> dict[str, Any]:
        rows, more = self._operator.ports(_number(after), limit or PAGE)
        return paged(rows, more is not None, lambda row: str(row["port"]))

    def _channels(self, serial: str | None, after: str | None, limit: int | None) -> dict[str, Any]:
        start, _, number = (after or "/0").rpartition("/")
        rows, more = self._operator.channels(serial, (start, _number(number)), limit or PAGE)
        return paged(rows, more is not None, lambda row: f"{row['serial']}/{row['channel']}")

    def _enrolled(self, after: str | None, limit: int | None) -> dict[str, Any]:
        serials, more = self._operator.enrolled(after or "", limit or PAGE)
        return paged(serials, more is not None, str)

    def _peers(self, after: str | None, limit: int | None) -> dict[str, Any]:
        rows, more = self._operator.peers(after or "", limit or PAGE)
        return paged(rows, more is not None, lambda row: str(row["peer"]))

    def _watch(self) -> dict[str, Any]:
        self._start_watch()
        return {}

    # -- changing

    def _close(self, serial: str, channel: int) -> dict[str, Any]:
        self._operator.close(serial, channel, self._caller.name)
        return {}

    def _cut(self, peer: str) -> dict[str, Any]:
        self._operator.cut(peer)
        return {}

    def _kick(self, serial: str, retry_after: int) -> dict[str, Any]:
        self._operator.kick(serial, retry_after, self._caller.name)
        return {}

    def _release(self, serial: str, target: str) -> dict[str, Any]:
        return {"port": self._operator.release(serial, target, self._caller.name)}

    def _enroll(self, serial: str, replace: bool) -> dict[str, Any]:
        key = self._operator.enroll(serial, self._caller.name, replace)
        return {"key": key, "problem": self._operator.problem}

    def _authority(self) -> dict[str, Any]:
        return {"row": in_json(self._operator.authority())}

    def _token(self, serial: str, replace: bool) -> dict[str, Any]:
        row = self._operator.token(serial, self._caller.name, replace)
        return {**row, "problem": self._operator.problem}

    def _certify(self, serial: str, request: bytes, replace: bool) -> dict[str, Any]:
        made, authority = self._operator.certify(serial, request, self._caller.name, replace)
        return {"certificate": made, "authority": authority, "problem": self._operator.problem}

    def _revoke(self, serial: str, lift: bool | None) -> dict[str, Any]:
        call = self._operator.lift if lift else self._operator.revoke
        call(serial, self._caller.name)
        return {"problem": self._operator.problem}

    def _drain(self) -> dict[str, Any]:
        self._operator.drain()
        return {}

    def _reload(self) -> "Deferred[dict[str, Any]]":
        done: Deferred[dict[str, Any]] = self._operator.reload()
        return done.addCallback(lambda row: {"row": in_json(row)})

    def _loglevel(self, least: str) -> dict[str, Any]:
        self._operator.log_level(least)
        return {}


def _read(command: type[AdminCommand], box: Any, protocol: Any) -> dict[str, Any]:
    """The arguments that the box carries.

    Raises:
        Invalid: one is missing or not of its type.
    """
    try:
        return dict(command.parseArguments(box, protocol))
    except KeyError as error:
        raise Invalid(f"{command.__name__} needs {error}") from None
    except (ValueError, TypeError) as error:
        raise Invalid(f"{command.__name__}: {error}") from None


def _number(cursor: str | None) -> int:
    if not (cursor or "0").isdecimal() or len(cursor or "") > 9:
        raise Invalid(f"cursor {(cursor or '')[:80]!a}: the one of the answer before wanted")
    return int(cursor or 0)


def _as_answer(failure: Failure) -> Failure:
    """What the caller is told of a refusal; anything that is none of ours stays what it is."""
    code = _code_of(failure)
    if code is None:
        return failure
    return Failure(amp.RemoteAmpError(code, str(failure.value)[:MAX_WHY]))


def _code_of(failure: Failure) -> bytes | None:
    return next((code for error, code in ERRORS.items() if isinstance(failure.value, error)), None)
