"""Negotiation: both real ends joined through decoders with their judges, and every way it can go wrong."""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import AgentLimits, LinkLimits, ServerLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import parse_offer
from revtunnel.link.handshake import (
    FILLER,
    MAX_HELLO,
    AgentHandshake,
    AgentHello,
    AgentUp,
    Dismissed,
    LinkDenied,
    ListenerRules,
    ServerHandshake,
    ServerHello,
    ServerUp,
    decode_agent_hello,
    decode_server_hello,
    encode_agent_hello,
    encode_server_hello,
)
from revtunnel.link.keys import Verifier, prove_device, verifier_of
from revtunnel.link.legacy import LegacyServerMux
from revtunnel.link.mux import Happening, Opened, Over
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams import commands
from revtunnel.streams.commands import COMMANDS, Command, Feature, Tlv, encode_goaway, encode_tlvs
from revtunnel.streams.frames import Frame, FrameDecoder, encode_frame, encode_header
from revtunnel.streams.window import CreditPool
from tests.support.depth import deep

LIMITS = LinkLimits()
SERIAL = "plc-7"
KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
SERVER_NONCE = bytes([0xA5]) * 32
AGENT_NONCE = bytes([0x5A]) * 32
OFFERS = (parse_offer("10.41.51.152:23"), parse_offer("http=127.0.0.1:5000"))
AGENT = AgentHello(SERIAL, AGENT_NONCE, OFFERS, "demo 1")
SERVER = ServerHello("tunnel", "demo 1", keepalive=25.0, spread=10.0)

# by hand, from wire/link-extension.md "Negotiation" and the TLV table of docs/link-protocol.rst
LISTEN = bytes.fromhex("00000400")
PROBE = bytes.fromhex("00001001")
AGENT_HELLO = bytes.fromhex(
    "006a1001"
    "0105706c632d37"  # serial: plc-7
    f"0220{'5a' * 32}"  # nonce
    "040664656d6f2031"  # software: demo 1
    "060400010000"  # first window: 65536
    "07040000ffff"  # largest DATA: 65535
    "03167463702d32333d31302e34312e35312e3135323a3233"  # offer: tcp-23=10.41.51.152:23
    "0313687474703d3132372e302e302e313a35303030"  # offer: http=127.0.0.1:5000
)
CHALLENGE = bytes.fromhex(f"00201100{'a5' * 32}")
SERVER_ENTRIES = bytes.fromhex(
    "0a0674756e6e656c"  # name: tunnel
    "040664656d6f2031"  # software: demo 1
    "060400010000"  # first window: 65536
    "07040000ffff"  # largest DATA: 65535
    "08020019"  # keepalive: 25 s
    "09020064"  # spread: 100 tenths of a second
)
SERVER_HELLO = bytes.fromhex("00241001") + SERVER_ENTRIES
# from the formulae of link/keys.py and the exchange's hash, with other functions than the module's
CLIENT_KEY = hmac.digest(KEY, b"rt1 deviceplc-7", "sha256")
STORED_KEY = hashlib.sha256(CLIENT_KEY).digest()
SERVER_KEY = hmac.digest(KEY, b"rt1 serverplc-7", "sha256")
SAID = b"\0plc-7\0" + SERVER_NONCE + AGENT_NONCE
BINDING = hashlib.sha256(LISTEN + PROBE + AGENT_HELLO + CHALLENGE).digest()
MASK = hmac.digest(STORED_KEY, b"rt1 agent" + SAID + BINDING, "sha256")
PROOF = bytes.fromhex("00201200") + bytes(a ^ b for a, b in zip(CLIENT_KEY, MASK, strict=True))
SERVER_BINDING = hashlib.sha256(LISTEN + PROBE + AGENT_HELLO + CHALLENGE + PROOF + SERVER_ENTRIES).digest()
SERVER_PROOF = hmac.digest(SERVER_KEY, b"rt1 server" + SAID + SERVER_BINDING, "sha256")
PROVED_HELLO = bytes.fromhex("00461001") + SERVER_ENTRIES + bytes.fromhex("0b20") + SERVER_PROOF
DENIED = bytes.fromhex("00031900020000")

RT1 = ListenerRules("agents")
KEYED = ListenerRules("agents", keys_required=True)
LEGACY = ListenerRules("old", legacy=True, legacy_serial="old-1")
SILENT = ListenerRules("old", legacy=True, probe=False, legacy_serial="old-1")


class End:
    """One end behind its decoder, as a link has it: what it said, how it ended."""

    def __init__(self, shake: ServerHandshake | AgentHandshake) -> None:
        self.shake = shake
        self.said = b""
        self.up: ServerUp | AgentUp | None = None
        self.error: RemoteError | None = None
        self._decoder = FrameDecoder(shake.judge)

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._decoder.held

    @property
    def done(self) -> bool:
        """Whether the handshake is over at this end, well or badly."""
        return self.up is not None or self.error is not None

    def feed(self, data: bytes) -> bytes:
        """Give bytes as the transport would; what this end writes."""
        answer = b""
        self._decoder.receive(b"" if self.done else data)
        try:
            for frame in self._decoder.frames():
                said, self.up = self.shake.receive(frame)
                answer += said
                if self.up is not None:
                    answer += self._welcome()
                    break
        except RemoteError as error:
            self.error = error
            if isinstance(error, LinkDenied):
                answer += encode_frame(Command.GOAWAY, 0, encode_goaway(error.reason))
        self.said += answer
        return answer

    def _welcome(self) -> bytes:
        if isinstance(self.shake, ServerHandshake) and self.up is not None and self.up.hello is not None:
            return self.shake.welcome(SERVER)
        return b""


def server(
    rules: ListenerRules = RT1, keys: dict[str, bytes] | None = None, nonce: bytes = SERVER_NONCE
) -> End:
    """A server with these enrolled keys."""
    known = {serial: verifier_of(key, serial) for serial, key in (keys or {}).items()}
    return End(ServerHandshake(rules, LIMITS, known.get, nonce))


def agent(key: bytes | None = None, legacy: bool = False, hello: AgentHello = AGENT) -> End:
    """An agent."""
    return End(AgentHandshake(hello, key, legacy))


def start(end: End) -> bytes:
    """What an agent writes first."""
    assert isinstance(end.shake, AgentHandshake)
    end.said = end.shake.start()
    return end.said


Wire = Callable[[bool, bytes], bytes]  # (to the server, bytes) -> bytes


def converse(at_server: End, at_agent: End, size: int = 1 << 20, wire: Wire = lambda _, data: data) -> None:
    """Carry bytes both ways, ``size`` at a time, through ``wire``, until nobody says more."""
    data, to_server = start(at_agent), True
    while data:
        end = at_server if to_server else at_agent
        data = wire(to_server, data)
        data = b"".join(end.feed(data[at : at + size]) for at in range(0, len(data), size))
        to_server = not to_server


