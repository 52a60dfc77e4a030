"""The operator: what he sees is what runs, and what he does happens."""

import pytest
from twisted.internet.defer import succeed

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import DeviceEnrolled, DeviceRevoked, LinkDown
from revtunnel.ground.networks import network_of
from revtunnel.link.keys import parse_key, verifier_of
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound
from tests.support.room import NOON, Room


def test_status_counts_what_runs() -> None:
    """Devices, links, clients, channels, ports of each pool, and how often what happened."""
    room = Room(serials=("plc-1", "plc-2"))
    room.talk("console")
    room.advance(100.0)
    row = room.operator.status()
    assert (row["name"], row["state"], row["ledger_problem"]) == ("gate", "running", "")
    assert [row[name] for name in ("devices", "links", "clients", "channels")] == [2, 2, 1, 1]
    assert row["uptime"] >= 100.0
    assert row["since"] == "2027-01-15T08:00:00Z"  # NOON
    assert (row["ports"]["default"]["leased"], row["ports"]["default"]["size"]) == (4, 100)
    assert row["counts"]["link-up"] == 2


def test_a_device_shows_its_link_targets_ports_and_bytes() -> None:
    """All columns of the listing, with bytes of channels that run and of those that ended."""
    room = Room()
    client, service = room.talk("console")
    client.say(b"x" * 1000)
    service.say(b"y" * 300)
    room.pump()
    ((row,), more) = room.operator.devices()
    assert more is None
    assert (row["serial"], row["online"], row["link"], row["channels"]) == ("plc-1", True, "rt1", 1)
    assert row["address"].startswith("127.0.0.1:")
    assert row["software"] == "a test"
    assert [(each["name"], each["target"]) for each in row["targets"]] == [
        ("console", "10.0.0.5:23"),
        ("web", "10.0.0.5:80"),
    ]
    assert row["targets"][0]["port"] == room.port()
    assert row["labels"] == []
    assert (row["bytes_to_device"], row["bytes_to_client"]) == (1000, 300)
    client.abort()
    room.pump()
    ((row,), _) = room.operator.devices()
    assert (row["bytes_to_device"], row["channels"], row["channels_total"]) == (1000, 0, 1)


def test_a_device_shows_what_it_has_no_port_for_and_why() -> None:
    """A pool without ports, or its record; nothing more once it has one."""
    room = Room(pools=(Pool("default", ((20000, 20000),)),))
    ((row,), _) = room.operator.devices()
    console, web = row["targets"]
    assert (console["port"], console["problem"], web["port"]) == (20000, "", None)
    assert web["problem"].startswith("pool default has no free port: of 1, 1 are leased")
    record = DeviceRecord(targets=(parse_pattern("web"),))
    room.switchboard.enforcement.set_records(DeviceRecords({"plc-1": record}))
    room.advance(1.0)
    ((row,), _) = room.operator.devices()
    assert row["targets"][0]["problem"] == "its record does not allow 10.0.0.5:23"


def test_a_device_shows_the_labels_of_its_record() -> None:
    """By which grants call it, and people look for it."""
    room = Room()
    record = DeviceRecord(labels=("site=4", "press"))
    room.switchboard.enforcement.set_records(DeviceRecords({"plc-1": record}))
    ((row,), _) = room.operator.devices()
    assert row["labels"] == ["press", "site=4"]


def test_the_share_of_a_record_bounds_a_devices_ports() -> None:
    """leases of [device]; the target beyond it is shown with the reason, and gets a port by other records."""
    access = AccessControl(lambda: 0.0, DeviceRecords({"plc-1": DeviceRecord(leases=1)}))
    room = Room(access=access)
    assert [port.lease.target for port in room.ports.of("plc-1")] == ["console"]
    ((row,), _) = room.operator.devices()
    assert row["targets"][1]["problem"] == "plc-1 has 1 of the 1 ports that it may have"
    assert room.operator.record("plc-1")["leases"] == 1
    room.switchboard.enforcement.set_records(DeviceRecords())
    room.advance(1.0)
    assert [port.lease.target for port in room.ports.of("plc-1")] == ["console", "web"]


