"""What a link to a session is for: told to whoever has it, and in words where it is not good."""

from dataclasses import replace
from typing import Any

import pytest

from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.process.web.web_rules import PagePlaces
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
        "pages": [],
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


def test_a_link_opens_a_page_of_the_device() -> None:
    """Where pages are, for who may use the session; asked for a second time it is used."""
    pytest.importorskip("h11")
    from revtunnel.sockets.listening import Listeners
    from revtunnel.systems.sessions.device_pages import DevicePages

    desk = Desk()
    desk.grant("ben", "start", id="g7")
    session, _ = desk.begin("ana", "console", "web")
    link = desk.live.share(session.id, "ana", "ben", Role.USE, PEER)
    said = {"session": session.id, "nonce": link, "service": "web"}
    assert "off here" in desk.ask("POST", "/invitation-page", "", said).row["detail"]
    reactor: Any = desk.reactor
    DevicePages(
        *(reactor, desk.live, desk.listener, Listeners(reactor, desk.switchboard.report)),
        *(lambda *told: None, lambda serial: DeviceRecord(), desk.random_bytes),  # type: ignore[arg-type]
    )
    assert asked(desk, session.id, link).row["pages"] == []
    desk.rules = replace(desk.rules, pages=PagePlaces("pages.example"))
    assert asked(desk, session.id, link).row["pages"] == ["web"]
    url = desk.ask("POST", "/invitation-page", "", said).row["url"]
    assert url.startswith("http://plc-1--web.pages.example/.well-known/revtunnel/enter?code=")
    answer = desk.ask("POST", "/invitation-page", "", said)
    assert (answer.status, answer.word) == (403, "used")


def test_who_guesses_pays(caplog: pytest.LogCaptureFixture) -> None:
    """As with a token; and what is asked wrongly is said so."""
    desk = Desk(pays=True)
    session, _ = desk.begin("ana", "console")
    assert asked(desk, "x", "A" * 43).word == "invalid"
    statuses = [asked(desk, session.id, "A" * 43).status for _ in range(30)]
    assert statuses[0] == 403 and statuses[-1] == 429
