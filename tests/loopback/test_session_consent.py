"""The device's own say over real sockets: by the link and by data sockets alike, and with a real command."""

import socket
import sys
from pathlib import Path

import pytest

from revtunnel.daemons.agent_settings import ConsentSettings
from revtunnel.fleet.device_consent import ConsentRequest
from revtunnel.ground.facts import ChannelEnded
from tests.support.data_world import HOST, SERIAL, DataWorld

pytestmark = pytest.mark.slow

ID = bytes(range(16)).hex()
ANA = ConsentRequest(ID, "ana", ("echo",), "192.0.2.7:4711")


def member(world: DataWorld, session: str = ID) -> socket.socket:
    """A client of a session."""
    clients = world.switchboard.client_streams.clients_by_name(SERIAL, "echo", lambda client: None, session)
    listener = world.listeners.listen(HOST, 0, 10, clients.came)
    client = world._stack.enter_context(socket.create_connection((HOST, listener.port)))
    client.setblocking(False)
    return client


def asked(world: DataWorld) -> list[tuple[bool, str]]:
    """What the site said, once it has."""
    answers: list[tuple[bool, str]] = []
    world.switchboard.say.ask(SERIAL, ANA, lambda yes, why: answers.append((yes, why)))
    world.until(lambda: answers, "an answer")
    return answers


@pytest.mark.parametrize("rule", ["link", "socket"])
def test_a_channel_of_a_session_needs_its_consent(rule: str) -> None:
    """It is refused by the agent, not allowed, until the site has said yes; a client of a port never."""
    with DataWorld(rule, site=ConsentSettings("allow")) as world:
        world.talk()
        before = member(world)
        assert world.ending(before) == "reset"
        world.until(lambda: [fact for fact in world.agent_facts if isinstance(fact, ChannelEnded)])
        (ended,) = (fact for fact in world.agent_facts if isinstance(fact, ChannelEnded))
        assert (ended.reason.word, ended.detail) == (
            "not-allowed",
            "the device's site has not allowed this session",
        )
        answers = asked(world)
        for _ in range(2):  # the second one finds a warm socket
            client = member(world)
            service = world.service()
            world.carry(client, service, b"hello")
            world.carry(service, client, b"world")
        assert world.consent is not None
        world.consent.take(ConsentSettings("no"))
        assert world.ending(client) == "reset"
        assert world.ending(service) == "reset"
        world.until(lambda: answers[-1][0] is False)
        assert world.ending(member(world)) == "reset"


@pytest.mark.parametrize(("user", "answer"), [("ana", True), ("eve", False)])
def test_a_command_of_the_site_decides(user: str, answer: bool, tmp_path: Path) -> None:
    """A real one, with arguments and environment; its last line comes to the server."""
    script = tmp_path / "site-says"
    script.write_text(
        "import os, sys\n"
        "print('no place for', os.environ['REVTUNNEL_USER'])\n"
        "sys.exit(sys.argv[1:] != ['ana', 'echo'])\n"
    )
    rules = ConsentSettings("ask", f"{sys.executable} {script} {{user}} {{services}}")
    with DataWorld(site=rules) as world:
        world.loop.reactor.startRunning(installSignalHandlers=True)
        answers: list[tuple[bool, str]] = []
        question = ANA._replace(user=user)
        world.switchboard.say.ask(SERIAL, question, lambda yes, why: answers.append((yes, why)))
        world.until(lambda: answers, "an answer")
        assert answers == [(True, "") if answer else (False, "no place for eve")]
