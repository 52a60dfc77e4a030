"""Device keys at a real door: who is let in with a right key, a wrong one, none."""

import os
import time
from pathlib import Path

import pytest

from revtunnel.link.keys import new_key, parse_key, verifier_of
from revtunnel.state.ledger import FILE_NAME, SqliteLedger
from tests.support.daemons import Agent, Lab, Server
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

REQUIRED = {"listener main": {"keys": "required"}}


def enrol(server: Server, serial: str) -> str:
    """A key for a serial, in the ledger of a server that is not running."""
    key = new_key(os.urandom)
    verifier = verifier_of(parse_key(key), serial)
    state = server.directory / f"{server.name}.state"
    state.mkdir(exist_ok=True)
    ledger = SqliteLedger(str(state / FILE_NAME), time.time)
    ledger.put_key(serial, verifier.stored_key, verifier.server_key)
    ledger.close()
    return key


def key_file(lab: Lab, name: str, key: str) -> Path:
    """A key in a file that only its owner may read."""
    path = lab.directory / name
    path.write_text(key + "\n")
    path.chmod(0o600)
    return path


def comes(lab: Lab, server: Server, serial: str, key: str | None, target: str) -> Agent:
    """An agent of that serial with that key."""
    options = [] if key is None else ["--key-file", str(key_file(lab, f"{serial}.key", key))]
    return lab.agent(
        server,
        serial,
        offers={"it": target},
        options=options,
        settings={"agent": {"retry_first": "0.3 s"}},
    ).start()


@pytest.mark.parametrize("keys", ["enrolled", "required"])
def test_an_enrolled_serial(lab: Lab, keys: str) -> None:
    """Right key: in, and proved. Wrong key, no key: out, with nothing said of the reason."""
    with Echo() as echo:
        server = lab.server({"listener main": {"keys": keys}})
        good, stolen = enrol(server, "plc-7"), enrol(server, "plc-8")
        server.start()
        comes(lab, server, "plc-7", good, echo.target)
        assert server.wait_link("plc-7")["authenticated"] is True
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"in")
            assert read_exactly(client, 2) == b"in"
        wrong = comes(lab, server, "plc-8", new_key(os.urandom), echo.target)
        server.wait_event("link-refused", serial="plc-8", reason="denied")
        wrong.wait_event("state", state="away")
        wrong.kill()
        other = comes(lab, server, "plc-8", good, echo.target)  # a key of another serial
        server.wait_event("link-refused", 2, serial="plc-8", reason="denied")
        other.kill()
        none = lab.agent(server, "plc-8", offers={"it": echo.target}, name="none").start()
        assert "key" in none.wait_event("state", state="away")["detail"]
        assert not server.events("link-up", serial="plc-8") and stolen != good


def test_a_serial_that_is_not_enrolled(lab: Lab) -> None:
    """``keys = enrolled`` lets it in unproved; ``keys = required`` does not, key or not."""
    with Echo() as echo:
        server = lab.server({"listener main": {"keys": "enrolled"}}).start()
        comes(lab, server, "plc-1", None, echo.target)
        assert server.wait_link("plc-1")["authenticated"] is False
        strict = lab.server(REQUIRED, name="strict").start()
        comes(lab, strict, "plc-2", new_key(os.urandom), echo.target)
        strict.wait_event("link-refused", serial="plc-2", reason="denied")
        without = lab.agent(strict, "plc-3", offers={"it": echo.target}).start()
        assert "key" in without.wait_event("state", state="away")["detail"]
        assert not strict.events("link-up")


def test_an_agent_with_a_key_and_a_server_that_does_not_ask(lab: Lab) -> None:
    """The agent leaves: a server that cannot prove that it knows the device is not its server."""
    with Echo() as echo:
        server = lab.server().start()
        agent = comes(lab, server, "plc-1", new_key(os.urandom), echo.target)
        assert "enrolled" in agent.wait_event("state", state="away")["detail"]


def test_a_key_survives_a_restart(lab: Lab) -> None:
    """The ledger keeps what verifies it; the key itself stands in no file of the server."""
    with Echo() as echo:
        server = lab.server(REQUIRED)
        key = enrol(server, "plc-7")
        server.start()
        comes(lab, server, "plc-7", key, echo.target)
        server.wait_link("plc-7")
        server.kill()
        server.start()
        assert server.wait_link("plc-7")["authenticated"] is True
        state = server.directory / "server.state"
        assert all(key.encode() not in path.read_bytes() for path in state.iterdir() if path.is_file())
        assert key not in server.shown()


def test_r9_two_holders_of_one_key(lab: Lab) -> None:
    """They throw each other out a few times; then both stay out, and the log says it."""
    with Echo() as echo:
        server = lab.server({"limits": {"duplicate_swaps": 2}, **REQUIRED})
        key = enrol(server, "plc-7")
        server.start()
        fast = {"agent": {"retry_first": "0.1 s", "retry_most": "1 s"}}
        option = ["--key-file", str(key_file(lab, "key", key))]
        for name in ("one", "two"):
            lab.agent(
                server, "plc-7", name=name, offers={"it": echo.target}, options=option, settings=fast
            ).start()
        server.wait_until(
            lambda: any("two holders" in line.get("detail", "") for line in server.events("link-refused")),
            "alarm",
        )
        server.wait_event("link-refused", 2, serial="plc-7", reason="denied")
        assert server.events()[-1]["event"] != "link-up"
