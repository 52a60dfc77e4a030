"""Daemons that are killed, frozen, doubled: they come back by themselves, with the same ports."""

import contextlib
import signal
import socket

import pytest

from tests.support.daemons import Agent, Lab, Server
from tests.support.services import Echo
from tests.support.traffic import connect, end_of, end_of_new, read_exactly, wait_until

pytestmark = pytest.mark.slow

FAST = {"keepalive": "1 s", "answer": "1 s", "busy_keepalive": "1 s", "busy_answer": "1 s"}
SOON = {"agent": {"retry_first": "0.2 s", "retry_most": "1 s", "stable": "1 s"}}


def echoed(port: int, words: bytes = b"hello") -> None:
    """One client's whole life."""
    with connect(port) as client:
        client.sendall(words)
        assert read_exactly(client, len(words)) == words


def served_again(port: int) -> None:
    """Return when a new client is served."""

    def served() -> bool:
        try:
            echoed(port)
        except OSError:
            return False
        return True

    wait_until(served, f"service at {port}")


def ports(server: Server, agents: list[Agent]) -> dict[tuple[str, str], int]:
    """Where clients reach every offer of every agent."""
    return {
        (agent.serial, name): server.client_port(agent.serial, name)
        for agent in agents
        for name in agent.offers
    }


def test_n21_kill_9_of_the_server(lab: Lab) -> None:
    """On the same state directory it starts at once, three times; agents are back, with their ports."""
    with Echo() as echo:
        server = lab.server().start()
        offers = {"a": echo.target, "b": echo.target}
        agents = [lab.agent(server, f"plc-{n}", offers=offers, settings=SOON).start() for n in range(5)]
        before = ports(server, agents)
        for _ in range(3):
            with connect(before["plc-0", "a"]) as client:
                client.sendall(b"here")
                assert read_exactly(client, 4) == b"here"
                server.kill()
                assert end_of(client) != "still open"
            assert server.admin_socket.exists()  # kill -9 leaves it there
            server.start()
            assert ports(server, agents) == before
            for port in before.values():
                served_again(port)


def test_ports_of_a_pool_that_refuses_are_open_before_their_device_is_back(lab: Lab) -> None:
    """A server that starts again refuses the clients of a device that stays away; it does not ignore them."""
    with Echo() as echo:
        server = lab.server({"pool default": {"absent": "refuse"}}).start()
        agent = lab.agent(server, offers={"echo": echo.target}).start()
        port = server.client_port("plc-7", "echo")
        agent.stop()
        server.stop()
        server.start()
        assert end_of_new(port) == "reset"
        server.wait_event("client-refused", reason="device-absent")


def test_devices_are_listed_before_they_are_back(lab: Lab) -> None:
    """By their leases, by their keys, and because settings name them; away until they come."""
    with Echo() as echo:
        server, agent = lab.pair(echo=echo.target)
        server.control("enroll", "plc-8")
        agent.stop()
        server.kill()
        server.write(**{"device plc-9": {"channels": 3}})
        server.start()
        rows = server.control("devices")["devices"]
        assert {row["serial"]: row["online"] for row in rows} == {
            "plc-7": False,
            "plc-8": False,
            "plc-9": False,
        }
        agent.start()
        server.wait_link("plc-7")
        assert [row["serial"] for row in server.control("devices")["devices"] if row["online"]] == ["plc-7"]


def test_clients_wait_for_an_agent_that_comes_back(lab: Lab) -> None:
    """absent = wait is for every kind of device, also over a restart."""
    with Echo() as echo:
        waits: dict[str, dict[str, object]] = {"pool default": {"absent": "wait", "wake_wait": "10 min"}}
        server, agent = lab.pair(waits, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        agent.stop()
        server.kill()
        server.start()
        with connect(port) as client:
            client.sendall(b"I wait")
            wait_until(lambda: server.control("status")["clients"] == 1, "the client")
            agent.start()
            assert read_exactly(client, 6) == b"I wait"


def test_c4_a_stale_admin_socket_is_no_obstacle_and_a_live_one_is(lab: Lab) -> None:
    """A path that nobody listens on is taken over; that of a running server is not."""
    server = lab.server()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(server.admin_socket))
    server.start()
    second = lab.server({"admin": {"socket": server.admin_socket}}, name="second")
    second.complains = True
    second.start(wait=False)
    assert second.wait() == 1
    assert str(server.admin_socket) in second.said() and len(second.said().splitlines()) == 1
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(server.admin_socket))


def test_ports_come_back_without_a_state_directory_too(lab: Lab) -> None:
    """``state_directory = none``: nothing is kept, and the server starts all the same."""
    with Echo() as echo:
        server = lab.server({"server": {"state_directory": "none"}}).start()
        agent = lab.agent(server, offers={"it": echo.target}, settings=SOON).start()
        echoed(server.client_port("plc-7", "it"))
        server.kill()
        server.start()
        served_again(ports(server, [agent])["plc-7", "it"])


@pytest.mark.parametrize("absent", ["close", "refuse"])
def test_n21_kill_9_of_the_agent(lab: Lab, absent: str) -> None:
    """Its clients see a reset, new ones are refused at once, and it comes back to its ports."""
    with Echo() as echo:
        server, agent = lab.pair({"pool default": {"absent": absent}}, it=echo.target)
        port = server.client_port("plc-7", "it")
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(connect(port)) for _ in range(5)]
                for client in clients:
                    client.sendall(b"here")
                    assert read_exactly(client, 4) == b"here"
                links = len(server.events("link-up"))
                agent.kill()
                assert [end_of(client) for client in clients] == ["reset"] * 5
            wanted = {"close": "refused", "refuse": "reset"}[absent]
            wait_until(lambda: end_of_new(port) == wanted, f"{wanted} of new clients")  # noqa: B023
            agent.start()
            server.wait_link("plc-7", links + 1)
            assert server.client_port("plc-7", "it") == port
            served_again(port)


