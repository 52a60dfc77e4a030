"""What an operator can do about people: plain values in, rows out, every change told."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revtunnel.ground.limits import PeopleLimits
from revtunnel.process.admin.operation_form import PAGE
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound
from revtunnel.state.audit_records import RightsChanged
from revtunnel.trust.people_operator import PeopleOperator
from tests.support.people import DAY, NOON, Town, town

LABELS = {"plc-7": ("line=3", "hall-b")}


class Office:
    """An operator over a town, its clock, and what was told."""

    def __init__(self, home: Town) -> None:
        self.home = home
        self.now = NOON
        self.told: list[RightsChanged] = []
        self._drawn = 0
        self.operator = PeopleOperator(
            home.people, home.grants, lambda: self.now, self.random_bytes, self.told.append, self.labels_of
        )

    def random_bytes(self, size: int) -> bytes:
        self._drawn += 1
        return self._drawn.to_bytes(size, "big")

    def labels_of(self, serial: str) -> tuple[str, ...]:
        return LABELS.get(serial, ())


@pytest.fixture
def office() -> Iterator[Office]:
    """An office where ana is known."""
    with town() as home:
        made = Office(home)
        made.operator.user_add("ana", "root", "plant 3")
        made.told.clear()
        yield made


def test_a_user_comes_with_a_token(office: Office) -> None:
    """Which is shown once, opens what it says, and is good as long as was asked for."""
    row = office.operator.user_add("ben", "root", "night shift", 7)
    assert row == {
        "id": row["id"],
        "user": "ben",
        "note": "",
        "created": "2027-01-15T08:00:00Z",
        "until": "2027-01-22T08:00:00Z",
        "used": None,
        "scope": "all",
        "expired": False,
        "token": row["token"],
    }
    assert office.home.people.log_in(row["token"], NOON)[:3] == ("ben", row["id"], NOON + 7 * DAY)
    (shown,) = office.operator.tokens("ben")[0]
    assert shown == {**{key: value for key, value in row.items() if key != "token"}, "used": row["created"]}
    assert office.told == [RightsChanged("user-added", "ben", "root")]


def test_users_are_listed_in_pages(office: Office) -> None:
    """With what there is to know, and no secret."""
    for name in ("eve", "ben", "cyd"):
        office.operator.user_add(name, "root")
    office.operator.group_add("night", "root")
    office.operator.member_add("night", "ana", "root")
    office.operator.grant_add("ana", "*", ["ssh"], "root")
    rows, more = office.operator.users("", 3)
    assert ([row["user"] for row in rows], more) == (["ana", "ben", "cyd"], "cyd")
    assert rows[0] == {
        "user": "ana",
        "note": "plant 3",
        "groups": ["night"],
        "tokens": 1,
        "grants": 1,
        "role": "person",
        "created": "2027-01-15T08:00:00Z",
        "used": None,
    }
    rows, more = office.operator.users("cyd", 3)
    assert ([row["user"] for row in rows], more) == (["eve"], None)
    assert office.operator.users("", 4)[1] is None
    assert len(office.operator.users("", 0)[0]) == 1


def test_no_page_is_longer_than_pages_are(office: Office) -> None:
    """Whatever is asked for."""
    for number in range(PAGE):
        office.operator.group_add(f"g{number:03}", "root")
        office.operator.user_add(f"u{number:03}", "root")
        office.operator.member_add("g000", f"u{number:03}", "root")
    office.operator.member_add("g000", "ana", "root")
    assert (len(office.operator.users("", 10**9)[0]), office.operator.users()[1]) == (PAGE, "u198")
    assert (len(office.operator.groups("", 10**9)[0]), office.operator.groups()[1]) == (PAGE, None)
    rows, more = office.operator.members("g000", limit=10**9)
    assert (len(rows), more) == (PAGE, "u198")
    assert [row["user"] for row in office.operator.members("g000", more)[0]] == ["u199"]


def test_tokens_are_given_and_revoked(office: Office) -> None:
    """By their id, or all of them."""
    first = office.operator.tokens("ana")[0][0]["id"]
    second = office.operator.token_new("ana", "root", "laptop", 1)
    office.now += DAY
    expired = {row["id"]: row["expired"] for row in office.operator.tokens("ana")[0]}
    assert expired == {first: False, second["id"]: True}
    office.now = NOON
    assert office.operator.token_revoke("ana", "root", first) == 1
    assert [row["id"] for row in office.operator.tokens("ana")[0]] == [second["id"]]
    office.operator.token_new("ana", "root")
    assert office.operator.token_revoke("ana", "root") == 2
    assert [each.subject for each in office.told if each.operation == "token-revoked"] == [
        f"ana/{first}",
        "ana/*",
    ]


def test_a_user_is_removed(office: Office) -> None:
    """With all that was his."""
    office.operator.grant_add("ana", "*", ["ssh"], "root")
    office.operator.user_remove("ana", "root")
    assert (office.operator.users(), office.operator.grants()) == (([], None), ([], None))
    assert office.told[-1] == RightsChanged("user-removed", "ana", "root")


def test_groups(office: Office) -> None:
    """Made, filled, listed, emptied, taken away."""
    operator = office.operator
    operator.group_add("night", "root", "22 to 6")
    operator.member_add("night", "ana", "root")
    operator.grant_add("@night", "*", ["*"], "root")
    assert operator.groups() == (
        [
            {
                "group": "night",
                "note": "22 to 6",
                "members": 1,
                "grants": 1,
                "created": "2027-01-15T08:00:00Z",
            }
        ],
        None,
    )
    assert [row["user"] for row in operator.members("night")[0]] == ["ana"]
    operator.member_remove("night", "ana", "root")
    assert operator.members("night") == ([], None)
    operator.group_remove("night", "root")
    assert (operator.groups(), operator.grants()) == (([], None), ([], None))
    assert [each.operation for each in office.told] == [
        *("group-added", "member-added", "grant-added", "member-removed", "group-removed")
    ]
    assert office.told[1] == RightsChanged("member-added", "@night/ana", "root")


def test_grants_are_given_listed_and_removed(office: Office) -> None:
    """A day that is named last is in it."""
    row = office.operator.grant_add(
        "ana", "plc-*", ["ssh", "http", "ssh"], "root", ["start", "list"], "2027-02-01", "2027-02-03"
    )
    assert row == {
        "grant": row["grant"],
        "holder": "ana",
        "device": "plc-*",
        "services": ["ssh", "http"],
        "actions": ["list", "start"],
        "begins": "2027-02-01T00:00:00Z",
        "until": "2027-02-04T00:00:00Z",
        "state": "not-yet",
        "created": "2027-01-15T08:00:00Z",
        "by": "root",
    }
    assert len(row["grant"]) == 12
    office.operator.grant_add("ana", "x", ["ssh"], "root", until="2027-01-15T18:30Z")
    rows, more = office.operator.grants("", 1)
    assert (rows, more) == ([row], f"ana/{row['grant']}")
    rows, more = office.operator.grants(str(more), 1)
    assert [(each["device"], each["until"], each["state"]) for each in rows] == [
        ("x", "2027-01-15T18:30:00Z", "in-force")
    ]
    assert more is None
    assert office.operator.grant_remove(row["grant"], "root") == row
    assert len(office.operator.grants()[0]) == 1
    detail = "plc-* ssh,http list,start"
    assert office.told[0] == RightsChanged("grant-added", f"ana/{row['grant']}", "root", detail)
    assert office.told[-1] == RightsChanged("grant-removed", f"ana/{row['grant']}", "root")


def test_an_answer_is_explained(office: Office) -> None:
    """By what each grant of the user and of his groups says to it, those that fit first."""
    operator = office.operator
    operator.group_add("night", "root")
    operator.member_add("night", "ana", "root")
    first = operator.grant_add("ana", "plc-*", ["http"], "root")
    second = operator.grant_add("@night", "label=line=3", ["ssh"], "root", until="2027-01-20")
    row = operator.may("ana", "start", "plc-7", "ssh")
    assert {key: value for key, value in row.items() if key != "considered"} == {
        "user": "ana",
        "action": "start",
        "serial": "plc-7",
        "service": "ssh",
        "labels": ["hall-b", "line=3"],
        "at": "2027-01-15T08:00:00Z",
        "allowed": True,
        "grant": second["grant"],
        "until": "2027-01-21T00:00:00Z",
        "why": "",
    }
    assert row["considered"] == [{**second, "misfit": ""}, {**first, "misfit": "service"}]
    assert operator.may("ana", "start", "plc-8", "ssh")["why"] == "no-grant"
    assert operator.may("ana", "start", "plc-8", "ssh", ["line=3"])["allowed"]
    later = operator.may("ana", "start", "plc-7", "ssh", at="2027-01-21T00:00:00Z")
    assert (later["allowed"], later["grant"], later["until"], later["why"]) == (False, "", None, "over")


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda o: o.user_add("Ana", "root"), Invalid, "^user 'Ana': "),
        (lambda o: o.user_add("ana", "root"), Conflict, "there already"),
        (lambda o: o.user_add("ben", "root", "\n"), Invalid, "^note of 1 characters"),
        (lambda o: o.user_add("ben", "root", "", 367), Invalid, "^367 days: 1 to 366 wanted"),
        (lambda o: o.user_add("ben", "root", "", -1), Invalid, "^-1 days: "),
        (lambda o: o.user_remove("ben", "root"), NotFound, "no user 'ben'"),
        (lambda o: o.tokens("ben"), NotFound, "no user 'ben'"),
        (lambda o: o.token_new("ben", "root"), NotFound, "no user 'ben'"),
        (lambda o: o.token_revoke("ana", "root", "zzz"), NotFound, "no token 'zzz'"),
        (lambda o: o.members("day"), NotFound, "no group 'day'"),
        (lambda o: o.group_add("@day", "root"), Invalid, "^group '@day': "),
        (lambda o: o.group_remove("day", "root"), NotFound, "no group 'day'"),
        (lambda o: o.member_add("day", "ana", "root"), NotFound, "no group 'day'"),
        (lambda o: o.member_remove("day", "ana", "root"), NotFound, "no group 'day'"),
        (lambda o: o.grant_add("ben", "*", ["*"], "root"), NotFound, "no user or group 'ben'"),
        (lambda o: o.grant_add("ana", "[a]", ["*"], "root"), Invalid, r"^device '\[a\]': "),
        (lambda o: o.grant_add("ana", "*", [], "root"), Invalid, "^no service: "),
        (lambda o: o.grant_add("ana", "*", ["a,b"], "root"), Invalid, "^service 'a,b': "),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", []), Invalid, "^no action: "),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", ["rule"]), Invalid, "^action 'rule': one of list,"),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", begins="soon"), Invalid, "^begins 'soon': a day"),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", until="2027-02-30"), Invalid, "^until '2027"),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", until="9999-12-31"), Invalid, "^until '9999"),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", until="2027-01-14"), Invalid, "over already"),
        (lambda o: o.grant_add("ana", "*", ["*"], "root", begins="2027-02-02", until="2027-02-01"), Invalid,
         "^a grant ends after it begins"),
        (lambda o: o.grant_remove("zzz", "root"), NotFound, "no grant 'zzz'"),
        (lambda o: o.may("ben", "start", "x", "ssh"), NotFound, "no user 'ben'"),
        (lambda o: o.may("ana", "go", "x", "ssh"), Invalid, "^action 'go'"),
        (lambda o: o.may("ana", "start", "x y", "ssh"), Invalid, "^serial 'x y'"),
        (lambda o: o.may("ana", "start", "x", "*"), Invalid, r"^service '\*': "),
        (lambda o: o.may("ana", "start", "x", "ssh", ["a b"]), Invalid, "^label 'a b'"),
        (lambda o: o.may("ana", "start", "x", "ssh", ["a"] * 33), Invalid, "^33 labels, 32 at most"),
        (lambda o: o.may("ana", "start", "x", "ssh", at="now"), Invalid, "^at 'now'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_not_told(
    office: Office, call: Callable[[PeopleOperator], Any], kind: type[Exception], text: str
) -> None:
    """Nothing changed."""
    with pytest.raises(kind, match=text):
        call(office.operator)
    assert office.told == []
    assert [row["user"] for row in office.operator.users()[0]] == ["ana"]


def test_a_life_that_is_not_a_number_of_days_is_rounded_down() -> None:
    """So that what is offered can be had."""
    with town(limits=PeopleLimits(token_longest=2.5 * DAY, token_life=DAY)) as home:
        operator = Office(home).operator
        with pytest.raises(Invalid, match="1 to 2 wanted"):
            operator.user_add("ana", "root", "", 3)
        assert operator.user_add("ana", "root", "", 2)["until"] == "2027-01-17T08:00:00Z"
        assert operator.token_new("ana", "root")["until"] == "2027-01-16T08:00:00Z"
