"""The admin socket over a real transport in memory: commands, roles, limits, watchers."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import succeed
from twisted.logger import globalLogPublisher
from twisted.protocols import amp

from revtunnel import __version__
from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import PeerGlitch
from revtunnel.ground.targets import parse_offer
from revtunnel.process.admin.admin import BOX, CONNECTIONS, PARTING, UNSENT
from revtunnel.process.admin.admin_boxes import MAX_VALUE, in_json, paged
from revtunnel.process.admin.admin_client import AdminClient
from revtunnel.process.admin.operation_form import CallerRole
from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid, NotFound
from tests.support.depth import deep
from tests.support.room import STRANGER, Room, box


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """The door's own log events."""
    seen: list[dict[str, Any]] = []

    def observer(event: dict[str, Any]) -> None:
        if str(event.get("event", "")).startswith("admin-"):
            seen.append(event)

    globalLogPublisher.addObserver(observer)
    yield seen
    globalLogPublisher.removeObserver(observer)


# ---- commands


def test_every_command_reaches_the_operator() -> None:
    """Arguments arrive with their types, answers with their rows."""
    room = Room()
    room.operator.on_reload = lambda: succeed({"changed": [], "needs_restart": ["x"], "errors": []})
    levels: list[str] = []
    room.operator.on_log_level = levels.append
    room.talk("web")
    assert room.ask("Ping")["row"] == {"state": "running", "name": "gate", "version": __version__}
    assert room.ask("Status")["row"] == room.operator.status()
    assert room.rows("Devices") == room.operator.devices()[0]
    assert room.ask("Record", serial="plc-1")["row"] == room.operator.record("plc-1")
    assert room.rows("Ports") == room.operator.ports()[0]
    assert room.rows("Channels") == room.operator.channels()[0] != []
    assert room.rows("Channels", serial="plc-2") == []
    number = room.rows("Channels", serial="plc-1")[0]["channel"]
    assert room.ask("Close", serial="plc-1", channel=number) == {}
    assert room.ended() == ["operator"]
    assert room.ask("Enroll", serial="plc-2", replace=False)["key"].startswith("rtkey1_")
    assert room.rows("Enrolled") == ["plc-2"]
    assert room.ask("Revoke", serial="plc-2") == {"problem": None}
    assert room.ask("Kick", serial="plc-1", retry_after=3000) == {}
    assert room.ask("Release", serial="plc-1", target="web") == {"port": 20001}
    assert room.ask("Reload")["row"]["needs_restart"] == ["x"]
    assert room.ask("LogLevel", least="debug") == {}
    assert levels == ["debug"]
    room.operator.on_drain = room.switchboard.drain
    assert room.ask("Drain") == {}
    assert room.ask("Ping")["row"]["state"] == "draining"


def test_refusals_keep_their_kind() -> None:
    """What the operator raised is what the caller's program catches, with the text."""
    room = Room()
    with pytest.raises(NotFound, match="plc-9 is not here"):
        room.ask("Kick", serial="plc-9", retry_after=0)
    with pytest.raises(Invalid, match="65536"):
        room.ask("Kick", serial="plc-1", retry_after=65536)
    with pytest.raises(Conflict, match="kick it first"):
        room.ask("Release", serial="plc-1", target="web")
    room.switchboard.drain()
    with pytest.raises(Busy, match="draining"):
        room.ask("Reload")


def test_enroll_says_when_the_key_is_not_on_the_disk() -> None:
    """The key counts, but a restart would forget it: the caller is told."""
    room = Room()
    room.ledger._connection.execute("PRAGMA query_only = ON")  # the file cannot be written any more
    answer = room.ask("Enroll", serial="plc-2", replace=False)
    assert answer["key"]
    assert "readonly" in answer["problem"]


# ---- C1


@pytest.mark.parametrize(
    ("name", "uid", "groups", "may"),
    [
        ("root", 0, (), CallerRole.OPERATOR),
        ("anna", 1000, (), CallerRole.OPERATOR),
        ("1001", 1001, (), CallerRole.OPERATOR),
        ("bert", 1001, (), CallerRole.OPERATOR),
        ("carl", 1002, ("users", "wheel"), CallerRole.OPERATOR),
        ("rita", 1003, (), CallerRole.READER),
        ("dora", 1004, ("users",), CallerRole.NOBODY),
        ("wheel", 1005, (), CallerRole.NOBODY),
        (str(STRANGER), STRANGER, (), CallerRole.NOBODY),
    ],
)
def test_c1_who_may_do_what(name: str, uid: int, groups: tuple[str, ...], may: CallerRole) -> None:
    """Root, operators by name, uid or group; readers look only; the others get nothing, not even a ping."""
    room = Room()
    caller = room.caller_as(name, uid, *groups)
    for command, arguments in (("Status", {}), ("Kick", {"serial": "plc-9", "retry_after": 0})):
        if may < OPERATIONS[command].role:
            with pytest.raises(Denied):
                room.ask(command, by=caller, **arguments)
        elif command == "Kick":
            with pytest.raises(NotFound):
                room.ask(command, by=caller, **arguments)
        else:
            assert room.ask(command, by=caller, **arguments)["row"]["name"] == "gate"


