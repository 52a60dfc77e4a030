"""What comes back from an engine that is none, or has gone mad."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_engine import EngineWay

ODD = [None, 7, b"", b"{", "nan?", b"\xff", "[" * 100_000, "1" * 5000, '"a word of a later version"']


class Answers:
    """A connection that answers so."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def eval(self, script: str, keys: list[str], words: list[str]) -> "Deferred[Any]":
        """At once."""
        return succeed(self.answer)


@pytest.mark.parametrize("answer", [*ODD, "[]", "{}", "[1]", "5"], ids=range(len(ODD) + 4))
def test_an_answer_that_makes_no_sense_is_that_of_an_engine_that_is_away(answer: Any) -> None:
    """In words; a lease is asked for again in its time."""
    clock, found = Clock(), list[Any]()
    view = RedisDirectory(clock, EngineWay("127.0.0.1"), "test", "one")
    view._engine._calls.protocol = Answers(answer)
    view._engine._calls.problem = None
    view._renew()
    assert "sense" in (view.problem or "") or ("later" in (view.problem or "") and clock.getDelayedCalls())
    if answer in ODD:
        Deferred.fromCoroutine(view.call("x")).addBoth(found.append)
        assert isinstance(found[0], Failure) and found[0].check(DirectoryAway)