# -- what passes


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_without_keys_byte_for_byte(size: int) -> None:
    """The whole exchange of an agent without a key, cut anywhere, is what the page says."""
    at_server, at_agent = server(), agent()
    converse(at_server, at_agent, size)

    assert at_agent.said == LISTEN + AGENT_HELLO
    assert at_server.said == PROBE + SERVER_HELLO
    assert at_server.up == ServerUp(SERIAL, AGENT, False)
    assert at_agent.up == AgentUp(SERVER, None)
    assert at_server.held == at_agent.held == 0


@pytest.mark.parametrize("rules", [RT1, KEYED, LEGACY])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_with_a_key_both_ends_prove_themselves(rules: ListenerRules, size: int) -> None:
    """An enrolled serial is asked on every kind of listener, and passes as authenticated."""
    at_server, at_agent = server(rules, {SERIAL: KEY}), agent(KEY)
    converse(at_server, at_agent, size)

    assert at_agent.said == LISTEN + AGENT_HELLO + PROOF
    assert at_server.said == PROBE + CHALLENGE + PROVED_HELLO
    assert at_server.up == ServerUp(SERIAL, AGENT, True)
    assert at_agent.up == AgentUp(replace(SERVER, proof=SERVER_PROOF), None)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_listen_of_eight_bytes_is_nothing_odd_and_is_proved_too(size: int) -> None:
    """For servers that read eight bytes before they judge (wire/emo.md section 1)."""
    at_server, at_agent = server(KEYED, {SERIAL: KEY}), End(AgentHandshake(AGENT, KEY, False, FILLER))
    converse(at_server, at_agent, size)

    assert at_agent.said.startswith(b"\0\x04\x04\0rt1\n" + AGENT_HELLO)
    assert at_server.up == ServerUp(SERIAL, AGENT, True) and at_agent.up is not None
    assert isinstance(at_server.shake, ServerHandshake) and at_server.shake.oddities == []


def test_the_server_knows_the_serial_before_it_is_proved() -> None:
    """For the log of a failed handshake: empty before HELLO, then what the agent says of itself."""
    at_server = server(KEYED, {SERIAL: KEY})
    assert isinstance(at_server.shake, ServerHandshake)
    at_server.feed(LISTEN)
    assert at_server.shake.serial == ""
    at_server.feed(AGENT_HELLO)
    assert at_server.shake.serial == SERIAL and at_server.up is None


# -- certificates


def certified(serial: str, rules: ListenerRules = RT1, keys: dict[str, bytes] | None = None) -> End:
    """A server whose TLS has proved a device's serial."""
    end = server(rules, keys)
    assert isinstance(end.shake, ServerHandshake)
    end.shake.certified = serial
    return end


@pytest.mark.parametrize("keys", [{}, {SERIAL: KEY}], ids=["not enrolled", "enrolled"])
@pytest.mark.parametrize("rules", [RT1, KEYED, LEGACY])
def test_a_certificate_needs_no_challenge(rules: ListenerRules, keys: dict[str, bytes]) -> None:
    """The serial of the certificate is proved, also where keys are required and the serial has one."""
    at_server, at_agent = certified(SERIAL, rules, keys), agent()
    converse(at_server, at_agent)

    assert at_server.said == PROBE + SERVER_HELLO
    assert at_server.up == ServerUp(SERIAL, AGENT, True)
    assert at_agent.up == AgentUp(SERVER, None)


@pytest.mark.parametrize("other", ["plc-8", "plc-77", "PLC-7"])
def test_n34_a_certificate_of_another_device(other: str) -> None:
    """HELLO has to say the certificate's serial, byte for byte; both sides hear which one it is for."""
    at_server, at_agent = certified(other), agent()
    error = denied(at_server, at_agent)

    assert str(error) == error.told == f"certificate is for device {other}, HELLO says {SERIAL}"


def test_n34_a_legacy_device_with_another_certificate() -> None:
    """A legacy listener serves one serial; a certificate for another one does not get it."""
    right = certified("old-1", SILENT)
    assert right.feed(LISTEN) == b"" and right.up == ServerUp("old-1", None, True)
    wrong = certified("old-2", SILENT)
    wrong.feed(LISTEN)
    assert str(wrong.error) == "certificate is for device old-2, the listener is for old-1"


def behind_tls() -> End:
    """An agent with a key whose TLS has proved who the server is."""
    end = agent(KEY)
    assert isinstance(end.shake, AgentHandshake)
    end.shake.server_known = True
    return end


def test_a_known_server_may_do_without_the_key() -> None:
    """An agent with key and certificate: TLS has proved the server; a proof that comes is still checked."""
    at_server, at_agent = server(), behind_tls()
    converse(at_server, at_agent)
    assert at_agent.up == AgentUp(SERVER, None)

    asking, at_agent = server(KEYED, {SERIAL: KEY}), behind_tls()
    converse(asking, at_agent)
    assert at_agent.up == AgentUp(replace(SERVER, proof=SERVER_PROOF), None)

    false, at_agent = server(), behind_tls()
    start(at_agent)
    at_agent.feed(PROBE + CHALLENGE + false.shake.welcome(SERVER))  # type: ignore[union-attr]
    assert "did not prove" in str(at_agent.error)


# -- keys that do not fit


def denied(at_server: End, at_agent: End) -> LinkDenied:
    """The server refused this agent; its own log line."""
    converse(at_server, at_agent)
    assert at_server.up is None and isinstance(at_server.error, LinkDenied)
    assert at_agent.up is None and isinstance(at_agent.error, Dismissed)
    assert at_agent.error.reason is GoAway.DENIED
    return at_server.error


def test_r11_a_wrong_key_and_an_unknown_serial_get_the_same_bytes() -> None:
    """Nobody learns from the wire which serials are enrolled; only our own log says which it was."""
    wrong, unknown = server(KEYED, {SERIAL: OTHER_KEY}), server(KEYED)
    wrong_error, unknown_error = denied(wrong, agent(KEY)), denied(unknown, agent(KEY))

    assert wrong.said == unknown.said == PROBE + CHALLENGE + DENIED
    assert wrong_error.reason is unknown_error.reason is GoAway.DENIED
    assert wrong_error.serial == unknown_error.serial == SERIAL
    assert "proof is wrong" in str(wrong_error) and "not enrolled" in str(unknown_error)


def test_r11_the_key_of_another_serial_opens_nothing() -> None:
    """A device that knows its own key cannot take the name of another."""
    denied(server(KEYED, {"plc-8": KEY, SERIAL: OTHER_KEY}), agent(KEY))


def test_an_enrolled_serial_is_asked_where_keys_are_not_required() -> None:
    """An open listener does not let a key holder's name be taken by a word."""
    at_server, at_agent = server(RT1, {SERIAL: KEY}), agent(None)
    converse(at_server, at_agent)
    assert not at_server.done  # waits for a proof; its owner's deadline ends it
    assert at_agent.error is not None and "no key file is set" in str(at_agent.error)