def test_c1_every_command_asks_for_a_role() -> None:
    """What changes something needs an operator; a new command cannot forget it."""
    looking = {"Ping", "Status", "Devices", "Record", "Ports", "Channels", "Enrolled", "Authority"}
    looking |= {"Peers", "Watch", "Sessions", "Users", "User", "Tokens", "Groups", "Members", "Grants", "May"}
    looking |= {"Muted", "AuditHead", "RecordShow", "HostKeys", "PortsInVain", "Webhooks", "WebhookDead"}
    looking |= {"Nodes"}
    assert {name for name, command in OPERATIONS.items() if command.role is CallerRole.READER} == looking
    others = {command.role for command in OPERATIONS.values() if command.name not in looking}
    assert others == {CallerRole.OPERATOR}


def test_c1_refusals_and_changes_are_logged_with_the_caller(logged: list[dict[str, Any]]) -> None:
    """Who, what, outcome; looking is not logged, and a key never is."""
    room = Room()
    rita = room.caller_as("rita", 1003)
    room.ask("Status", by=rita)
    with pytest.raises(Denied):
        room.ask("Drain", by=rita)
    anna = room.caller_as("anna", 1000)
    key = room.ask("Enroll", by=anna, serial="plc-2", replace=False)["key"]
    with pytest.raises(NotFound):
        room.ask("Kick", by=anna, serial="plc-9", retry_after=0)
    told = [(each["event"], each["by"], each["command"], each.get("outcome")) for each in logged]
    assert told == [
        ("admin-refused", "rita", "drain", None),
        ("admin-command", "anna", "enroll", "done"),
        ("admin-command", "anna", "kick", "not-found"),
    ]
    assert key not in str(logged)
    assert logged[1]["serial"] == "plc-2"


def test_c1_a_reload_changes_what_a_caller_may() -> None:
    """Settings are asked at each command, so a connection that is open loses its right too."""
    room = Room()
    anna = room.caller_as("anna", 1000)
    room.ask("Ping", by=anna)
    room.factory.settings = room.settings.__class__("/x", 0o660, (), ())
    with pytest.raises(Denied):
        room.ask("Ping", by=anna)


# ---- C2


def test_c2_an_unknown_command_is_an_error_and_no_more() -> None:
    """The connection goes on."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(box("Selfdestruct") + box("StartTLS", "2") + box("Ping", "3"))
    room.pump()
    said = visitor.answers
    assert [each.get("_error_code", "") for each in said] == ["UNHANDLED", "UNHANDLED", ""]
    assert said[2]["row"]["state"] == "running"


@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("Kick", {"serial": "plc-1"}),
        ("Kick", {"serial": "plc-1", "retry_after": "soon"}),
        ("Kick", {"serial": "plc-1", "retry_after": "9" * 5000}),
        ("Close", {"serial": "plc-1", "channel": ""}),
        ("Enroll", {"serial": "plc-1", "replace": "maybe"}),
        ("Ports", {"after": "x"}),
        ("Ports", {"after": "9" * 100}),
        ("Ports", {"after": "²"}),
        ("Channels", {"after": "plc-1"}),
        ("Channels", {"after": "plc-1/"}),
        ("Devices", {"limit": "many"}),
    ],
)
def test_c2_wrong_arguments_are_the_callers_error(command: str, values: dict[str, str]) -> None:
    """Missing, of another type, out of range: INVALID, and nothing is called a bug."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(box(command, **values) + box("Ping", "2"))
    room.pump()
    first, second = visitor.answers
    expected = {"plc-1": None}.get(values.get("after", ""), "INVALID")
    if command == "Channels":
        expected = "INVALID" if values["after"] == "plc-1" else None
    assert first.get("_error_code") == expected
    assert second["_answer"] == "2"


