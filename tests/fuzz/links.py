"""Links: frames, what a frame says, both ends' handshakes, and the channels of both wires."""

import random
import zlib
from collections.abc import Callable, Hashable
from typing import Any

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import decode_origin, encode_origin
from revtunnel.link.handshake import (
    AgentHandshake,
    AgentHello,
    ListenerRules,
    ServerHandshake,
    ServerHello,
    decode_agent_hello,
    decode_server_hello,
    encode_agent_hello,
    encode_server_hello,
)
from revtunnel.link.keys import verifier_of
from revtunnel.link.legacy import LegacyAgentMux, LegacyServerMux
from revtunnel.link.mux import Mux
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.commands import (
    MAX_CREDIT,
    MAX_TEXT,
    VERSION,
    Command,
    decode_connect,
    decode_goaway,
    decode_reset,
    decode_tlvs,
    decode_want,
    decode_window,
    encode_connect,
    encode_goaway,
    encode_reset,
    encode_tlvs,
    encode_want,
    encode_window,
)
from revtunnel.streams.consent_messages import (
    ConsentRequest,
    decode_consent,
    decode_session,
    encode_asked,
    encode_consent,
    encode_over,
)
from revtunnel.streams.frames import HEADER_SIZE, MAX_PAYLOAD, Frame, FrameDecoder, encode_frame
from revtunnel.streams.offer_messages import decode_change, decode_offers, encode_change, encode_offers
from revtunnel.streams.service_state import decode_service, encode_service
from revtunnel.streams.window import CreditPool
from tests.fuzz.harness import pieces, target
from tests.support.joined import End, Stream
from tests.support.vectors import FRAMES, LEGACY, RT1

LIMITS = LinkLimits()
KEY = bytes(range(32))
AGENT = AgentHello("plc-7", bytes(32), (), "demo 1")
SERVER = ServerHello("tunnel", "demo 1")
HEADERS = [vector.wire[:HEADER_SIZE] for vector in FRAMES]
SMALL = [vector.wire for vector in FRAMES if len(vector.wire) < 1000]
TALK = [b"".join(each.wire for each in table if len(each.wire) < 1000) for table in (RT1, LEGACY)]


# -- frames and what they say


def _cut(decoder: FrameDecoder, data: bytes, frames: list[Frame]) -> None:
    decoder.receive(data)
    frames += decoder.frames()


@target("frames", [*SMALL, *TALK], words=HEADERS)
def frames(data: bytes) -> Hashable:
    """In pieces as whole; written again they are what came."""
    whole, cut = (FrameDecoder(lambda size, command, channel: None) for _ in range(2))
    found: list[Frame] = []
    again: list[Frame] = []
    _cut(whole, data, found)
    for piece in pieces(data):
        _cut(cut, piece, again)
        assert cut.held < HEADER_SIZE + MAX_PAYLOAD
    assert found == again and cut.rest() == whole.rest()
    assert b"".join(encode_frame(*each) for each in found) + whole.rest() == data
    return len(found), bool(whole.rest())


def _session(asked: ConsentRequest | str) -> bytes:
    return encode_over(asked) if isinstance(asked, str) else encode_asked(asked)


Read = Callable[[bytes], Any]
_MESSAGES: list[tuple[Read, Read]] = [  # to a value, and back
    (decode_connect, encode_connect),
    (decode_reset, lambda said: encode_reset(*said)),
    (decode_goaway, lambda said: encode_goaway(*said)),
    (decode_window, encode_window),
    (decode_want, encode_want),
    (decode_origin, encode_origin),
    (decode_session, _session),
    (decode_consent, lambda said: encode_consent(*said)),
    (lambda data: decode_offers(data, LIMITS.offers), lambda said: encode_offers(*said)),
    (decode_change, encode_change),
    (decode_service, encode_service),
    (lambda data: [*decode_tlvs(data)], encode_tlvs),
]


