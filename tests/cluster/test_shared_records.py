"""What one node knows of safety all know, whatever the engine forgets meanwhile, or somebody writes there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults

from revtunnel.cluster import shared_records, shared_tables
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.record_seal import SealedRecords
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.shared_penalties import SharedPenalties
from revtunnel.cluster.shared_records import SharedRecords
from revtunnel.cluster.shared_revocations import SharedRevocations
from revtunnel.cluster.shared_tables import SharedTables
from revtunnel.fleet.penalties import Penalties
from revtunnel.ground.limits import PenaltyLimits, PeopleLimits
from revtunnel.ground.networks import network_of
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.certificate_book import AUTHORITY, DEVICE, CertificateBook, CertificateRow
from revtunnel.trust.grants import Action, Grant
from revtunnel.trust.people_book import open_people
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
    """One node and its books; without a secret it has revocations to share alone."""

    def __init__(self, world: RedisWorld, name: str, secret: bytes = b"") -> None:
        self.ledger = SqliteLedger(None, lambda: NOON)
        self.book = CertificateBook(self.ledger)
        self.view: RedisDirectory = world.view(name)
        self.learnt = set[str]()
        self.people, self.grants, _ = open_people(PeopleLimits(), self.ledger)
        revocations = SharedRevocations(self.book, self.learn, serials=not secret)
        if secret:
            books = SharedTables(self.ledger), revocations
            self.records = SharedRecords(self.view, books, SealedRecords(secret, "test"))
        else:
            self.records = SharedRecords(self.view, (revocations,))

    def knows(self, *names: str) -> bool:
        """Whether these are its people, and no others."""
        return [user.name for user in self.people.users("", 99)] == [*names]

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


SECRET = bytes(range(32))


def sealed(world: RedisWorld, *names: str) -> list[Node]:
    """Nodes with a secret, joined."""
    nodes = [Node(world, name, SECRET) for name in names]
    for node in nodes:
        world.result(node.view.start())
    return nodes


def test_people_are_everywhere_also_after_the_engine_was_away_and_emptied(world: RedisWorld) -> None:
    """Changed at both meanwhile; nothing in the engine says who there is. Revocations are sealed as well."""
    one, two = sealed(world, "one", "two")
    for number in range(130):  # more than one call
        one.people.add_user(f"person-{number:03}", "", NOON)
    names = [user.name for user in one.people.users("", 200)]
    world.until(lambda: len(two.people) == 130)
    listed = "return table.concat(redis.call('HGETALL', 'rt:test:revoked'))"
    assert "person-0" not in world.engine.ask("EVAL", listed, "0")
    two.people.remove_user("person-000")
    one.book.revoke("plc")
    world.until(lambda: len(one.people) == 129 and two.book.barred("plc"))
    world.engine.kill()
    for name in names[1:128]:
        one.people.remove_user(name)
    two.people.change_user("person-001", "changed", "admin")
    two.people.add_user("zoe", "", NOON)
    world.engine.start()
    world.until(
        lambda: one.knows("person-128", "person-129", "zoe") and two.knows("person-128", "person-129", "zoe")
    )
    world.engine.ask("FLUSHALL")
    (late,) = sealed(world, "late")
    world.until(lambda: late.knows("person-128", "person-129", "zoe") and late.book.barred("plc"))
    for each in (one, two, late):
        assert each.records.refused == 0
        each.ledger.close()


@pytest.mark.parametrize("most", [shared_records.DOUBTED, 1])
def test_who_writes_into_the_engine_makes_nobody(
    world: RedisWorld, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor removes, moves or brings back; what was written over is told again, and it is said how many."""
    monkeypatch.setattr(shared_records, "DOUBTED", most)
    one, two = sealed(world, "one", "two")
    one.people.add_user("ana", "", NOON)
    world.until(lambda: two.knows("ana"))
    seal, ana = SealedRecords(SECRET, "test"), SealedRecords(SECRET, "test").name("people:ana")
    good = world.engine.ask("HGET", "rt:test:revoked", ana)
    one.people.remove_user("ana")
    world.until(lambda: two.knows())
    other = SealedRecords(SECRET[::-1], "test")
    text = json.dumps([9, 9, 0.0, ["people", "eve", ["eve", "", "", NOON, "admin"]]])
    wrote = {
        ana: good,  # an old one, which no node believes that knew the newer
        seal.name("people:eve"): other.close("people:eve", text),
        "people:eve": text,
        seal.name("keys:eve"): good,
    }
    for number, (name, value) in enumerate(wrote.items()):
        world.engine.ask("HSET", "rt:test:revoked", name, value)
        world.engine.ask("ZADD", "rt:test:shared", str(9_000_000_000_000 + number), name)
    world.until(lambda: one.records.refused == two.records.refused == 3)
    world.until(lambda: world.engine.ask("HGET", "rt:test:revoked", ana) != good)
    assert one.knows() and two.knows() and "3 records" in one.records.problems["records"]
    for each in (one, two):
        each.ledger.close()