def test_c2_bytes_that_are_no_text_are_the_callers_error() -> None:
    """A value that is not UTF-8."""
    room = Room()
    visitor = room.visit()
    bad = amp.AmpBox({b"_command": b"Revoke", b"_ask": b"1", b"serial": b"\xff\xfe"})
    visitor.near.write(bad.serialize())
    room.pump()
    assert visitor.answers[0]["_error_code"] == "INVALID"


def test_c2_a_bug_of_ours_is_not_told_and_ends_the_connection() -> None:
    """What went wrong stands in our log; the text may be anything, and the caller's state is in doubt."""
    room = Room()

    def broken(level: str) -> None:
        raise RuntimeError(f"a secret, {level}")

    room.operator.on_log_level = broken
    visitor = room.visit()
    visitor.near.write(box("LogLevel", least="debug") + box("Ping", "2"))
    room.pump()
    (answer,) = visitor.answers
    assert (answer["_error_code"], answer["_error_description"]) == ("UNKNOWN", "Unknown Error")
    assert not visitor.open


def test_c3_who_is_let_go_and_takes_no_answer_is_cut() -> None:
    """Two seconds after his fault, whatever still waits for him."""
    room = Room(serials=tuple(f"plc-{number}" for number in range(30)), capacity=1000)
    visitor = room.visit()
    visitor.pair.to_near.blocked = True
    visitor.near.write(box("Devices") + b"\xff" * BOX)
    room.pump()
    assert visitor.far.connected and visitor.far.buffered
    room.advance(PARTING)
    assert not visitor.far.connected


@pytest.mark.parametrize("sent", [b"", b"\x00", b"\x00\x08_comm", box("Ping")[:-1]])
def test_c2_half_a_box_and_silence(sent: bytes, logged: list[dict[str, Any]]) -> None:
    """Ten seconds for one box, counted from its first byte (or the connect), then the end."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(sent)
    room.advance(9.9)
    assert visitor.open
    room.advance(0.2)
    assert not visitor.open
    assert [each["reason"] for each in logged] == ["silent"]
    assert room.factory.present == {}


def test_c2_dripping_bytes_do_not_buy_time() -> None:
    """The time is absolute for each box; a whole box starts it anew."""
    room = Room()
    visitor = room.visit()
    drip = box("Ping")
    for each in drip[:9]:
        visitor.near.write(bytes([each]))
        room.advance(1.0)
    assert visitor.open
    visitor.near.write(drip[9:] + drip[:3])
    room.advance(9.0)
    assert visitor.open
    visitor.near.write(drip[3:4])
    room.advance(1.1)
    assert not visitor.open


def test_c2_an_idle_connection_is_let_go_without_blame(logged: list[dict[str, Any]]) -> None:
    """After a minute without a command; it is no fault."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(box("Ping"))
    room.advance(59.0)
    assert visitor.open
    room.advance(2.0)
    assert not visitor.open
    assert logged == []
    assert not [call for call in room.reactor.getDelayedCalls() if "Admin" in call.func.__qualname__]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x01\x00" + b"k" * 256,
        b"\x00\x01k" + struct.pack("!H", 65535) + b"v" * 65535 + b"\x00\x00",
        b"".join(b"\x00\x02%02d" % n + struct.pack("!H", 1000) + b"v" * 1000 for n in range(20)),
    ],
    ids=["key of 256", "value of 64 KiB", "many values"],
)
def test_c2_a_box_too_long_ends_the_connection(sent: bytes, logged: list[dict[str, Any]]) -> None:
    """What came before it is answered; nothing behind it is read."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(box("Ping") + sent + box("Drain"))
    room.pump()
    assert [each["_answer"] for each in visitor.answers] == ["1"]
    assert [each["reason"] for each in logged] == ["too-long"]
    room.advance(2.1)
    assert not visitor.open
    assert room.operator.state == "running"


def test_c2_the_longest_box_that_is_allowed() -> None:
    """Just below the limit it is a command, of a serial that is none."""
    room = Room()
    visitor = room.visit()
    room_for = BOX - len("_commandRevoke_ask1serial")
    visitor.near.write(box("Revoke", serial="x" * room_for))
    room.pump()
    assert visitor.answers[0]["_error_code"] == "INVALID"


@pytest.mark.parametrize(
    "keys", [{}, {b"_answer": b"1"}, {b"_error": b"1"}, {b"_command": b"Ping"}, {b"_ask": b"1"},
             {b"_command": b"Ping", b"_ask": b"1", b"_answer": b"7"}]
)  # fmt: skip
def test_c2_a_box_that_is_no_command(keys: dict[bytes, bytes], logged: list[dict[str, Any]]) -> None:
    """An answer that nobody asked for, an error, a command without a tag: closed, never a traceback."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(amp.AmpBox({b"x": b"y", **keys}).serialize())
    room.advance(2.1)
    assert not visitor.open
    assert [each["reason"] for each in logged] == ["no-command"]


