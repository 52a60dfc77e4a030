"""Which of two nodes' records counts, and what follows where another was changed."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.cluster import shared_tables
from revtunnel.cluster.shared_tables import SHARED_TABLES, SharedTables
from revtunnel.ground.limits import EnrolmentLimits, PeopleLimits
from revtunnel.process.admin.refusals import OperatorError
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.app_keys import AppKeys
from revtunnel.trust.certificate_book import CertificateBook
from revtunnel.trust.enrolment import Enrolment
from revtunnel.trust.grants import Action, Grant
from revtunnel.trust.host_keys import HostKeys
from revtunnel.trust.login_secrets import LoginSecrets
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people_book import open_people
from tests.support.depth import deep

NOON = 1_800_000_000.0
DAY = 86_400.0
CODES = bytes(20)


class Node:
    """One node's books, and what it has to tell."""

    def __init__(self, ledger: SqliteLedger | None = None) -> None:
        self.now = NOON
        self.ledger = ledger or SqliteLedger(None, lambda: self.now)
        self.people, self.grants, _ = open_people(PeopleLimits(), self.ledger)
        self.logins = LoginSecrets(self.people, self.ledger)
        self.app_keys = AppKeys(self.ledger, lambda size: bytes(size))
        self.mutes = Mutes(self.ledger, lambda: self.now, lambda change: None)
        self.host_keys = HostKeys(self.ledger, lambda: self.now, lambda change: None)
        self.book = CertificateBook(self.ledger)
        self.enrolment = Enrolment(EnrolmentLimits(), 0.0, self.book)
        self.book.took_token = lambda mark, row: self.enrolment.take(mark, row, 0.0)
        self.took: list[tuple[str, Any]] = []
        self.told: dict[str, str] = {}
        self.changed: list[str] = []
        self.people.watch(lambda users: self.changed.extend(sorted(users)))
        self.share()

    def share(self) -> None:
        """Begin to; again: as after a restart."""
        self.tables = SharedTables(self.ledger, lambda table, key: self.took.append((table, key)))
        self.tables.changed = lambda told: self.told.update(told)

    def tell(self, *others: "Node") -> None:
        """What waits, until nobody has anything new."""
        nodes = [self, *others]
        for _ in range(20):
            for node in nodes:
                told, node.told = node.told, {}
                for other in nodes:
                    if told and other is not node:
                        other.tables.learn(told)
        assert not any(node.told for node in nodes)

    def meet(self, *others: "Node") -> None:
        """Everything is told, as to an engine that was emptied."""
        for node in (self, *others):
            node.told = {**dict(node.tables.to_share()), **node.told}
        self.tell(*others)

    def state(self) -> dict[str, Any]:
        """All that is shared here."""
        return {table: self.ledger.rows(table) for table in SHARED_TABLES}


@pytest.fixture
def pair() -> Iterator[tuple[Node, Node]]:
    """Two nodes."""
    nodes = Node(), Node()
    yield nodes
    for node in nodes:
        node.ledger.close()


def a_grant(holder: str, id: str = "9") -> Grant:
    """Of everything."""
    return Grant(id, holder, "*", ("*",), frozenset({Action.START}), None, None, NOON, "ops")


def fill(node: Node) -> None:
    """One of each."""
    node.people.add_group("ops", "", NOON)
    node.people.add_user("ana", "", NOON, "reader")
    node.people.add_member("ops", "ana")
    node.people.new_token("ana", b"s" * 32, "", NOON, None)
    node.grants.add(a_grant("@ops"))
    node.logins.set_password("ana", "hash")
    node.logins.set_factor("ana", CODES, 7)
    node.ledger.put_key("plc", b"k" * 32, b"s" * 32)
    node.app_keys.make("edge")
    node.mutes.mute("plc", "ops", "why")
    node.host_keys.keep("plc", "ssh", b"\0\0\0\1x", "ana")
    node.enrolment.give("new", b"t" * 16, 0.0)
    node.book.revoke("bad")


