"""Why an operator's wish was not carried out, on every door: the operator raises them, doors pass them on."""

__all__ = ["REFUSALS", "Busy", "Conflict", "Denied", "Invalid", "NotFound", "OperatorError"]


class OperatorError(Exception):
    """The call was not carried out; the text says why. ``code`` stands for the class on the wire."""

    code = ""


class NotFound(OperatorError):
    """There is no such device, channel or port."""

    code = "NOT_FOUND"


class Invalid(OperatorError):
    """An argument is wrong."""

    code = "INVALID"


class Conflict(OperatorError):
    """It cannot be done in the state that things are in."""

    code = "CONFLICT"


class Busy(OperatorError):
    """Not now; later it may be possible."""

    code = "BUSY"


class Denied(OperatorError):
    """The caller may not do that."""

    code = "DENIED"


REFUSALS = {error.code: error for error in (NotFound, Invalid, Conflict, Busy, Denied)}