def test_a_key_is_set_and_the_server_does_not_ask() -> None:
    """An agent with a key does not talk to a server that wants no proof: it may be anybody."""
    at_server, at_agent = server(RT1), agent(KEY)
    converse(at_server, at_agent)
    assert at_agent.up is None and "did not ask for it" in str(at_agent.error)


@pytest.mark.parametrize("proof", [b"", bytes(32), bytes(31)])
def test_a_server_that_does_not_know_the_key_is_refused(proof: bytes) -> None:
    """A false server can ask for a proof and take any answer; its own proof is what it cannot make."""
    at_agent = agent(KEY)
    start(at_agent)
    at_agent.feed(PROBE + CHALLENGE)
    entries = SERVER_ENTRIES + (encode_tlvs([(11, proof)]) if proof else b"")
    at_agent.feed(encode_frame(Command.HELLO, 1, entries))
    assert at_agent.up is None and "did not prove" in str(at_agent.error)


def test_a_server_cannot_answer_with_the_agent_s_own_proof() -> None:
    """Reflection: what the agent said is no proof of the server."""
    at_agent = agent(KEY)
    start(at_agent)
    proof = at_agent.feed(PROBE + CHALLENGE)[-32:]
    at_agent.feed(encode_frame(Command.HELLO, 1, SERVER_ENTRIES + encode_tlvs([(11, proof)])))
    assert at_agent.up is None and "did not prove" in str(at_agent.error)


def recorded() -> tuple[End, End]:
    """A good exchange with a key, as a listener on the path has it."""
    at_server, at_agent = server(KEYED, {SERIAL: KEY}), agent(KEY)
    converse(at_server, at_agent)
    return at_server, at_agent


@given(nonce=st.binary(min_size=32, max_size=32))
@example(nonce=AGENT_NONCE)
@settings(max_examples=deep(30))
def test_a_recorded_agent_never_passes_again(nonce: bytes) -> None:
    """Replay to the server: the same bytes, another nonce of the server, no entry."""
    _, old_agent = recorded()
    at_server = server(KEYED, {SERIAL: KEY}, nonce)
    at_server.feed(old_agent.said)
    assert at_server.up is None
    assert isinstance(at_server.error, LinkDenied) == (nonce != SERVER_NONCE)


def test_a_recorded_server_never_passes_again() -> None:
    """Replay to the agent: the same bytes, another nonce of the agent, no trust."""
    old_server, _ = recorded()
    at_agent = agent(KEY, hello=replace(AGENT, nonce=bytes(32)))
    start(at_agent)
    at_agent.feed(old_server.said)
    assert at_agent.up is None and "did not prove" in str(at_agent.error)


def test_one_nonce_is_good_for_one_proof() -> None:
    """After a wrong proof no second one is taken, be it the right one, also for all that was said by then."""
    at_server = server(KEYED, {SERIAL: KEY})
    at_server.feed(LISTEN + AGENT_HELLO)
    wrong = encode_frame(Command.PROOF, 0, bytes(32))
    said = hashlib.sha256(LISTEN + PROBE + AGENT_HELLO + CHALLENGE + wrong).digest()
    with pytest.raises(LinkDenied, match="its proof is wrong"):
        at_server.shake.receive(Frame(Command.PROOF, 0, bytes(32)))
    for proof in (PROOF[4:], prove_device(KEY, SERIAL, SERVER_NONCE, AGENT_NONCE, said)):
        with pytest.raises(RemoteError, match="after the handshake's end"):
            at_server.shake.receive(Frame(Command.PROOF, 0, proof))


class Tampering:
    """A path that changes one byte of one direction, or leaves it out, or puts one before it."""

    def __init__(self, to_server: bool, at: int, change: Callable[[bytes], bytes]) -> None:
        self.to_server = to_server
        self.at = at
        self._left = at
        self._change = change

    def __call__(self, to_server: bool, data: bytes) -> bytes:
        if to_server != self.to_server:
            return data
        at, self._left = self._left, self._left - len(data)
        if not 0 <= at < len(data):
            return data
        return data[:at] + self._change(data[at : at + 1]) + data[at + 1 :]


def nobody_is_fooled(tampering: Tampering) -> None:
    """The agent does not come up; the server only when nothing but its own last HELLO was changed."""
    at_server, at_agent = server(KEYED, {SERIAL: KEY}), agent(KEY)
    converse(at_server, at_agent, wire=tampering)
    assert at_agent.up is None
    in_last_hello = not tampering.to_server and tampering.at >= len(PROBE + CHALLENGE)
    assert (at_server.up is not None) == in_last_hello


TO_SERVER = len(LISTEN + AGENT_HELLO + PROOF)
TO_AGENT = len(PROBE + CHALLENGE + PROVED_HELLO)
PLACES = [(True, at) for at in range(TO_SERVER)] + [(False, at) for at in range(TO_AGENT)]


@pytest.mark.parametrize("bits", [0x01, 0x10, 0x80, 0xFF])
def test_no_changed_byte_passes(bits: int) -> None:
    """Each byte of the exchange in turn: header, serial, nonce, offer, text, number, proof."""
    for to_server, at in PLACES:
        nobody_is_fooled(Tampering(to_server, at, lambda byte: bytes([byte[0] ^ bits])))


HOW: dict[str, Callable[[bytes, bytes], bytes]] = {
    "replaced": lambda new, byte: new,
    "left out": lambda new, byte: b"",
    "put before": lambda new, byte: new + byte,
}


def mutation(place: tuple[bool, int], value: int, how: str) -> None:
    """One byte other than it was; an equal one there, or before it, changes nothing that is proved."""
    new = bytes([value])
    nobody_is_fooled(Tampering(*place, lambda byte: HOW[how](new, byte) if new != byte else b""))


@given(st.sampled_from(PLACES), st.integers(0, 255), st.sampled_from(sorted(HOW)))
@settings(max_examples=deep(300))
def test_no_mutation_passes(place: tuple[bool, int], value: int, how: str) -> None:
    """Any value in the place of any byte, a missing byte, a byte too many: no authenticated outcome."""
    mutation(place, value, how)


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("how", sorted(HOW))
def test_no_mutation_passes_of_all_there_are(how: str, half: int) -> None:
    """Each value at each place."""
    for place in PLACES[half::2]:
        for value in range(256 if how != "left out" else 1):
            mutation(place, value, how)


def test_an_offer_cannot_be_changed_on_the_path() -> None:
    """A HELLO that was cut anew, well formed in every way, lets no proof pass."""
    other = encode_agent_hello(replace(AGENT, offers=OFFERS[:1]))
    at_server, at_agent = server(KEYED, {SERIAL: KEY}), agent(KEY)
    converse(at_server, at_agent, wire=lambda _, data: data.replace(AGENT_HELLO, other))
    assert at_server.up is None and isinstance(at_server.error, LinkDenied) and at_agent.up is None


