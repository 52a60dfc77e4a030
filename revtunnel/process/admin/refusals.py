"""Why an operator's wish was not carried out: the operator raises them, interfaces pass them on."""

from collections.abc import Callable
from typing import TypeVar

from revtunnel.ground.errors import RemoteError

__all__ = ["REFUSALS", "Busy", "Conflict", "Denied", "Invalid", "NotFound", "OperatorError", "valid"]

T = TypeVar("T")


class OperatorError(Exception):
    """The call was not carried out; the text says why."""

    @property
    def code(self) -> str:
        """What stands for it on the wire."""
        return next(code for code, kind in REFUSALS.items() if isinstance(self, kind))


class NotFound(OperatorError):
    """There is no such device, channel or port."""


class Invalid(OperatorError):
    """An argument is wrong."""


class Conflict(OperatorError):
    """It cannot be done in the state that things are in."""


class Busy(OperatorError):
    """Not now; later it may be possible."""


class Denied(OperatorError):
    """The caller may not do that."""


REFUSALS = {"NOT_FOUND": NotFound, "INVALID": Invalid, "CONFLICT": Conflict, "BUSY": Busy, "DENIED": Denied}


def valid(parse: Callable[[str], T], text: str) -> T:
    """What an argument is, by its parser. Invalid: it is none, with the parser's words."""
    try:
        return parse(text)
    except (RemoteError, ValueError) as error:
        raise Invalid(str(error)) from None
