"""The wires of the systems: EMO, CCCP, CAMEO, localproxy, ThingWorx AlwaysOn."""

import random
import re
import zlib
from collections.abc import Hashable
from functools import cache

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.cameo.zmtp import (
    GREETING,
    MAX_COMMAND,
    check_greeting,
    decode_command,
    decode_ping,
    decode_properties,
    encode_command,
    encode_ready,
)
from revtunnel.systems.cameo.zmtp_messages import (
    MessageDecoder,
    ZmtpCommand,
    ZmtpMessage,
    encode_message,
    encode_more,
    split_frames,
    split_run,
)
from revtunnel.systems.cccp.registration import MAX_LINE, RegistrationDecoder
from revtunnel.systems.emo.emo import (
    LONGEST_HELD,
    TERMINATOR,
    Emo,
    EmoCommand,
    EmoDecoder,
    EndFinder,
    encode_emo,
)
from revtunnel.systems.emo.emo_targets import AgentAct, AgentDo, AgentSlot, AgentSlotState, AgentTable
from revtunnel.systems.sessions.localproxy import (
    LocalproxyConnections,
    LocalproxyDecoder,
    LocalproxyMessage,
    LocalproxyType,
    encode_localproxy,
)
from revtunnel.systems.thingworx.alwayson_messages import (
    AlwaysOnCode,
    AlwaysOnMessage,
    AlwaysOnParts,
    AlwaysOnReply,
    Binding,
    decode_alwayson,
    decode_auth,
    decode_bind,
    decode_reply,
    decode_request,
    decode_tunnel,
    encode_alwayson,
    encode_auth,
    encode_bind,
    encode_reply,
    encode_request,
    start_tunnel,
)
from tests.fuzz.harness import pieces, target
from tests.systems.cccp.test_http_api import HERE, Door

# -- EMO

_COMMANDS = [encode_emo(kind, 1) for kind in Emo]
_TALK = b"".join(encode_emo(Emo.CONNECT, number) for number in (1, 2, 3)) + encode_emo(Emo.TERMINATE, 2)


def _commands(parts: list[bytes]) -> tuple[list[EmoCommand], bytes]:
    decoder, found = EmoDecoder(), []
    for part in parts:
        decoder.receive(part)
        while (command := decoder.next()) is not None:
            found.append(command)
    return found, decoder.held


def _ended(parts: list[bytes], releases: bool = False) -> tuple[bytes, bytes, bool]:
    """What passed, what came behind the terminator, and whether it came."""
    finder, passed, behind = EndFinder(), bytearray(), b""
    for number, part in enumerate(parts):
        if finder.ended:
            behind += part
            continue
        payload, behind = finder.feed(part)
        passed += payload
        if releases and number % 3 == 0:
            passed += finder.release()
        assert 0 <= finder.held <= LONGEST_HELD
    return bytes(passed) + (b"" if finder.ended else finder.flush()), behind, finder.ended


@target("emo", [*_COMMANDS, _TALK, b"F0000001\n" + _TALK], (RemoteError,), _COMMANDS)
def emo(data: bytes) -> Hashable:
    """A command socket; in pieces it is the same, but for the ninth byte of a refusal, which may be late."""
    found, held = _commands([data])
    if b"F000000" not in data:
        assert _commands([*pieces(data)]) == (found, held)
    assert len(held) < 8 or held.startswith(b"F")
    return frozenset(each.kind for each in found), bool(held)


@target(
    "emo-ends",
    [b"hello" + TERMINATOR + b"more", b"\0" * 50, b"a" + TERMINATOR[:20] + TERMINATOR],
    words=[TERMINATOR, TERMINATOR[:5], TERMINATOR[:30], b"\0" * 4, b"\0" * 6],
)
def emo_ends(data: bytes) -> Hashable:
    """All that stands before the first terminator passes, and nothing of it."""
    payload, found, behind = data.partition(TERMINATOR)
    wanted = payload, behind, bool(found)
    assert _ended([data]) == wanted
    assert _ended([*pieces(data)]) == wanted
    passed, *rest = _ended(
        [*pieces(data)], releases=True
    )  # NULs of the terminator may have passed with those
    assert passed.startswith(payload) and not passed[len(payload) :].strip(b"\0") and rest == [*wanted[1:]]
    return bool(found), bool(behind), data.endswith(b"\0")


def _moves(table: AgentTable, slot: AgentSlot, chance: random.Random) -> list[AgentDo]:
    """Something that happens to an index."""
    if slot.state is AgentSlotState.OPENING:
        slot.socket = object()
        return chance.choice((table.socket_opened, table.socket_opened, table.socket_lost))(slot)
    moves = [table.not_dialled, table.target_ended, table.target_reset, table.socket_lost]
    if slot.state is AgentSlotState.BUSY and not slot.end_came:
        moves += [table.end_came] * 3
    return chance.choice(moves)(slot)