@settings(max_examples=deep(60), deadline=None)
@given(st.binary(max_size=300), st.integers(1, 7))
def test_c2_any_bytes_end_in_order(data: bytes, cut: int) -> None:
    """Whatever comes: no exception, and the door is empty again within half a minute of silence."""
    room = ROOM
    visitor = room.visit()
    for start in range(0, len(data), cut):
        visitor.near.write(data[start : start + cut])
    room.advance(75.0)
    assert not visitor.open
    assert room.factory.present == {}


ROOM = Room(serials=())


# ---- C3


def test_c3_connections_are_limited_by_role(logged: list[dict[str, Any]]) -> None:
    """Sixteen readers are all that come in, and operators still do."""
    room = Room()
    readers = [room.visit("rita", 1003) for _ in range(CONNECTIONS[CallerRole.READER] + 1)]
    room.pump()
    assert [visitor.open for visitor in readers] == [True] * 16 + [False]
    assert [each["reason"] for each in logged] == ["too-many"]
    room.ask("Ping")
    readers[0].near.abortConnection()
    room.pump()
    assert room.ask("Ping", by=room.caller_as("rita", 1003))["row"]["state"] == "running"


def test_c3_a_caller_who_is_too_many_is_told_to_try_again() -> None:
    """His program sees Busy."""
    room = Room()
    for _ in range(16):
        room.visit()
    with pytest.raises(Busy):
        room.ask("Ping")


def test_c3_pages_stay_below_the_limit_of_the_wire() -> None:
    """Rows that are long make short pages; every row comes once, in order."""
    offers = tuple(parse_offer(f"{number}{'t' * 28}=10.0.0.5:{number}") for number in range(100, 160))
    serials = tuple(f"plc-{number:03}" for number in range(20))
    pool = Pool("default", ((20000, 22000),))
    room = Room(serials=serials, offers=offers, pools=(pool,))
    visitor = room.visit()
    visitor.near.write(box("Devices"))
    room.pump()
    (page,) = visitor.answers
    assert len(json.dumps(page["rows"], separators=(",", ":"))) <= MAX_VALUE
    assert 0 < len(page["rows"]) < 20
    assert page["after"] == page["rows"][-1]["serial"]
    assert [row["serial"] for row in room.rows("Devices")] == list(serials)
    assert [row["port"] for row in room.rows("Ports")] == list(range(20000, 20000 + 20 * 60))


def test_c3_one_row_that_is_too_long_loses_entries_of_its_lists() -> None:
    """A device with 255 long targets is still listed; the row says how many it left out."""
    row = {"serial": "plc-1", "short": [1], "targets": [{"name": "n" * 32, "target": "h" * 300}] * 255}
    text = in_json(row)
    assert len(text) <= MAX_VALUE
    read = json.loads(text)
    assert len(read["targets"]) + read["targets_left_out"] == 255
    assert (read["serial"], read["short"]) == ("plc-1", [1])
    page = paged([row, row], False, lambda row: row["serial"])
    assert page["after"] == "plc-1"
    assert len(json.loads(page["rows"])) == 1


@given(st.lists(st.text(max_size=20_000), max_size=12), st.booleans())
@settings(max_examples=deep(40), deadline=None)
def test_c3_any_page_fits(texts: list[str], more: bool) -> None:
    """At least one row if there are any, never above what AMP takes unless one row alone is."""
    rows = [{"key": str(number), "text": text[:8000]} for number, text in enumerate(texts)]
    page = paged(rows, more, lambda row: str(row["key"]))
    read = json.loads(page["rows"])
    assert read == rows[: len(read)]
    assert len(page["rows"]) <= 65_535
    assert bool(read) == bool(rows)
    assert page["after"] == (read[-1]["key"] if read and (more or len(read) < len(rows)) else None)


def test_c3_a_caller_who_does_not_read_is_not_read(logged: list[dict[str, Any]]) -> None:
    """Ten thousand listings asked for and none taken: little is held, and half a minute later he is cut."""
    room = Room(serials=tuple(f"plc-{number}" for number in range(30)))
    visitor = room.visit()
    visitor.near.pauseProducing()
    asked = b"".join(box("Devices", str(number)) for number in range(10_000))
    visitor.near.write(asked)
    room.pump()
    assert visitor.far.peak < 64 * 1024 + 2 * MAX_VALUE
    assert len(visitor.data) == 0
    room.advance(29.0)
    assert visitor.open
    room.advance(2.0)
    assert not visitor.far.connected
    assert [each["reason"] for each in logged] == ["does-not-read"]


