"""An ssh client that has a person in place of files: a shell at a service, its key and passwords asked for.

Rule of this file: twisted.conch speaks ssh, and is imported with this file and nowhere else (60 ms). What the
other side says wrongly ends the connection with a sentence; so does a server that asks for ever. The key that
the other side proves is given to whoever knows it, before any secret is asked for. Passwords are held until
they are sent, and told to nobody.

Source: RFC 4252, 4253, 4254, 4256; ours.
"""

from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.session import packRequest_pty_req, packRequest_window_change
from twisted.conch.ssh.transport import DISCONNECT_KEY_EXCHANGE_FAILED as KEX_FAILED
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure

from revtunnel.trust.host_keys import kind_of

__all__ = ["SshClient", "SshOwner"]

TRIES = 40  # requests for authentication and lists of questions in all
PROMPTS = 8  # of one keyboard-interactive request
PACKET = 64 * 1024  # bytes; RFC 4253 section 6.1 wants 35,000, and a channel gets 32 KiB
TERMINAL = b"xterm-256color"
_ALGORITHMS = {"ssh-rsa": [b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa"]}  # that a key of a type signs with
_mute = Logger(observer=LogPublisher())  # what conch tells of each packet goes to nobody


class SshOwner(Typing):
    """Who has the person."""

    def host_key(self, blob: bytes) -> "Deferred[None]":
        """Fires if this may be the other side's key; errback: it may not, or nobody says yes."""

    def secured(self) -> None:
        """The other side has proved that key."""

    def ask(self, prompt: str, echo: bool) -> "Deferred[str]":
        """What the person answers."""

    def show(self, data: bytes) -> None:
        """For the screen."""

    def opened(self) -> None:
        """There is a shell."""

    def took(self) -> None:
        """What was typed is all under way; more may come."""

    def ended(self, why: str, in_order: bool) -> None:
        """It is over; called once."""


class SshClient(SSHClientTransport):
    """One connection. ``known``: the key that the service has; b"": none is known."""

    _log = _mute
    supportedCompressions = [b"none"]
    # not in a group that the service names: looking whether 4096 bits are a prime takes 10 s, and all wait
    supportedKeyExchanges = [
        each for each in SSHClientTransport.supportedKeyExchanges if b"-exchange-" not in each
    ]

    def __init__(self, owner: SshOwner, user: str, known: bytes, size: tuple[int, int]) -> None:
        """``size``: columns and rows."""
        self._kind = kind_of(known)
        if known:
            self.supportedPublicKeys = _ALGORITHMS.get(self._kind, [self._kind.encode()])
        self.transport: Any = None
        self.owner = owner
        self.size = size
        self.tries = TRIES
        self._user = user
        self._over = False
        self._proved = b""
        self._secure = False
        self._judging = False  # a person is asked about the key
        self._paused = False  # by its owner
        self._full = False  # the service does not take what we say
        self._shell: _Shell | None = None

    # -- what its owner calls

    def type(self, data: bytes) -> bool:
        """Send what was typed; False: no more before ``took``."""
        if self._shell is not None:
            self._shell.write(data)
        return self._takes

    def resize(self, columns: int, rows: int) -> bool:
        """The screen is of another size; False as with ``type``."""
        self.size = columns, rows
        if self._shell is not None:
            self._shell.resize()
        return self._takes

    def pause(self) -> None:
        """Read no more of the service."""
        self._paused = True
        self._read_or_wait()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self._read_or_wait()

    def leave(self) -> None:
        """Nobody wants it any more."""
        self._end("", False)

    def end(self, why: str, in_order: bool = False) -> None:
        """It is over, for this reason."""
        self._end(why, in_order)

    # -- as the producer of its transport: to a service that reads nothing, nothing is answered

    def pauseProducing(self) -> None:
        """Twisted calls this: what was said waits."""
        self._full = True
        self._read_or_wait()

    def resumeProducing(self) -> None:
        """Twisted calls this: it was taken."""
        self._full = False
        self._read_or_wait()
        self.took()

    def stopProducing(self) -> None:
        """Twisted calls this; ``connectionLost`` says it."""

    # -- as conch's transport

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this. The library raises anything where the other side breaks the rules."""
        try:
            super().dataReceived(data)
        except Exception as error:
            self._end(f"what the service says is no ssh: {type(error).__name__}", False)

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> "Deferred[None]":
        """conch asks; at each exchange of keys anew."""
        if self._proved:
            return succeed(None) if hostKey == self._proved else fail(ValueError("another key"))
        self._proved = hostKey
        asked = self.owner.host_key(hostKey)
        if asked.called:
            return asked
        answer: Deferred[None] = Deferred()
        self._judging = True
        self._read_or_wait()

        def judged(result: Any) -> None:
            (answer.errback if isinstance(result, Failure) else answer.callback)(result)
            self._judging = False
            self._read_or_wait()
            if not self._over:
                self.dataReceived(b"")

        asked.addBoth(judged)
        return answer

    def getPacket(self) -> bytes | None:
        """conch takes the next one; none while a person thinks, for those behind are under the new keys."""
        packet = None if self._judging or self._over else super().getPacket()
        if packet is not None and len(packet) > PACKET:
            self._end("the service says too much at once", False)
            return None
        return packet

    def connectionSecure(self) -> None:
        """conch calls this, at each exchange of keys anew: the key is right."""
        if not self._secure:
            self._secure = True
            self.owner.secured()
            self.requestService(_Login(self._user.encode(), _Connection(self)))

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """conch has found a fault."""
        super().sendDisconnect(reason, desc)
        kind = f"; the key that is known is {self._kind}" if reason == KEX_FAILED and self._kind else ""
        self._end(_plain(desc) + kind, False)

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """The other side has."""
        self._end(f"the service says: {_plain(description)}", False)

    def receiveDebug(self, alwaysDisplay: bool, message: bytes, lang: bytes) -> None:
        """Nothing."""

    def receiveUnimplemented(self, seqnum: int) -> None:
        """Nothing."""

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        lost = "the connection was lost"
        self._end(lost if self.gotVersion else "the service is not there, or speaks no ssh", False)
        super().connectionLost(reason)

    # -- inside

    def began(self, shell: "_Shell") -> None:
        """There is a shell."""
        self._shell = shell
        self.owner.opened()

    def took(self) -> None:
        """What was typed is under way, perhaps all."""
        if self._takes:
            self.owner.took()

    @property
    def _takes(self) -> bool:
        return not (self._full or (self._shell is not None and self._shell.buf))

    def _read_or_wait(self) -> None:
        """Not while a person thinks about the key, for one."""
        if self._over:
            return
        if self._paused or self._judging or self._full:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def _end(self, why: str, in_order: bool) -> None:
        if self._over:
            return
        self._over = True
        if self.transport is not None:
            self.transport.abortConnection()
        self.owner.ended(why, in_order)


class _Login(SSHUserAuthClient):
    _log = _mute
    transport: Any
    preferredOrder = [b"keyboard-interactive", b"password"]

    def askForAuth(self, kind: bytes, extraData: bytes) -> None:
        """conch asks the server; not for ever."""
        if self._may_ask():
            super().askForAuth(kind, extraData)

    def _may_ask(self) -> bool:
        client: SshClient = self.transport
        client.tries -= 1
        if client.tries < 0:
            client.end("the service asks too often")
        return client.tries >= 0

    _unasked = False  # the last try by keyboard-interactive put no question

    def auth_keyboard_interactive(self) -> Any:
        """As conch does; not again where the server only pretends to ask."""
        if self._unasked:
            return False
        self._unasked = True
        return super().auth_keyboard_interactive()

    def auth_publickey(self) -> Any:
        """Keys of a person are not here."""
        return False

    def getPassword(self, prompt: bytes | None = None) -> "Deferred[bytes]":
        text = "Password: " if prompt is None else _plain(prompt)
        answer: Deferred[bytes] = self.transport.owner.ask(text, False).addCallback(str.encode)
        return answer

    def getGenericAnswers(
        self, name: bytes, instruction: bytes, prompts: list[tuple[bytes, bool]]
    ) -> "Deferred[list[str]]":
        self._unasked = not prompts
        for text in filter(None, (name, instruction)):
            self.transport.owner.show(_lines(text))
        if not self._may_ask():
            return Deferred()

        async def answers() -> list[str]:
            return [await self.transport.owner.ask(_plain(text), echo) for text, echo in prompts]

        return Deferred.fromCoroutine(answers())

    def ssh_USERAUTH_PK_OK_keyboard_interactive(self, packet: bytes) -> None:
        """Questions: conch reads them all before it asks, in a time that grows with their square."""
        if int.from_bytes(getNS(packet, 3)[3][:4], "big") > PROMPTS:
            self.transport.end("the service asks too much")
        else:
            super().ssh_USERAUTH_PK_OK_keyboard_interactive(packet)

    def ssh_USERAUTH_BANNER(self, packet: bytes) -> None:
        """What the other side wants to be read first."""
        self.transport.owner.show(_lines(getNS(packet)[0]))


class _Connection(SSHConnection):
    _log = _mute

    def __init__(self, client: SshClient) -> None:
        super().__init__()
        self._client = client

    def serviceStarted(self) -> None:
        """conch calls this: the person is let in."""
        super().serviceStarted()
        self.openChannel(_Shell(self._client, conn=self))

    def ssh_CHANNEL_OPEN(self, packet: bytes) -> None:
        """The other side wants a channel: nothing here is for it."""
        self._client.end("the service wants to come back through the terminal")


class _Shell(SSHChannel):
    _log = _mute
    conn: Any
    name = b"session"

    def __init__(self, client: SshClient, **about: Any) -> None:
        super().__init__(**about)
        self._client = client
        self._why = "the shell is over"
        self._in_order = False

    def channelOpen(self, specificData: bytes) -> None:
        columns, rows = self._client.size
        about = packRequest_pty_req(TERMINAL, (rows, columns, 0, 0), b"")
        self._ask(b"pty-req", about, "a terminal", lambda: self._ask(b"shell", b"", "a shell", self._began))

    def _ask(self, kind: bytes, data: bytes, what: str, then: Callable[[], None]) -> None:
        asked: Deferred[Any] = self.conn.sendRequest(self, kind, data, wantReply=True)
        asked.addCallbacks(lambda _: then(), lambda _: self._client.end(f"the service gives no {what}"))

    def _began(self) -> None:
        self._client.began(self)

    def resize(self) -> None:
        """Tell the other side."""
        columns, rows = self._client.size
        if not self.localClosed:
            self.conn.sendRequest(self, b"window-change", packRequest_window_change((rows, columns, 0, 0)))

    def openFailed(self, reason: Any) -> None:
        self._client.end("the service opens no session")

    def dataReceived(self, data: bytes) -> None:
        self._client.owner.show(data)

    def extReceived(self, dataType: int, data: bytes) -> None:
        """conch calls this: what goes to the standard error."""
        self._client.owner.show(data)

    def addWindowBytes(self, data: int) -> None:
        """conch calls this: the other side takes more."""
        super().addWindowBytes(data)
        self._client.took()

    def request_exit_status(self, data: bytes) -> bool:
        """The shell has ended by itself."""
        self._why, self._in_order = f"exit status {int.from_bytes(data[:4], 'big')}", True
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        """It was ended."""
        self._why, self._in_order = f"ended by signal {_plain(getNS(data)[0])[:20]}", True
        return True

    def closed(self) -> None:
        self._client.end(self._why, self._in_order)


def _plain(text: bytes) -> str:
    """One line that moves nothing on the screen."""
    said = text[:1600].decode("utf-8", "replace")[:400]
    return "".join(each if each.isprintable() else " " for each in said)


def _lines(text: bytes) -> bytes:
    """Several of them."""
    return b"".join(f"{_plain(line)}\r\n".encode() for line in text.rstrip().split(b"\n", 100)[:100])
