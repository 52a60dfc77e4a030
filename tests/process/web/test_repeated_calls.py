"""Idempotency keys: what is kept, for how long, of how many."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from revtunnel.process.web.http_answers import HttpRefused
from revtunnel.process.web.repeated_calls import RepeatedCalls


def test_an_answer_is_kept_for_a_while_and_a_failure_is_not() -> None:
    """While it runs, nobody else runs it."""
    clock, done = Clock(), []
    calls = RepeatedCalls(clock)
    running: Deferred[int] = Deferred()
    first = calls.once("ana", "k", b"x", lambda: running)
    with pytest.raises(HttpRefused) as caught:
        calls.once("ana", "k", b"x", lambda: done.append(1))
    assert (caught.value.status, caught.value.word) == (409, "in-progress")
    running.errback(ValueError())
    first.addErrback(lambda failure: done.append(failure.type))
    assert done == [ValueError]
    assert calls.once("ana", "k", b"x", lambda: 7).result == (7, False)
    assert calls.once("ana", "k", b"x", lambda: 8).result == (7, True)
    assert calls.once("ben", "k", b"x", lambda: 8).result == (8, False)
    clock.advance(calls.life + 1)
    assert calls.once("ana", "k", b"y", lambda: 9).result == (9, False)


def test_so_many_of_a_person_and_so_many_people() -> None:
    """The oldest goes."""
    calls = RepeatedCalls(Clock())
    calls.most = calls.logins = 2
    for key in "abc":
        calls.once("ana", key, b"x", lambda: 1)
    assert calls.once("ana", "c", b"x", lambda: 2).result == (1, True)
    assert calls.once("ana", "a", b"x", lambda: 2).result == (2, False)
    for person in ("ben", "eve"):
        calls.once(person, "a", b"x", lambda: 1)
    assert calls.once("ana", "a", b"x", lambda: 3).result == (3, False)
