"""The settings of the admin door."""

from dataclasses import dataclass

__all__ = ["AdminSettings"]


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The admin door; people are user names, uids or ``@group``, all of which exist."""

    socket: str
    mode: int
    operators: tuple[str, ...]
    readers: tuple[str, ...]