def test_one_of_each_is_at_both_and_gone_at_both(pair: tuple[Node, Node]) -> None:
    """What books hold in memory as well as the file; a removal takes with it what it takes at its own."""
    one, two = pair
    fill(one)
    one.tell(two)
    assert one.state() == two.state() and all(
        two.state()[each] for each in SHARED_TABLES if each != "subjects"
    )
    assert two.people.members("ops") == {"ana"} and two.people.tokens("ana") == one.people.tokens("ana")
    assert two.logins.of("ana") == one.logins.of("ana") and two.app_keys.has("edge") and two.mutes.of("plc")
    assert two.ledger.key_of("plc") == one.ledger.key_of("plc") and two.host_keys.of("plc", "ssh")
    assert [grant.id for grant in two.grants.concerning("ana")] == ["9"] and two.enrolment.waits("new")
    assert two.book.barred("bad") and not two.book.barred("plc")
    assert ("keys", "plc") in two.took and one.took == []
    two.changed.clear()
    two.people.remove_user("ana")
    two.people.remove_group("ops")
    two.app_keys.remove("edge"), two.ledger.remove_key("plc"), two.mutes.unmute("plc", "ops")
    two.host_keys.forget("plc", "ssh", "ops"), two.enrolment.withdraw("new")
    two.book.lift("bad")
    two.tell(one)
    assert one.state() == two.state() and not any(one.state().values())
    assert "ana" in one.changed and not one.people.knows("ana") and not one.people.knows("@ops")
    assert len(one.grants) == 0 and one.logins.of("ana").password == "" and not one.app_keys.has("edge")
    assert one.ledger.key_of("plc") is None and not one.mutes.of("plc") and not one.enrolment.waits("new")
    assert not one.book.barred("bad")


def test_what_goes_with_its_owner_is_told(pair: tuple[Node, Node]) -> None:
    """Also where both were learnt together: then it is not as it was told."""
    one, two = pair
    fill(one)
    three = Node()
    one.tell(two, three)
    two.people.new_token("ana", b"u" * 32, "", NOON, None)
    (token,) = two.told
    one.people.remove_user("ana")
    same, _ = three.tables.learn({**dict(one.tables.to_share()), **two.told})
    assert "people:ana" in same and token not in same and token in three.told
    three.ledger.close()


def test_removed_wins_over_changed_and_made_again_over_removed(pair: tuple[Node, Node]) -> None:
    """However often he was changed meanwhile; who is made again knew of the removal."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.people.remove_user("ana")
    for note in "abc":
        two.people.change_user("ana", note, "admin")
    two.people.new_token("ana", b"u" * 32, "", NOON, None)
    two.grants.add(a_grant("ana", "8"))
    one.tell(two)
    assert not two.people.knows("ana") and one.state() == two.state() and not one.state()["user_tokens"]
    assert len(one.grants) == len(two.grants) == 1
    two.people.add_user("ana", "another", NOON)
    two.tell(one)
    assert one.people.user("ana").note == "another" and one.people.tokens("ana") == []


def test_more_changes_win_and_equals_are_the_same_everywhere(pair: tuple[Node, Node]) -> None:
    """Clocks are not asked."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.now = NOON - DAY
    one.people.change_user("ana", "first", None)
    one.people.change_user("ana", "second", None)
    two.people.change_user("ana", "other", None)
    one.tell(two)
    assert one.people.user("ana").note == two.people.user("ana").note == "second"
    one.people.change_user("ana", "left", None)
    two.people.change_user("ana", "right", None)
    one.tell(two)
    assert one.people.user("ana").note == two.people.user("ana").note in ("left", "right")


def test_revoked_wins_over_a_lift_that_did_not_know_of_it(pair: tuple[Node, Node]) -> None:
    """Whichever is heard first."""
    for first, second in (pair, pair[::-1]):
        first.book.revoke("plc")
        first.tell(second)
        second.now = first.now + 1
        second.book.revoke("plc")
        first.book.lift("plc")
        first.tell(second)
        assert first.book.barred("plc") and second.book.barred("plc")
        second.book.lift("plc")
        first.tell(second)
        assert not first.book.barred("plc") and first.state() == second.state()


