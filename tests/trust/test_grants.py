"""Who may what: against a plain reading of the rule, over many worlds, and over many changes."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from revtunnel.ground.limits import PeopleLimits
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound
from revtunnel.state.ledger import FILE_NAME, SqliteLedger
from revtunnel.trust.grants import Action, Grant, Question, Verdict, decide
from tests.support.depth import deep
from tests.support.people import NOON, Town, grant_of, town

USERS = ("ana", "ben", "eve")
GROUPS = ("night", "day")
HOLDERS = (*USERS, *(f"@{group}" for group in GROUPS))
SERIALS = ("plc-1", "plc-2", "PLC-1", "a:b", "x")
DEVICES = ("*", "plc-*", "plc-?", "plc-1", "*1", "label=line=*", "label=hall-b", "label=*")
SERVICES = ("ssh", "http", "tcp-23")
LABELS = ((), ("hall-b",), ("line=3", "cell"), ("line", "hall-bb"))


def fits(pattern: str, text: str) -> bool:
    """``*`` and ``?``, read one character at a time."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return fits(pattern[1:], text) or (text != "" and fits(pattern, text[1:]))
    return text != "" and pattern[0] in ("?", text[0]) and fits(pattern[1:], text[1:])


def allows(grant: Grant, question: Question) -> bool:
    """The rule, as a person would read it."""
    label = grant.device.startswith("label=")
    named = question.labels if label else [question.serial]
    return (
        question.action in grant.actions
        and any(fits(grant.device[6 if label else 0 :], name) for name in named)
        and any(fits(service, question.service) for service in grant.services)
        and (grant.begins is None or question.at >= grant.begins)
        and (grant.until is None or question.at < grant.until)
    )


times = st.none() | st.integers(-3, 3).map(lambda hours: NOON + hours)


@st.composite
def grants(draw: st.DrawFn, id: str | None = None) -> Grant:
    """Any grant whose parts have a chance to fit."""
    begins, until = draw(times), draw(times)
    if begins is not None and until is not None and begins >= until:
        until = begins + 1
    return Grant(
        id or draw(st.text("0123456789abcdef", min_size=12, max_size=12)),
        draw(st.sampled_from(HOLDERS)),
        draw(st.sampled_from(DEVICES) | st.text("plc-12*?:ab", min_size=1, max_size=8)),
        tuple(draw(st.lists(st.sampled_from((*SERVICES, "*", "t*", "?ttp", "s?")), min_size=1, max_size=3))),
        draw(st.frozensets(st.sampled_from(Action), min_size=1)),
        begins,
        until,
        NOON - 10,
    )


questions = st.builds(
    Question,
    st.sampled_from(USERS),
    st.sampled_from(Action),
    st.sampled_from(SERIALS),
    st.sampled_from(SERVICES),
    st.integers(-4, 4).map(lambda hours: NOON + hours),
    st.sampled_from(LABELS),
)


# ---- the decision


@given(st.lists(grants(), max_size=8), questions)
def test_allowed_is_what_any_grant_allows(given_: list[Grant], question: Question) -> None:
    """And nothing else; the grant that is named allows it by itself."""
    verdict = decide(given_, question)
    assert verdict.allowed == any(allows(grant, question) for grant in given_)
    if verdict.grant is not None:
        assert verdict.grant in given_
        assert decide([verdict.grant], question) == verdict
        assert verdict.why == ""
    else:
        assert (verdict.until, verdict.why) != (None, "")


@given(st.lists(grants(), max_size=6, unique_by=lambda grant: grant.id), questions, st.randoms())
def test_the_order_of_grants_does_not_matter(given_: list[Grant], question: Question, random: Random) -> None:
    """Neither for the answer, nor for the grant that is named, nor for the reason."""
    mixed = list(given_)
    random.shuffle(mixed)
    assert decide(mixed, question) == decide(given_, question)


