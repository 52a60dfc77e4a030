"""Why an operator's wish was not carried out, on every door: the operator raises them, doors pass them on."""

__all__ = ["Busy", "Conflict", "Denied", "Invalid", "NotFound", "OperatorError"]


class OperatorError(Exception):
    """The call was not carried out; the text says why."""


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
