"""The bytes of ThingWorx's AlwaysOn: messages of a device and its platform, and what tunnels add to them.

A binary message of a WebSocket is one AlwaysOn message; all numbers are big endian. ::

    version u8 = 1 · code u8 · request u32 · endpoint u32 · session u32 · multipart u8 · body

====  ============  =======================================================================
code  name          body
====  ============  =======================================================================
01    GET           request
02    PUT           request
03    POST          request: a service is invoked
04    DELETE        request
0a    BIND          gateway u8 (1: name string, type string follow) · count u16 · names
0b    UNBIND        as BIND
14    AUTH          count u8 = 1 · name string · value string
1f    KEEP_ALIVE    -
40    SUCCESS       answer
80    BAD_REQUEST   answer
81    UNAUTHORIZED  answer
83    FORBIDDEN     answer
84    NOT_FOUND     answer
8d    TOO_LARGE     answer
a0    INTERNAL      answer
a3    UNAVAILABLE   answer
a4    TIMEOUT       answer
====  ============  =======================================================================

::

    request    entity u8 (0a: Thing) · name string · characteristic u8 (02: service) · name string
               · headers u8, each name string and value string · primitive (05: infotable, or ff)
    answer     reason u8 (1: string follows) · primitive
    string     u8 below 128, or u32 with the top bit set · bytes of UTF-8
    primitive  type u8 · value
    infotable  per field: 01 · name string · description string · type u8 · aspects u16, each name string
               and primitive · then 00; per row: 01 · count u16 · primitives · then 00
    part       (multipart 1) number u16 from 1 · parts u16 · size u16, then for requests entity u8 and name
               string, then bytes of the body behind them

====  ==========  =====================
type  name        value
====  ==========  =====================
00    STRING      string
01    NUMBER      f64
02    BOOLEAN     u8
03    DATETIME    u64, milliseconds
05    INFOTABLE   infotable
16    INTEGER     i32
ff    NOTHING     -
====  ==========  =====================

A tunnel is a WebSocket of its own: text messages, each base64 of at most chunksize - 16 bytes.

Rule of this file: a size is judged before what it counts; a body that is not asked for is not read, so that a
device may say what it likes. Names are kept below 128 bytes, for SDK 1.3.1 writes longer ones wrongly.

Source: next/remote-sessions.md section 4, its golden bytes; the public Edge C SDK for what is in between.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from revtunnel.ground.errors import LocalError, RemoteError

__all__ = [
    "CHUNK",
    "FRAME",
    "NOTHING",
    "AlwaysOnCode",
    "AlwaysOnMessage",
    "AlwaysOnParts",
    "AlwaysOnReply",
    "AlwaysOnRequest",
    "BaseType",
    "Binding",
    "Value",
    "complete_tunnel",
    "decode_alwayson",
    "decode_auth",
    "decode_bind",
    "decode_reply",
    "decode_request",
    "decode_tunnel",
    "encode_alwayson",
    "encode_auth",
    "encode_bind",
    "encode_reply",
    "encode_request",
    "encode_tunnel",
    "start_tunnel",
    "tunnel_command",
]

VERSION = 1
FRAME = 8192  # bytes of one message: more goes in parts
MAX_MESSAGE = 16_384  # bytes of one that is whole again
MAX_PARTS = 64  # of one message
MAX_NAME = 127  # bytes of a name that is ours to choose
MAX_NAMES = 256  # of one BIND
MAX_ROWS = 1024  # of one infotable
MAX_DEPTH = 4  # infotables within infotables
CHUNK = 8192  # what a tunnel is told: raw bytes of one message are 16 fewer
IDLE = 86_400_000  # milliseconds: its idle clock loses data, so ours counts
READ_TIMEOUT = 30_000  # milliseconds
THING, SERVICE = 0x0A, 0x02
_HEADER = Struct("!BBIIIB")
_U16, _U32 = Struct("!H"), Struct("!I")
_PART = Struct("!HHH")
_LONG = 0x80000000


class AlwaysOnCode(IntEnum):
    """What a message is."""

    GET = 0x01
    PUT = 0x02
    POST = 0x03
    DELETE = 0x04
    BIND = 0x0A
    UNBIND = 0x0B
    AUTH = 0x14
    KEEP_ALIVE = 0x1F
    SUCCESS = 0x40
    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    FORBIDDEN = 0x83
    NOT_FOUND = 0x84
    TOO_LARGE = 0x8D
    INTERNAL = 0xA0
    UNAVAILABLE = 0xA3
    TIMEOUT = 0xA4

    @property
    def is_request(self) -> bool:
        """Whether it asks something of an entity."""
        return self <= AlwaysOnCode.DELETE

    @property
    def is_reply(self) -> bool:
        """Whether it answers."""
        return self >= AlwaysOnCode.SUCCESS


class BaseType(IntEnum):
    """What a primitive is."""

    STRING = 0x00
    NUMBER = 0x01
    BOOLEAN = 0x02
    DATETIME = 0x03
    INFOTABLE = 0x05
    INTEGER = 0x16
    NOTHING = 0xFF


NOTHING = bytes((BaseType.NOTHING,))
_FIXED = {
    BaseType.NUMBER: Struct("!d"),
    BaseType.BOOLEAN: Struct("!?"),
    BaseType.DATETIME: Struct("!Q"),
    BaseType.INTEGER: Struct("!i"),
}
Table = list[dict[str, "Value"]]
Value = str | float | bool | int | None | Table


class AlwaysOnMessage(NamedTuple):
    """One message, or one part of one; ``body`` is not looked at."""

    code: AlwaysOnCode
    request: int
    session: int
    body: bytes
    endpoint: int = 0
    multipart: bool = False


class Binding(NamedTuple):
    """What a BIND says: the names of things behind this connection."""

    names: tuple[str, ...]
    gateway: tuple[str, str] | None = None  # name and type


class AlwaysOnRequest(NamedTuple):
    """What a GET, PUT, POST or DELETE asks; ``params`` is a primitive that nobody has read."""

    entity: str
    name: str
    params: bytes = NOTHING
    entity_type: int = THING
    characteristic: int = SERVICE

    def fields(self) -> dict[str, Value]:
        """The one row of its parameters. RemoteError: they cannot be read, or are not one row."""
        table = _Reader(self.params).whole(_Reader.primitive)
        if table is None:
            return {}
        if not isinstance(table, list) or len(table) != 1:
            raise RemoteError(f"parameters of {self.name[:80]!a}: an infotable of one row wanted")
        return table[0]


class AlwaysOnReply(NamedTuple):
    """What an answer says; ``content`` is a primitive that nobody has read."""

    reason: str
    content: bytes = NOTHING


# -- messages


def encode_alwayson(message: AlwaysOnMessage) -> bytes:
    """One message. LocalError: it passes FRAME."""
    head = _HEADER.pack(VERSION, *message[:2], message.endpoint, message.session, message.multipart)
    if len(head) + len(message.body) > FRAME:
        raise LocalError(f"an AlwaysOn message of {len(head) + len(message.body)} bytes, limit {FRAME}")
    return head + message.body


def decode_alwayson(data: bytes) -> AlwaysOnMessage:
    """What a binary message is. RemoteError: it is none."""
    if len(data) > MAX_MESSAGE:
        raise RemoteError(f"an AlwaysOn message of {len(data)} bytes, limit {MAX_MESSAGE}")
    if len(data) < _HEADER.size:
        raise RemoteError(f"an AlwaysOn message of {len(data)} bytes, {_HEADER.size} are its head")
    version, number, request, endpoint, session, multipart = _HEADER.unpack_from(data)
    if version != VERSION or multipart > 1:
        raise RemoteError(f"an AlwaysOn message of version {version}, multipart {multipart}")
    try:
        code = AlwaysOnCode(number)
    except ValueError:
        raise RemoteError(f"AlwaysOn code 0x{number:02x}") from None
    return AlwaysOnMessage(code, request, session, data[_HEADER.size :], endpoint, bool(multipart))


class AlwaysOnParts:
    """Puts messages together that came in parts; holds ``most``, and forgets the oldest for one more."""

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._held: dict[int, tuple[int, dict[int, bytes]]] = {}  # by request: how many, and which came

    def __len__(self) -> int:
        """Messages that are not whole."""
        return len(self._held)

    def receive(self, message: AlwaysOnMessage) -> AlwaysOnMessage | None:
        """The whole message; None: parts are missing. RemoteError: too large, or not as it began."""
        if not message.multipart:
            return message
        reader = _Reader(message.body)
        number, parts, size = _PART.unpack(reader.take(_PART.size))
        begin = reader.at
        if message.code.is_request:
            reader.take(1)
            reader.string()
        entity, data = message.body[begin : reader.at], message.body[reader.at :]
        before, held = self._held.pop(message.request, (parts, {}))
        if parts != before or not 1 <= number <= parts <= MAX_PARTS:
            raise RemoteError(f"AlwaysOn part {number} of {parts}, {before} at first, limit {MAX_PARTS}")
        held.setdefault(number, data)
        if parts * size > MAX_MESSAGE or sum(map(len, held.values())) > MAX_MESSAGE:
            raise RemoteError(f"{parts} AlwaysOn parts of {size} bytes, limit {MAX_MESSAGE}")
        if len(held) == parts:
            body = entity + b"".join(held[each] for each in sorted(held))
            return message._replace(body=body, multipart=False)
        self._held[message.request] = parts, held
        if len(self._held) > self._most:
            del self._held[next(iter(self._held))]
        return None


# -- bodies


def encode_auth(name: str, value: str) -> bytes:
    """The body of AUTH."""
    return b"\1" + _string(name) + _string(value)


def decode_auth(body: bytes) -> tuple[str, str]:
    """Name and value of the one claim. RemoteError: anything else."""
    reader = _Reader(body)
    if reader.byte() != 1:
        raise RemoteError("AUTH with another number of claims than one")
    claim = reader.string(), reader.string()
    reader.finish()
    return claim


def encode_bind(binding: Binding) -> bytes:
    """The body of BIND and UNBIND."""
    gateway = b"\0" if binding.gateway is None else b"\1" + b"".join(map(_string, binding.gateway))
    return gateway + _U16.pack(len(binding.names)) + b"".join(map(_string, binding.names))


def decode_bind(body: bytes) -> Binding:
    """What a BIND or UNBIND names. RemoteError: it cannot be read, or names too many."""
    reader = _Reader(body)
    gateway = (reader.string(), reader.string()) if reader.byte() else None
    (count,) = _U16.unpack(reader.take(_U16.size))
    if count > MAX_NAMES:
        raise RemoteError(f"BIND of {count} names, limit {MAX_NAMES}")
    names = tuple(reader.string() for _ in range(count))
    reader.finish()
    return Binding(names, gateway)


def encode_request(request: AlwaysOnRequest) -> bytes:
    """The body of GET, PUT, POST and DELETE."""
    entity = bytes((request.entity_type,)) + _string(request.entity)
    return entity + bytes((request.characteristic,)) + _string(request.name) + b"\0" + request.params


def decode_request(body: bytes) -> AlwaysOnRequest:
    """What is asked. RemoteError: entity, characteristic or headers cannot be read."""
    reader = _Reader(body)
    entity_type, entity = reader.byte(), reader.string()
    characteristic, name = reader.byte(), reader.string()
    for _ in range(2 * reader.byte()):
        reader.string()
    return AlwaysOnRequest(entity, name, body[reader.at :], entity_type, characteristic)


def encode_reply(reply: AlwaysOnReply) -> bytes:
    """The body of every answer."""
    return (b"\1" + _string(reply.reason) if reply.reason else b"\0") + reply.content


def decode_reply(body: bytes) -> AlwaysOnReply:
    """What is answered. RemoteError: it cannot be read."""
    reader = _Reader(body)
    reason = reader.string() if reader.byte() else ""
    return AlwaysOnReply(reason, body[reader.at :])


# -- tunnels


def start_tunnel(thing: str, tid: str, host: str, port: int) -> AlwaysOnRequest:
    """The service that has a device dial one of its own, for one connection."""
    connection = json.dumps({"host": host, "port": port, "num_connects": 1}, separators=(",", ":"))
    fields: dict[str, str | int] = {"tid": tid, "type": "tcp", "chunksize": CHUNK, "idle_timeout": IDLE}
    return _service(thing, "StartTunnel", {**fields, "read_timeout": READ_TIMEOUT, "connection": connection})


def tunnel_command(thing: str, tid: str, command: str) -> AlwaysOnRequest:
    """``CONNECT`` or ``DISCONNECT``, said to the device."""
    return _service(thing, "TunnelCommandToEdge", {"tid": tid, "command": command})


def complete_tunnel(thing: str, tid: str, peer: str, reason: str) -> AlwaysOnRequest:
    """A tunnel is over; ``peer`` must not be missing."""
    connection = json.dumps({"reason": reason}, separators=(",", ":"))
    return _service(thing, "CompleteTunnel", {"tid": tid, "peer_name": peer, "connection": connection})


def encode_tunnel(data: bytes, chunk: int = CHUNK) -> Iterator[str]:
    """Bytes of a tunnel as its text messages."""
    most = chunk - 16
    for at in range(0, len(data), most):
        yield base64.b64encode(data[at : at + most]).decode("ascii")


def decode_tunnel(text: str) -> bytes:
    """The bytes of one text message of a tunnel. RemoteError: it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RemoteError(f"a tunnel's message is no base64: {error}") from None


