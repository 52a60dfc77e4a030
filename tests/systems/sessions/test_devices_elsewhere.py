"""Sessions to devices at other nodes, at the person's own: looked for first, and asked for there."""

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.targets import Offer, Target
from revtunnel.streams.consent_messages import ConsentRequest
from tests.support.desk import Desk
from tests.support.session_room import SessionRoom

FAR = DeviceElsewhere("plc-9", "two", "rt1", "192.0.2.1:7", (Offer("console", Target("192.0.2.2", 23)),))


class OtherNodes:
    """Another node has plc-9, once ``answer`` was called."""

    problem: str | None = None

    def __init__(self, device: DeviceElsewhere | None = FAR) -> None:
        self.device = device
        self.found: DeviceElsewhere | None = None
        self.looking: list[Deferred[DeviceElsewhere | None]] = []
        self.asked: list[ConsentRequest] = []
        self.ended: list[str] = []

    def undecided(self, serial: str) -> str | None:
        return self.problem

    def known(self, serial: str) -> DeviceElsewhere | None:
        return self.found if self.found and self.found.serial == serial else None

    def look(self, serial: str) -> "Deferred[DeviceElsewhere | None]":
        self.looking.append(Deferred())
        return self.looking[-1]

    def answer(self) -> None:
        """What it is asked now."""
        self.found = self.device
        self.looking.pop().callback(self.found)

    def page(self, after: str, limit: int) -> "Deferred[list[DeviceElsewhere]]":
        return succeed([self.device] if self.device and self.device.serial > after else [])

    def ask_for(self, serial: str, asked: ConsentRequest) -> None:
        self.asked.append(asked)

    def over(self, serial: str, session: str) -> None:
        self.ended.append(session)


def room_of(nodes: OtherNodes) -> SessionRoom:
    """A node beside it, with plc-1."""
    room = SessionRoom()
    room.switchboard.say.nodes = nodes
    return room


def ask(room: SessionRoom, what: str, **more: Any) -> dict[str, Any] | None:
    """What ana asks on /control."""
    return room.ask_control("ana", json.dumps({"id": 1, "ask": what, **more}))


def test_a_session_begins_once_its_device_was_found_and_its_node_has_said_yes() -> None:
    """Its node is told of the end; a device that is here is not looked for."""
    room = room_of(nodes := OtherNodes())
    assert ask(room, "start", device="plc-9", services=["console"]) is None
    nodes.answer()
    (asked,) = nodes.asked
    assert (asked.user, asked.services, room.told) == ("ana", ("console",), [])
    room.switchboard.say.told(asked.session, False, True, "")
    started = room.told[-1]["ok"]
    assert (started["state"], started["services"]) == ("created", [{"name": "console", "port": 23}])
    session = room.live.sessions.running(asked.session)
    ear = room.come(session, started["nonce"])
    assert session.status == "started"
    nodes.found = None  # its node has not got it any more
    room.advance(1.0)
    assert session.state.value == "client"
    nodes.found = FAR
    room.advance(1.0)
    assert session.state.value == "joined"
    room.switchboard.say.told(asked.session, False, False, "no more")
    assert (session.ended, session.detail, ear.ended) == ("revoked", "no more", ["revoked"])
    assert nodes.ended == [asked.session]
    started = ask(room, "start", device="plc-1", services=["console"])
    assert started is not None and "ok" in started and not nodes.looking and len(nodes.asked) == 1


@pytest.mark.parametrize(
    ("device", "service", "problem", "word"),
    [
        (None, "console", None, "unknown"),
        (None, "console", "it does not answer", "offline"),
        (FAR, "ssh", None, "unknown"),
        (FAR._replace(refusal="it takes no sessions now"), "console", None, "denied"),
    ],
)
def test_who_may_not_start_is_told_what_its_node_said(
    device: DeviceElsewhere | None, service: str, problem: str | None, word: str
) -> None:
    """What nobody can know is not guessed."""
    room = room_of(nodes := OtherNodes(device))
    nodes.problem = problem
    assert ask(room, "start", device="plc-9", services=[service]) is None
    nodes.answer()
    error = room.told[-1]["error"]
    assert error["word"] == word and nodes.asked == []
    assert problem is None or error["why"] == "directory-away: it does not answer"


def test_services_of_all_nodes_are_listed_once() -> None:
    """By serial; of one that was here and is there, as it is there; and one device by its name."""
    room = room_of(nodes := OtherNodes())
    answer = ask(room, "services")
    assert answer is not None
    listed = [(row["device"], row["online"]) for row in answer["ok"]["services"]]
    assert listed[-1] == ("plc-9", True) and {serial for serial, _ in listed} == {"plc-1", "plc-9"}
    assert ask(room, "services", device="plc-9") is None
    nodes.answer()
    assert room.told[-1]["ok"]["services"] == answer["ok"]["services"][-1:]
    nodes.device = FAR._replace(serial="plc-1")  # an older word of one that is here by now
    again = ask(room, "services")
    assert again is not None and {row["device"] for row in again["ok"]["services"]} == {"plc-1"}


def test_the_http_api_waits_for_other_nodes_too() -> None:
    """For the page and its terminal."""
    desk = Desk()
    nodes = desk.switchboard.say.nodes = OtherNodes(FAR._replace(serial="plc-9", asks=True))
    ana = desk.person("ana")
    rows = desk.ask("GET", "/api/v1/my/services", ana).row["rows"]
    assert rows[-1]["device"] == "plc-9"
    body = b'{"device":"plc-9","services":["console"]}'
    about = "Content-Type: application/json", f"Content-Length: {len(body)}"
    caller = desk.open("POST", "/api/v1/my/sessions", f"Authorization: Bearer {ana}", *about, body=body)
    nodes.answer()
    assert caller.value() == b""
    desk.switchboard.say.told(nodes.asked[0].session, True, True, "")
    assert desk.read(caller).row["session"] == nodes.asked[0].session