def test_what_is_not_ours_costs_no_reading_of_what_is(
    world: RedisWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing of ours was altered; where it was, that alone is told again."""
    (one,) = sealed(world, "one")
    for number in range(20):
        one.people.add_user(f"p{number:02}", "", NOON)
    world.until(lambda: world.engine.ask("HLEN", "rt:test:revoked") == ":20")
    world.until(lambda: one.records.is_joined)
    monkeypatch.setattr(one.ledger, "rows", lambda table: pytest.fail(f"all of {table}"))
    told = list[int]()
    tell = one.records._tell
    monkeypatch.setattr(
        one.records,
        "_tell",
        lambda pairs, **more: tell(iter([(told.append(1), each)[1] for each in pairs]), **more),
    )
    mine = SealedRecords(SECRET, "test").name("people:p07")
    good = world.engine.ask("HGET", "rt:test:revoked", mine)
    for number, name in enumerate(("junk", "f" * 64, mine)):
        world.engine.ask("HSET", "rt:test:revoked", name, "AAAA")
        world.engine.ask("ZADD", "rt:test:shared", str(9_000_000_000_000 + number), name)
        world.until(lambda number=number: one.records.refused == number + 1)
    world.until(lambda: world.engine.ask("HGET", "rt:test:revoked", mine) not in ("AAAA", good))
    assert len(told) == 1
    one.ledger.close()


def test_what_was_written_there_gives_who_joins_no_say(world: RedisWorld) -> None:
    """Noise is passed over, also where it is no text; who joins lets what the others have count first."""
    (one,) = sealed(world, "one")
    names = [f"p{number:02}" for number in range(20)]
    for name in names:
        one.people.add_user(name, "of the cluster", NOON)
    world.until(lambda: world.engine.ask("HLEN", "rt:test:revoked") == ":20")
    noise = "return redis.call('HSET', 'rt:test:revoked', string.char(255), string.char(254, 34))"
    for name, score in (("noise", 1), ("more", 9_000_000_000_000)):
        world.engine.ask("ZADD", "rt:test:shared", str(score), name)
    world.engine.ask("EVAL", noise + " + redis.call('ZADD', 'rt:test:shared', 2, string.char(255))", "0")
    late = Node(world, "late", SECRET)
    for name in names:
        late.people.add_user(name, "of the one who joins", NOON, "admin")
    late.ledger.change([("versions", f"people:{name}", None) for name in names])  # as of a former program
    late.records = SharedRecords(late.view, (SharedTables(late.ledger),), SealedRecords(SECRET, "test"))
    world.result(late.view.start())
    world.until(lambda: late.records.is_joined and late.records.refused == 3)
    for node in (one, late):
        assert {user.note for user in node.people.users("", 99)} == {"of the cluster"}
        node.ledger.close()


def test_what_found_no_room_to_wait_is_read_again(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grants of somebody who was changed last; and it is said, where he never comes."""
    monkeypatch.setattr(shared_tables, "WAITING", 20)
    (one,) = sealed(world, "one")
    one.people.add_user("ana", "", NOON)
    for number in range(130):
        one.grants.add(
            Grant(f"{number}", "ana", "*", ("*",), frozenset({Action.START}), None, None, NOON, "")
        )
    one.people.change_user("ana", "changed last", None)
    world.until(lambda: world.engine.ask("HLEN", "rt:test:revoked") == ":131")
    (late,) = sealed(world, "late")
    world.until(lambda: len(late.grants) == 130 and not late.records.problems)
    name = SealedRecords(SECRET, "test").name("people:ana")
    world.engine.ask("ZREM", "rt:test:shared", name)
    (never,) = sealed(world, "never")
    world.until(lambda: "110 of other" in never.records.problems.get("records-waiting", ""))
    one.people.change_user("ana", "told again", None)
    world.until(lambda: len(never.grants) == 130 and not never.records.problems)
    for each in (one, late, never):
        each.ledger.close()


def test_a_replica_that_had_not_heard_of_a_removal_hears_of_it_again(world: RedisWorld) -> None:
    """Who was away meanwhile, and comes to that, lets nobody in who was removed."""
    one, two = sealed(world, "one", "two")
    one.people.add_user("ana", "", NOON)
    world.until(lambda: two.knows("ana"))
    with world.lagging():
        one.people.remove_user("ana")
        two.people.add_user("bob", "", NOON)
        two.book.revoke("plc")
        world.until(lambda: two.knows("bob") and one.knows("bob") and one.book.barred("plc"))
    (late,) = sealed(world, "late")
    world.until(lambda: late.knows("bob") and late.book.barred("plc"))
    for each in (one, two, late):
        each.ledger.close()


def test_an_old_record_brings_no_certificate_back(world: RedisWorld) -> None:
    """A node that has never heard of it learns from the others that it was revoked."""
    (one,) = sealed(world, "one")
    seal, plc = SealedRecords(SECRET, "test"), row("aa", "plc")
    one.book.revoke("plc")
    one.book.put(plc)
    name = seal.name(plc.fingerprint)
    world.until(lambda: world.engine.ask("HEXISTS", "rt:test:revoked", name) == ":1")
    good = world.engine.ask("HGET", "rt:test:revoked", name)
    one.book.revoke("plc")
    world.until(lambda: world.engine.ask("HGET", "rt:test:revoked", name) != good)
    world.engine.ask("HSET", "rt:test:revoked", name, good)
    world.engine.ask("ZADD", "rt:test:shared", "9000000000000", name)
    (late,) = sealed(world, "late")
    world.until(lambda: late.book.barred("plc") and late.book.revoked("plc", plc.fingerprint))
    for each in (one, late):
        each.ledger.close()


def test_what_is_good_once_is_so_over_all_nodes(world: RedisWorld) -> None:
    """Asked at both at once; nobody says while the engine is away, or was emptied."""
    one, two = sealed(world, "one", "two")

    def first(node: Node) -> Deferred[bool]:
        return Deferred.fromCoroutine(node.records.first("tokens:x", 60.0))

    at_once = world.result(gatherResults([first(one), first(two)]))
    assert sorted(at_once) == [False, True]
    assert world.result(gatherResults([first(one), first(two)])) == at_once  # who has it may ask again
    world.engine.ask("FLUSHALL")
    with pytest.raises(DirectoryAway):
        world.result(first(one))
    world.until(lambda: one.view.problem is None and two.view.problem is None)
    with pytest.raises(DirectoryAway, match="emptied"):
        world.result(first(one))
    world.engine.kill()
    with pytest.raises(DirectoryAway):
        world.result(first(two))
    for each in (one, two):
        each.ledger.close()


def test_an_address_that_fails_at_one_node_has_failed_at_all(world: RedisWorld) -> None:
    """Once, whoever says it again; who is exempt at a node stays so, and a message of nobody is none."""
    nodes, tables, heard = sealed(world, "one", "two"), [], list[tuple[str, str]]()
    for node in nodes:
        tables.append(Penalties(PenaltyLimits(), [network_of("198.51.100.0/24")] if tables else []))
        seal = SealedRecords(SECRET, "test")
        SharedPenalties(node.view, tables[-1], seal, world.loop.reactor.seconds)
    two, learn = nodes[1], nodes[1].view.told
    two.view.told = lambda name, value: (heard.append((name, value)), learn(name, value))[1]  # type: ignore[func-returns-value]
    now = world.loop.reactor.seconds()
    world.until(lambda: len(two.view.nodes()) == 2)
    for peer in ("192.0.2.1:7", "198.51.100.7:7"):
        for _ in range(20):
            tables[0].failed(peer, "denied", "plc", now)
    world.until(lambda: heard)
    owed = tables[1].refused_for("192.0.2.1", now)
    assert 0 < owed <= tables[0].refused_for("192.0.2.1", now) + 5 and tables[1].known == 1
    learn(*heard[0])
    learn(heard[0][0], "AAAA")
    seal = SealedRecords(SECRET[::-1], "test")
    id = f"penalties:one:{nodes[0].view.me.epoch}:9"
    learn(seal.name(id), seal.close(id, '{"192.0.2.9/32": 99}'))
    assert tables[1].refused_for("192.0.2.1", now) == owed and tables[1].known == 1
    assert tables[1].locked_of("plc", now) == []
    for node in nodes:
        node.ledger.close()
