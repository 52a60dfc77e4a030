"""Nonces: each fault by its word, nothing kept in clear, memory bounded; then a model, in any order."""

import re
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from revtunnel.systems.sessions import nonces as module
from revtunnel.systems.sessions.nonces import NONCE, STATUS, Bound, NonceRefused, Nonces
from revtunnel.systems.sessions.session_life import Role, SessionRefused
from tests.support.depth import deep

SESSIONS = st.sampled_from(["s1", "s2"])
ANA = Bound("s1", Role.OWNER, "ana")


def book(each: int = 32, spent: int = 100) -> Nonces:
    """Nonces from bytes that differ."""
    numbers = count(1)
    return Nonces(lambda size: next(numbers).to_bytes(size, "big"), each, spent)


def refused(
    nonces: Nonces, text: str, session: str = "s1", side: str = "client", now: float = 1.0, **more: str
) -> str:
    """The word with which it is refused."""
    with pytest.raises(NonceRefused) as caught:
        nonces.judge(text, "s1", side, now, **more)
    assert caught.value.status == STATUS[caught.value.word]
    return caught.value.word


def redeem(nonces: Nonces, text: str, now: float = 1.0, token: str = "", side: str = "client") -> Bound:
    bound = nonces.judge(text, "s1", side, now, token=token)
    nonces.spend(text, token)
    return bound


def test_the_words_of_the_table_are_those_of_the_code() -> None:
    """With their status."""
    rows = [line.split() for line in (module.__doc__ or "").splitlines()]
    assert {row[0]: int(row[1]) for row in rows if len(row) > 2 and row[1].isdigit()} == STATUS


def test_a_nonce_is_43_characters_and_good_once() -> None:
    """And the store has only its hash."""
    nonces = book()
    text = nonces.issue(ANA, 0.0, 60.0)
    assert NONCE.fullmatch(text)
    assert text == "A" * 42 + "E"
    held = repr([vars(nonces), [*nonces._kept]])
    assert text not in held and "\\x01'" not in re.sub(r"b'[^']*'", "", held)
    assert redeem(nonces, text) == ANA
    assert refused(nonces, text) == "used"
    assert len(nonces) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"text": "B" * 43}, "wrong"),
        ({"text": ""}, "wrong"),
        ({"text": "A" * 42 + "F"}, "wrong"),  # the same 32 bytes, written another way
        ({"text": "A" * 42 + "E="}, "wrong"),
        ({"text": "é" * 43}, "wrong"),
        ({"session": "s2"}, "elsewhere"),
        ({"side": "device"}, "swapped"),
        ({"person": "ben"}, "not-yours"),
        ({"now": 60.0}, "expired"),
    ],
)
def test_every_fault_has_its_word_and_costs_nothing(change: dict[str, object], word: str) -> None:
    """After it the nonce is as good as before."""
    nonces = book()
    text = nonces.issue(ANA, 0.0, 60.0)
    arguments = {"text": text, "session": "s1", "side": "client", "now": 59.9, "person": "ana", **change}
    with pytest.raises(NonceRefused) as caught:
        nonces.judge(**arguments)  # type: ignore[arg-type]
    assert caught.value.word == word
    assert caught.value.bound == (None if word == "wrong" else ANA)
    assert nonces.judge(text, "s1", "client", 59.9, "ana") == ANA


def test_what_is_over_is_told_apart() -> None:
    """Used, expired, withdrawn, ended; and one device's nonce is not the person's of the same name."""
    nonces = book()
    used, old, back, device = (
        nonces.issue(ANA, 0.0, 60.0),
        nonces.issue(ANA, 0.0, 5.0),
        nonces.issue(ANA._replace(person="ben"), 0.0, 60.0),
        nonces.issue(Bound("s1", Role.DEVICE, "ben"), 0.0, 60.0),
    )
    redeem(nonces, used)
    nonces.issue(ANA, 6.0, 60.0)  # which takes what is too old out
    nonces.withdraw("s1", "ben")
    assert [refused(nonces, each) for each in (used, old, back)] == ["used", "expired", "withdrawn"]
    assert nonces.judge(device, "s1", "device", 7.0).role is Role.DEVICE
    nonces.end("s1")
    assert refused(nonces, device, side="device") == "ended"
    assert len(nonces) == 0


def test_a_token_makes_a_nonce_good_again_for_whoever_has_it() -> None:
    """Until its owner has left and the grace is over."""
    nonces = book()
    text = nonces.issue(ANA, 0.0, 60.0)
    redeem(nonces, text, token="t" * 32)
    assert refused(nonces, text) == "used"
    assert refused(nonces, text, token="u" * 32) == "used"
    assert redeem(nonces, text, 5000.0, "t" * 32) == ANA
    nonces.hasten(ANA, 5060.0)
    assert refused(nonces, text, now=5060.0, token="t" * 32) == "expired"
    assert redeem(nonces, text, 5059.0, "t" * 32) == ANA
    assert redeem(nonces, text, 9999.0, "t" * 32) == ANA  # he is back