@target(
    "messages",
    [bytes((kind,)) + each.payload for each in RT1 for kind in range(len(_MESSAGES))],
    (RemoteError,),
    [b"http=h:80", b"unix:/run/x", b"[::1]:80", b"\x01\x03ana", b"\0\x04http", "\N{EURO SIGN}".encode()],
)
def messages(data: bytes) -> Hashable:
    """What is read and written again is read as the same."""
    decode, encode = _MESSAGES[data[0] % len(_MESSAGES) if data else 0]
    said = decode(data[1:])
    written = encode(said)
    assert decode(written) == said or len(written) > MAX_TEXT - 4, said  # a text may have been cut
    return data[:1], type(said).__name__


HELLOS = [encode_agent_hello(AGENT)[HEADER_SIZE:], encode_server_hello(SERVER)[HEADER_SIZE:]]


@target("hellos", HELLOS, (RemoteError,), [bytes((kind, 4, 0, 0, 0, 9)) for kind in range(14)])
def hellos(data: bytes) -> Hashable:
    """Either HELLO, read and written again."""
    server = decode_server_hello(data)
    assert 0 <= server.first_window <= MAX_CREDIT and server.name.isprintable()
    assert decode_server_hello(encode_server_hello(server)[HEADER_SIZE:]).features == server.features
    agent = decode_agent_hello(data, LIMITS.offers)
    assert len(agent.offers) <= LIMITS.offers and agent.software.isprintable()
    again = decode_agent_hello(encode_agent_hello(agent)[HEADER_SIZE:], LIMITS.offers)
    assert (again.serial, again.offers, again.features) == (agent.serial, agent.offers, agent.features)
    return len(agent.offers)


# -- handshakes

_RULES = [
    ListenerRules("agents"),
    ListenerRules("agents", keys_required=True),
    ListenerRules("old", legacy=True, legacy_serial="old-1"),
    ListenerRules("old", legacy=True, probe=False),
]
_LISTEN, _PROBE = encode_frame(Command.LISTEN, 0), encode_frame(Command.HELLO, VERSION)
_CHALLENGE = encode_frame(Command.CHALLENGE, 0, bytes(32))
_TO_SERVER = _LISTEN + encode_agent_hello(AGENT) + encode_frame(Command.PROOF, 0, bytes(32))
_TO_AGENT = _PROBE + _CHALLENGE + encode_server_hello(SERVER)


def _shake(shake: ServerHandshake | AgentHandshake, data: bytes) -> Any:
    """How it ended: the outcome, or None while it goes on."""
    decoder = FrameDecoder(shake.judge)
    for piece in pieces(data):
        decoder.receive(piece)
        for frame in decoder.frames(1):
            answer, up = shake.receive(frame)
            assert len(answer) <= HEADER_SIZE + 20_000
            if up is not None:
                return up
    return shake.time_is_up()


@target(
    "handshake-server",
    [bytes((rules,)) + data for rules in range(8) for data in (_TO_SERVER, TALK[1])],
    (RemoteError,),
    [*HEADERS, _LISTEN, _PROBE],
)
def handshake_server(data: bytes) -> Hashable:
    """Whoever lets nobody in without a key does not."""
    rules, known = _RULES[data[0] & 3 if data else 0], bool(data and data[0] & 4)
    key = verifier_of(KEY, "plc-7")
    shake = ServerHandshake(rules, LIMITS, lambda serial: key if known else None, bytes(32))
    up = _shake(shake, data[1:])
    assert len(shake.oddities) < 5
    if up is None:
        return None
    assert not up.authenticated
    assert rules.legacy or not (rules.keys_required or known)
    shake.welcome(SERVER)
    return rules.name, up.hello is None


@target(
    "handshake-agent",
    [bytes((kind,)) + data for kind in range(4) for data in (_TO_AGENT, _PROBE + _TO_AGENT[-40:], TALK[1])],
    (RemoteError,),
    [*HEADERS, _PROBE, _CHALLENGE, encode_frame(Command.GOAWAY, 0, b"\1\0\0why")],
)
def handshake_agent(data: bytes) -> Hashable:
    """With a key nobody is believed who does not know it."""
    kind = data[0] & 3 if data else 0
    shake = AgentHandshake(AGENT, KEY if kind & 1 else None, legacy=bool(kind & 2))
    shake.start()
    up = _shake(shake, data[1:])
    assert up is None or not kind & 1
    return None if up is None else (kind, up.hello is None)