def test_c3_a_slow_caller_gets_everything() -> None:
    """He pauses and reads on: every answer comes, in order."""
    room = Room(serials=tuple(f"plc-{number}" for number in range(30)))
    visitor = room.visit()
    visitor.near.pauseProducing()
    visitor.near.write(b"".join(box("Devices", str(number)) for number in range(100)))
    room.advance(20.0)
    visitor.near.resumeProducing()
    room.advance(5.0)
    assert [each["_answer"] for each in visitor.answers] == [str(n) for n in range(100)]


# ---- watching


def glitches(room: Room, number: int, size: int = 100) -> None:
    """Facts without anything behind them."""
    for each in range(number):
        room.switchboard.report(PeerGlitch("plc-1", "192.0.2.9:1", f"{each} " + "x" * size))


def watched(room: Room, watcher: AdminClient) -> list[dict[str, Any]]:
    """What a watcher was told so far; the answer to a command comes behind it."""
    room.ask("Ping", by=watcher)
    return list(watcher._facts)


def test_a_watcher_gets_every_fact_with_its_time() -> None:
    """As rows, in order, with time of day and level; commands go on working meanwhile."""
    room = Room()
    watcher = room.caller_as("rita", 1003)
    assert room.ask("Watch", by=watcher) == {}
    room.talk()
    glitches(room, 3)
    assert room.ask("Ping", by=watcher)["row"]["state"] == "running"
    seen = watched(room, watcher)
    assert [row["event"] for row in seen] == ["channel-opened", "glitch", "glitch", "glitch"]
    assert (seen[0]["serial"], seen[0]["level"]) == ("plc-1", "debug")
    assert seen[0]["ts"].startswith("2027-01-15T08:00:")
    room.advance(1000.0)  # a watch has no idle time
    glitches(room, 1)
    assert len(watched(room, watcher)) == 5
    with pytest.raises(Conflict):
        room.ask("Watch", by=watcher)


def test_a_watcher_who_leaves_is_forgotten() -> None:
    """Nothing is kept for him."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(box("Watch"))
    room.pump()
    visitor.near.abortConnection()
    room.pump()
    glitches(room, 1)
    assert room.reporter._watchers == set()


def test_c3_a_watcher_who_does_not_read_is_dropped(logged: list[dict[str, Any]]) -> None:
    """At 256 KiB of waiting facts; the server held no more than that, and others watch on."""
    room = Room()
    other = room.caller_as("rita", 1003)
    room.ask("Watch", by=other)
    visitor = room.visit()
    visitor.near.write(box("Watch"))
    room.pump()
    visitor.near.pauseProducing()
    protocol = visitor.far.protocol
    sent = 0
    while visitor.far.connected and sent < 10_000:
        glitches(room, 10)
        room.pump()
        sent += 10
        assert protocol._unsent <= UNSENT + 1000
        assert visitor.far.buffered < 68 * 1024
    assert not visitor.far.connected
    assert [each["reason"] for each in logged] == ["does-not-read"]
    assert len(watched(room, other)) == sent
    assert protocol._facts.__len__() == 0


def test_c3_a_watcher_who_pauses_misses_nothing() -> None:
    """Facts wait for him, within the limit, and come in order."""
    room = Room()
    visitor = room.visit()
    visitor.near.write(box("Watch"))
    room.pump()
    visitor.near.pauseProducing()
    for _ in range(40):
        glitches(room, 20)
        room.pump()
    visitor.near.resumeProducing()
    glitches(room, 1)
    room.pump()
    facts = [each for each in visitor.answers if each.get("_command") == "Fact"]
    numbers = [int(each["row"]["detail"].split()[0]) for each in facts]
    assert numbers == [*(list(range(20)) * 40), 0]


def test_facts_too_long_for_the_wire_are_cut() -> None:
    """Lists lose entries; text that a peer sent cannot break the connection of a watcher."""
    room = Room()
    watcher = room.caller_as("root", 0)
    room.ask("Watch", by=watcher)
    glitches(room, 1, size=200_000)
    glitches(room, 1)
    seen = watched(room, watcher)
    assert len(seen) == 2
    assert len(seen[0]["detail"]) < MAX_VALUE
