"""How a channel begins on a data socket: the few frames before its raw bytes, as either end reads them.

::

    agent  -> server   ATTACH     once connected; then the socket waits for a client
    server -> agent    WITHIN     the remote session that the client is of, if it is of one
                       ORIGIN     where the client comes from, if the agent asked for that in HELLO
                       AFTER      the streams that are to be closed before the target is dialled
                       CONNECT    the target; raw bytes of the client follow, if the agent takes them so
    agent  -> server   OPENED     from here on raw bytes, both ways
                       or RESET   with a reason, and the connection is closed

The rules: all channel bytes are 0; anything else ends the socket. Bytes behind CONNECT are the client's,
those behind OPENED the service's.

Source: wire/link-extension.md "Data sockets".
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.origin import Origin, decode_origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.streams.commands import (
    EXACT_SIZE,
    MAX_SIZE,
    After,
    Command,
    decode_after,
    decode_connect,
    decode_reset,
    named,
)
from revtunnel.streams.frames import FrameDecoder

__all__ = ["AwaitAnswer", "AwaitConnect", "OpeningAnswer"]

_OPENED = b"\0\0\x13\0"


class OpeningAnswer(NamedTuple):
    """What the agent said. ``reason`` is None: the target was reached, and ``rest`` are its first bytes."""

    reason: Ended | None
    detail: str
    rest: bytes


def _judge(most: dict[int, int], size: int, command: int, channel: int) -> None:
    """Refuse a frame that has no place here by its header."""
    limit = most.get(command)
    if limit is None or channel:
        raise RemoteError(f"{named(command)} on channel {channel} of a data socket that is not open")
    exact = EXACT_SIZE.get(command)  # type: ignore[call-overload]
    if size > limit or (exact is not None and size != exact):
        raise RemoteError(f"{named(command)} of {size} bytes on a data socket")


_OF_SERVER = {
    int(each): MAX_SIZE[each] for each in (Command.WITHIN, Command.ORIGIN, Command.AFTER, Command.CONNECT)
}
_OF_AGENT = {int(Command.OPENED): 0, int(Command.RESET): MAX_SIZE[Command.RESET]}


class AwaitConnect:
    """The agent's end: what the server asks for, and for whom; ``read`` reads what CONNECT names."""

    def __init__(self, read: Callable[[bytes], Target] = decode_connect) -> None:
        self._read = read
        self.origin: Origin | None = None
        self.session = ""
        self.after: After | None = None
        self.early = b""  # what stood behind CONNECT
        self._decoder = FrameDecoder(partial(_judge, _OF_SERVER))

    def receive(self, data: bytes) -> Target | None:
        """Take bytes; the target once CONNECT is whole.

        Raises:
            RemoteError: another frame, a bad one, or a second ORIGIN, WITHIN or AFTER.
        """
        self._decoder.receive(data)
        for frame in self._decoder.frames(4):
            if frame.command == Command.AFTER and self.after is None:
                self.after = decode_after(frame.payload)
                continue
            if frame.command == Command.ORIGIN and self.origin is None and self.after is None:
                self.origin = decode_origin(frame.payload)
                continue
            if frame.command == Command.WITHIN and not (self.session or self.origin or self.after):
                self.session = frame.payload.hex()
                continue
            if frame.command != Command.CONNECT:
                raise RemoteError(f"a second {Command(frame.command).name} on a data socket, or a late one")
            self.early = self._decoder.rest()
            return self._read(frame.payload)
        return None


class AwaitAnswer:
    """The server's end: whether the target was reached."""

    def __init__(self) -> None:
        self._decoder: FrameDecoder | None = None

    def receive(self, data: bytes) -> OpeningAnswer | None:
        """Take bytes; the answer once it is whole.

        Raises:
            RemoteError: anything else than OPENED or RESET.
        """
        if self._decoder is None and data.startswith(_OPENED):  # as it comes nearly always
            return OpeningAnswer(None, "", data[len(_OPENED) :])
        if self._decoder is None:
            self._decoder = FrameDecoder(partial(_judge, _OF_AGENT))
        self._decoder.receive(data)
        for frame in self._decoder.frames(1):
            if frame.command == Command.RESET:
                return OpeningAnswer(*decode_reset(frame.payload), b"")
            return OpeningAnswer(None, "", self._decoder.rest())
        return None
