"""From LISTEN to a link that is up: negotiation of rt1, proof of the device key, fallback to legacy.

Each end is an object that takes frames and answers with bytes to send and, once, with an outcome. A
RemoteError means: close. ``LinkDenied`` carries the GOAWAY that is to be sent first; its text never says
which check failed.

Both proofs cover the exchange so far (``_Exchange``): a byte that was changed on the path, be it of a text or
of an offer, lets no proof pass.

Source: wire/link-extension.md "Negotiation"; wire/readyagent.md section 5.2; faults.md F11 to F14.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.first_bytes import Listens, explained, recognise
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.networks import NetworkTable, address_of
from revtunnel.ground.reasons import GoAway
from revtunnel.link.hellos import (
    NONCE_SIZE,
    PROOF_ENTRY,
    AgentHello,
    ServerHello,
    decode_agent_hello,
    decode_server_hello,
    encode_agent_hello,
    encode_server_hello,
)
from revtunnel.link.keys import DUMMY, Verifier, check_device, prove_device, prove_server, verifier_of
from revtunnel.streams.commands import VERSION, Command, Feature, decode_goaway, named
from revtunnel.streams.frames import HEADER_SIZE, Frame, encode_frame, encode_header

__all__ = [
    "AgentHandshake",
    "AgentHello",
    "AgentUp",
    "Dismissed",
    "LinkDenied",
    "ListenerRules",
    "ServerHandshake",
    "ServerHello",
    "ServerUp",
    "decode_agent_hello",
    "decode_server_hello",
    "encode_agent_hello",
    "encode_server_hello",
]

PROBE = encode_frame(Command.HELLO, VERSION)
MAX_HELLO = 20_000  # bytes: 64 offers of 257 and the rest
ODD_LISTEN = 255  # bytes of payload that are skipped behind a LISTEN
LISTEN = encode_frame(Command.LISTEN, 0)
FILLER = b"rt1\n"  # of a LISTEN of eight bytes, for servers that read as many before they judge
FROM_DEVICE = frozenset((Command.CLOSE, Command.DATA))  # instead of HELLO: a legacy device
FROM_SERVER = frozenset(
    (Command.CONNECT, Command.CLOSE, Command.DATA)
)  # instead of the probe: a legacy server
NEEDS_LEGACY = "; a ReadyAgent server needs --legacy and no key"


FIRST_OF_SERVER = FROM_SERVER | {Command.HELLO, Command.CHALLENGE, Command.GOAWAY}


class LinkDenied(RemoteError):
    """The link is refused; ``reason`` and ``told`` go to the agent, ``word`` and the text to our own log."""

    def __init__(
        self, reason: GoAway, detail: str, serial: str = "", told: str = "", word: str = "", place: str = ""
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.place = place  # where the agent may go instead
        self.word = word or reason.word
        self.serial = serial
        self.told = told


_CURES = {  # for what a server gives no words of its own
    GoAway.DENIED: "its log says why",
    GoAway.DUPLICATE: "another agent has this serial; see duplicate in [listener NAME]",
}


class Dismissed(RemoteError):
    """The server sent GOAWAY instead of HELLO."""

    def __init__(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        words = detail or _CURES.get(reason, "")
        super().__init__(f"the server says {reason.word}" + (f": {words}" if words else ""))
        self.reason = reason
        self.retry_after = retry_after
        self.place = place


@dataclass(frozen=True, slots=True)
class ListenerRules:
    """What one listener for agents asks of them."""

    name: str
    legacy: bool = False  # unmodified ReadyAgent devices are served
    probe: bool = True  # rt1 is offered (always, where legacy is off)
    keys_required: bool = False  # every serial must prove a key; else only those that were enrolled
    legacy_serial: str = ""  # of its one device
    sources: NetworkTable[str] = field(default_factory=NetworkTable)  # or serials by address


class ServerUp(NamedTuple):
    """The agent passed; ``hello`` is None for a legacy device."""

    serial: str
    hello: AgentHello | None
    authenticated: bool


class AgentUp(NamedTuple):
    """The server passed; ``hello`` is None for a legacy server, whose first frame is then ``first``."""

    hello: ServerHello | None
    first: Frame | None


def _check_version(frame: Frame) -> None:
    if frame.channel != VERSION:
        raise RemoteError(f"HELLO of version {frame.channel}, {VERSION} wanted")


class _Exchange:
    """SHA-256 of LISTEN, probe, HELLO, CHALLENGE; for the server's proof also of PROOF and its HELLO."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def say(self, frame: bytes) -> bytes:
        """Add a frame that is sent, and return it."""
        self._hash.update(frame)
        return frame

    def hear(self, frame: Frame) -> None:
        """Add a frame that came."""
        self._hash.update(encode_frame(*frame))

    def digest(self, entries: bytes = b"") -> bytes:
        """The binding of a proof; ``entries`` are the server's HELLO without its proof."""
        final = self._hash.copy()
        final.update(entries)
        return final.digest()