def test_a_later_version_cannot_be_taken_out_of_the_probe() -> None:
    """What the server offered is part of what the agent proves: nobody talks the two down."""
    at_server, at_agent = server(KEYED, {SERIAL: KEY}), agent(KEY)
    converse(at_server, at_agent, wire=lambda _, data: data.replace(PROBE, bytes.fromhex("00001002")))
    assert at_server.up is None and isinstance(at_server.error, LinkDenied)


def test_the_server_s_proof_is_the_last_entry() -> None:
    """The proof covers all that stands before it, so nothing can stand behind it."""
    at_agent = agent(KEY)
    start(at_agent)
    at_agent.feed(PROBE + CHALLENGE)
    at_agent.feed(encode_frame(Command.HELLO, 1, PROVED_HELLO[4:] + bytes.fromhex("0a0178")))
    assert at_agent.up is None and "did not prove" in str(at_agent.error)


def test_a_welcome_can_be_made_twice() -> None:
    """Asking for the server's HELLO changes nothing."""
    at_server, _ = recorded()
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.welcome(SERVER) == at_server.shake.welcome(SERVER) == PROVED_HELLO


# -- legacy


def test_a_legacy_device_is_served_when_the_probe_stays_unanswered() -> None:
    """A real device ignores the probe; after its time the link is the listener's one device, unproved."""
    at_server = server(LEGACY)
    assert at_server.feed(LISTEN) == PROBE and not at_server.done
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.time_is_up() == ServerUp("old-1", None, False)


def test_a_legacy_listener_without_probe_says_nothing() -> None:
    """Where the probe is switched off, LISTEN is the whole handshake, and we do not write one byte."""
    at_server = server(SILENT)
    assert at_server.feed(LISTEN) == b""
    assert at_server.up == ServerUp("old-1", None, False)


@pytest.mark.parametrize("frame", ["00 00 02 00", "00 00 02 05", "00 00 03 00", "00 03 03 01 61 62 63"])
def test_a_device_that_says_something_else_is_legacy_at_once(frame: str) -> None:
    """CLOSE or DATA instead of HELLO can only be an unmodified device: no need to wait for the time."""
    at_server = server(LEGACY)
    at_server.feed(LISTEN + bytes.fromhex(frame))
    assert at_server.up == ServerUp("old-1", None, False) and at_server.said == PROBE


@pytest.mark.parametrize("rules", [RT1, KEYED])
def test_an_rt1_listener_serves_no_legacy_device(rules: ListenerRules) -> None:
    """Neither silence nor legacy frames get in where legacy is off."""
    at_server = server(rules)
    at_server.feed(LISTEN)
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.time_is_up() is None
    at_server.feed(bytes.fromhex("00000200"))
    assert at_server.up is None and "instead of HELLO" in str(at_server.error)


def test_the_time_of_the_probe_means_nothing_elsewhere() -> None:
    """Before LISTEN, while a proof is awaited and after the end there is no falling back to legacy."""
    at_server = server(LEGACY, {SERIAL: KEY})
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.time_is_up() is None
    at_server.feed(LISTEN + AGENT_HELLO)
    assert at_server.said == PROBE + CHALLENGE
    assert at_server.shake.time_is_up() is None
    at_server = server(SILENT)
    at_server.feed(LISTEN)
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.time_is_up() is None


@pytest.mark.parametrize(
    "frame", [AGENT_HELLO, PROBE, LISTEN, b"\0\0\2\0", encode_frame(Command.PROOF, 0, bytes(32))]
)
def test_the_mode_is_fixed_once(frame: bytes) -> None:
    """HELLO after the probe's time, or any frame after the end, does not reopen the handshake."""
    at_server = server(LEGACY)
    at_server.feed(LISTEN)
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.time_is_up() is not None
    at_server.feed(frame)
    assert at_server.up is None and at_server.error is not None


CONNECT = bytes.fromhex("0010010100 0c31302e34312e35312e3135320017".replace(" ", ""))


def test_a_legacy_agent_and_a_readyagent_server() -> None:
    """The first frame is a CONNECT: it is the outcome's own, no byte was sent but LISTEN."""
    at_agent = agent(legacy=True)
    assert start(at_agent) == LISTEN
    assert at_agent.feed(CONNECT + b"\0\0\2\1") == b""
    assert at_agent.up == AgentUp(None, Frame(1, 1, CONNECT[4:]))


def test_a_readyagent_server_without_clients_says_nothing() -> None:
    """Silence is a server that has no client yet, where ReadyAgent servers are accepted."""
    at_agent = agent(legacy=True)
    start(at_agent)
    assert isinstance(at_agent.shake, AgentHandshake)
    assert at_agent.shake.time_is_up() == AgentUp(None, None)
    for at_agent in (agent(), agent(KEY, legacy=True)):
        assert isinstance(at_agent.shake, AgentHandshake)
        assert at_agent.shake.time_is_up() is None


def test_a_legacy_agent_takes_rt1_where_it_is_offered() -> None:
    """The flag allows the old wire, it does not forbid the new one; once greeted, there is no way back."""
    at_server, at_agent = server(LEGACY), agent(legacy=True)
    converse(at_server, at_agent)
    assert at_server.up == ServerUp(SERIAL, AGENT, False) and at_agent.up == AgentUp(SERVER, None)

    at_agent = agent(legacy=True)
    start(at_agent)
    at_agent.feed(PROBE)
    assert isinstance(at_agent.shake, AgentHandshake)
    assert at_agent.shake.time_is_up() is None
    at_agent.feed(CONNECT)
    assert at_agent.up is None and "instead of HELLO" in str(at_agent.error)


def test_an_rt1_agent_leaves_a_legacy_only_server() -> None:
    """Without --legacy a ReadyAgent server is an error that says what to set."""
    at_server, at_agent = server(SILENT), agent()
    converse(at_server, at_agent)
    assert at_server.up == ServerUp("old-1", None, False) and not at_agent.done
    at_agent.feed(CONNECT)
    assert at_agent.up is None and "--legacy" in str(at_agent.error)


@pytest.mark.parametrize("frame", [CONNECT, b"\0\0\2\1", b"\0\1\3\1x"])
def test_a_key_rules_out_a_legacy_server(frame: bytes) -> None:
    """Whoever sits on the path could play a ReadyAgent server: with a key set that is no way in."""
    at_agent = agent(KEY, legacy=True)
    start(at_agent)
    at_agent.feed(frame)
    assert at_agent.up is None and "no key" in str(at_agent.error)


# -- frames that do not belong there


@pytest.mark.parametrize("rules", [RT1, KEYED, LEGACY])
def test_f11_connect_at_the_server(rules: ListenerRules) -> None:
    """Only servers open channels: CONNECT from an agent or a device ends the link at any step."""
    for first in (b"", LISTEN):
        at_server = server(rules)
        at_server.feed(first + CONNECT)
        assert at_server.up is None and at_server.error is not None


