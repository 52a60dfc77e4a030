"""An agent that looks at its services: what its server shows of them, by rt1 and in place of EMO's client."""

import socket

import pytest

from tests.loopback.test_emo import emo_server
from tests.support.daemons import Agent, Lab, Server
from tests.support.ports import free_ports
from tests.support.services import Echo

pytestmark = pytest.mark.slow

SOON = {"probe_interval": 1}


def shown(server: Server) -> dict[str, bool | None]:
    """What ``revtunnelctl devices`` says of its one device's services."""
    (row,) = server.control("devices")["devices"]
    return {target["name"]: target["up"] for target in row["targets"]}


def test_the_agent_is_there_and_the_machine_is_not(lab: Lab) -> None:
    """It comes, and goes again; what nobody looks at is not known."""
    with Echo() as echo, socket.socket() as machine:
        machine.bind(("127.0.0.1", 0))
        place = "{}:{}".format(*machine.getsockname())
        server, agent = lab.pair(None, {"agent": {"probe": "it", **SOON}}, it=place, other=echo.target)
        server.wait_event("service-down", serial="plc-7", service="it")
        assert shown(server) == {"it": False, "other": None}
        machine.listen()
        server.wait_event("service-up", serial="plc-7", service="it")
        assert shown(server) == {"it": True, "other": None}
        machine.close()
        down = server.wait_event("service-down", count=2, service="it")
        assert down["detail"] == f"{place} refused the connection"
        assert [line["service"] for line in agent.events("service-up")] == ["it"]


def test_a_machine_of_emo(lab: Lab) -> None:
    """Whatever it is called beside its agent."""
    (port,) = free_ports(1)
    server = emo_server(lab, {"mill-1": port})
    with Echo() as echo:
        agent = Agent(
            lab.directory,
            "mill-1",
            [f"127.0.0.1:{server.port}"],
            {"mill": echo.target},
            {"agent": {"probe": "mill", **SOON}},
            ["--emo", "--server-port", str(port)],
        )
        lab.add(agent).start()
        server.wait_event("service-up", serial="mill-1", service="emo")
        assert shown(server) == {"emo": True}