class _Awaits(Enum):
    LISTEN = auto()
    HELLO = auto()
    PROOF = auto()
    NOTHING = auto()


class ServerHandshake:
    """The server's side of one connection. ``key_of`` knows the enrolled serials; ``nonce`` is fresh."""

    def __init__(
        self,
        rules: ListenerRules,
        limits: LinkLimits,
        key_of: Callable[[str], Verifier | None],
        nonce: bytes,
    ) -> None:
        self._rules = rules
        self._limits = limits
        self._key_of = key_of
        self._nonce = nonce
        self._waiting = _Awaits.LISTEN
        self._hello: AgentHello | None = None
        self._verifier: Verifier | None = None
        self._exchange = _Exchange()
        self._listens = 0
        self.source = ""  # the address that it comes from
        self.certified: str | None = None  # the serial in the certificate that TLS has checked
        self.oddities: list[str] = []  # what was tolerated, for the owner to report

    @property
    def serial(self) -> str:
        """What the agent calls itself so far; not proved."""
        return self._hello.serial if self._hello else ""

    def judge(self, size: int, command: int, channel: int) -> None:
        """Refuse a frame by its header: nothing large is taken from a stranger."""
        if self._waiting is _Awaits.LISTEN and command != Command.LISTEN:
            first = encode_header(size, command, channel)
            raise RemoteError(explained("the first frame is not LISTEN", first, Listens.LINK))
        most = {_Awaits.HELLO: MAX_HELLO, _Awaits.PROOF: NONCE_SIZE}.get(self._waiting, 0)
        if size > (ODD_LISTEN if command == Command.LISTEN else most):
            raise RemoteError(f"the agent said {named(command)} of {size} bytes before the link is up")
        if command == Command.PROOF and (size, channel) != (NONCE_SIZE, 0):
            raise RemoteError(f"PROOF of {size} bytes on channel {channel}, {NONCE_SIZE} on 0 wanted")

    def receive(self, frame: Frame) -> tuple[bytes, ServerUp | None]:
        """Take one frame: what to send, and the outcome if that was the last one.

        Raises:
            Denied: the serial or its key is not accepted.
            RemoteError: the wire's rules were broken.
        """
        if self._waiting is _Awaits.NOTHING:
            raise RemoteError(f"the agent said {named(frame.command)} after the handshake's end")
        if frame.command == Command.LISTEN:
            return self._listen(frame)
        if self._waiting is _Awaits.HELLO:
            return self._take_hello(frame)
        if frame.command == Command.PROOF:
            return b"", self._check(frame)
        raise RemoteError(f"the agent said {named(frame.command)} instead of PROOF")

    def time_is_up(self) -> ServerUp | None:
        """The agent did not answer the probe in time: a legacy device, where those are served."""
        if self._rules.legacy and self._waiting is _Awaits.HELLO:
            return self._legacy()
        return None

    def welcome(self, hello: ServerHello) -> bytes:
        """Our HELLO, with our own proof when the agent had to give one."""
        agent = self._hello
        if agent is not None and self._verifier is not None:
            binding = self._exchange.digest(encode_server_hello(replace(hello, proof=b""))[HEADER_SIZE:])
            proof = prove_server(self._verifier, agent.serial, self._nonce, agent.nonce, binding)
            hello = replace(hello, proof=proof)
        return encode_server_hello(hello)

    def _listen(self, frame: Frame) -> tuple[bytes, ServerUp | None]:
        """Probe; what is odd about a LISTEN is skipped (F13), and a second one too (F12)."""
        if frame.channel or frame.payload not in (b"", FILLER):
            self.oddities.append(f"LISTEN with number {frame.channel} and {len(frame.payload)} bytes")
        self._listens += 1
        if self._listens > 2:
            raise RemoteError("LISTEN for the third time")
        if self._listens == 2:
            self.oddities.append("a second LISTEN")
            return b"", None
        if self._rules.legacy and not self._rules.probe:
            return b"", self._legacy()
        self._waiting = _Awaits.HELLO
        self._exchange.hear(frame)
        return self._exchange.say(PROBE), None

    def _legacy(self) -> ServerUp:
        self._waiting = _Awaits.NOTHING
        serial = self._legacy_serial()
        return ServerUp(serial, None, self._is_certified(serial))

    def _legacy_serial(self) -> str:
        """Which device it is; where there are several its certificate says so, or else its address.

        Raises:
            Denied: nobody knows.
        """
        serial = (
            self._rules.legacy_serial or self.certified or self._rules.sources.at(address_of(self.source))
        )
        if serial is None:
            raise LinkDenied(GoAway.DENIED, f"no device of this listener comes from {self.source}")
        return serial

    def _is_certified(self, serial: str) -> bool:
        """Whether TLS proved this serial; Denied: it proved another one."""
        if self.certified not in (None, serial):
            whose = "the listener is for" if self._hello is None else "HELLO says"
            detail = f"certificate is for device {self.certified}, {whose} {serial}"
            raise LinkDenied(GoAway.DENIED, detail, serial, detail)
        return self.certified is not None

    def _take_hello(self, frame: Frame) -> tuple[bytes, ServerUp | None]:
        if frame.command != Command.HELLO:
            if self._rules.legacy and frame.command in FROM_DEVICE:
                return b"", self._legacy()  # no channel is open: the frame itself means nothing
            raise RemoteError(f"the agent said {named(frame.command)} instead of HELLO")
        _check_version(frame)
        self._hello = hello = decode_agent_hello(frame.payload, self._limits.offers)
        if self._is_certified(hello.serial):
            self._waiting = _Awaits.NOTHING
            return b"", ServerUp(hello.serial, hello, True)
        self._exchange.hear(frame)
        key = self._key_of(hello.serial)
        if key is None and not self._rules.keys_required:
            self._waiting = _Awaits.NOTHING
            return b"", ServerUp(hello.serial, hello, False)
        return self.challenge(key), None

    def challenge(self, key: Verifier | None) -> bytes:
        """Have the agent prove this key, also if it seemed to need none; None: no proof is good."""
        self._verifier, self._waiting = key, _Awaits.PROOF
        return self._exchange.say(encode_frame(Command.CHALLENGE, 0, self._nonce))

    def _check(self, frame: Frame) -> ServerUp:
        hello = self._hello
        assert hello is not None
        self._waiting = _Awaits.NOTHING  # one proof for one nonce
        said = frame.payload, self._nonce, hello.nonce, self._exchange.digest()
        good = check_device(self._verifier or DUMMY, hello.serial, *said)
        self._exchange.hear(frame)
        if not good or self._verifier is None:
            why = "its proof is wrong" if self._verifier else "it is not enrolled"
            raise LinkDenied(GoAway.DENIED, f"serial {hello.serial}: {why}", hello.serial)
        return ServerUp(hello.serial, hello, True)