def _service(thing: str, name: str, fields: Mapping[str, str | int]) -> AlwaysOnRequest:
    """A POST whose parameters are one row of strings and integers."""
    shape = b"".join(
        b"\1" + _string(each) + b"\0" + bytes((_type_of(value),)) + b"\0\0" for each, value in fields.items()
    )
    row = b"".join(bytes((_type_of(value),)) + _value(value) for value in fields.values())
    table = shape + b"\0\1" + _U16.pack(len(fields)) + row + b"\0"
    return AlwaysOnRequest(thing, name, bytes((BaseType.INFOTABLE,)) + table)


def _type_of(value: str | int) -> BaseType:
    return BaseType.STRING if isinstance(value, str) else BaseType.INTEGER


def _value(value: str | int) -> bytes:
    return _string(value) if isinstance(value, str) else _FIXED[BaseType.INTEGER].pack(value)


# -- values


def _string(text: str) -> bytes:
    data = text.encode()
    return (bytes((len(data),)) if len(data) <= MAX_NAME else _U32.pack(_LONG | len(data))) + data


class _Reader:
    """Reads a body from its beginning; every fault is a RemoteError."""

    def __init__(self, body: bytes) -> None:
        self.at = 0
        self._body = body
        self._rows = 0

    def whole(self, what: Callable[["_Reader"], Value]) -> Value:
        """All of the body is one of these."""
        value = what(self)
        self.finish()
        return value

    def take(self, size: int) -> bytes:
        """So many bytes."""
        if size > len(self._body) - self.at:
            raise RemoteError(f"an AlwaysOn body ends at {len(self._body)}, {size} bytes wanted at {self.at}")
        self.at += size
        return self._body[self.at - size : self.at]

    def byte(self) -> int:
        """A number of one byte."""
        return self.take(1)[0]

    def string(self) -> str:
        """A string."""
        size = self.byte()
        if size > MAX_NAME:
            size = int.from_bytes(bytes((size & 0x7F,)) + self.take(3), "big")
        data = self.take(size)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise RemoteError(f"an AlwaysOn string {data[:32]!r} is no UTF-8") from None

    def finish(self) -> None:
        """Nothing may follow."""
        if self.at < len(self._body):
            raise RemoteError(f"{len(self._body) - self.at} bytes behind an AlwaysOn body")

    def primitive(self, depth: int = 0) -> Value:
        """A type and its value."""
        number = self.byte()
        try:
            kind = BaseType(number)
        except ValueError:
            raise RemoteError(f"an AlwaysOn value of type {number}, which is not read here") from None
        if kind is BaseType.STRING:
            return self.string()
        if kind is BaseType.INFOTABLE:
            return self.table(depth + 1)
        if kind is BaseType.NOTHING:
            return None
        found: float | bool | int = _FIXED[kind].unpack(self.take(_FIXED[kind].size))[0]
        return found

    def table(self, depth: int) -> Table:
        """An infotable as rows by name."""
        if depth > MAX_DEPTH:
            raise RemoteError(f"infotables {depth} deep, limit {MAX_DEPTH}")
        names = []
        while self.byte():
            names.append(self.string())
            self.string()
            self.byte()
            for _ in range(_U16.unpack(self.take(_U16.size))[0]):
                self.string()
                self.primitive(depth)
        rows: Table = []
        while self.byte():
            self._rows += 1
            (count,) = _U16.unpack(self.take(_U16.size))
            if count != len(names) or self._rows > MAX_ROWS:
                raise RemoteError(
                    f"row {self._rows} of {count} values, {len(names)} wanted, limit {MAX_ROWS}"
                )
            rows.append({name: self.primitive(depth) for name in names})
        return rows
