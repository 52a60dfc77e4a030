"""The operator of the CAMEO relays, over memory transports, and through the admin socket's commands."""

from typing import Any

import pytest

from revtunnel.ctl.ctl_actions import _relays
from revtunnel.process.admin.refusals import Busy, Conflict, NotFound
from revtunnel.process.reporting import Reporter
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_operator import CameoOperator
from tests.support.zmtp_socket import PUBLISHER, RESPONDER, SUBSCRIBER, Site

NOON = 1_800_000_000.0


def an_operator(system: Site) -> CameoOperator:
    """The operator of a site."""
    return CameoOperator(system.network, system.responder, system.publisher, Reporter(), "site", lambda: NOON)


def test_status() -> None:
    """Counts of both relays, the CAMEO server's age, what went nowhere."""
    system = Site()
    operator = an_operator(system)
    waiting = system.connect(RESPONDER, "REQ")
    row = operator.status()
    assert (row["state"], row["name"], row["cameo_server"]["connected"]) == ("running", "site", False)
    assert row["responder"]["waiting_clients"] == 1
    system.connect(RESPONDER, "ROUTER", b"0:0")
    waiting.send(b"", b"0:0", b"", b"x")
    waiting.send(b"", b"nobody", b"", b"x")
    system.connect(SUBSCRIBER, "SUB").send(b"\1status")
    system.connect(PUBLISHER, "PUB").send(b"other", b"x")
    system.advance(60.0)
    row = operator.status()
    assert row["cameo_server"]["seconds"] == 60.0 and row["cameo_server"]["connected"]
    assert row["responder"] == {
        "peers": 2,
        "messages": 2,
        "dropped": {"unroutable": 1},
        "waiting_clients": 0,
        "unroutable": {"nobody": 1},
    }
    assert row["publisher"] == {
        "peers": 2,
        "messages": 2,
        "dropped": {"unwanted": 1},
        "publishers": 1,
        "topics": 1,
    }
    assert row["connections"] == 4 and row["counts"]["peer-joined"] == 4
    text = "\n".join(_relays(row))
    assert "127.0.0.1:40002, 1m00s" in text
    assert "to nobody" in text and "responder: unroutable" in text
    system.finish()


def test_peers_come_in_pages() -> None:
    """By address, each once; with door, type, name and counters."""
    system = Site()
    operator = an_operator(system)
    system.connect(RESPONDER, "ROUTER", b"0:0")
    for _ in range(4):
        system.connect(RESPONDER, "REQ", rules=CameoRules("web", outside=True))
    rows: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page, after = operator.peers(after, 2)
        assert len(page) <= 2
        rows += page
    assert [row["peer"] for row in rows] == sorted({row["peer"] for row in rows}) and len(rows) == 5
    (server,) = [row for row in rows if row["type"] == "ROUTER"]
    assert (server["identity"], server["local"], server["outside"]) == ("0:0", True, "")
    assert {row["outside"] for row in rows if row["type"] == "REQ"} == {"web"}
    operator.cut(server["peer"])
    with pytest.raises(NotFound):
        operator.cut(server["peer"])
    system.finish()


def test_what_the_door_may_ask() -> None:
    """Everything in its table there is a method for; the server's own commands are not among it."""
    operator = an_operator(Site())
    assert not {"Devices", "Ports", "Kick", "Enroll", "Close"} & operator.operations.keys()
    assert {"Ping", "Status", "Peers", "Watch", "Cut", "Drain", "Reload", "LogLevel"} == set(
        operator.operations
    )
    assert all(callable(getattr(operator, row.method)) for row in operator.operations.values())


def test_draining() -> None:
    """It is asked for once; nothing is reloaded any more."""
    operator = an_operator(Site())
    asked: list[None] = []

    def drain() -> None:
        asked.append(None)
        operator.leaving = True

    operator.on_drain = drain
    with pytest.raises(Conflict):
        operator.reload()
    operator.drain()
    operator.drain()
    assert asked == [None] and operator.ping()["state"] == "draining"
    with pytest.raises(Busy):
        operator.reload()