class AgentHandshake:
    """The agent's side. With a key, a server that does not prove that it knows the device is refused.

    So a key rules out ``legacy``: a ReadyAgent server proves nothing, and anyone on the path can play one.
    ``server_known``: TLS has proved who the server is; it may then do without the key.
    ``filler``: payload of LISTEN.
    """

    def __init__(self, hello: AgentHello, key: bytes | None, legacy: bool, filler: bytes = b"") -> None:
        self.server_known = False
        self.mine = hello
        self._key = key
        self._legacy = legacy and key is None
        self._listen = encode_frame(Command.LISTEN, 0, filler)
        self._exchange = _Exchange()
        self._nonce: bytes | None = None
        self._greeted = False

    def judge(self, size: int, command: int, channel: int) -> None:
        """Refuse a frame by its header."""
        if not self._greeted and (
            command not in FIRST_OF_SERVER
            or (not self._legacy and recognise(encode_header(size, command, channel)) is not None)
        ):
            raise RemoteError("the server does not speak rt1")
        if size > MAX_HELLO and not (self._legacy and command == Command.DATA):
            raise RemoteError(f"the server said {named(command)} of {size} bytes before the link is up")
        if command == Command.CHALLENGE and (size, channel) != (NONCE_SIZE, 0):
            raise RemoteError(f"CHALLENGE of {size} bytes on channel {channel}, {NONCE_SIZE} on 0 wanted")

    def leave_out(self, feature: Feature) -> None:
        """Do not claim to have it."""
        self.mine = replace(self.mine, features=self.mine.features & ~feature)

    def start(self) -> bytes:
        """LISTEN, always first; unchanged without a filler, for the sake of legacy servers."""
        return self._exchange.say(self._listen)

    def receive(self, frame: Frame) -> tuple[bytes, AgentUp | None]:
        """Take one frame: what to send, and the outcome if that was the last one.

        Raises:
            Dismissed: the server said GOAWAY.
            RemoteError: the wire's rules were broken, or the server did not prove itself.
        """
        if frame.command == Command.HELLO:
            return self._hello(frame)
        if frame.command == Command.CHALLENGE:
            return self._challenge(frame), None
        if frame.command == Command.GOAWAY:
            raise Dismissed(*decode_goaway(frame.payload))
        if self._legacy and not self._greeted and frame.command in FROM_SERVER:
            return b"", AgentUp(None, frame)
        why = "" if self._legacy else NEEDS_LEGACY
        raise RemoteError(f"the server said {named(frame.command)} instead of HELLO{why}")

    def time_is_up(self) -> AgentUp | None:
        """Nothing came: a ReadyAgent server that has no client yet, where those are accepted."""
        return AgentUp(None, None) if self._legacy and not self._greeted else None

    def unanswered(self, seconds: float) -> str:
        """What the server did not do in time."""
        if self._greeted:
            return f"the server did not end its handshake in {seconds:g} s"
        return f"the server did not answer LISTEN in {seconds:g} s{NEEDS_LEGACY}"

    def _hello(self, frame: Frame) -> tuple[bytes, AgentUp | None]:
        if not self._greeted:
            if frame.payload or not frame.channel:
                raise RemoteError(
                    f"HELLO of {len(frame.payload)} bytes, version {frame.channel}, for a probe"
                )
            self._greeted = True
            self._exchange.hear(frame)
            return self._exchange.say(encode_agent_hello(self.mine)), None
        _check_version(frame)
        if not frame.payload:
            raise RemoteError("a second probe")
        theirs = decode_server_hello(frame.payload)
        if self._key is not None and not (self.server_known and self._nonce is None):
            self._check_server(theirs, frame.payload[:-PROOF_ENTRY])
        return b"", AgentUp(theirs, None)

    def _challenge(self, frame: Frame) -> bytes:
        serial = self.mine.serial
        if not self._greeted or self._nonce is not None:
            raise RemoteError("CHALLENGE out of turn")
        if self._key is None:
            raise RemoteError(f"the server asks for the device key of {serial}, and no key file is set")
        self._nonce = frame.payload
        self._exchange.hear(frame)
        said = self._nonce, self.mine.nonce, self._exchange.digest()
        return self._exchange.say(encode_frame(Command.PROOF, 0, prove_device(self._key, serial, *said)))

    def _check_server(self, theirs: ServerHello, entries: bytes) -> None:
        assert self._key is not None
        serial = self.mine.serial
        if self._nonce is None:
            raise RemoteError(
                f"a key is set for {serial}, and the server did not ask for it: is it enrolled there?"
            )
        said = self._nonce, self.mine.nonce, self._exchange.digest(entries)
        wanted = prove_server(verifier_of(self._key, serial), serial, *said)
        if not hmac.compare_digest(wanted, theirs.proof):
            raise RemoteError(f"the server did not prove that it knows the key of {serial}")
