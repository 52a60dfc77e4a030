"""Listings of several wires as one: links and CCCP in one server, over memory."""

from pathlib import Path
from typing import Any

import pytest

from revtunnel.daemons.linked_rows import LinkedRows
from revtunnel.daemons.schema import load
from revtunnel.fleet.pools import Pool
from revtunnel.ground.limits import RelayLimits
from revtunnel.process.admin.refusals import Conflict, NotFound
from revtunnel.settings.inifile import Surroundings
from revtunnel.systems.cccp.cccp_operator import CccpRows
from revtunnel.systems.cccp.cccp_reading import read_cccp
from revtunnel.systems.cccp.cccp_system import CccpSystem
from revtunnel.systems.cccp.idle_devices import SYSTEM
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from tests.support.room import Room

POOLS = (Pool("default", ((20000, 20099),)), Pool("cccp-main", ((21000, 21099),)))


class Both(Room):
    """A server that speaks CCCP too."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(pools=POOLS, **options)
        part = load(read_cccp, str(directory / "none.ini"), {}, around(directory)).part
        board = self.switchboard
        self.cccp = CccpSystem(
            *(self.reactor, self.reactor, part, self.leases, self.ledger, self._report, board.access),
            *(RelayLimits(), board.fleet, board.client_streams.clients_by_name),
        )
        self.operator.wires[SYSTEM] = rows = CccpRows(self.cccp, self.operator.at)
        self.operator.linked.granted = rows.grants

    def on(self, serial: str) -> int:
        """A proxy session: its port."""
        port = self.cccp.operator.on(OnCall(serial, ProxyOptions(persistent=True), project="main"))
        assert isinstance(port, int)
        return port


def around(directory: Path) -> Surroundings:
    """A process with a home of its own and a settings file that is empty."""
    (directory / "none.ini").write_text("")
    return Surroundings({}, False, str(directory), "host", str(directory / "none.ini"))


def shown(rows: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Whose sessions these are."""
    return [(row["serial"], row["channel"], row["kind"]) for row in rows]


def test_every_client_of_a_port_is_a_session() -> None:
    """With the port, the target and the bytes of its channel."""
    room = Room()
    client, _ = room.talk("web")
    client.say(b"abc")
    room.pump()
    (row,), more = room.operator.sessions()
    (channel,), _ = room.operator.channels()
    assert more is None
    assert row.keys() == {each.name for each in room.operator.operations["Sessions"].columns}
    assert (row["serial"], row["kind"], row["channel"]) == ("plc-1", "port", channel["channel"])
    assert (row["target"], row["port"], row["bytes"]) == ("web", room.port(name="web"), 3)
    assert (row["client"], row["state"]) == (channel["client"], channel["state"])
    client.abort()
    room.pump()
    assert room.operator.sessions() == ([], None)


def test_a_client_by_a_link_is_one_session_and_one_channel(tmp_path: Path) -> None:
    """CCCP granted its use: it is no client of a port, and is counted once."""
    room = Both(tmp_path)
    client = room.client(port=room.on("plc-1"))
    room.pump()
    room.talk("web")
    rows, _ = room.operator.sessions()
    assert shown(rows) == [("plc-1", 0, "cccp"), ("plc-1", 2, "port")]
    channels, _ = room.operator.channels()
    assert [(row["channel"], row["carrier"]) for row in channels] == [(1, "link"), (2, "link")]
    assert channels[0]["client"] == rows[0]["client"] != ""
    status = room.operator.status()
    assert [status[name] for name in ("devices", "clients", "channels", "proxies")] == [1, 2, 2, 1]
    room.operator.close("plc-1", 1, "anna")
    room.pump()
    assert shown(room.operator.sessions()[0]) == [("plc-1", 0, "cccp"), ("plc-1", 2, "port")]
    assert client.was_reset


def test_ports_of_sessions_are_open_and_not_to_be_released(tmp_path: Path) -> None:
    """Whatever wire listens there; the session has to end first."""
    room = Both(tmp_path, serials=("plc-1",))
    port = room.on("CLD-1")
    found = {row["port"]: row["open"] for row in room.operator.ports()[0]}
    assert found == {20000: True, 20001: True, port: True}
    with pytest.raises(Conflict, match="a session of CLD-1"):
        room.operator.release("CLD-1", "cccp", "anna")
    room.cccp.operator.off("CLD-1")
    assert {row["port"]: row["open"] for row in room.operator.ports()[0]}[port] is False
    with pytest.raises(NotFound):
        room.operator.release("CLD-1", "cccp", "anna")


def test_pages_go_over_all_wires(tmp_path: Path) -> None:
    """Every row once, in order, whatever the size of a page."""
    serials = tuple(f"plc-{number:02}" for number in range(0, 14, 2))
    room = Both(tmp_path, serials=serials)
    for serial in serials:
        room.talk("console", serial)
        room.talk("web", serial)
    for number in range(1, 14, 3):
        room.on(f"plc-{number:02}")
    room.on(serials[0])
    whole = room.operator.sessions()[0]
    assert len(whole) == 14 + 5 + 1
    assert shown(whole) == sorted(shown(whole))
    for size in (1, 2, 3, 7, 19, 20):
        seen: list[Any] = []
        after: Any = ("", 0)
        while after is not None:
            rows, after = room.operator.sessions(None, after, size)
            assert 0 < len(rows) <= size
            seen += shown(rows)
        assert seen == shown(whole)


def test_a_page_costs_what_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three thousand devices a page of ten makes ten rows, wherever it begins."""
    room = Room()
    link: Any = object()
    for number in range(3000):
        serial = f"x-{number:04}"
        room.switchboard.fleet.arrive(serial, link, 0.0)
        room.switchboard.fleet.leave(serial, link, 0.0)
    made: list[str] = []
    make = LinkedRows.about

    def counted(rows: LinkedRows, device: Any) -> Any:
        made.append(device.serial)
        return make(rows, device)

    monkeypatch.setattr(LinkedRows, "about", counted)
    rows, more = room.operator.devices("x-1500", 10)
    assert ([row["serial"] for row in rows], more) == ([f"x-15{n:02}" for n in range(1, 11)], "x-1510")
    assert len(made) == 10