@target("emo-table", [_TALK, _TALK * 5, *_COMMANDS], (RemoteError,), _COMMANDS)
def emo_table(data: bytes) -> Hashable:
    """An agent's indexes, while sockets come and go."""
    limits = EmoLimits()
    table, decoder, chance = AgentTable(limits), EmoDecoder(), random.Random(zlib.crc32(data))
    acts: set[AgentAct] = set()
    for piece in pieces(data):
        decoder.receive(piece)
        while (command := decoder.next()) is not None:
            acts |= {each.act for each in table.command(command)}
            for slot in table.slots[:3]:
                if chance.random() < 0.5:
                    acts |= {each.act for each in _moves(table, slot, chance)}
            assert len(table.slots) <= limits.sockets
    for slot in table.slots:
        table.settled(slot, 0.0)
    table.tick(1e9)
    table.lost()
    assert all(slot.state is AgentSlotState.BUSY for slot in table.slots)
    return frozenset(acts)


# -- CCCP


@target(
    "cccp", [b"plc-7\rhello", b"plc-7\r\nhello", b"a/../b\r", b"x" * 64 + b"\r"], (RemoteError,), [b"\r\n"]
)
def cccp(data: bytes) -> Hashable:
    """A device's registration, whole and in pieces."""
    whole, cut = RegistrationDecoder(True), RegistrationDecoder(True)
    found = whole.receive(data)
    for piece in pieces(data):
        assert not (cut.serial is None and len(cut._held) > MAX_LINE)
        cut.receive(piece)
    assert cut.serial == whole.serial
    assert whole.serial is None or 1 <= len(whole.serial) <= MAX_LINE
    assert not found or whole.take() == cut.take()
    return found


_DOOR = cache(Door)
_HEADS = [
    b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path
    for path in (
        b"status?serial=plc-7",
        b"devices?limit=5&after=x",
        b"openapi.json",
        b"off?serial=plc-7",
        b"on?serial=plc-7&ip_whitelist=10.0.0.0/8&wait=true",
    )
]
_FORM = (
    b"POST /off HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 12\r\n\r\nserial=plc-7"
)
_CHUNKED = _FORM.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked").replace(
    b"serial=plc-7", b"c\r\nserial=plc-7\r\n0\r\n\r\n"
)


@target(
    "cccp-http",
    [*_HEADS, _FORM, _CHUNKED, _HEADS[0] * 3],
    words=[
        b"\r\n",
        b"%00",
        b"%",
        b"serial=",
        b"&",
        b"Content-Length: ",
        b"chunked",
        b"HTTP/1.1",
        b"Host: x\r\n",
    ],
)
def cccp_http(data: bytes) -> Hashable:
    """The HTTP API: every answer is whole and none says that we have failed."""
    channel, transport = _DOOR().site.channel(), StringTransport(HERE, HERE)
    transport.abortConnection = transport.loseConnection
    channel.makeConnection(transport)
    for piece in pieces(data):
        if not transport.disconnecting:
            channel.dataReceived(piece)
    _DOOR().reactor.advance(0)
    answer = transport.value()
    channel.connectionLost(Failure(ConnectionDone()))
    assert not answer or answer.startswith(b"HTTP/1."), answer
    assert not re.search(rb"^HTTP/1.. 500", answer, re.MULTILINE), answer
    return answer[9:12]


# -- CAMEO

_UNITS = [
    encode_message([b"one"]),
    encode_message([b"", b"0:0", b"", b"x" * 300]),
    encode_command(b"PING", b"\0\x0acontext"),
    encode_command(b"SUBSCRIBE", b"topic"),
    encode_message([b"topic", b"1"]) * 3,
    encode_more(b"left alone"),
]
_MOST, _FRAMES = 3000, 8


def _units(parts: list[bytes]) -> list[list[bytes]]:
    """What comes of them, as frames; runs are taken apart."""
    decoder = MessageDecoder(_MOST, _FRAMES, runs=True)
    found: list[list[bytes]] = []
    for part in parts:
        for unit in decoder.units(part):
            if isinstance(unit, ZmtpMessage):
                messages = split_run(bytes(unit.rest))
                assert len(messages) == unit.messages
                found += [split_frames(each) for each in messages]
            else:
                found.append([b"command", unit.body])
        assert decoder.held <= _MOST + MAX_COMMAND + 18
    return found


def _command(command: ZmtpCommand) -> str:
    name, rest = decode_command(command.body)
    if name == b"READY":
        decode_properties(rest)
    elif name == b"PING":
        decode_ping(rest)
    return name.decode("latin-1") if name in (b"READY", b"PING", b"SUBSCRIBE") else ""