@given(st.lists(grants(), max_size=6), grants(), questions)
def test_a_further_grant_takes_nothing_away(given_: list[Grant], more: Grant, question: Question) -> None:
    """Grants only allow, so that the order in which they are made cannot matter either."""
    before, after = decide(given_, question), decide([*given_, more], question)
    assert after.allowed or not before.allowed
    if before.allowed:
        assert after.until is None or (before.until is not None and after.until >= before.until)


@given(st.lists(grants(), max_size=6), questions, st.integers(0, 8))
def test_allowed_lasts_until_it_is_to_be_asked_again(
    given_: list[Grant], question: Question, hours: int
) -> None:
    """As long as nothing is changed; not a moment longer is promised than the grant gives."""
    verdict = decide(given_, question)
    later = Question(
        question.user,
        question.action,
        question.serial,
        question.service,
        question.at + hours,
        question.labels,
    )
    if verdict.grant is not None:
        inside = verdict.until is None or later.at < verdict.until
        assert inside == allows(verdict.grant, later)
        assert decide(given_, later).allowed or not inside


@given(st.lists(grants(), max_size=6), questions)
def test_the_reason_is_the_nearest_miss(given_: list[Grant], question: Question) -> None:
    """Time, where only that is missing; not yet, rather than over."""
    verdict = decide(given_, question)
    if verdict.grant is None:
        words = {grant.misfit(question) for grant in given_}
        expected = next((word for word in ("not-yet", "over") if word in words), "no-grant")
        assert verdict.why == expected


def test_denied_by_default() -> None:
    """No grant, no right."""
    assert decide([], Question("ana", Action.LIST, "x", "ssh", NOON)) == Verdict(None, None, "no-grant")


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", max_size=8))
def test_patterns_of_serials(pattern: str, serial: str) -> None:
    """Of services as well, and of labels."""
    here = Question("ana", Action.START, serial, serial, NOON, [serial])
    for grant in (grant_of(device=pattern), grant_of(services=pattern), grant_of(device=f"label={pattern}")):
        assert (grant.misfit(here) == "") == fits(pattern, serial)


@pytest.mark.parametrize(
    ("device", "serial", "labels", "expected"),
    [
        ("plc-7", "plc-7", (), True),
        ("plc-7", "plc-70", (), False),
        ("plc-7", "xplc-7", (), False),
        ("plc-7", "PLC-7", (), False),
        ("plc-7", "plc-7\n", (), False),
        ("plc.7", "plc-7", (), False),
        ("hall-b", "x", ("hall-b",), False),
        ("label=hall-b", "hall-b", (), False),
        ("label=hall-b", "x", ("hall-a", "hall-b"), True),
        ("label=line", "x", ("line=3",), False),
        ("label=line=3", "x", ("line=30",), False),
        ("label=line=*", "x", ("line=30",), True),
        ("label=*", "x", (), False),
        ("*", "x", (), True),
    ],
)
def test_serials_and_labels_are_never_confused(
    device: str, serial: str, labels: tuple[str, ...], expected: bool
) -> None:
    """Whole names only; a label that reads like a serial is none."""
    question = Question("ana", Action.START, serial, "ssh", NOON, labels)
    assert (grant_of(device=device).misfit(question) == "") == expected


def test_no_pattern_takes_long() -> None:
    """One that makes most matchers try every way there is, and there are 10^14 of them."""
    pattern = "*a" * 31 + "*b"
    question = Question("ana", Action.START, "a" * 64, "a" * 32, NOON, ["a" * 64])
    assert grant_of(device=pattern).misfit(question) == "device"
    assert grant_of(device=f"label={pattern}").misfit(question) == "device"
    assert grant_of(services="*a" * 15 + "*b").misfit(question) == "service"


def test_what_is_asked_first_is_said_first() -> None:
    """The first thing that does not fit."""
    grant = grant_of(device="plc-*", services="ssh", actions="start", begins=NOON, until=NOON + 5)
    for question, word in (
        (Question("ana", Action.END, "x", "http", NOON - 1), "action"),
        (Question("ana", Action.START, "x", "http", NOON - 1), "device"),
        (Question("ana", Action.START, "plc-1", "http", NOON - 1), "service"),
        (Question("ana", Action.START, "plc-1", "ssh", NOON - 1), "not-yet"),
        (Question("ana", Action.START, "plc-1", "ssh", NOON), ""),
        (Question("ana", Action.START, "plc-1", "ssh", NOON + 5), "over"),
    ):
        assert grant.misfit(question) == word


