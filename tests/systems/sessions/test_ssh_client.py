"""The ssh client against conch's own server in memory: what is asked of the person, and in which order."""

import struct
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

pytest.importorskip("bcrypt")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from twisted.conch.avatar import ConchUser
from twisted.conch.interfaces import IConchUser
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal

from revtunnel.systems.sessions.ssh_client import SshClient
from revtunnel.trust.host_keys import fingerprint_of, kind_of


class Wire(StringTransport):
    """One end, which tells when it was cut."""

    aborted = False

    def abortConnection(self) -> None:
        """Cut."""
        self.aborted = True

    def setTcpNoDelay(self, on: bool) -> None:
        """conch's server says so."""

    def setTcpKeepAlive(self, on: bool) -> None:
        """As well."""


class Shell(SSHChannel):
    """Says what it is told twice, and ends at an x with status 7."""

    name = b"session"

    def request_pty_req(self, data: bytes) -> bool:
        """Its size."""
        size = int.from_bytes(data[:4], "big")
        self.conn.transport.factory.seen.append(
            (data[4 : 4 + size], struct.unpack(">2L", data[4 + size : 12 + size]))
        )
        return True

    def request_shell(self, data: bytes) -> bool:
        """It begins."""
        return True

    def dataReceived(self, data: bytes) -> None:
        """Typed."""
        if data == b"x":
            self.conn.sendRequest(self, b"exit-status", struct.pack(">L", 7))
            self.loseConnection()
        else:
            self.write(data + data)


class Asks(SSHUserAuthServer):
    """A code that is shown, then a secret; whoever knows both is let in, to a shell."""

    def serviceStarted(self) -> None:
        """By no other means."""
        super().serviceStarted()
        self.supportedAuthentications = [b"keyboard-interactive"]

    def auth_keyboard_interactive(self, packet: bytes) -> "Deferred[Any]":
        """It puts both questions."""
        self.answered: Deferred[Any] = Deferred()
        questions = NS(b"Code: ") + b"\1" + NS(b"Secret: ") + b"\0"
        self.transport.sendPacket(60, NS(b"") * 3 + struct.pack(">L", 2) + questions)
        return self.answered

    def ssh_USERAUTH_INFO_RESPONSE(self, packet: bytes) -> None:
        """The answers."""
        user = ConchUser()
        user.channelLookup[b"session"] = Shell
        user.conn = None
        right = packet == struct.pack(">L", 2) + NS(b"4711") + NS(b"s3cret")
        found = (IConchUser, user, lambda: None) if right else Failure(UnauthorizedLogin())
        self.answered.callback(found)


class Person:
    """Answers, and keeps what he sees."""

    def __init__(self, key: "Deferred[None] | None" = None) -> None:
        self.log: list[Any] = []
        self.questions: list[tuple[str, bool, Deferred[str]]] = []
        self.key: Deferred[None] = key or Deferred()
        self.seen = b""
        self.took_ = False

    def host_key(self, blob: bytes) -> "Deferred[None]":
        """Shown."""
        self.log.append((kind_of(blob), fingerprint_of(blob)))
        return self.key

    def secured(self) -> None:
        """Proved."""
        self.log.append("secured")

    def ask(self, prompt: str, echo: bool) -> "Deferred[str]":
        """Asked."""
        self.questions.append((prompt, echo, Deferred()))
        return self.questions[-1][2]

    def show(self, data: bytes) -> None:
        """Seen."""
        self.seen += data

    def opened(self) -> None:
        """A shell."""
        self.log.append("opened")

    def took(self) -> None:
        """More."""
        self.took_ = True

    def ended(self, why: str, in_order: bool) -> None:
        """Over."""
        self.log.append((why, in_order))


class Sit:
    """A client and a server, joined."""

    def __init__(self, known: bytes = b"") -> None:
        self.host = Key(Ed25519PrivateKey.generate())
        factory: Any = SSHFactory()
        factory.publicKeys = factory.privateKeys = {b"ssh-ed25519": self.host}
        factory.portal = Portal(None, [])
        factory.services = {b"ssh-userauth": Asks, b"ssh-connection": SSHConnection}
        factory.seen = self.seen = []
        factory.startFactory()
        self.person = Person()
        self.client = SshClient(self.person, "fitter", known or b"", (100, 30))
        self.server = SSHServerTransport()
        self.server.factory = factory
        self.server.supportedPublicKeys = [b"ssh-ed25519"]
        self.near, self.far = Wire(), Wire()
        self.server.makeConnection(self.far)
        self.client.makeConnection(self.near)
        self.pump()

    def pump(self) -> None:
        """Carry bytes until there are none."""
        while self.near.value() or self.far.value():
            for out, into in ((self.near, self.server), (self.far, self.client)):
                data = out.value()
                out.clear()
                if data and not (into is self.client and self.near.aborted):
                    into.dataReceived(data)

    def answer(self, *texts: str) -> None:
        """To the questions, in order."""
        for text in texts:
            self.person.questions[-1][2].callback(text)
            self.pump()

    def close(self) -> None:
        """The server has nobody any more."""
        self.server.connectionLost(Failure(ConnectionResetError()))