def test_the_record_of_a_device() -> None:
    """What is in force, also for one that never came, and who is locked out of it."""
    room = Room()
    row = room.operator.record("plc-9")
    assert (row["online"], row["record"], row["clients"], row["expired"]) == (False, "", None, False)
    record = DeviceRecord(clients=(network_of("10.1.0.0/16"),), channels=3, ports=((20000, 20009),))
    room.switchboard.enforcement.set_records(DeviceRecords({"plc-1": record}))
    for _ in range(10):
        room.switchboard.access.failed("192.0.2.7:5", "denied", "plc-1", False, room.clock.seconds())
    row = room.operator.record("plc-1")
    assert (row["online"], row["record"], row["clients"]) == (True, "plc-1", ["10.1.0.0/16"])
    assert (row["channels"], row["ports"], row["targets"]) == (3, ["20000-20009"], None)
    assert row["locked"] == ["192.0.2.7/32"]
    assert room.operator.status()["penalties"] == 1
    with pytest.raises(Invalid):
        room.operator.record("no serial")


def test_an_absent_device_is_listed_with_its_ports() -> None:
    """It was here: since when it is not, and which ports are kept for it."""
    room = Room()
    room.agents["plc-1"].uplink.stop(0.0)
    room.pump()
    ((row,), _) = room.operator.devices()
    assert (row["online"], row["link"], row["address"], row["round_trip"]) == (False, "", "", None)
    rows, _ = room.operator.ports()
    assert [(port["target"], port["state"], port["open"]) for port in rows] == [
        ("console", "sticky", False),
        ("web", "sticky", False),
    ]
    assert rows[0]["left"] == pytest.approx(3600.0, abs=60)


def test_listings_come_in_pages() -> None:
    """Every row once, in order, whatever the size of a page."""
    room = Room(serials=tuple(f"plc-{number:02}" for number in range(7)))
    for serial in room.agents:
        room.talk("console", serial)
        room.talk("web", serial)
    devices, ports, channels = room.operator.devices, room.operator.ports, room.operator.channels
    for size in (1, 2, 3, 7, 200):
        seen: list[object] = []
        after: object = ""
        while after is not None:
            rows, after = devices(str(after), size)
            assert len(rows) <= size
            seen += [row["serial"] for row in rows]
        assert seen == sorted(room.agents)
        seen, number = [], 0
        while number is not None:
            rows, number = ports(number, size)
            seen += [row["port"] for row in rows]
        assert seen == list(range(20000, 20014))
        seen, cursor = [], ("", 0)
        while cursor is not None:
            rows, cursor = channels(None, cursor, size)
            seen += [(row["serial"], row["channel"]) for row in rows]
        assert len(seen) == len(set(seen)) == 14
        assert seen == sorted(seen)


def test_channels_of_one_device() -> None:
    """Its channels only, with client, target, state and bytes."""
    room = Room(serials=("plc-1", "plc-2"))
    client, _ = room.talk("web", "plc-2")
    room.talk("console", "plc-1")
    client.say(b"abc")
    room.advance(2.0)
    (row,), _ = room.operator.channels("plc-2")
    assert (row["serial"], row["target"], row["state"]) == ("plc-2", "web", "open")
    assert (row["bytes_to_device"], row["seconds"]) == (3, 2.0)
    assert row["client"].startswith("127.0.0.1:")
    assert room.operator.channels("plc-9") == ([], None)


def test_close_resets_one_channel() -> None:
    """That one, with the operator's word; another goes on; there is no second time."""
    room = Room()
    (one, _), (other, _) = room.talk(), room.talk()
    (first, _), _ = room.operator.channels()
    room.operator.close("plc-1", first["channel"], "anna")
    room.pump()
    assert one.was_reset
    assert other.here
    assert room.ended() == ["operator"]
    for serial, channel in (("plc-1", first["channel"]), ("plc-9", 1), ("plc-1", -1)):
        with pytest.raises(NotFound):
            room.operator.close(serial, channel, "anna")


def test_kick_ends_the_link_and_asks_the_device_to_stay_away() -> None:
    """The agent comes back, not before the time that was asked for."""
    room = Room()
    room.operator.kick("plc-1", 60, "anna")
    room.advance(50.0)
    assert room.of(LinkDown)[0].reason == "kicked"
    assert room.of(LinkDown)[0].detail == "by an operator, anna"
    (told,) = [fact.detail for fact in room.agents["plc-1"].facts if isinstance(fact, LinkDown)]
    assert "by an operator" in told and "anna" not in told
    with pytest.raises(NotFound):
        room.operator.kick("plc-1", 0, "anna")
    room.advance(60.0)
    assert len(room.switchboard.fleet) == 1
    for wrong in (-1, 65536):
        with pytest.raises(Invalid):
            room.ask("Kick", serial="plc-1", retry_after=wrong)


