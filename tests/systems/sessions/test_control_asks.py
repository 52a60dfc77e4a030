"""What /control answers: each ask, each wrong one, in messages of their size, and nothing of others."""

import functools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.targets import parse_offer
from revtunnel.systems.sessions.control_asks import MAX_TEXT
from tests.support.depth import deep
from tests.support.session_room import SessionRoom


def ask(room: SessionRoom, user: str, word: str, **arguments: Any) -> Any:
    """What is answered, ``ok`` or the word of the error; it fits into a message."""
    text = json.dumps({"id": 7, "ask": word, **arguments})
    answer = room.ask_control(user, text)
    assert answer is not None and answer["id"] == 7
    assert len(json.dumps(answer, separators=(",", ":"))) <= MAX_TEXT
    return answer["ok"] if "ok" in answer else answer["error"]["word"]


def test_a_person_finds_starts_shares_and_ends() -> None:
    """Each answer with what the table promises."""
    room = SessionRoom()
    found = ask(room, "ana", "services")
    console = {
        "device": "plc-1",
        "service": "console",
        "port": 23,
        "web": False,
        "online": True,
        "labels": {},
    }
    assert (found["services"][0], found["more"], found["after"]) == (console, False, "plc-1")
    assert ask(room, "ben", "services")["services"] == []
    started = ask(room, "ana", "start", device="plc-1", services=["console", "console"])
    assert started["services"] == [{"name": "console", "port": 23}]
    assert (started["state"], started["idle"], started["maximum"]) == ("created", 900, 86_400)
    number = started["session"]
    room.come(room.live.all()[0].session, started["nonce"])
    [row] = ask(room, "ana", "sessions")["sessions"]
    assert (row["session"], row["user"], row["device"], row["people"]) == (
        number,
        "ana",
        "plc-1",
        ["ana (owner)"],
    )
    assert ask(room, "ben", "sessions")["sessions"] == []
    assert ask(room, "ana", "share", session=number, role="use", **{"with": "ben"}) == "denied"
    room.grant("ben", "start observe")
    assert len(ask(room, "ben", "sessions")["sessions"]) == 1
    shared = ask(room, "ana", "share", session=number, role="use", **{"with": "ben"})
    assert shared["url"] == f"revtunnel://gate.example/s/{number}#{shared['nonce']}"
    assert len(ask(room, "ana", "nonce", session=number, browser=True)["nonce"]) == 43
    assert ask(room, "ben", "nonce", session=number) == "unknown"
    assert ask(room, "ben", "end", session=number) == "unknown"
    assert ask(room, "ana", "end", session=number) == {}
    assert ask(room, "ana", "end", session=number) == "ended"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "7", "null", "{", '{"ask":"services"}', '{"id":"7","ask":"services"}',
        '{"id":true,"ask":"services"}', '{"id":-1,"ask":"services"}', '{"id":1}', '{"id":1,"ask":"fly"}',
        '{"id":1,"ask":["services"]}', '{"id":1,"ask":"services","after":7}',
        '{"id":1,"ask":"services","device":"a b"}', '{"id":1,"ask":"start"}',
        '{"id":1,"ask":"start","device":"plc-1","services":"console"}',
        '{"id":1,"ask":"start","device":"plc-1","services":[]}',
        '{"id":1,"ask":"start","device":"plc-1","services":[{}]}',
        '{"id":1,"ask":"start","device":"plc-1","services":["console"],"private":1}',
        '{"id":1,"ask":"end","session":"x"}', '{"id":1,"ask":"end"}',
        '{"id":1,"ask":"share","session":"' + "0" * 32 + '","with":"ben","role":"own"}',
        "[" * 10_000,
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_answered(text: str) -> None:
    """With ``malformed`` and what is wanted; nothing begins."""
    room = SessionRoom()
    answer = room.ask_control("ana", text)
    assert answer is not None
    assert answer["error"]["word"] == "malformed"
    assert len(room.live) == 0


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = ("id", "ask", "device", "services", "session", "with", "role", "after", "private", "browser")


@functools.cache
def shared_room() -> SessionRoom:
    """One for many texts; nobody may anything in it."""
    return SessionRoom()


@settings(max_examples=deep(300), deadline=None)
@given(st.dictionaries(st.sampled_from(_KEYS), _ANY) | _ANY)
def test_anything_is_answered(said: Any) -> None:
    """No text makes it fail."""
    room = shared_room()
    answer = room.ask_control("ben", json.dumps(said))
    assert answer is not None
    assert set(answer) in ({"id", "ok"}, {"id", "error"})


def test_a_listing_of_many_devices_comes_in_pages_that_fit() -> None:
    """By ``after``, whole devices each, and every one once; a pattern chooses."""
    room = SessionRoom()
    fleet = room.switchboard.fleet
    offers = tuple(parse_offer(f"service-{number}=10.0.0.1:{number + 1}") for number in range(9))
    for number in range(1200):
        fleet.arrive(f"dev-{number:05}", object(), 0.0, offers=offers)
    seen: list[tuple[str, str]] = []
    after, pages = "", 0
    while True:
        page = ask(room, "ana", "services", after=after, device="dev-*")
        seen += [(row["device"], row["service"]) for row in page["services"]]
        pages += 1
        if not page["more"]:
            break
        after = page["after"]
    assert len(seen) == len(set(seen)) == 1200 * 9
    assert pages > 50
    assert len(ask(room, "ana", "services", device="dev-00007")["services"]) == 9
    assert ask(room, "ana", "services", device="dev-00007", after="dev-00007")["services"] == []