@target(
    "zmtp",
    [GREETING + encode_ready(b"REQ", b"me") + b"".join(_UNITS), *(GREETING + each for each in _UNITS)],
    (RemoteError,),
    [*_UNITS, b"\1\0", b"\0\0", b"\4\6\5READY", b"\3" + (256).to_bytes(8, "big"), b"\2" + bytes(7) + b"\x05"],
)
def zmtp(data: bytes) -> Hashable:
    """Greeting, messages and commands; in pieces as whole."""
    if not check_greeting(data):
        return len(data) > 12
    rest = data[len(GREETING) :]
    whole = _units([rest])
    assert _units([*pieces(rest)]) == whole
    names = [_command(ZmtpCommand(each[1])) for each in whole if each[0] == b"command" and len(each) == 2]
    return frozenset(names), min(len(whole), 4)


# -- remote sessions

_LOCALPROXY = [
    encode_localproxy(
        LocalproxyMessage(kind, 1, b"data", "ssh", ("ssh", "http") if kind == 5 else (), number, number > 0)
    )
    for kind in LocalproxyType
    for number in (0, 1)
]


@target(
    "localproxy",
    [*_LOCALPROXY, b"".join(_LOCALPROXY), _LOCALPROXY[2] + _LOCALPROXY[0]],
    (RemoteError,),
    [*_LOCALPROXY, b"\x80", b"\xff" * 9, b"\x08\x01", b"\x10\x01", b"\x2a\x03ssh"],
)
def localproxy(data: bytes) -> Hashable:
    """Messages in pieces as whole, and what either side makes of them."""
    cut = LocalproxyDecoder()
    found = [*LocalproxyDecoder().receive(data)]
    assert [each for piece in pieces(data) for each in cut.receive(piece)] == found
    again = LocalproxyDecoder()
    for each in found:
        assert [*again.receive(encode_localproxy(each))] == [each]
    connections = LocalproxyConnections(("ssh", "http"), source=bool(len(data) % 4))
    if not connections.source:
        connections.start("ssh")
    kinds = {type(each).__name__ for piece in pieces(data) for each in connections.receive(piece)}
    for key in connections.keys:
        connections.data(key, data)
        connections.reset(key)
    assert not connections.keys
    return frozenset(kinds), frozenset(each.type for each in found if each.type < 8)


_BODIES = {
    AlwaysOnCode.AUTH: encode_auth("appKey", "secret"),
    AlwaysOnCode.BIND: encode_bind(Binding(("Robot1", "Robot2"), ("gate", "Gateway"))),
    AlwaysOnCode.POST: encode_request(start_tunnel("Robot1", "tid", "127.0.0.1", 22)),
    AlwaysOnCode.SUCCESS: encode_reply(AlwaysOnReply("why", b"\x16\0\0\0\x09")),
}
_ALWAYSON = [encode_alwayson(AlwaysOnMessage(code, 2, 3, body)) for code, body in _BODIES.items()]
_PART = b"\0\1\0\2\0\x10"
_PARTS = [
    encode_alwayson(AlwaysOnMessage(AlwaysOnCode.SUCCESS, 2, 3, _PART + b"hello", multipart=True)),
    encode_alwayson(AlwaysOnMessage(AlwaysOnCode.POST, 2, 3, _PART + b"\x0a\1xhello", multipart=True)),
]


def _read(message: AlwaysOnMessage) -> Hashable:
    if message.code is AlwaysOnCode.AUTH:
        claim = decode_auth(message.body)
        assert decode_auth(encode_auth(*claim)) == claim
    elif message.code in (AlwaysOnCode.BIND, AlwaysOnCode.UNBIND):
        binding = decode_bind(message.body)
        assert decode_bind(encode_bind(binding)) == binding
    elif message.code.is_request:
        request = decode_request(message.body)
        assert decode_request(encode_request(request)) == request
        return len(request.fields()) > 1
    elif message.code.is_reply:
        reply = decode_reply(message.body)
        assert decode_reply(encode_reply(reply)) == reply
    return None


@target(
    "alwayson",
    [*_ALWAYSON, *_PARTS],
    (RemoteError,),
    [_PART, b"\0\2\0\2\0\x10", b"\x05\1\1x\0\0\0\0\0", b"\x05" * 6, b"\x01", b"\xff", b"aGVsbG8="],
)
def alwayson(data: bytes) -> Hashable:
    """Messages, their bodies, and those that come in parts."""
    message = decode_alwayson(data)
    parts = AlwaysOnParts(2)
    for request in range(4):
        whole = parts.receive(message._replace(request=request, code=message.code))
        assert len(parts) <= 2
    if whole is None:
        second = bytearray(message.body)
        second[1] = 2  # the number of the part
        whole = parts.receive(message._replace(request=3, body=bytes(second)))
    read = None if whole is None else _read(whole)
    decode_tunnel(data.decode("latin-1"))
    return message.code, whole is None, read