@pytest.mark.parametrize("legacy", [True, False])
def test_f11_listen_at_the_agent(legacy: bool) -> None:
    """LISTEN is an agent's word: from a server it ends the link."""
    for first in (b"", PROBE):
        at_agent = agent(legacy=legacy)
        start(at_agent)
        at_agent.feed(first + LISTEN)
        assert at_agent.up is None and at_agent.error is not None


@pytest.mark.parametrize("rules", [RT1, KEYED, LEGACY])
def test_f12_listen_twice(rules: ListenerRules) -> None:
    """A second LISTEN is skipped and noted, the exchange goes on; a third ends the link."""
    at_server = server(rules)
    assert at_server.feed(LISTEN + LISTEN) == PROBE
    assert isinstance(at_server.shake, ServerHandshake)
    assert at_server.shake.oddities == ["a second LISTEN"]
    at_server.feed(AGENT_HELLO)
    assert at_server.error is None
    at_server = server(rules)
    at_server.feed(LISTEN * 3)
    assert "third" in str(at_server.error)


@pytest.mark.parametrize("listen", ["00 00 04 07", "00 03 04 00 61 62 63", "00 ff 04 01" + "00" * 255])
@pytest.mark.parametrize("rules", [RT1, LEGACY, SILENT])
def test_f13_listen_with_a_number_or_a_payload(rules: ListenerRules, listen: str) -> None:
    """What is odd about a LISTEN is skipped and noted; the identity is decided as ever."""
    at_server = server(rules)
    at_server.feed(bytes.fromhex(listen))
    assert isinstance(at_server.shake, ServerHandshake)
    assert len(at_server.shake.oddities) == 1 and at_server.error is None
    if rules is not SILENT:
        at_server.feed(AGENT_HELLO)
        assert at_server.up == ServerUp(SERIAL, AGENT, False)


def test_f13_a_long_listen_is_refused_by_its_header() -> None:
    """Tolerance ends at 255 bytes."""
    at_server = server()
    at_server.feed(bytes.fromhex("01000400"))
    assert at_server.error is not None


@pytest.mark.parametrize("command", [*sorted(COMMANDS - {Command.LISTEN}), 0x00, 0x1F, 0xFF])
def test_f14_the_first_frame_is_not_listen(command: int) -> None:
    """Closed at once, by the header alone, without an answer."""
    at_server = server(LEGACY)
    assert at_server.feed(encode_header(5, command, 0)) == b""
    assert "not LISTEN" in str(at_server.error)


@pytest.mark.parametrize("command", [*sorted(COMMANDS - {Command.LISTEN, Command.PROOF}), 0x00, 0x1F])
def test_only_a_proof_answers_a_challenge(command: int) -> None:
    """While a proof is awaited every other frame ends the link."""
    at_server = server(KEYED, {SERIAL: KEY})
    at_server.feed(LISTEN + AGENT_HELLO + encode_header(0, command, 0))
    assert at_server.up is None and "instead of PROOF" in str(at_server.error)


@pytest.mark.parametrize(
    "before", [b"", PROBE + CHALLENGE + CHALLENGE[:-32]], ids=["before the probe", "for the second time"]
)
def test_a_challenge_out_of_turn(before: bytes) -> None:
    """An agent proves itself once, and only to a server that has greeted it."""
    at_agent = agent(KEY)
    start(at_agent)
    at_agent.feed(before + (CHALLENGE if not before else bytes(32)))
    assert at_agent.up is None and "out of turn" in str(at_agent.error)


@pytest.mark.parametrize("probe", ["00 01 10 01 00", "00 00 10 00"])
def test_a_probe_is_empty_and_has_a_version(probe: str) -> None:
    """A payload would put a real device out of step: who sends one is no server of this protocol."""
    at_agent = agent()
    start(at_agent)
    at_agent.feed(bytes.fromhex(probe))
    assert "for a probe" in str(at_agent.error)


def test_a_server_of_a_later_version_is_answered_with_ours() -> None:
    """The probe names the highest version of the server; the agent's HELLO the one that is spoken."""
    at_agent = agent()
    start(at_agent)
    assert at_agent.feed(bytes.fromhex("00001009")) == AGENT_HELLO


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_in_hello_ends_the_link(version: int) -> None:
    """A version is agreed on or the link ends; nobody guesses."""
    at_server, at_agent = server(), agent()
    at_server.feed(LISTEN + AGENT_HELLO[:3] + bytes([version]) + AGENT_HELLO[4:])
    start(at_agent)
    at_agent.feed(PROBE + SERVER_HELLO[:3] + bytes([version]) + SERVER_HELLO[4:])
    for end in (at_server, at_agent):
        assert end.up is None and "version" in str(end.error)


def test_a_second_probe_is_no_acceptance() -> None:
    """An empty HELLO is a probe, never an accepted link."""
    at_agent = agent()
    start(at_agent)
    at_agent.feed(PROBE + PROBE)
    assert at_agent.up is None and "second probe" in str(at_agent.error)


@pytest.mark.parametrize("detail", ["", "too many"])
def test_a_server_that_says_goaway_is_left(detail: str) -> None:
    """The reason, the seconds and the text are passed on, before and after the probe."""
    goaway = encode_frame(Command.GOAWAY, 0, encode_goaway(GoAway.OVERLOADED, 30, detail))
    for before in (b"", PROBE):
        at_agent = agent(KEY, legacy=True)
        start(at_agent)
        at_agent.feed(before + goaway)
        assert isinstance(at_agent.error, Dismissed)
        assert (at_agent.error.reason, at_agent.error.retry_after) == (GoAway.OVERLOADED, 30)
        assert str(at_agent.error) == "the server says overloaded" + (f": {detail}" if detail else "")


# -- limits before the link is up


def test_a_stranger_s_large_frame_is_refused_by_its_header() -> None:
    """Nothing over the limit is waited for: four bytes are enough to say no, at each step of both ends."""
    keys = {SERIAL: KEY}
    for before, header in [
        (b"", encode_header(256, Command.LISTEN, 0)),
        (LISTEN, encode_header(MAX_HELLO + 1, Command.HELLO, 1)),
        (LISTEN, encode_header(65535, Command.DATA, 1)),
        (LISTEN + AGENT_HELLO, encode_header(33, Command.PROOF, 0)),
        (LISTEN + AGENT_HELLO, encode_header(31, Command.PROOF, 0)),
        (LISTEN + AGENT_HELLO, encode_header(32, Command.PROOF, 1)),
        (LISTEN + AGENT_HELLO, encode_header(33, Command.DATA, 1)),
    ]:
        at_server = server(KEYED, keys)
        at_server.feed(before)
        assert not at_server.done
        at_server.feed(header)
        assert at_server.error is not None and at_server.held == 4
    for before, header in [
        (b"", encode_header(MAX_HELLO + 1, Command.HELLO, 1)),
        (PROBE, encode_header(MAX_HELLO + 1, Command.HELLO, 1)),
        (PROBE, encode_header(65535, Command.DATA, 1)),
        (PROBE, encode_header(31, Command.CHALLENGE, 0)),
        (PROBE, encode_header(32, Command.CHALLENGE, 1)),
    ]:
        at_agent = agent(KEY)
        start(at_agent)
        at_agent.feed(before)
        at_agent.feed(header)
        assert at_agent.error is not None and at_agent.held == 4