def test_who_is_asked_what_and_when() -> None:
    """The key first, and nothing before somebody says yes; then each question; then a shell of that size."""
    sit = Sit()
    person = sit.person
    assert person.log == [("ssh-ed25519", fingerprint_of(sit.host.public().blob()))]
    assert person.questions == []  # whatever the server has sent meanwhile
    person.key.callback(None)
    sit.pump()
    assert person.log[1:] == ["secured"]
    assert [each[:2] for each in person.questions] == [("Code: ", True)]
    sit.answer("4711")
    assert person.questions[-1][:2] == ("Secret: ", False)
    sit.answer("wrong")
    assert person.questions[-1][:2] == ("Code: ", True)  # again
    sit.answer("4711", "s3cret")
    assert person.log[2:] == ["opened"]
    assert sit.seen == [(b"xterm-256color", (100, 30))]
    assert sit.client.type(b"ls\r")
    sit.pump()
    assert person.seen.endswith(b"ls\rls\r")
    sit.client.type(b"x")
    sit.pump()
    assert person.log[3:] == [("exit status 7", True)] and sit.near.aborted
    sit.close()


def test_keys_that_are_exchanged_anew_ask_nobody_again() -> None:
    """Neither about the key, nor who it is."""
    sit = Sit()
    sit.person.key.callback(None)
    sit.pump()
    for _ in range(2):
        sit.server.sendKexInit()
        sit.pump()
    assert sit.person.log[1:] == ["secured"] and len(sit.person.questions) == 1
    sit.answer("4711", "s3cret")
    assert sit.person.log[2:] == ["opened"]
    sit.close()


def test_a_service_without_the_known_kind_of_key_is_told_so() -> None:
    """After a device was set up anew, say: nothing else tells why there is no common way."""
    sit = Sit(Key(generate_private_key(65537, 2048)).public().blob())
    [(why, _)] = sit.person.log
    assert why.endswith("; the key that is known is ssh-rsa")
    sit.close()


def test_what_is_typed_faster_than_it_is_taken_waits() -> None:
    """No more is to be typed until the window is there."""
    sit = Sit()
    sit.person.key.callback(None)
    sit.pump()
    sit.answer("4711", "s3cret")
    assert not sit.client.type(b"y" * 1_000_000)
    sit.pump()
    assert sit.client.type(b"z") and sit.person.seen.count(b"y") == 2_000_000
    sit.close()


def test_a_key_that_nobody_wants_ends_it() -> None:
    """And no question is put."""
    sit = Sit()
    sit.person.key.errback(ValueError("no"))
    sit.pump()
    assert sit.person.questions == [] and sit.near.aborted
    assert [each for each in sit.person.log if each in ("secured", "opened")] == []
    sit.close()


def test_no_service_names_the_group_of_an_exchange() -> None:
    """Whose prime would be judged for seconds, in which nobody else is served; others are offered still."""
    sit = Sit()
    said = sit.client.ourKexInitPayload
    assert b"group-exchange" not in said
    assert b"curve25519-sha256" in said and b"ecdh-sha2-nistp256" in said and b"group14" in said
    sit.close()


def test_a_server_that_reads_nothing_is_not_read() -> None:
    """It would be answered without end: its requests, its exchanges of keys. Nor is more to be typed."""
    sit = Sit()
    sit.near.producer.pauseProducing()  # as a transport does whose bytes wait
    sit.person.key.callback(None)
    assert sit.near.producerState == "paused"
    sit.near.producer.resumeProducing()
    sit.pump()
    assert sit.near.producerState == "producing"
    sit.answer("4711", "s3cret")
    sit.near.producer.pauseProducing()
    assert not sit.client.type(b"a") and not sit.client.resize(80, 24)
    sit.client.pause()
    sit.client.resume()
    assert sit.near.producerState == "paused"
    sit.person.took_ = False
    sit.near.producer.resumeProducing()
    assert sit.near.producerState == "producing" and sit.person.took_
    sit.close()


def test_a_server_that_asks_nothing_for_ever_is_given_up() -> None:
    """Lists of no questions are answered by nobody, and counted all the same."""
    sit = Sit()
    asked = []

    def ask(packet: bytes) -> None:
        asked.append(packet)
        if len(asked) < 1000:
            sit.server.sendPacket(60, NS(b"") * 3 + struct.pack(">L", 0))

    sit.person.key.callback(None)
    sit.pump()
    sit.server.service.ssh_USERAUTH_INFO_RESPONSE = ask
    sit.answer("4711", "s3cret")
    assert sit.near.aborted and sit.person.log[-1] == ("the service asks too often", False)
    assert len(asked) < 50
    sit.close()


@pytest.mark.parametrize(
    ("kind", "packet", "why"),
    [
        (60, NS(b"") * 3 + struct.pack(">L", 9) + (NS(b"?") + b"\0") * 9, "the service asks too much"),
        (60, NS(b"") * 3 + struct.pack(">L", 1 << 31), "the service asks too much"),
        (53, NS(b"x" * 70_000) + NS(b""), "the service says too much at once"),
    ],
)
def test_a_server_that_says_too_much_at_once_is_given_up(kind: int, packet: bytes, why: str) -> None:
    """Before it is read: reading many questions takes a time that grows with their square."""
    sit = Sit()
    sit.person.key.callback(None)
    sit.pump()
    sit.server.sendPacket(kind, packet)
    sit.pump()
    assert sit.near.aborted and sit.person.log[-1] == (why, False)
    assert b"x" not in sit.person.seen
    sit.close()


def test_a_server_that_asks_for_ever_is_given_up() -> None:
    """After so many answers; and one that asks for too much at once."""
    sit = Sit()
    sit.person.key.callback(None)
    sit.pump()
    for _ in range(40):
        if sit.near.aborted:
            break
        sit.answer("no", "no")
    assert sit.near.aborted
    sit.close()
