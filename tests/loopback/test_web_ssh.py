"""ssh from a terminal in a browser, as its WebSocket has it, at a real sshd behind a real agent."""

import contextlib
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from tests.support.daemons import Lab, Server
from tests.support.services import Service
from tests.support.sshd import CAN_SSHD, PasswordSshd
from tests.support.web_people import Person, code_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(find_spec("bcrypt") is None, reason="the extra ssh is not here"),
]
TERMINAL = "revtunnel.terminal.1"


class Terminal:
    """A page's end: what the screen shows, and what is typed."""

    def __init__(self, web: ClientConnection) -> None:
        self.web = web
        self.seen = ""

    def wait(self, text: str) -> str:
        """What was shown up to a text."""
        while text not in self.seen:
            said = self.web.recv(timeout=20)
            assert isinstance(said, bytes)
            self.seen += said.decode()
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: str) -> None:
        """Keys."""
        self.web.send(text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """A window."""
        self.web.send(json.dumps({"size": [columns, rows]}))


Opened = Callable[..., Terminal]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """A terminal in a session of its own."""
    with contextlib.ExitStack() as stack:

        def open_one(person: Person, service: str = "ssh") -> Terminal:
            with person.control() as control:
                session, nonce = control.start(service)
            path = f"/session/ssh/{session}/{service}"
            return Terminal(stack.enter_context(person.open(path, nonce, subprotocols=[TERMINAL])))

        yield open_one


@pytest.fixture
def server(lab: Lab) -> Server:
    found: Server = lab.server({"web main": {"address": "127.0.0.1:0"}}).start()
    return found


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[PasswordSshd]:
    with PasswordSshd(tmp_path) as found:
        yield found


@pytest.mark.skipif(not CAN_SSHD, reason="no sshd here, or no root to have it apart")
def test_a_shell_from_its_first_key_to_its_end(
    lab: Lab, server: Server, sshd: PasswordSshd, opened: Opened
) -> None:
    """The key is asked about once, the password each time; size, status, bytes; another key is refused."""
    lab.agent(server, offers={"ssh": sshd.target}).start()
    server.client_port("plc-7", "ssh")
    ana = Person(server, "ana", ("plc-7", "*"))
    first = opened(ana)
    first.resize(100, 30)
    first.wait("plc-7/ssh: user name [ana]: ")
    first.type("fitt\x7fter\r")
    assert "fitt\b \bter\r\n" in first.wait("yes/no)? ")
    assert server.control("hostkeys")["hostkeys"] == []
    first.type("perhaps\r")
    first.wait("yes/no)? ")
    first.type("yes\r")
    banner = first.wait("Password: ")
    assert "for fitters only" in banner and "\x1b[31m" not in banner
    first.type("wrong\r")
    assert "wrong" not in first.wait("Password: ")
    first.type(f"{sshd.PASSWORD}\r")
    first.type("stty size; echo $TERM\r")  # ahead of the shell
    first.wait("30 100\r\nxterm-256color\r\n")
    first.resize(132, 50)
    first.type("stty size\r")
    first.wait("50 132\r\n")
    first.type("yes | head -c 3000000 | tr -d '\\n'; echo; echo end-of-it\r")
    assert first.wait("\r\nend-of-it\r\n").count("y") >= 1_500_000
    first.type("exit 3\r")
    assert code_of(first.web) == (1000, "exit status 3")
    [key] = server.control("hostkeys")["hostkeys"]
    assert (key["serial"], key["service"], key["by"]) == ("plc-7", "ssh", "ana")
    assert (key["kind"], key["fingerprint"]) == ("ssh-ed25519", sshd.fingerprint)

    again = opened(ana)
    again.wait("user name [ana]: ")
    again.type("fitter\r")
    assert "not known" not in again.wait("Password: ")
    again.type("\x03")
    assert code_of(again.web) == (1000, "given up")

    before = sshd.fingerprint
    sshd.new_host_key()
    other = opened(ana)
    other.wait("user name [ana]: ")
    other.type("fitter\r")
    said = other.wait("revtunnelctl hostkey forget plc-7/ssh")
    assert before in said and sshd.fingerprint in said and "Password" not in said
    assert code_of(other.web)[1] == "the host key is another one"
    server.control("hostkey", "forget", "plc-7/ssh")
    last = opened(ana)
    last.wait("user name [ana]: ")
    last.type("fitter\r")
    last.wait("yes/no)? ")
    last.type("no\r")
    assert code_of(last.web)[1] == "the host key was not accepted"
    assert server.control("hostkeys")["hostkeys"] == []
    sshd.new_host_key("rsa")
    third = opened(ana)
    third.type("fitter\ryes\r")
    third.wait("Password: ")
    for _ in range(3):
        third.type("wrong\r")
    assert "denied" in code_of(third.web)[1].lower() or "too many" in code_of(third.web)[1].lower()
    ended = [each for each in server.all_events() if each["event"] == "session-ended"]
    assert ended == [] and server.control("hostkeys")["hostkeys"][0]["kind"] == "ssh-rsa"


class Nonsense(Service):
    """Says what is no ssh."""

    def serve(self, sock: object, number: int) -> None:
        """One client."""
        said = (b"220 mail.example\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 4096, b"SSH-1.5-old\r\n")[number % 3]
        self.send(sock, said)  # type: ignore[arg-type]


def test_what_is_no_ssh_is_told_in_words(lab: Lab, server: Server, opened: Opened) -> None:
    """Garbage, an old version, a service that is gone; a page that breaks the rules. No traceback."""
    with Nonsense() as service:
        lab.agent(server, offers={"ssh": service.target, "ssh-2": "127.0.0.1:9"}).start()
        server.client_port("plc-7", "ssh")
        ana = Person(server, "ana", ("plc-7", "*"))
        for _ in range(3):
            web = opened(ana)
            web.type("x\r")
            code, why = code_of(web.web)
            assert code in (4001, 4007) and why, (code, why)
        web = opened(ana, "ssh-2")
        web.type("x\r")
        assert code_of(web.web) == (4001, "the service is not there, or speaks no ssh")
        for said in ('{"size": [0, 5]}', "{", '{"size": "x"}', '{"size": [1e9, 1]}'):
            web = opened(ana, "ssh-2")
            web.web.send(said)
            assert code_of(web.web)[0] not in (1000, 1006)
    assert [each for each in server.all_events() if "Traceback" in json.dumps(each)] == []