def test_after_the_end_the_judge_takes_nothing() -> None:
    """A handshake that is over lets no payload through: its owner has put another judge in its place."""
    at_server = server()
    at_server.feed(LISTEN + AGENT_HELLO)
    with pytest.raises(RemoteError):
        at_server.shake.judge(1, Command.DATA, 1)


def test_a_legacy_agent_takes_data_of_any_size() -> None:
    """A real server may send a full frame first; on the old wire DATA has no smaller limit."""
    at_agent = agent(legacy=True)
    start(at_agent)
    at_agent.feed(encode_frame(Command.DATA, 1, bytes(65535)))
    assert at_agent.up == AgentUp(None, Frame(Command.DATA, 1, bytes(65535)))


def test_the_largest_hello_fits() -> None:
    """64 offers of the longest form and long texts stay within the limit of a HELLO."""
    host = ".".join(["h" * 53] * 3 + ["h" * 54])
    offers = tuple(parse_offer(f"{f'n{count}':x<32}={host}:65{count:03}") for count in range(64))
    hello = replace(AGENT, serial="s" * 64, offers=offers, software="s" * 300)
    frame = encode_agent_hello(hello)
    assert max(len(f"{offer.name}={offer.target}") for offer in offers) == 255
    assert len(frame) - 4 <= MAX_HELLO
    assert decode_agent_hello(frame[4:], 64) == replace(hello, software="s" * 200)


# -- HELLO


def tlv(kind: int, value: bytes) -> bytes:
    """One entry."""
    return bytes((kind, len(value))) + value


IDENTITY = tlv(1, b"plc-7") + tlv(2, AGENT_NONCE)


def test_features_are_four_bytes_of_bits() -> None:
    """Data sockets have one, and others theirs; unknown bits mean nothing, other sizes end it."""
    assert b"\5\4\0\0\0\1" in encode_agent_hello(
        AgentHello(SERIAL, AGENT_NONCE, (), features=Feature.DATA_SOCKETS)
    )
    assert b"\5\4\0\0\0\1" in encode_server_hello(ServerHello(features=Feature.DATA_SOCKETS))
    known = Feature(63) | Feature.PROBES | Feature.EARLY | Feature.PLACES | Feature.AFTER
    assert decode_agent_hello(IDENTITY + tlv(5, b"\0\0\xff\xff"), 64).features == known
    assert decode_server_hello(tlv(5, b"\0\0\xff\xff")).features == known
    for value in (b"", b"\1", bytes(5)):
        with pytest.raises(RemoteError, match="FEATURES"):
            decode_agent_hello(IDENTITY + tlv(5, value), 64)


def test_a_short_hello_gets_the_defaults() -> None:
    """Only serial and nonce are needed; unknown types are skipped, of a repeated one the last counts."""
    assert decode_agent_hello(IDENTITY, 64) == AgentHello(SERIAL, AGENT_NONCE, ())
    odd = tlv(1, b"plc-8") + tlv(200, b"later") + tlv(5, b"\xff\0\0\0") + IDENTITY + tlv(0, b"")
    assert decode_agent_hello(odd, 64) == AgentHello(SERIAL, AGENT_NONCE, ())
    assert decode_server_hello(tlv(200, b"later")) == ServerHello()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        tlv(1, b"plc-7"),
        tlv(2, AGENT_NONCE),
        tlv(1, b"plc-7") + tlv(2, bytes(31)),
        tlv(1, b"plc-7") + tlv(2, bytes(33)),
        tlv(1, b"") + tlv(2, AGENT_NONCE),
        tlv(1, b"plc 7") + tlv(2, AGENT_NONCE),
        tlv(1, b"p\x00c") + tlv(2, AGENT_NONCE),
        tlv(1, b"p\xffc") + tlv(2, AGENT_NONCE),
        tlv(1, b"s" * 65) + tlv(2, AGENT_NONCE),
        IDENTITY[:-1],
        IDENTITY + b"\x04",
        IDENTITY + b"\x04\x05abcd",
        IDENTITY + tlv(3, b""),
        IDENTITY + tlv(3, b"http=nowhere"),
        IDENTITY + tlv(3, b"http=10.0.0.1:99999"),
        IDENTITY + tlv(3, b"http=\xc3\xa9:80"),
        IDENTITY + tlv(3, b"a=h:1") + tlv(3, b"a=h:2"),
        IDENTITY + tlv(6, b""),
        IDENTITY + tlv(6, b"\0\0\1"),
        IDENTITY + tlv(6, b"\x80\0\0\0"),
        IDENTITY + tlv(6, b"\xff" * 255),
        IDENTITY + tlv(7, b"\0\0\3\xff"),
        IDENTITY + tlv(7, b"\xff" * 8),
    ],
)
def test_r6_a_bad_hello_is_refused(payload: bytes) -> None:
    """Cut entries, no identity, bad offers and numbers out of their range: one line for the log, no entry."""
    at_server = server()
    at_server.feed(LISTEN + encode_frame(Command.HELLO, 1, payload))
    assert at_server.up is None and at_server.error is not None
    assert not isinstance(at_server.error, LinkDenied)
    assert str(at_server.error).isprintable() and len(str(at_server.error)) < 300


def test_more_offers_than_allowed() -> None:
    """The 65th offer is refused."""
    offers = b"".join(tlv(3, b"n%d=h:1" % count) for count in range(65))
    assert len(decode_agent_hello(IDENTITY + offers[: -len(tlv(3, b"n64=h:1"))], 64).offers) == 64
    with pytest.raises(RemoteError, match="more than 64 offers"):
        decode_agent_hello(IDENTITY + offers, 64)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x0a",
        tlv(6, b"\xff" * 255),
        tlv(7, b"\0\0\0\0"),
        tlv(8, b"\0\0"),
        tlv(8, b"\xff" * 255),
        tlv(9, b"\xff" * 255),
        tlv(9, b"\1"),
    ],
)
def test_a_bad_hello_of_a_server(payload: bytes) -> None:
    """A number of 255 bytes is no overflow here, and a keepalive of nothing no busy loop there."""
    at_agent = agent()
    start(at_agent)
    at_agent.feed(PROBE + encode_frame(Command.HELLO, 1, payload))
    assert at_agent.up is None and at_agent.error is not None


def test_text_of_the_other_side_is_one_printable_line() -> None:
    """Names and software texts go to logs and tables: no escape sequences, no line ends, no bad UTF-8."""
    nasty = b"a\x1b[2J\n\xff\xc3\xa9"
    assert decode_agent_hello(IDENTITY + tlv(4, nasty), 64).software == "a?[2J?\ufffd\u00e9"
    assert decode_server_hello(tlv(10, nasty)).name == "a?[2J?\ufffd\u00e9"


