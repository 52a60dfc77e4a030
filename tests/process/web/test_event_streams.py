"""Server-sent events: who sees what, what was missed, who does not read, and what ends a stream."""

import json
from typing import Any

from revtunnel.ground.facts import ServerState
from revtunnel.process.web.event_streams import BREATH, STALLED, UNSENT
from tests.support.desk import Caller, Desk

EVENTS, MINE = "/api/v1/events", "/api/v1/my/events"


def read(caller: Caller) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of each event so far; chunks put together."""
    _, _, rest = caller.value().partition(b"\r\n\r\n")
    text = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        text, rest = text + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    found = []
    for part in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def listen(desk: Desk, token: str, query: str = "", *lines: str) -> Caller:
    """Begin to read, at /my/events where the query says so."""
    path = query if query.startswith("/") else EVENTS + query
    return desk.open("GET", path, f"Authorization: Bearer {token}", *lines)


def test_a_reader_sees_all_and_a_person_what_names_him() -> None:
    """With the time, as the log has it."""
    desk = Desk()
    reader, ana = listen(desk, desk.person("rita", "reader")), listen(desk, desk.person("ana"), MINE)
    some = listen(desk, desk.person("root", "admin"), "?event=session-started")
    assert b"\r\nContent-Type: text/event-stream\r\n" in reader.value()
    desk.reporter(ServerState("ready", "<b>\n\nevent: x"))
    desk.begin("ana", "console")
    assert [name for name, _ in read(reader)] == ["hello", "state", "session-started"]
    assert read(reader)[1][1]["detail"] == "<b>\n\nevent: x"
    assert read(reader)[1][1]["ts"].endswith("Z")
    assert [name for name, _ in read(ana)] == [name for name, _ in read(some)] == ["hello", "session-started"]
    ben = listen(desk, desk.person("ben"), MINE)
    desk.begin("ana", "web")
    assert [name for name, _ in read(ben)] == ["hello"]


def test_who_comes_back_gets_what_he_missed_or_is_told() -> None:
    """By the number of the last event that he saw."""
    desk = Desk()
    token = desk.person("rita", "reader")
    number = desk.web.events._number
    for turn in range(3):
        desk.reporter(ServerState("ready", str(turn)))
    back = listen(desk, token, "", f"Last-Event-ID: {number + 1}")
    assert [row.get("detail", row) for _, row in read(back)] == [{"missed": False}, "1", "2"]
    for turn in range(1000):
        desk.reporter(ServerState("ready", str(turn)))
    assert read(listen(desk, token, "", f"Last-Event-ID: {number}"))[0] == ("hello", {"missed": True})
    assert read(listen(desk, token, "", "Last-Event-ID: 99999999"))[0] == ("hello", {"missed": True})
    assert read(listen(desk, token, "", "Last-Event-ID: \xff"))[0] == ("hello", {"missed": False})


def test_whoever_does_not_read_is_reset_and_counted() -> None:
    """After a time, or when too much waits for him; who reads again gets it all."""
    desk = Desk()
    token = desk.person("rita", "reader")
    caller = listen(desk, token)
    slow = desk.last
    slow.pauseProducing()
    desk.reporter(ServerState("ready", "1"))
    assert [name for name, _ in read(caller)] == ["hello"]
    desk.advance(STALLED - 1)
    slow.resumeProducing()
    assert [name for name, _ in read(caller)] == ["hello", "state"]
    slow.pauseProducing()
    desk.advance(STALLED + 1)
    assert (caller.aborted, desk.web.events.ended["stalled"]) == (True, 1)
    caller = listen(desk, token)
    desk.last.pauseProducing()
    for _ in range(UNSENT // 1000):
        desk.reporter(ServerState("ready", "x" * 1000))
    assert (caller.aborted, desk.web.events.ended["stalled"]) == (True, 2)
    assert not desk.web.events.readers


def test_a_stream_ends_with_the_login_and_with_the_server() -> None:
    """With a last word; at once when a token is revoked, at the next breath when its time is over."""
    desk = Desk()
    token = desk.person("ana")
    caller, other = listen(desk, token, MINE), listen(desk, desk.person("rita", "reader"))
    desk.people.change_user("rita", None, "")
    assert read(other)[-1] == ("over", {"why": "logged-out"})
    desk.people.revoke_token("ana", None)
    assert read(caller)[-1] == ("over", {"why": "logged-out"})
    late = listen(desk, desk.person("ben"), MINE)
    desk.advance(86_400.0 + 2 * BREATH)
    assert read(late)[-1] == ("over", {"why": "logged-out"})
    last = listen(desk, desk.person("root", "admin"))
    desk.web.stop()
    assert read(last)[-1] == ("over", {"why": "stopping"})
    assert not desk.web.events.readers


def test_there_are_so_many_readers() -> None:
    """Of one person, and in all; one who leaves makes room."""
    desk = Desk()
    token = desk.person("root", "admin")
    for _ in range(desk.web.events.most_per_person):
        listen(desk, token)
    assert desk.ask("GET", EVENTS, token).word == "busy"
    assert desk.ask("HEAD", EVENTS, token).status == 200
    assert desk.ask("GET", f"{EVENTS}?since=1", token).word == "invalid"
    desk.web.events.most = desk.web.events.most_per_person
    assert desk.ask("GET", EVENTS, desk.person("rita", "reader")).word == "busy"
    desk.web.events.readers.pop()._gone("left")
    assert b" 200 " in listen(desk, token).value()
