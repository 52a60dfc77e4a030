"""A person's own services and sessions by the HTTP API: what grants say, and nothing of others."""

from typing import Any

from revtunnel.daemons.agent_settings import ConsentSettings
from tests.support.desk import Answer, Desk

MY = "/api/v1/my"


def start(desk: Desk, token: str, *services: str, **more: Any) -> Answer:
    """A session to plc-1."""
    return desk.ask("POST", f"{MY}/sessions", token, {"device": "plc-1", "services": [*services], **more})


def test_services_are_those_that_are_granted() -> None:
    """In pages that end with a device, and go on where nothing was to be seen."""
    desk = Desk(serials=("plc-1", "plc-2", "plc-3"))
    ana, ben = desk.person("ana"), desk.person("ben")
    assert desk.ask("GET", f"{MY}/services", ben).row == {"rows": [], "next": None}
    desk.grant("ben", "list", device="plc-3", services="web")
    [row] = desk.ask("GET", f"{MY}/services", ben).row["rows"]
    assert row == {"device": "plc-3", "service": "web", "port": 80, "web": True, "online": True, "labels": {}}
    page = desk.ask("GET", f"{MY}/services?limit=3", ana).row
    assert ([row["device"] for row in page["rows"]], page["next"]) == (["plc-1", "plc-1"], "plc-1")
    found = desk.ask("GET", f"{MY}/services?limit=3&after=plc-1&service=WEB", ana).row
    assert [row["device"] for row in found["rows"]] == ["plc-2", "plc-3"]


def test_a_session_from_its_start_to_its_end() -> None:
    """Started, listed, one more connection, ended; somebody else knows nothing of it."""
    desk = Desk()
    ana, ben = desk.person("ana"), desk.person("ben")
    answer = start(desk, ana, "console", "web", "console")
    started = answer.row
    assert [each["name"] for each in started["services"]] == ["console", "web"]
    number = started["session"]
    assert desk.live.enter(started["nonce"], number, "192.0.2.7:1").session.id == number
    [row] = desk.ask("GET", f"{MY}/sessions", ana).row["rows"]
    assert (row["session"], row["user"], row["device"]) == (number, "ana", "plc-1")
    assert desk.ask("POST", f"{MY}/sessions/{number}/nonce", ana, {"browser": True}).row["nonce"]
    assert desk.ask("GET", f"{MY}/sessions", ben).row["rows"] == []
    assert desk.ask("POST", f"{MY}/sessions/{number}/nonce", ben, {}).word == "not-found"
    assert desk.ask("DELETE", f"{MY}/sessions/{number}", ben).word == "not-found"
    assert desk.ask("DELETE", f"{MY}/sessions/{number}", ana).status == 204
    assert desk.ask("DELETE", f"{MY}/sessions/{number}", ana).word == "not-found"


def test_who_may_not_start() -> None:
    """As words of HTTP; a token that is for looking starts nothing, nor anything else."""
    desk = Desk()
    assert start(desk, desk.person("ben"), "console").word == "denied"
    ana = desk.person("ana")
    assert start(desk, ana, "ssh").word == "not-found"
    assert start(desk, ana).word == "invalid"
    assert start(desk, desk.person("ana", scope="read"), "console").word == "denied"
    assert start(desk, desk.person("ana", scope="own"), "console").status == 200
    desk.mutes.mute("plc-1", "root")
    assert start(desk, ana, "console").word == "conflict"
    desk.live.drain()
    assert start(desk, ana, "console").word == "busy"


def test_a_session_is_shared() -> None:
    """With somebody who has a grant, as one of three; the link is for a program."""
    desk = Desk()
    ana = desk.person("ana")
    number = start(desk, ana, "console").row["session"]
    path, row = f"{MY}/sessions/{number}/share", {"person": "ben", "role": "watch"}
    assert desk.ask("POST", path, ana, row).word == "denied"
    desk.grant("ben", "observe")
    shared = desk.ask("POST", path, ana, row).row
    assert shared["url"] == f"revtunnel://gate.example/s/{number}#{shared['nonce']}"
    assert desk.ask("POST", path, ana, {**row, "role": "own"}).word == "invalid"
    [seen] = desk.ask("GET", f"{MY}/sessions", desk.person("ben")).row["rows"]
    assert seen["user"] == "ana"


def test_the_site_is_asked_first() -> None:
    """The answer waits for it; who asked may be gone by then."""
    for rules, status in ((ConsentSettings("allow"), 200), (ConsentSettings("no"), 403)):
        desk = Desk(site=rules)
        token = desk.person("ana")
        body = b'{"device":"plc-1","services":["console"]}'
        lines = (
            f"Authorization: Bearer {token}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        caller = desk.open("POST", f"{MY}/sessions", *lines, body=body)
        assert caller.value() == b""
        assert desk.read(caller).status == status
        desk = Desk(site=rules)
        caller = desk.open(
            "POST", f"{MY}/sessions", f"Authorization: Bearer {desk.person('ana')}", *lines[1:], body=body
        )
        desk.hang_up()
        desk.pump()
        assert caller.value() == b""
