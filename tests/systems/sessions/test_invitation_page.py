"""What a link to a session is for: told to whoever has it, and in words where it is not good."""

import pytest

from revtunnel.systems.sessions.session_life import Role, SessionEvent
from tests.support.desk import ARGON2, Answer, Desk
from tests.support.session_room import PEER

pytestmark = pytest.mark.skipif(not ARGON2, reason="argon2-cffi is not here: no page is served")


def asked(desk: Desk, number: str, nonce: str) -> Answer:
    """By nobody who is logged in."""
    return desk.ask("POST", "/invitation", "", {"session": number, "nonce": nonce})


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("used", "used already"),
        ("expired", "over"),
        ("withdrawn", "taken back"),
        ("ended", "has ended"),
        ("denied", "may not"),
        ("wrong", "no link"),
    ],
)
def test_a_link_that_is_good_and_how_it_ends(case: str, says: str) -> None:
    """As often as it is asked; then a word and a sentence."""
    desk = Desk()
    desk.grant("ben", "start observe", id="g7")
    session, nonce = desk.begin("ana", "console", "web")
    mine = desk.come(session, nonce)
    link = desk.live.share(session.id, "ana", "ben", Role.WATCH, PEER)
    for _ in range(2):
        row = asked(desk, session.id, link).row
    assert row == {
        "device": "plc-1",
        "services": ["console", "web"],
        "role": "watch",
        "person": "ben",
        "owner": "ana",
    }
    if case == "used":
        desk.come(session, link)
    elif case == "expired":
        desk.advance(60.0)
    elif case == "withdrawn":
        desk.live.unshare(session.id, "ana", "ben")
    elif case == "ended":
        desk.live.end(session.id, SessionEvent.OWNER_END)
    elif case == "denied":
        desk.grants.remove("g7")
    else:
        link = "A" * 43
    answer = asked(desk, session.id, link)
    assert (answer.status, answer.word) == (403, case)
    assert says in answer.row["detail"]
    assert desk.refusals()[-1][2] == case
    assert (mine.ended == []) is (case != "ended")


def test_who_guesses_pays(caplog: pytest.LogCaptureFixture) -> None:
    """As with a token; and what is asked wrongly is said so."""
    desk = Desk(pays=True)
    session, _ = desk.begin("ana", "console")
    assert asked(desk, "x", "A" * 43).word == "invalid"
    statuses = [asked(desk, session.id, "A" * 43).status for _ in range(30)]
    assert statuses[0] == 403 and statuses[-1] == 429