labels = st.from_regex(r"[A-Za-z0-9._-]{1,32}", fullmatch=True)
texts = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=200)
offer_lists = st.lists(
    st.builds(
        lambda name, port: parse_offer(f"{name}=10.0.0.1:{port}"),
        labels.filter(lambda name: name),
        st.integers(1, 65535),
    ),
    max_size=5,
    unique_by=lambda offer: offer.name,
)


@given(
    st.builds(
        AgentHello,
        st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True),
        st.binary(min_size=32, max_size=32),
        offer_lists.map(tuple),
        texts,
        st.integers(0, 2**31 - 1),
        st.integers(1024, 2**32 - 1),
        st.sampled_from([Feature(0), Feature.DATA_SOCKETS, Feature(3)]),
    )
)
def test_every_agent_hello_survives_the_wire(hello: AgentHello) -> None:
    """Encode and decode give the same value."""
    assert decode_agent_hello(encode_agent_hello(hello)[4:], 64) == hello


@given(
    st.builds(
        ServerHello,
        texts,
        texts,
        st.integers(0, 2**31 - 1),
        st.integers(1024, 2**32 - 1),
        st.integers(1, 65535).map(float),
        st.integers(0, 65535).map(lambda tenths: tenths / 10),
        st.sampled_from([Feature(0), Feature.DATA_SOCKETS, Feature(3)]),
        st.sampled_from([b"", bytes(32)]),
    )
)
def test_every_server_hello_survives_the_wire(hello: ServerHello) -> None:
    """Encode and decode give the same value; whole seconds and tenths are what the wire can say."""
    assert decode_server_hello(encode_server_hello(hello)[4:]) == hello


@pytest.mark.parametrize(
    ("keepalive", "spread", "shown"), [(0.2, 0.01, (1.0, 0.0)), (1e6, 1e6, (65535.0, 6553.5))]
)
def test_times_beyond_the_wire_are_cut(keepalive: float, spread: float, shown: tuple[float, float]) -> None:
    """A setting that the wire cannot say is said as nearly as it can."""
    hello = decode_server_hello(encode_server_hello(ServerHello(keepalive=keepalive, spread=spread))[4:])
    assert (hello.keepalive, hello.spread) == shown


# -- whatever comes


def all_servers() -> Iterator[End]:
    """A server of each kind."""
    for rules in (RT1, KEYED, LEGACY, SILENT):
        yield server(rules, {SERIAL: KEY})


@given(
    st.sampled_from([b"", LISTEN, LISTEN + AGENT_HELLO[:4], LISTEN + AGENT_HELLO]),
    st.binary(max_size=200),
    st.integers(1, 200),
)
def test_random_bytes_at_the_server(before: bytes, noise: bytes, size: int) -> None:
    """Noise at any step raises RemoteError or nothing; it never authenticates."""
    for at_server in all_servers():
        for data in (before, *(noise[at : at + size] for at in range(0, len(noise), size))):
            at_server.feed(data)
        assert at_server.up is None or not at_server.up.authenticated  # type: ignore[union-attr]
        assert at_server.held <= len(before) + len(noise)


@given(
    st.sampled_from(
        [b"", PROBE, PROBE + CHALLENGE, PROBE + SERVER_HELLO[:4], PROBE + CHALLENGE + SERVER_HELLO[:4]]
    ),
    st.binary(max_size=200),
    st.sampled_from([None, KEY]),
    st.booleans(),
)
def test_random_bytes_at_the_agent(before: bytes, noise: bytes, key: bytes | None, legacy: bool) -> None:
    """Noise at any step raises RemoteError or nothing; with a key it never brings a link up."""
    at_agent = agent(key, legacy)
    start(at_agent)
    at_agent.feed(before + noise)
    assert key is None or at_agent.up is None


@given(st.lists(st.builds(tlv, st.integers(0, 12), st.binary(max_size=40)), max_size=10).map(b"".join))
def test_random_entries(payload: bytes) -> None:
    """HELLOs that are well cut and mean nothing raise RemoteError at most."""
    at_server, at_agent = server(KEYED), agent(KEY)
    start(at_agent)
    at_server.feed(LISTEN + encode_frame(Command.HELLO, 1, IDENTITY + payload))
    at_agent.feed(PROBE + CHALLENGE + encode_frame(Command.HELLO, 1, payload))
    assert at_server.up is None and at_agent.up is None


def unused(serial: str) -> Verifier | None:
    """A ledger that must not be asked."""
    raise AssertionError(serial)


def test_a_legacy_device_costs_no_look_at_the_keys() -> None:
    """The ledger is asked for a serial that somebody said, never before."""
    end = End(ServerHandshake(LEGACY, LIMITS, unused, SERVER_NONCE))
    end.feed(LISTEN + b"\0\0\2\0")
    assert end.up is not None


def test_offers_have_values() -> None:
    """What the golden bytes offer is what the settings said."""
    assert [offer.name for offer in OFFERS] == ["tcp-23", "http"]
    assert [str(offer.target) for offer in OFFERS] == ["10.41.51.152:23", "127.0.0.1:5000"]


# -- the protocol's own page

PAGE = (Path(__file__).parents[2] / "docs" / "link-protocol.rst").read_text("utf-8")
WORDS = " ".join(PAGE.split())
ROW = re.compile(r" {4}(agent|server|     ) {2,3}((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  .*)?")


def exchange(title: str) -> list[tuple[str, bytes]]:
    """The hex of one exchange of the page: who says what, in turn."""
    said: list[tuple[str, bytes]] = []
    block = PAGE.partition(f"    exchange {title}\n")[2].partition("\n\n")[0]
    for line in block.splitlines():
        row = ROW.fullmatch(line)
        assert row is not None, line
        data = bytes.fromhex(row[2])
        if row[1].strip():
            said.append((row[1], data))
        else:
            said[-1] = (said[-1][0], said[-1][1] + data)
    return said


def overheard(at_server: End, at_agent: End) -> list[tuple[str, bytes]]:
    """What two real ends say, in turn."""
    said: list[tuple[str, bytes]] = []

    def wire(to_server: bool, data: bytes) -> bytes:
        said.append(("agent" if to_server else "server", data))
        return data

    converse(at_server, at_agent, wire=wire)
    turns: list[tuple[str, bytes]] = []
    for who, data in said:
        if turns and turns[-1][0] == who:
            data = turns.pop()[1] + data
        turns.append((who, data))
    return turns


@pytest.mark.parametrize(
    ("title", "rules", "keys", "key"),
    [
        ("without a key", RT1, {}, None),
        ("with a key", KEYED, {SERIAL: KEY}, KEY),
        ("with a wrong key", KEYED, {SERIAL: KEY}, OTHER_KEY),
        ("with a wrong key", KEYED, {}, OTHER_KEY),
    ],
)
def test_the_page_s_negotiations(
    title: str, rules: ListenerRules, keys: dict[str, bytes], key: bytes | None
) -> None:
    """Each negotiation of the page is what the two real ends say."""
    assert overheard(server(rules, keys), agent(key)) == exchange(title)