@pytest.mark.parametrize(
    ("part", "value", "text"),
    [
        *[("device", value, "^device '") for value in ("", "[ab]", "a b", "a=b", "label=", "ä", "a" * 65)],
        ("device", "label=" + "a" * 98, "^device '"),
        ("device", "plc-1\n", "^device '"),
        ("services", (), "^no service"),
        *[("services", ("ssh", each), "^service '") for each in ("", "a b", "ssh,http", "a" * 33, "a:b")],
        ("actions", frozenset(), "^no action: one or more of list, start, end, share, observe wanted"),
        ("until", NOON, "^a grant ends after it begins"),
        ("until", NOON - 1, "^a grant ends after it begins"),
    ],
)
def test_what_is_no_grant(part: str, value: object, text: str) -> None:
    """Each part says what is wanted."""
    parts = {
        "device": "*",
        "services": ("ssh",),
        "actions": frozenset(Action),
        "begins": NOON,
        "until": None,
        part: value,
    }
    with pytest.raises(Invalid, match=text):
        Grant("g", "ana", **parts)  # type: ignore[arg-type]


# ---- the table


def ask(home: Town, user: str = "ana", at: float = NOON) -> Verdict:
    """Whether somebody may start ssh at plc-1."""
    return home.grants.may(Question(user, Action.START, "plc-1", "ssh", at))


def test_groups_give_to_their_members() -> None:
    """As long as they are, and the grant stands."""
    with town() as home:
        home.user("ana", "ben")
        home.group("night", "ana")
        assert ask(home).why == "no-grant"
        grant = home.grant("@night", "plc-*")
        assert ask(home).grant is grant
        assert not ask(home, "ben").allowed
        home.people.add_member("night", "ben")
        home.people.remove_member("night", "ana")
        assert (ask(home).allowed, ask(home, "ben").allowed) == (False, True)
        home.people.remove_group("night")
        assert not ask(home, "ben").allowed
        home.group("night", "ben")
        assert not ask(home, "ben").allowed
        assert len(home.grants) == 0


def test_nobody_may_nothing() -> None:
    """A name that is no user's, a group's name among them."""
    with town() as home:
        home.group("night")
        home.grant("@night")
        for name in ("eve", "@night", "night", ""):
            assert ask(home, name) == Verdict(None, None, "no-user")


def test_the_longest_lasting_answers() -> None:
    """Then the one without an end."""
    with town() as home:
        home.user("ana")
        for id, until in (("a", NOON + 5), ("c", NOON + 9), ("b", NOON + 9), ("d", NOON + 7)):
            home.grants.add(grant_of(id, until=until))
        assert ask(home) == Verdict(home.grants.of("ana")[2], NOON + 9)
        home.grant("ana", id="0")
        verdict = ask(home)
        assert verdict.grant is not None
        assert (verdict.grant.id, verdict.until) == ("0", None)


def test_what_runs_needs_its_token_too() -> None:
    """``still``: the sooner end of the two, and the word of what ended."""
    with town() as home:
        home.user("ana")
        login = home.people.log_in(home.token("ana", life=10.0), NOON)
        home.grants.add(grant_of("g", until=NOON + 20))

        def still(at: float) -> Verdict:
            return home.grants.still(login, Question("ana", Action.START, "plc-1", "ssh", at))

        assert still(NOON).until == NOON + 10
        assert still(NOON + 10).why == "token-expired"
        home.grants.add(grant_of("h", until=NOON + 5))
        home.grants.remove("g")
        assert still(NOON).until == NOON + 5
        assert still(NOON + 5).why == "over"
        home.grants.remove("h")
        assert still(NOON).why == "no-grant"
        home.grant("ana")
        assert still(NOON).until == NOON + 10
        home.people.revoke_token("ana", None)
        assert still(NOON).why == "token-revoked"
        home.people.remove_user("ana")
        assert still(NOON).why == "no-user"