# -- channels


class _HostileEnd(End):
    """Its other side uses a number again before it heard the last word, so last words are not looked for."""

    def _watch(self, data: bytes) -> None:
        pass


def _act(end: End, stream: Stream, chance: random.Random) -> None:
    """What an owner may do now."""
    if not (stream.opened or end.mux.opens):
        stream.open() if chance.random() < 0.8 else stream.reset()
    elif stream.unconsumed:
        stream.consume(chance.choice((1, 500, 1 << 20)))
    elif stream.end_came and not stream.flushed:
        stream.flush()
    elif (stream.opened or end.mux.early_read) and stream.may_send and not stream.ended:
        stream.send(chance.choice((1, 100, 70_000))) if chance.random() < 0.6 else stream.finish()
    elif chance.random() < 0.1:
        stream.reset()


def _link(mux: Mux, data: bytes) -> End:
    """Some channels, the bytes in pieces, and owners that act between them."""
    chance = random.Random(zlib.crc32(data))
    end = _HostileEnd(mux)
    for _ in range(3 if mux.opens else 0):
        end.connect()
    end.take()
    for piece in pieces(data):
        end.read(piece)
        end.now += 0.01
        for stream in end.live[:4]:
            _act(end, stream, chance)
        end.take(chance.choice((100, 1 << 16)))
        end.check()
        assert len(mux.channels) <= LIMITS.channels
    end.tick()
    return end


def _seen(end: End) -> Hashable:
    return frozenset(type(each).__name__ for each in end.story)


def _rt1(data: bytes, opens: bool) -> Hashable:
    pool = CreditPool(1 << 30)
    mux = Rt1Mux(LIMITS, opens, 0.0, pool, data_sockets=True, origins=True)
    mux.sessions = mux.services = mux.offers = mux.changes = True
    mux.spoken_of(frozenset(("http", "ssh")))
    try:
        return _seen(_link(mux, data))
    finally:
        mux.lost()
        assert pool.used == 0


_NUMBERS = [
    encode_frame(command, number, payload)
    for number in (1, 2, 254, 255)
    for command, payload in (
        (Command.CONNECT, encode_connect(decode_connect(b"\0\x01h\0\x50"))),
        (Command.OPENED, b""),
        (Command.DATA, b"hello"),
        (Command.WINDOW, encode_window(1000)),
        (Command.EOF, b""),
        (Command.CLOSE, b""),
        (Command.RESET, b"\1"),
    )
]
_LIFE = b"".join(_NUMBERS[:7]), b"".join(_NUMBERS), b"".join(_NUMBERS[::2])


@target("rt1-server", [*SMALL, *TALK, *_LIFE], (RemoteError,), [*HEADERS, *_NUMBERS])
def rt1_server(data: bytes) -> Hashable:
    """What an agent may say to a link that is up."""
    return _rt1(data, True)


@target("rt1-agent", [*SMALL, *TALK, *_LIFE], (RemoteError,), [*HEADERS, *_NUMBERS])
def rt1_agent(data: bytes) -> Hashable:
    """What a server may."""
    return _rt1(data, False)


@target("legacy-server", [*SMALL, *TALK, *_LIFE], (RemoteError,), [*HEADERS, *_NUMBERS])
def legacy_server(data: bytes) -> Hashable:
    """What a ReadyAgent device may say."""
    return _seen(_link(LegacyServerMux(LIMITS, 0.0, asks=bool(len(data) % 2)), data))


@target("legacy-agent", [*SMALL, *TALK, *_LIFE], (RemoteError,), [*HEADERS, *_NUMBERS])
def legacy_agent(data: bytes) -> Hashable:
    """What a ReadyAgent server may."""
    return _seen(_link(LegacyAgentMux(LIMITS, 0.0), data))
