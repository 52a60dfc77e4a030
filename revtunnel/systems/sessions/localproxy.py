"""The bytes of AWS's localproxy, and its three versions seen as one: numbered connections of named services.

A WebSocket's binary messages are one byte stream of messages, each with its length before it (u16, big
endian), in protobuf's encoding:

=====  =========  ======  ===================  =======================================
field  encoding   name    in                   limits here
=====  =========  ======  ===================  =======================================
1      varint     type    every message        1 to 7
2      varint     stream  all but 4 and 5      1 to 2^31 - 1
3      varint     ignore  a type of the future 0 or 1: skip it if the type is unknown
4      bytes      data    1                    64,512 bytes
5      string     service from version 2 on    128 bytes
6      strings    names   5                    16, of 128 bytes each
7      varint     number  version 3            1 to 2^32 - 1
=====  =========  ======  ===================  =======================================

====  ================  =======================================================
type  name              means
====  ================  =======================================================
1     DATA              bytes of a connection
2     STREAM_START      the first connection of a service; what ran there, ends
3     STREAM_RESET      all connections of a stream end
4     SESSION_RESET     everything ends
5     SERVICE_IDS       from the server, first: which services there are
6     CONNECTION_START  version 3: one more connection of a stream
7     CONNECTION_RESET  version 3: one connection ends
====  ================  =======================================================

The rules: a version is judged by the fields of what begins a stream, for all three offer subprotocol 3.0, and
is kept to in what is answered; nothing is passed on from one side to the other. A stream of version 3
outlives its connections: a destination of 3.3.1 begins no other beside it. Data for a connection that is
unknown is dropped, for it may have crossed a reset. Our own numbers are never used twice.

Source: next/remote-sessions.md section 5; the public V1 to V3 WebSocketProtocolGuide and Message.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from revtunnel.ground.errors import LocalError, RemoteError

__all__ = [
    "MAX_CONNECTIONS",
    "MAX_DATA",
    "Arrived",
    "Begun",
    "Cut",
    "LocalproxyConnections",
    "LocalproxyDecoder",
    "LocalproxyMessage",
    "LocalproxyType",
    "encode_localproxy",
]

MAX_DATA = 64_512  # bytes of data in one message
MAX_MESSAGE = MAX_DATA + 512  # bytes of a message: with every other field at its largest there is room left
MAX_NAME = 128  # bytes of a service's name
MAX_NAMES = 16
MAX_CONNECTIONS = 128  # at once, of one WebSocket
_MAX_STREAM = 2**31 - 1
_MAX_NUMBER = 2**32 - 1
_LENGTH = Struct("!H")
_VARINT, _BYTES = 0, 2  # wire types
_SKIPPED = {1: 8, 5: 4}  # those of fixed size
_WIRE = {1: _VARINT, 2: _VARINT, 3: _VARINT, 4: _BYTES, 5: _BYTES, 6: _BYTES, 7: _VARINT}


class LocalproxyType(IntEnum):
    """What a message is."""

    DATA = 1
    STREAM_START = 2
    STREAM_RESET = 3
    SESSION_RESET = 4
    SERVICE_IDS = 5
    CONNECTION_START = 6
    CONNECTION_RESET = 7


T = LocalproxyType
_TYPES = frozenset(T)


class LocalproxyMessage(NamedTuple):
    """One message; 0, "" and b"" are fields that are not there."""

    type: int
    stream: int = 0
    data: bytes = b""
    service: str = ""
    names: tuple[str, ...] = ()
    number: int = 0
    ignorable: bool = False


# -- bytes


def encode_localproxy(message: LocalproxyMessage) -> bytes:
    """A message behind its length."""
    if len(message.data) > MAX_DATA:
        raise LocalError(f"{len(message.data)} bytes of data, limit {MAX_DATA}")
    body = b"".join(
        (
            _encode_number(1, message.type),
            _encode_number(2, message.stream),
            _encode_number(3, message.ignorable),
            _encode_bytes(4, message.data),
            _encode_bytes(5, message.service.encode()),
            *(_field(6, name.encode()) for name in message.names),  # also an empty one
            _encode_number(7, message.number),
        )
    )
    return _LENGTH.pack(len(body)) + body


def _encode_number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value) if value else b""


def _encode_bytes(field: int, value: bytes) -> bytes:
    return _field(field, value) if value else b""


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class LocalproxyDecoder:
    """Cuts a byte stream into messages; holds at most one that is not whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes | memoryview) -> Iterator[LocalproxyMessage]:
        """The messages that are whole now. RemoteError: one is none, and the stream is of no use any more."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE:
                raise RemoteError(f"a localproxy message of {length} bytes, limit {MAX_MESSAGE}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _decode(body)


def _decode(body: bytes) -> LocalproxyMessage:
    """One message. The last counts of a field that comes twice, as protobuf has it; unknown ones do not."""
    found: dict[int, int] = {}
    data, service, names = b"", "", []
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        field, wire = tag >> 3, tag & 7
        if field == 0 or _WIRE.get(field, wire) != wire:
            raise RemoteError(f"localproxy field {field} with wire type {wire}")
        if wire == _VARINT:
            found[field], at = _read_varint(body, at)
            continue
        size, at = _read_varint(body, at) if wire == _BYTES else (_SKIPPED.get(wire, len(body)), at)
        if size > len(body) - at:
            raise RemoteError(f"localproxy field {field} of {size} bytes, {len(body) - at} are left")
        value, at = body[at : at + size], at + size
        if field == 4:
            data = _bounded(value, MAX_DATA, "data")
        elif field == 5:
            service = _name(value)
        elif field == 6:
            names.append(_name(value))
    if len(names) > MAX_NAMES:
        raise RemoteError(f"{len(names)} localproxy services, limit {MAX_NAMES}")
    stream, number = found.get(2, 0), found.get(7, 0)
    if stream > _MAX_STREAM or number > _MAX_NUMBER:
        raise RemoteError(f"localproxy stream {stream}, connection {number}: out of range")
    return LocalproxyMessage(found.get(1, 0), stream, data, service, tuple(names), number, bool(found.get(3)))


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    value = shift = 0
    while at < len(body) and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 2**64 - 1, at
        shift += 7
    raise RemoteError("a localproxy number without its end")


def _bounded(value: bytes, most: int, what: str) -> bytes:
    if len(value) > most:
        raise RemoteError(f"localproxy {what} of {len(value)} bytes, limit {most}")
    return value


def _name(value: bytes) -> str:
    try:
        return _bounded(value, MAX_NAME, "service").decode()
    except UnicodeDecodeError:
        raise RemoteError(f"localproxy service {value[:32]!r} is no UTF-8") from None


# -- connections


class Begun(NamedTuple):
    """The source opened a connection: ``key`` is ours for it."""

    key: int
    service: str


class Arrived(NamedTuple):
    """Bytes of a connection."""

    key: int
    data: bytes


class Cut(NamedTuple):
    """The other side ended a connection; there is no other end than this one."""

    key: int


Happening = Begun | Arrived | Cut


@dataclass(frozen=True, slots=True)
class _Where:
    """A connection as the other side numbers it; ``number`` 0: before version 3, ``service`` "": before 2."""

    service: str
    stream: int
    number: int

    @property
    def version(self) -> int:
        return 3 if self.number else 2 if self.service else 1


class LocalproxyConnections:
    """What runs on one WebSocket, whose other side is a source (its user opens) or a destination (we do)."""

    def __init__(self, services: tuple[str, ...], source: bool, version: int = 3) -> None:
        """``services``: at least one; ``version`` is spoken to a destination, the highest that it offers."""
        self.services = services
        self.source = source
        self.version = version
        self.replies = bytearray()  # to be written after ``receive``
        self._decoder = LocalproxyDecoder()
        self._where: dict[int, _Where] = {}
        self._keys: dict[_Where, int] = {}
        self._streams: dict[str, int] = {}  # the one that runs, by service as it is named on the wire
        self._last_key = self._last_stream = self._last_number = 0

    @property
    def keys(self) -> tuple[int, ...]:
        """The connections that run."""
        return tuple(self._where)

    def service_ids(self) -> bytes:
        """What a server says first."""
        return encode_localproxy(LocalproxyMessage(T.SERVICE_IDS, names=self.services))

    # -- what comes

    def receive(self, data: bytes | memoryview) -> Iterator[Happening]:
        """What these bytes bring. RemoteError: they break the rules, and all connections end with that."""
        for message in self._decoder.receive(data):
            yield from self._take(message)

    def _take(self, message: LocalproxyMessage) -> Iterator[Happening]:
        if message.type == T.SESSION_RESET:
            self._streams.clear()
            yield from self._cut([*self._where])
        elif message.type == T.DATA:
            key = self._keys.get(_Where(message.service, self._stream(message), message.number))
            if key is not None and message.data:
                yield Arrived(key, message.data)
        elif message.type == T.STREAM_RESET:
            stream = self._stream(message)
            yield from self._cut(self._of(message.service, stream))
            self._forget_stream(message.service, stream)
        elif message.type == T.CONNECTION_RESET:
            key = self._keys.get(_Where(message.service, self._stream(message), message.number))
            yield from self._cut([] if key is None else [key])
        elif message.type in (T.STREAM_START, T.CONNECTION_START) and self.source:
            yield from self._begin(message)
        elif message.type in _TYPES:
            raise RemoteError(f"{T(message.type).name} from a localproxy that may not say it")
        elif not message.ignorable:
            raise RemoteError(f"localproxy type {message.type}, which may not be ignored")

    def _begin(self, message: LocalproxyMessage) -> Iterator[Happening]:
        """A source's user has connected."""
        stream = self._stream(message)
        where = _Where(message.service, stream, message.number)
        if message.type == T.STREAM_START:
            running = self._streams.get(message.service)
            if running is not None:
                yield from self._cut(self._of(message.service, running))
            self._streams[message.service] = stream
        elif self._streams.get(message.service) != stream or not message.number:
            raise RemoteError(f"CONNECTION_START of stream {stream}, which does not run")
        if where in self._keys:
            raise RemoteError(f"localproxy connection {message.number} begins twice")
        service = message.service or self.services[0]
        key = self._add(where)
        if service not in self.services or len(self._where) > MAX_CONNECTIONS:
            self.replies += self.reset(key)
        else:
            yield Begun(key, service)

    def _stream(self, message: LocalproxyMessage) -> int:
        if not message.stream:
            raise RemoteError(f"{T(message.type).name} of stream 0")
        return message.stream

    # -- what we say

    def start(self, service: str) -> tuple[int, bytes] | None:
        """Open a connection at a destination; None: before version 3 one runs already, or too many do.

        There is no answer: who is refused at the destination sees it at the first byte, or never.
        """
        if self.source or service not in self.services:
            raise LocalError(f"no connection to {service} is opened here")
        name = service if self.version > 1 else ""
        stream = self._streams.get(name, 0)
        if len(self._where) >= MAX_CONNECTIONS or (self.version < 3 and self._of(name, stream)):
            return None
        running = self.version == 3 and stream  # also when its last connection has ended
        if not running:
            self._last_stream += 1
            self._streams[name] = self._last_stream
        if self.version == 3:
            self._last_number += 1
        where = _Where(name, self._streams[name], self._last_number)
        return self._add(where), self._say(T.CONNECTION_START if running else T.STREAM_START, where)

    def data(self, key: int, data: bytes | memoryview) -> bytes:
        """Bytes of a connection, in as many messages as they need; b"": it has ended."""
        where = self._where.get(key)
        if where is None:
            return b""
        view = memoryview(data)
        pieces = (bytes(view[at : at + MAX_DATA]) for at in range(0, len(view), MAX_DATA))
        return b"".join(self._say(T.DATA, where, piece) for piece in pieces)

    def reset(self, key: int) -> bytes:
        """End a connection, once all its bytes were said; b"": it has ended."""
        where = self._where.get(key)
        if where is None:
            return b""
        self._remove(key)
        if where.version == 3:
            return self._say(T.CONNECTION_RESET, where)
        self._forget_stream(where.service, where.stream)
        return self._say(T.STREAM_RESET, where)

    def session_reset(self) -> bytes:
        """End everything."""
        for key in self.keys:
            self._remove(key)
        self._streams.clear()
        return encode_localproxy(LocalproxyMessage(T.SESSION_RESET))

    # -- inside

    def _say(self, kind: LocalproxyType, where: _Where, data: bytes = b"") -> bytes:
        return encode_localproxy(
            LocalproxyMessage(kind, where.stream, data, where.service, number=where.number)
        )

    def _add(self, where: _Where) -> int:
        self._last_key += 1
        self._where[self._last_key] = where
        self._keys[where] = self._last_key
        return self._last_key

    def _remove(self, key: int) -> None:
        del self._keys[self._where.pop(key)]

    def _of(self, service: str, stream: int) -> list[int]:
        """The connections of a stream."""
        return [key for key, each in self._where.items() if (each.service, each.stream) == (service, stream)]

    def _cut(self, keys: list[int]) -> Iterator[Happening]:
        for key in keys:
            self._remove(key)
            yield Cut(key)

    def _forget_stream(self, service: str, stream: int) -> None:
        if self._streams.get(service) == stream:
            del self._streams[service]