def test_the_nonce_to_come_back_with_rotates() -> None:
    """One for each role of a person, endless until he leaves."""
    nonces = book()
    first, other = nonces.resume(ANA), nonces.resume(ANA._replace(role=Role.USE))
    second = nonces.resume(ANA)
    assert refused(nonces, first) == "withdrawn"
    assert nonces.judge(second, "s1", "client", 1e9) == ANA
    invitation = nonces.issue(ANA, 0.0, 60.0)
    nonces.hasten(ANA, 100.0)
    assert refused(nonces, invitation, now=60.0) == "expired"  # not for longer
    assert refused(nonces, second, now=100.0) == "expired"
    assert nonces.judge(other, "s1", "client", 1e9).role is Role.USE


def test_memory_is_bounded() -> None:
    """For each session what waits, in all what is over; the oldest is forgotten first."""
    nonces = book(each=3, spent=5)
    texts = [nonces.issue(ANA, 0.0, 60.0) for _ in range(3)]
    with pytest.raises(SessionRefused, match="limit 3") as caught:
        nonces.issue(ANA, 59.0, 99.0)
    assert caught.value.word == "too-many"
    nonces.issue(ANA._replace(session="s2"), 59.0, 99.0)
    nonces.issue(ANA, 60.0, 99.0)  # three are too old
    for _ in range(4):
        redeem(nonces, nonces.resume(ANA), 61.0)
    assert (len(nonces), nonces.remembered) == (2, 5)
    assert [refused(nonces, each) for each in texts] == ["wrong", "wrong", "expired"]


class Book(RuleBasedStateMachine):
    """Anything in any order; the model is a list of plain facts, one for each nonce."""

    def __init__(self) -> None:
        super().__init__()
        self.nonces = book(each=6, spent=1000)
        self.now = 0.0
        self.facts: list[dict[str, object]] = []

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        """Time goes on."""
        self.now += seconds

    @rule(session=SESSIONS, role=st.sampled_from(Role), person=st.sampled_from("ab"))
    def issue(self, session: str, role: Role, person: str) -> None:
        """Refused only when six of the session wait that are not too old."""
        bound = Bound(session, role, person)
        of_session = [each for each in self.facts if each["bound"].session == session]  # type: ignore[attr-defined]
        for each in of_session:
            each["over"] = self.word(each)  # what is too old is taken out
        waiting = [each for each in of_session if each["over"] == ""]
        try:
            text = self.nonces.issue(bound, self.now, self.now + 30.0)
        except SessionRefused:
            assert len(waiting) >= 6
        else:
            assert len(waiting) < 6
            self.facts.append({"text": text, "bound": bound, "until": self.now + 30.0, "over": ""})

    @rule(session=SESSIONS, person=st.sampled_from("ab"))
    def resume(self, session: str, person: str) -> None:
        """It takes the place of the one before."""
        bound = Bound(session, Role.OWNER, person)
        for each in self.facts:
            if each["bound"] == bound and each.get("resume") and not each["over"]:
                each["over"] = "withdrawn"
        text = self.nonces.resume(bound)
        self.facts.append({"text": text, "bound": bound, "until": 1e9, "over": "", "resume": True})

    @rule(
        at=st.integers(0, 1000),
        side=st.sampled_from(["client", "device"]),
        session=SESSIONS,
    )
    def show(self, at: int, side: str, session: str) -> None:
        """The word is the model's."""
        if not self.facts:
            return
        fact = self.facts[at % len(self.facts)]
        bound = fact["bound"]
        assert isinstance(bound, Bound)
        wanted = str(fact["over"])
        if not wanted and bound.session != session:
            wanted = "elsewhere"
        elif not wanted and bound.role.side != side:
            wanted = "swapped"
        wanted = wanted or self.word(fact)
        try:
            self.nonces.judge(str(fact["text"]), session, side, self.now)
        except NonceRefused as error:
            assert error.word == wanted
            assert error.bound == bound
        else:
            assert wanted == ""
            self.nonces.spend(str(fact["text"]))
            fact["over"] = "used"

    @rule(session=SESSIONS)
    def end(self, session: str) -> None:
        """The session is over."""
        self.nonces.end(session)
        for each in self.facts:
            if each["bound"].session == session and not each["over"]:  # type: ignore[attr-defined]
                each["over"] = "ended"

    def word(self, fact: dict[str, object]) -> str:
        """What time has made of it."""
        return str(fact["over"]) or ("expired" if self.now >= fact["until"] else "")  # type: ignore[operator]

    @invariant()
    def bounded(self) -> None:
        """What waits is what the model has, at most six and what lets people back."""
        assert len(self.nonces) <= sum(not each["over"] for each in self.facts)
        for session in ("s1", "s2"):
            assert len(self.nonces._of.get(session, ())) <= 6 + 2


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=deep(40), stateful_step_count=30, deadline=None)
