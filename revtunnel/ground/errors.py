"""Kinds of fault, as everywhere in this project.

``RemoteError`` is the other side's: it ends that channel or link, is logged once, and is never a traceback.
``AnsweredOtherwise`` is a dial's: who is there is not whom we want.
``SettingsError`` is the operator's: it is said line by line, and what ran before runs on.
``LocalError`` is ours: a bug, raised and never swallowed.
"""

__all__ = ["AnsweredOtherwise", "LocalError", "RemoteError", "SettingsError"]

MAX_ERRORS = 100  # that are shown; a wrong file may have one on every line


class RemoteError(Exception):
    """The other side broke the rules; the text says which rule, with numbers."""


class AnsweredOtherwise(ConnectionError):
    """A server is there, and what it answered is not what was wanted.

    ``retry_after``: seconds for which it asked; 0: it did not.
    """

    retry_after = 0


class LocalError(Exception):
    """This program broke its own rules."""


class SettingsError(Exception):
    """The settings cannot be used; ``errors`` has one line for each reason.

    ``passes``: it is but files beside them that somebody may be about to replace, so it may pass by itself.
    """

    def __init__(self, errors: list[str], passes: bool = False) -> None:
        self.passes = passes
        more = [f"and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
        self.errors = errors[:MAX_ERRORS] + more
        super().__init__("\n".join(self.errors))
