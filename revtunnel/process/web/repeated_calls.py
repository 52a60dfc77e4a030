"""Answers to what was asked with an Idempotency-Key, kept for a while: asking again does nothing twice.

Rule of this file: a key is of one login; the same key with another request is refused, and so is one whose
first request still runs. What was refused may be tried again. Kept in memory, for ``life`` seconds, for the
last ``most`` keys of a login and the last ``logins`` logins.

Source: draft-ietf-httpapi-idempotency-key-header; ours.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from revtunnel.process.web.http_answers import HttpRefused

__all__ = ["RepeatedCalls"]


@dataclass(slots=True)
class _Kept:
    request: bytes  # hash of it
    at: float
    answer: Any = None  # None: it runs


class RepeatedCalls:
    """Of all logins. ``clock`` is the reactor."""

    life = 600.0
    most = 64
    logins = 256

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, OrderedDict[str, _Kept]] = OrderedDict()

    def once(self, login: Hashable, key: str, request: bytes, work: Any) -> "Deferred[tuple[Any, bool]]":
        """What ``work`` gives, or gave; and whether it was done before.

        Raises:
            HttpRefused: 422 with another request, 409 while the first one runs.
        """
        now = self._clock.seconds()
        mine = self._kept.setdefault(login, OrderedDict())
        self._kept.move_to_end(login)
        while mine and now - next(iter(mine.values())).at > self.life:
            mine.popitem(last=False)
        hashed = hashlib.sha256(request).digest()
        kept = mine.get(key)
        if kept is not None:
            if kept.request != hashed:
                raise HttpRefused(422, "key-reused", "this Idempotency-Key was of another request")
            if kept.answer is None:
                raise HttpRefused(409, "in-progress", "the request with this Idempotency-Key still runs")
            return maybeDeferred(lambda: (kept.answer, True))
        mine[key] = fresh = _Kept(hashed, now)
        while len(mine) > self.most:
            mine.popitem(last=False)
        while len(self._kept) > self.logins:
            self._kept.popitem(last=False)

        def over(result: Any) -> Any:
            if isinstance(result, Failure):
                if mine.get(key) is fresh:
                    del mine[key]
                return result
            fresh.answer = result
            return result, False

        return maybeDeferred(work).addBoth(over)