def test_release_gives_back_what_an_absent_device_holds() -> None:
    """Not while the device is here; then once."""
    room = Room()
    port = room.port()
    with pytest.raises(Conflict):
        room.operator.release("plc-1", "console", "anna")
    room.agents["plc-1"].uplink.stop(0.0)
    room.pump()
    assert room.operator.release("plc-1", "console", "anna") == port
    rows, _ = room.operator.ports()
    assert [row["state"] for row in rows if row["port"] == port] == ["quarantined"]
    with pytest.raises(NotFound):
        room.operator.release("plc-1", "console", "anna")


def test_enroll_makes_a_key_that_the_server_can_check_and_not_show() -> None:
    """The link that did not prove it ends; what is kept is the verifier; a second key needs replace."""
    room = Room()
    key = room.operator.enroll("plc-1", "anna")
    room.pump()
    kept = room.ledger.key_of("plc-1")
    assert kept is not None
    assert (kept.stored_key, kept.server_key) == tuple(
        getattr(verifier_of(parse_key(key), "plc-1"), name) for name in ("stored_key", "server_key")
    )
    assert room.of(LinkDown)[0].reason == "kicked"
    assert room.switchboard.fleet.get("plc-1").link is None
    with pytest.raises(Conflict):
        room.operator.enroll("plc-1", "anna")
    assert room.operator.enroll("plc-1", "anna", replace=True) != key
    assert room.operator.enrolled() == (["plc-1"], None)
    with pytest.raises(Invalid):
        room.operator.enroll("plc 1\n", "anna")
    said = [fact.row() for fact in room.facts if isinstance(fact, DeviceEnrolled)] or room.facts
    assert key not in str(said)


def test_revoke_withdraws_the_key_and_cuts_the_link() -> None:
    """At once; a serial without a key is an error."""
    room = Room()
    room.ledger.put_key("plc-1", bytes(32), bytes(32))
    facts: list[object] = []
    room.operator.watch(facts.append)
    room.operator.revoke("plc-1", "anna")
    room.pump()
    assert DeviceRevoked("plc-1", "anna") in facts
    assert room.of(LinkDown)[0].reason == "kicked"
    with pytest.raises(NotFound):
        room.operator.revoke("plc-1", "anna")


def test_a_second_drain_is_not_a_second_signal() -> None:
    """A second SIGTERM aborts; asking twice for a drain must not."""
    room = Room()
    asked: list[str] = []

    def drain() -> None:
        asked.append("drain")
        room.switchboard.drain()

    room.operator.on_drain = drain
    room.operator.drain()
    room.operator.drain()
    assert asked == ["drain"]
    assert room.operator.status()["state"] == "draining"


def test_reload_and_log_level_are_the_daemons() -> None:
    """Passed on; refused where there is no daemon, or it is on its way out; a wrong level is the caller's."""
    room = Room()
    with pytest.raises(Conflict):
        room.operator.reload()
    row = {"changed": ["[limits] clients"], "needs_restart": [], "errors": []}
    room.operator.on_reload = lambda: succeed(row)
    answers: list[object] = []
    room.operator.reload().addCallback(answers.append)
    assert answers == [row]

    def level(name: str) -> None:
        if name != "debug":
            raise ValueError(f"no level {name}")

    room.operator.on_log_level = level
    room.operator.log_level("debug")
    with pytest.raises(Invalid):
        room.operator.log_level("loud")
    room.switchboard.drain()
    with pytest.raises(Busy):
        room.operator.reload()


def test_a_watcher_gets_facts_until_he_has_enough() -> None:
    """Every fact from the moment he asks, none after he ended it."""
    room = Room()
    seen: list[str] = []
    stop = room.operator.watch(lambda fact: seen.append(fact.word))
    room.talk()
    stop()
    room.talk()
    assert seen == ["channel-opened"]
    assert room.wall() >= NOON