def test_changes_are_told_when_they_count() -> None:
    """To the holder, or to the members of the group."""
    with town() as home:
        home.user("ana", "ben")
        home.group("night", "ana", "ben")
        home.told.clear()
        seen: list[bool] = []
        home.people.watch(lambda users: seen.append(ask(home).allowed))
        home.grant("@night", id="n")
        home.grants.remove("n")
        home.grant("ana", id="a")
        assert home.told == [{"ana", "ben"}, {"ana", "ben"}, {"ana"}]
        assert seen == [True, False, True]


def test_limits_of_grants() -> None:
    """Each says its number."""
    with town(limits=PeopleLimits(grants=3, grants_per_holder=2, services=2)) as home:
        home.user("ana", "ben")
        for holder, id in (("ana", "a"), ("ana", "b"), ("ben", "c")):
            home.grant(holder, id=id)
        for call, kind, text in (
            (lambda: home.grant("ana", id="d"), Conflict, "ana has 2 grants, 2 at most"),
            (lambda: home.grant("ben", id="d"), Conflict, "there are 3 grants, 3 at most"),
            (
                lambda: home.grant("ben", services="a b c", id="d"),
                Invalid,
                "3 services in one grant, 2 at most",
            ),
            (lambda: home.grant("eve", id="d"), NotFound, "no user or group 'eve'"),
            (lambda: home.grant("@day", id="d"), NotFound, "no user or group '@day'"),
            (lambda: home.grants.add(grant_of("d", until=NOON)), Invalid, "over already"),
            (lambda: home.grants.remove("d"), NotFound, "no grant 'd'"),
        ):
            with pytest.raises(kind, match=text):
                call()
        home.grants.remove("a")
        with pytest.raises(Conflict, match="ask again"):
            home.grant("ana", id="b")
        assert len(home.grants) == 2


def test_pages_of_grants() -> None:
    """By holder and id, from where the last page ended."""
    with town() as home:
        home.user("ana", "ben")
        home.group("night")
        for number, holder in enumerate(("ben", "ana", "@night", "ana", "ben", "ana")):
            home.grant(holder, id=f"{number}")
        seen, after = [], ("", "")
        while page := home.grants.page(after, 2):
            seen += [(grant.holder, grant.id) for grant in page]
            after = seen[-1]
        assert seen == [("@night", "2"), ("ana", "1"), ("ana", "3"), ("ana", "5"), ("ben", "0"), ("ben", "4")]


# ---- many changes

ALL = [
    Question(user, action, serial, service, NOON, labels)
    for user in USERS
    for action in (Action.LIST, Action.START)
    for serial, service, labels in (
        ("plc-1", "ssh", ("line=3",)),
        ("x", "http", ()),
        ("a:b", "tcp-23", LABELS[1]),
    )
]


