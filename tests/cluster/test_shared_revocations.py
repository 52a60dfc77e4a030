"""Who is revoked at one node is at all, whatever the engine forgets meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.shared_revocations import SharedRevocations
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.certificate_book import AUTHORITY, DEVICE, CertificateBook, CertificateRow
from tests.cluster.redis_world import RedisWorld
from tests.support.epoll import own_reactor
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]
NOON = 1_800_000_000.0
STRANGE = "f" * 64


def row(mark: str, name: str, until: float = NOON + 1e6) -> CertificateRow:
    """A certificate."""
    return CertificateRow(mark.ljust(64, "0"), name, DEVICE, "1a", until, NOON)


class Node:
    """One node and its book."""

    def __init__(self, world: RedisWorld, name: str) -> None:
        self.ledger = SqliteLedger(None, lambda: NOON)
        self.book = CertificateBook(self.ledger)
        self.view: RedisDirectory = world.view(name)
        self.learnt = set[str]()
        SharedRevocations(self.view, self.book, self.learn)

    def learn(self, serials: set[str]) -> None:
        """Something counts no more."""
        self.learnt |= serials


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedisWorld]:
    """An engine, and nodes to come."""
    with own_reactor() as loop:
        world = RedisWorld(loop, tmp_path)
        yield world
        world.close()


def test_a_revocation_is_everywhere(world: RedisWorld) -> None:
    """Made before a node joins, while it is here, and while the engine is away; also once that is emptied."""
    one, two = (Node(world, name) for name in ("one", "two"))
    for number in range(130):  # more than one call
        one.book.put(row(f"{number:x}-", f"d{number}"))
        one.book.revoke(f"d{number}")
    for each in (one, two):
        world.result(each.view.start())
    world.until(lambda: all(two.book.barred(f"d{number}") for number in range(130)))
    assert "d0" in two.learnt and two.book.revoked("d0", row("0-", "d0").fingerprint)
    two.book.put(row("aa", "plc"))
    one.book.revoke("plc")
    world.until(lambda: two.book.revoked("plc", row("aa", "plc").fingerprint))
    one.book.put(row("bb", "plc"))
    world.until(lambda: not two.book.revoked("plc", row("bb", "plc").fingerprint))
    world.engine.kill()
    two.book.revoke("gone")
    two.book.lift("plc")
    assert not one.book.revoked("gone", STRANGE)
    world.engine.start()
    world.until(lambda: one.book.revoked("gone", STRANGE) and not one.book.barred("plc"))
    late = Node(world, "late")
    world.result(late.view.start())
    world.until(lambda: late.book.barred("d129") and late.book.barred("gone"))
    world.until(lambda: not late.book.barred("plc"))
    assert not late.book.revoked("plc", row("bb", "plc").fingerprint)
    for each in (one, two, late):
        each.ledger.close()


def test_what_cannot_be_read_keeps_nothing_else_back(world: RedisWorld) -> None:
    """Of a node of another version, or of whoever writes there; an authority is not revoked by it."""
    node, more = Node(world, "one"), row("dd", "plc")._replace(revoked=NOON)
    world.result(node.view.start())
    authority = row("ee", "us")._replace(kind=AUTHORITY)
    node.book.put(authority)
    told = {"barred:dev": "true", more.fingerprint: json.dumps([*more, "of a later version"])}
    wrong = [None] * 9, ["6", 1, 2, 3, "x", {}, 7, [], 8]
    odd = ("{", "7", "[]", "[1, 2]", "{}", *map(json.dumps, wrong))
    told |= {str(number): text for number, text in enumerate(odd)}
    told[authority.fingerprint] = json.dumps(authority._replace(revoked=NOON))
    for number, (name, text) in enumerate(told.items()):
        world.engine.ask("HSET", "rt:test:revoked", name, text)
        world.engine.ask("ZADD", "rt:test:shared", str(9_000_000_000_000 - number), name)
    world.until(lambda: node.book.barred("dev") and node.book.revoked("plc", more.fingerprint))
    assert node.book.row(authority.fingerprint) == authority and len(node.book) == 2
    node.ledger.close()


def test_what_ended_long_ago_is_not_kept(world: RedisWorld) -> None:
    """Who reads it takes it away."""
    one, two = (Node(world, name) for name in ("one", "two"))
    world.result(one.view.start())
    one.book.revoke("plc")
    one.book.shared([row("cc", "plc", NOON - 400 * 86400)._replace(revoked=NOON)], {})
    world.until(lambda: world.engine.ask("HLEN", "rt:test:revoked") == ":2")
    world.result(two.view.start())
    world.until(lambda: two.book.barred("plc"))
    world.until(lambda: world.engine.ask("HLEN", "rt:test:revoked") == ":1")
    for each in (one, two):
        each.ledger.close()