def test_a_code_is_used_up_everywhere(pair: tuple[Node, Node]) -> None:
    """Also where the row of another node is newer and knew of an earlier one."""
    one, two = pair
    fill(one)
    one.tell(two)
    now = 60 * 30.0
    code = TOTP(CODES, 6, SHA1(), 30, enforce_key_length=False).generate(int(now)).decode()
    assert one.logins.take_code("ana", code, now)
    one.tell(two)
    assert not two.logins.take_code("ana", code, now)
    fill_again = two.logins.of("ana")._replace(step=0)
    two.logins._keep("ana", fill_again)
    two.logins._keep("ana", fill_again._replace(password="new"))
    two.tell(one)
    assert one.logins.of("ana").password == "new" and not one.logins.take_code("ana", code, now)


def test_what_a_node_brings_gives_way_and_the_rest_is_joined() -> None:
    """A node that joins for the first time: those of one name are one person."""
    one, late = Node(), Node(SqliteLedger(None, lambda: NOON))
    fill(one)
    before = SqliteLedger(None, lambda: NOON)
    people, grants, _ = open_people(PeopleLimits(), before)
    for name in ("ana", "bob", "old"):
        people.add_user(name, "of the late one", NOON)
    grants.add(a_grant("ana", "7"))
    one.people.add_user("old", "", NOON)
    one.people.remove_user("old")
    late = Node(before)
    late.tables.learn(dict(one.tables.to_share()))  # a node learns before it tells
    late.meet(one)
    assert one.state() == late.state() and sorted(one.state()["people"]) == ["ana", "bob"]
    assert late.people.user("ana").note == "" and one.people.user("bob").note == "of the late one"
    assert sorted(grant.id for grant in one.grants.concerning("ana")) == ["7", "9"]


def test_what_was_changed_while_nothing_was_shared_is_told(pair: tuple[Node, Node]) -> None:
    """The secret was away, or the node alone."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.ledger.beside = lambda changes: ()
    one.people.change_user("ana", "alone", None)
    one.ledger.remove_key("plc")
    one.app_keys.remove("edge")
    one.app_keys.make("edge")
    one.share()
    one.meet(two)
    assert one.state() == two.state() and two.people.user("ana").note == "alone"
    assert two.ledger.key_of("plc") is None


def test_a_node_that_restarts_knows_what_it_knew(pair: tuple[Node, Node]) -> None:
    """Removals as well, so that nobody is brought back by whoever was away; nothing is changed by a start."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.people.remove_user("ana")
    one.told.clear()
    before = one.state()
    one.share()
    assert one.state() == before and not one.told
    one.tables.learn(dict(two.tables.to_share()))
    one.tell(two)
    assert not one.people.knows("ana") and not two.people.knows("ana")


def test_what_belongs_to_somebody_waits_for_him(pair: tuple[Node, Node]) -> None:
    """Records come in any order, and in pages."""
    one, two = pair
    fill(one)
    told = sorted(one.told.items(), reverse=True)
    for id, text in told:
        two.tables.learn({id: text})
    assert one.state() == two.state() and len(two.grants) == 1 and two.people.tokens("ana")


