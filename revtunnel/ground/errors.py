"""Two kinds of fault, as everywhere in this project.

``RemoteError`` is the other side's: it ends that channel or link, is logged once, and is never a traceback.
``LocalError`` is ours: a bug, raised and never swallowed.
"""

__all__ = ["LocalError", "RemoteError"]


class RemoteError(Exception):
    """The other side broke the rules; the text says which rule, with numbers."""


class LocalError(Exception):
    """This program broke its own rules."""