class Changes(RuleBasedStateMachine):
    """Any changes in any order, with restarts between, beside plain sets."""

    @initialize()
    def begin(self) -> None:
        self.directory = TemporaryDirectory()
        self.path = str(Path(self.directory.name) / FILE_NAME)
        self.users: set[str] = set()
        self.groups: dict[str, set[str]] = {}
        self.given: dict[str, Grant] = {}
        self.tokens: dict[str, str] = {}  # id -> user
        self.count = 0
        self.open()

    def open(self) -> None:
        self.home = Town(SqliteLedger(self.path, lambda: NOON), PeopleLimits())

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.home.ledger.close()
            self.directory.cleanup()

    def answers(self) -> dict[str, list[object]]:
        """What everybody may, and with which tokens."""
        found: dict[str, list[object]] = {}
        for user in USERS:
            tokens = self.home.people.tokens(user)
            found[user] = [[token.id for token in tokens]]
        for question in ALL:
            found[question.user].append(self.home.grants.may(question).allowed)
        return found

    def change(self, call: object, expected: bool) -> None:
        """Do it; who is not told of it may what he might before."""
        before = self.answers()
        self.home.told.clear()
        try:
            call()  # type: ignore[operator]
        except (NotFound, Conflict):
            assert not expected
            assert self.home.told == []
        else:
            assert expected
        told = set().union(*self.home.told)
        after = self.answers()
        assert {user for user in USERS if before[user][1:] != after[user][1:]} <= told
        lost = {user for user in USERS if not set(before[user][0]) <= set(after[user][0])}  # type: ignore[call-overload]
        assert lost <= told

    @rule(user=st.sampled_from(USERS))
    def add_user(self, user: str) -> None:
        self.change(lambda: self.home.user(user), user not in self.users)
        self.users.add(user)

    @rule(user=st.sampled_from(USERS))
    def remove_user(self, user: str) -> None:
        self.change(lambda: self.home.people.remove_user(user), user in self.users)
        self.users.discard(user)
        for members in self.groups.values():
            members.discard(user)
        self.drop(user)
        self.tokens = {id: owner for id, owner in self.tokens.items() if owner != user}

    @rule(group=st.sampled_from(GROUPS))
    def add_group(self, group: str) -> None:
        self.change(lambda: self.home.group(group), group not in self.groups)
        self.groups.setdefault(group, set())

    @rule(group=st.sampled_from(GROUPS))
    def remove_group(self, group: str) -> None:
        self.change(lambda: self.home.people.remove_group(group), group in self.groups)
        self.groups.pop(group, None)
        self.drop(f"@{group}")

    @rule(group=st.sampled_from(GROUPS), user=st.sampled_from(USERS))
    def add_member(self, group: str, user: str) -> None:
        fine = group in self.groups and user in self.users and user not in self.groups[group]
        self.change(lambda: self.home.people.add_member(group, user), fine)
        if fine:
            self.groups[group].add(user)

    @rule(group=st.sampled_from(GROUPS), user=st.sampled_from(USERS))
    def remove_member(self, group: str, user: str) -> None:
        fine = user in self.groups.get(group, ())
        self.change(lambda: self.home.people.remove_member(group, user), fine)
        self.groups.get(group, set()).discard(user)

    @rule(data=st.data())
    def add_grant(self, data: st.DataObject) -> None:
        self.count += 1
        grant = data.draw(grants(f"{self.count:012x}"))
        fine = grant.holder in self.users or grant.holder[1:] in self.groups
        self.change(lambda: self.home.grants.add(grant), fine)
        if fine:
            self.given[grant.id] = grant

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def remove_grant(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.given)))
        self.change(lambda: self.home.grants.remove(id), True)
        del self.given[id]

    @rule(user=st.sampled_from(USERS))
    def new_token(self, user: str) -> None:
        self.count += 1
        fine = user in self.users and list(self.tokens.values()).count(user) < PeopleLimits().tokens_per_user
        self.change(lambda: self.home.token(user, self.count), fine)
        if fine:
            self.tokens[self.home.people.tokens(user)[-1].id] = user
            self.tokens.update({token.id: user for token in self.home.people.tokens(user)})

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def revoke_token(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.tokens)))
        user = self.tokens.pop(id)
        self.change(lambda: self.home.people.revoke_token(user, id), True)

    @rule()
    def restart(self) -> None:
        self.home.ledger.close()
        self.open()

    def drop(self, holder: str) -> None:
        self.given = {id: grant for id, grant in self.given.items() if grant.holder != holder}

    @invariant()
    def it_is_as_the_sets_say(self) -> None:
        if not hasattr(self, "home"):
            return
        for question in ALL:
            mine = {
                question.user,
                *(f"@{name}" for name, members in self.groups.items() if question.user in members),
            }
            fine = question.user in self.users and any(
                grant.holder in mine and allows(grant, question) for grant in self.given.values()
            )
            assert self.home.grants.may(question).allowed == fine
        tokens = {token.id: user for user in USERS for token in self.home.people.tokens(user)}
        assert tokens == self.tokens
        assert self.home.book.warnings == []


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=deep(30), stateful_step_count=30)