def test_removals_are_forgotten_when_nobody_can_have_what_they_removed(pair: tuple[Node, Node]) -> None:
    """A token's when that is over, a person's after a year; then the engine need not know either."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.people.remove_user("ana")
    one.enrolment.withdraw("new")
    told = dict(one.tables.to_share())
    assert "people:ana" in told and any(id.startswith("tokens:") for id in told)
    one.now = NOON + 91 * DAY
    assert not any(id.startswith("tokens:") for id in dict(one.tables.to_share()))
    one.now = two.now = NOON + 367 * DAY
    assert "people:ana" not in dict(one.tables.to_share())
    _, over = two.tables.learn(told)
    assert "people:ana" in over and not two.told


def test_what_makes_no_sense_changes_nothing(pair: tuple[Node, Node]) -> None:
    """Of another version, or a fault of ours at another node: counted."""
    one, two = pair
    fill(one)
    id = "people:ana"
    life, version, until, (table, key, row) = json.loads(one.told[id])
    wrong: list[Any] = [None, 7, {}, [], [life], [life, version, until, [table, "bob", row]]]
    wrong += [[life, "x", until, [table, key, row]], [life, version, until, [table, key, [key, 1, 2, 3, 4]]]]
    wrong += [[life, version, until, ["leases", key, row]], [life, version, until, [table, key, []]]]
    wrong += [[life, version, until, [table, key, ["bob", *row[1:]]]]]
    for count, each in enumerate(wrong, 1):
        two.tables.learn({id: json.dumps(each)})
        assert two.tables.odd == count
    two.tables.learn({id: "{"})
    assert not any(two.state().values()) and not two.took
    longer = [life, version, until, [table, key, [*row, "of a later version"]]]
    two.tables.learn({id: json.dumps(longer)})
    assert two.people.knows("ana")


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            (
                *("add", "remove", "again", "edit", "token", "grant", "group", "ungroup", "join", "code"),
                *("restart", "tell", "scatter"),
            )
        ),
        st.sampled_from(("ana", "bob")),
    ),
    max_size=25,
)


@settings(max_examples=deep(60), deadline=None)
@given(STEPS)
def test_nodes_agree_whatever_was_done_where(steps: list[tuple[int, str, str]]) -> None:
    """And nobody has anything of somebody who is not there."""
    nodes = [Node(), Node(), Node()]
    for number, (at, what, who) in enumerate(steps):
        node, secret = nodes[at], number.to_bytes(32, "big")
        with suppress(OperatorError):
            if what == "add":
                node.people.add_user(who, str(at), NOON)
            elif what == "remove":
                node.people.remove_user(who)
            elif what == "again":
                node.people.remove_user(who)
                node.people.add_user(who, f"another {number}", NOON)
            elif what == "code":
                node.people.user(who)
                node.logins._keep(who, node.logins.of(who)._replace(secret=CODES, step=number))
            elif what == "scatter":  # one by one, the last one first
                for record in [*node.tables.to_share()][::-1]:
                    nodes[at - 1].tables.learn(dict([record]))
            elif what == "edit":
                node.people.change_user(who, str(number), None)
            elif what == "token":
                node.people.new_token(who, secret, "", NOON, None)
            elif what == "grant":
                node.grants.add(a_grant(who, str(number)))
            elif what == "group":
                node.people.add_group("ops", "", NOON)
            elif what == "ungroup":
                node.people.remove_group("ops")
            elif what == "join":
                node.people.add_member("ops", who)
            elif what == "restart":
                node.share()
            else:
                node.tell(nodes[at - 1])
    nodes[0].meet(*nodes[1:])
    first = nodes[0].state()
    for node in nodes:
        assert node.state() == first
        for table in ("user_tokens", "grants"):
            assert all(row[1] in first["people"] for row in first[table].values())
        assert all(node.logins.of(who).step == row[3] for who, row in first["logins"].items())
        assert {each.name for each in node.people.users("", 9)} == set(first["people"])
        assert len(node.grants) == len(first["grants"])
        node.ledger.close()


def test_what_is_older_is_answered_row_by_row(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old record that is shown again has no table read as a whole; a row that is gone is told as gone."""
    one, two = pair
    fill(one)
    old = dict(one.told)
    one.tell(two)
    two.people.change_user("ana", "changed", "admin")
    two.app_keys.remove("edge")
    two.told.clear()
    monkeypatch.setattr(two.ledger, "rows", lambda table: pytest.fail(f"all of {table}"))
    two.tables.learn({id: old[id] for id in ("people:ana", "edge_keys:edge")})
    monkeypatch.undo()
    two.tell(one)
    assert one.state() == two.state() and not one.app_keys.has("edge")
    assert one.people.user("ana").note == "changed"


def grants_of(node: Node) -> list[str]:
    """Of ana."""
    return sorted(grant.id for grant in node.grants.concerning("ana"))


