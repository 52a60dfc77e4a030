"""Passwords into hashes and back: argon2 in the reactor's threads, few at once, the rest in a short queue.

Rule of this file: a check takes a quarter of a second and 64 MiB wherever it ends; for a user that nobody has
too. argon2-cffi comes with the extra ``web``.

Source: RFC 9106; argon2-cffi; ours.
"""

import secrets
from collections.abc import Callable
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool

from revtunnel.process.admin.refusals import Busy, Invalid

__all__ = ["PasswordHashing", "check_password"]

LEAST, MOST = 12, 256  # characters of a password


def check_password(text: str) -> str:
    """Return ``text`` if it may be a password; Invalid: it is too short or too long."""
    if not LEAST <= len(text) <= MOST:
        raise Invalid(f"password of {len(text)} characters: {LEAST} to {MOST} wanted")
    return text


class PasswordHashing:
    """All that is hashed by one server."""

    at_once = 2
    most = 16  # that run or wait

    def __init__(self, reactor: Any, hasher: PasswordHasher | None = None) -> None:
        self._reactor = reactor
        self._hasher = hasher or PasswordHasher()
        self._nobody = ""  # the hash of a password that nobody knows
        self._turns = DeferredSemaphore(self.at_once)
        self._count = 0

    def make(self, password: str) -> "Deferred[str]":
        """The hash of a password; Busy: too many wait."""
        return self._run(lambda: self._hasher.hash(password))

    def is_right(self, hashed: str, password: str) -> "Deferred[bool]":
        """Whether a password is that of a hash; of "" none is. Busy: too many wait."""

        def look() -> bool:
            if not hashed and not self._nobody:
                self._nobody = self._hasher.hash(secrets.token_urlsafe())
            try:
                return self._hasher.verify(hashed or self._nobody, password) and bool(hashed)
            except (Argon2Error, InvalidHashError):
                return False

        return self._run(look)

    def _run(self, work: Callable[[], Any]) -> "Deferred[Any]":
        if self._count >= self.most:
            raise Busy("too many passwords are looked at")
        self._count += 1
        done = self._turns.run(deferToThreadPool, self._reactor, self._reactor.getThreadPool(), work)

        def over(result: Any) -> Any:
            self._count -= 1
            return result

        return done.addBoth(over)