def test_the_page_s_channel() -> None:
    """The channel of the page is what two real ends of a link say, and leaves nothing behind."""
    server_mux = Rt1Mux(LIMITS, True, 0.0, CreditPool(1 << 20))
    agent_mux = Rt1Mux(LIMITS, False, 0.0, CreditPool(1 << 20))
    said: list[tuple[str, bytes]] = []

    def carry(who: str, sender: Rt1Mux, receiver: Rt1Mux) -> list[Happening]:
        data = b"".join(sender.take(1 << 20, 0.0)[0])
        said.append((who, data))
        decoder = FrameDecoder(receiver.judge)
        decoder.receive(data)
        return [happening for frame in decoder.frames() for happening in receiver.receive(frame, 0.0)]

    ours = server_mux.connect(OFFERS[0].target, 0.0)
    assert ours is not None
    carry("server", server_mux, agent_mux)
    theirs = agent_mux.channels[1]
    agent_mux.opened(theirs)
    carry("agent", agent_mux, server_mux)
    server_mux.send(ours, b"hello")
    server_mux.end(ours)
    carry("server", server_mux, agent_mux)
    agent_mux.consumed(theirs, 5, 0.0)
    agent_mux.flushed(theirs, 0.0)
    agent_mux.send(theirs, b"world")
    agent_mux.end(theirs)
    carry("agent", agent_mux, server_mux)
    server_mux.consumed(ours, 5, 0.0)
    assert server_mux.flushed(ours, 0.0) == [Over(ours, Ended.CLOSED, "")]
    assert carry("server", server_mux, agent_mux) == [Over(theirs, Ended.CLOSED, "")]

    assert said == exchange("of one channel")
    assert server_mux.channels == agent_mux.channels == {} and server_mux.free_numbers == 255


def test_the_page_s_legacy_device() -> None:
    """The legacy exchange of the page: the probe, then CONNECT and two questions, and the channel is open."""
    at_server = server(LEGACY)
    turns = exchange("with a legacy device")
    assert [who for who, _ in turns] == ["agent", "server", "agent", "server", "agent"]
    sent = at_server.feed(turns[0][1])
    assert isinstance(at_server.shake, ServerHandshake) and at_server.shake.time_is_up() is not None

    mux = LegacyServerMux(LIMITS, 0.0)
    channel = mux.connect(OFFERS[0].target, 0.0)
    assert channel is not None
    assert sent + b"".join(mux.take(1 << 20, 0.0)[0]) == turns[1][1]
    answer = Frame(Command.CLOSE, 0, b"")
    assert turns[2][1] == encode_frame(*answer) and mux.receive(answer, 0.0) == []
    assert b"".join(mux.take(1 << 20, 0.0)[0]) == turns[3][1]
    assert turns[4][1] == encode_frame(*answer) and mux.receive(answer, 0.0) == [Opened(channel)]


def test_the_page_s_table_of_commands() -> None:
    """It is the one of the module that encodes them, to the letter."""
    doc = commands.__doc__ or ""
    assert doc[doc.index("====") : doc.rindex("Source:")].strip() in PAGE


def numbered(header: str) -> list[tuple[int, str]]:
    """Number and word of each row of the page's table with this header line."""
    body = PAGE.partition(f"\n{header}")[2].partition("\n====")[2].partition("\n====")[0]
    return [(int(line.split()[0]), line.split()[1]) for line in body.splitlines()[1:]]


def test_the_page_s_tables_of_entries_and_reasons() -> None:
    """Every type and reason of the program is on the page under its number, and no other."""
    assert numbered("type  name ") == [(kind.value, kind.name) for kind in Tlv]
    sent = [reason for reason in Ended if reason is not Ended.CLOSED]
    assert numbered("reason  word              meaning") == [(reason.value, reason.word) for reason in sent]
    assert numbered("reason  word        meaning") == [(reason.value, reason.word) for reason in GoAway]


KIB, MIB = 1024, 1024 * 1024
OF_SERVER, OF_AGENT = ServerLimits(), AgentLimits()


@pytest.mark.parametrize(
    "phrase",
    [
        f"*{LIMITS.glitches}* of them in *{LIMITS.glitch_window:g} s* end the link",
        f"*{LIMITS.legacy_glitches}* of them end it",
        f"*{LIMITS.handshake:g} s* after the connection was made",
        f"waits *{LIMITS.probe:g} s* for HELLO",
        f"of HELLO {MAX_HELLO:,}",
        f"*{LIMITS.offers}* offers are taken",
        f"did not answer in time (*{OF_AGENT.dial:g} s*)",
        f"in WINDOW of its HELLO, *{LIMITS.first_window}*",
        f"raised to *{LIMITS.open_window // KIB} KiB*",
        f"up to *{LIMITS.largest_window // MIB} MiB*",
        f"a pool of *{LIMITS.link_pool // MIB} MiB* for a link",
        f"for a link and *{OF_SERVER.pool // MIB} MiB* for a server",
        f"at most *{LIMITS.frame // KIB} KiB* while others wait",
        f"At most *{LIMITS.queue // KIB} KiB* wait for a channel",
        f"between *{LIMITS.smallest_quantum // KIB} KiB* and *{LIMITS.largest_quantum // KIB} KiB*",
        f"PING after *{LIMITS.keepalive:g} s* of silence",
        f"or *{LIMITS.busy_keepalive:g} s* after something was sent",
        f"for *{LIMITS.answer:g} s*, or *{LIMITS.busy_answer:g} s* while such a frame is unanswered",
        f"between 0 and {OF_AGENT.retry_first:g} s, doubled with each failure",
        f"doubled with each failure, at most *{OF_AGENT.retry_most:g} s*",
        f"lived for *{OF_AGENT.stable:g} s*",
        f"More than *{OF_SERVER.duplicate_swaps}* replacements in *{OF_SERVER.duplicate_window:g} s*",
        f"the number rests for *{LIMITS.echo_wait / 2:g} s*",
        f"no CLOSE comes for *{LIMITS.echo_wait:g} s*",
        f"*{LIMITS.legacy_queue_hard // MIB} MiB*, or all *{LIMITS.legacy_link_queue // MIB} MiB*",
        f"After *{LIMITS.legacy_stall:g} s* of that",
        f"is kept: *{LIMITS.early_data // KIB} KiB*, *{LIMITS.early_wait:g} s*, then CLOSE",
        f"*{LIMITS.legacy_linger:g} s* of silence before it is cut",
    ],
)
def test_the_page_s_numbers(phrase: str) -> None:
    """Each default that the page names is the program's."""
    assert phrase in WORDS


def test_the_violations_are_counted_in_words() -> None:
    """The page says the third time."""
    assert LIMITS.violations == 3 and "The *third* time on a link ends the link" in WORDS
