"""What a node knows of numbers when the engine's answers come before its news."""

from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.cluster.claim_scripts import CLAIM
from revtunnel.cluster.node_records import Claim, Wanted
from revtunnel.cluster.redis_claims import RedisClaims


def made(*answers: list[Any]) -> RedisClaims:
    """One whose engine answers questions for numbers with these, in turn."""
    left = list(answers)

    async def call(script: str, *words: Any) -> Any:
        assert script == CLAIM
        return left.pop(0)

    return RedisClaims(call)


def asked(claims: RedisClaims, serial: str) -> Claim:
    """What the engine says."""
    found: list[Claim] = []
    wanted = Wanted("p", serial, "it", ((7000, 7002),))
    Deferred.fromCoroutine(claims.claim(wanted)).addCallback(found.append)
    return found[0]


def test_whoever_had_a_number_that_is_given_to_another_is_told() -> None:
    """The news that follow name the new use only."""
    claims, ceased = made([7000, "a", "it", 5], [7000, "b", "it", 9]), list[Claim]()
    claims.ceased = ceased.append
    first = asked(claims, "a")
    assert asked(claims, "b").use == ("b", "it")
    assert ceased == [first]


def test_a_number_just_given_is_known_with_its_time() -> None:
    """An engine that is emptied then hears who is the newest."""
    claims = made([7000, "a", "it", 5], [7000, "a", "it", 8])
    assert asked(claims, "a").touched == claims.floor == 5
    assert asked(claims, "a") is claims.known[7000]
    assert claims.floor == 8