def test_n16_an_agent_that_is_frozen(lab: Lab) -> None:
    """The server drops it when its answer is late; thawed, it is back at the same port."""
    with Echo() as echo:
        server, agent = lab.pair({"link": FAST}, {"link": FAST, **SOON}, it=echo.target)
        port = server.client_port("plc-7", "it")
        with connect(port) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            agent.pause()
            assert end_of(client) == "reset"
        assert server.wait_event("link-down")["reason"] == "silent"
        wait_until(lambda: end_of_new(port) == "refused", "refusal")
        agent.resume()
        server.wait_link("plc-7", 2)
        assert server.client_port("plc-7", "it") == port
        served_again(port)


def test_n16_a_server_that_is_frozen(lab: Lab) -> None:
    """The agent drops it when its answer is late, and is back when it runs again."""
    with Echo() as echo:
        server, agent = lab.pair({"link": FAST}, {"link": FAST, **SOON}, it=echo.target)
        port = server.client_port("plc-7", "it")
        echoed(port)
        server.pause()
        assert agent.wait_event("link-down")["reason"] == "silent"
        server.resume()
        agent.wait_event("link-up", 2)
        served_again(port)


def test_n8_a_quiet_link_that_is_answered_stays(lab: Lab) -> None:
    """Over several keepalives nothing is dropped, and a client finds the link as it was."""
    often = {**FAST, "answer": "3 s", "busy_answer": "3 s"}  # one that is missing would be missed within 5 s
    with Echo() as echo:
        server, agent = lab.pair({"link": often}, {"link": often}, it=echo.target)
        port = server.client_port("plc-7", "it")
        with connect(port) as client, pytest.raises(TimeoutError):
            client.settimeout(5)
            client.recv(1)
        echoed(port)
        assert not server.events("link-down") and not agent.events("link-down")


def test_r8_duplicate_newest(lab: Lab) -> None:
    """A second agent of an unproved serial takes the place of the first, and the first is told why."""
    with Echo() as old, Echo() as new:
        server, first = lab.pair(it=old.target)
        port = server.client_port("plc-7", "it")
        with connect(port) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            second = lab.agent(server, offers={"it": new.target}, name="second", settings=SOON).start()
            assert server.wait_link("plc-7", 2)["replaced"] is True
            first.kill()  # else it would come back and take its place in turn
            assert end_of(client) == "reset"
        assert server.wait_event("link-down", reason="replaced")
        assert server.client_port("plc-7", "it") == port
        served_again(port)
        assert second.running and new.accepted >= 1


def test_r8_duplicate_oldest(lab: Lab) -> None:
    """The first agent stays, its clients too; the second is refused, and let in when the first has gone."""
    with Echo() as old, Echo() as new:
        server, first = lab.pair({"listener main": {"duplicate": "oldest"}}, it=old.target)
        port = server.client_port("plc-7", "it")
        with connect(port) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            lab.agent(server, offers={"it": new.target}, name="second", settings=SOON).start()
            server.wait_event("link-refused", reason="duplicate")
            client.sendall(b"still")
            assert read_exactly(client, 5) == b"still"
        assert first.stop() == 0
        server.wait_link("plc-7", 2)
        served_again(port)
        assert new.accepted >= 1


def test_r9_two_machines_with_one_serial(lab: Lab) -> None:
    """A copied image: told once, shown with both addresses, and the setting decides who stays."""
    server, _ = lab.pair({"listener main": {"duplicate": "oldest"}}, it="127.0.0.1:9")
    server.control("enroll", "plc-8", "--key", "--out", str(lab.directory / "plc-8.key"))
    keyed = {"agent": {**SOON["agent"], "key_file": str(lab.directory / "plc-8.key")}}
    for name in ("one", "two"):
        lab.agent(server, "plc-8", offers={"it": "127.0.0.1:9"}, name=name, settings=keyed).start()
    told = server.wait_event("duplicate-device", serial="plc-8")
    assert (told["stays"], told["authenticated"]) == ("oldest", True)
    server.wait_event("link-refused", 3, reason="duplicate")
    assert len(server.events("duplicate-device")) == 1
    (row,) = [row for row in server.control("devices")["devices"] if row["serial"] == "plc-8"]
    assert row["online"] and row["conflict"].count("127.0.0.1:") == 2


def test_an_agent_that_stops_in_order(lab: Lab) -> None:
    """SIGTERM: a running client may end its work, new ones are refused, exit status 0."""
    with Echo() as echo:
        server, agent = lab.pair(it=echo.target)
        port = server.client_port("plc-7", "it")
        with connect(port) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            agent.signal(signal.SIGTERM)
            server.wait_event("listener-closed", serial="plc-7")
            assert end_of_new(port) == "refused"
            client.sendall(b"goodbye")
            assert read_exactly(client, 7) == b"goodbye"
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        assert agent.wait() == 0


def test_servers_are_tried_in_turn(lab: Lab) -> None:
    """The second of ``--server`` is used when the first does not answer, and after its end the other one."""
    with Echo() as echo:
        first = lab.server(name="first").start()
        second = lab.server(name="second").start()
        agent = Agent(
            lab.directory,
            "plc-7",
            [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"],
            {"it": echo.target},
            SOON,
        )
        port = first.port
        first.kill()
        lab.add(agent).start()
        served_again(second.client_port("plc-7", "it"))
        first.start()
        assert first.port == port
        second.kill()
        served_again(first.client_port("plc-7", "it"))