def test_of_the_one_before_nothing_comes_back(pair: tuple[Node, Node]) -> None:
    """She was removed and made again at one node, while another one, apart, gave her more."""
    one, two = pair
    fill(one)
    one.tell(two)
    two.people.new_token("ana", b"u" * 32, "", NOON, None)
    two.grants.add(a_grant("ana", "8"))
    two.grants.add(a_grant("@ops", "7"))
    one.people.remove_user("ana")
    one.people.remove_group("ops")
    one.people.add_user("ana", "another", NOON)
    one.people.add_group("ops", "another", NOON)
    one.grants.add(a_grant("ana", "1"))
    one.people.new_token("ana", b"v" * 32, "", NOON, None)
    one.tell(two)
    for node in pair:
        assert node.people.user("ana").note == "another" and node.people.members("ops") == set()
        assert len(node.people.tokens("ana")) == 1 and grants_of(node) == ["1"] and len(node.grants) == 1
        assert not node.logins.of("ana").password
    assert one.state() == two.state() and "ana" in two.changed


def test_of_the_one_before_nothing_comes_back_by_who_has_never_known_her(pair: tuple[Node, Node]) -> None:
    """A grant is in the engine still, whose maker ended before he heard that she was removed."""
    one, two = pair
    fill(one)
    one.tell(two)
    two.grants.add(a_grant("ana", "8"))
    late, (orphan,) = Node(), two.told.items()
    one.people.remove_user("ana")
    late.tables.learn(dict(one.tables.to_share()))
    late.tables.learn(dict([orphan]))
    one.people.add_user("ana", "another", NOON)
    one.tell(late)
    assert grants_of(one) == grants_of(late) == [] and one.state() == late.state()
    assert one.state()["people"]["ana"][1] == "another"
    late.ledger.close()


def test_rights_of_who_was_made_again_come_in_any_order(pair: tuple[Node, Node]) -> None:
    """Before her as well: they wait for her, and are not taken for those of the one before."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.people.remove_user("ana")
    one.people.add_user("ana", "another", NOON)
    one.grants.add(a_grant("ana", "1"))
    one.people.new_token("ana", b"v" * 32, "", NOON, None)
    one.logins.set_password("ana", "new")
    told = [*one.told.items()]
    for records in (told, told[::-1], sorted(told)):
        other = Node()
        other.tables.learn(dict(two.tables.to_share()))
        for record in records:
            other.tables.learn(dict([record]))
        one.tell(other)
        assert one.state() == other.state() and grants_of(other) == ["1"]
        assert other.logins.of("ana").password == "new" and len(other.people.tokens("ana")) == 1
        other.ledger.close()


def test_what_waits_is_read_once_and_what_finds_no_room_is_counted(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears of that has everything told once more."""
    one, two = pair
    one.people.add_user("ana", "", NOON)
    for number in range(5):
        one.grants.add(a_grant("ana", str(number)))
    told, read = dict(one.told), list[str]()
    ana = told.pop("people:ana")
    monkeypatch.setattr(shared_tables, "WAITING", 3)
    monkeypatch.setattr(
        shared_tables, "_read", lambda id, text, now=shared_tables._read: read.append(id) or now(id, text)
    )
    for record in told.items():
        two.tables.learn(dict([record]))
    assert sorted(read) == sorted(told) and two.tables.missed() == 2 and two.tables.missed() == 0
    two.tables.learn({"people:ana": ana})
    assert len(two.grants) == 3
    two.tables.learn(told)
    assert len(two.grants) == 5 and two.tables.missed() == 0


def test_a_code_that_is_used_up_stays_so_over_a_restart(pair: tuple[Node, Node]) -> None:
    """Where the row of another node that counts is of an earlier one; and all hear of it."""
    one, two = pair
    fill(one)
    one.tell(two)
    one.logins._keep("ana", one.logins.of("ana")._replace(step=9))
    two.logins._keep("ana", two.logins.of("ana")._replace(password="new"))
    two.logins._keep("ana", two.logins.of("ana")._replace(step=8))
    one.tell(two)
    for node in pair:
        kept = LoginSecrets(node.people, node.ledger).of("ana")
        assert (
            (kept.password, kept.step)
            == ("new", 9)
            == (node.logins.of("ana").password, node.logins.of("ana").step)
        )
    assert one.state() == two.state()
