"""One request of a browser and its answer, streamed between two connections; and what follows an upgrade.

The rules: both directions go on at once, and a side that takes nothing stops the other; heads are bounded,
bodies are not, and are never held. Each side's framing is made anew of what was understood, so that no two
readers can differ about where a message ends; a message that says its length in two ways is refused. An
answer that is cut is cut for the browser, too, before its last byte. Who hangs up while an answer is awaited
has left: his request is cut at the device (a half-closed client is none of HTTP's).

Source: RFC 9110, RFC 9112; h11; faults.md H14; ours.
"""

from typing import Any

import h11
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from revtunnel.process.web.awaited_connection import AwaitedConnection
from revtunnel.process.web.proxy_headers import (
    Field,
    PageOrigin,
    fault_of,
    to_browser,
    to_device,
    trailers,
    upgrade,
)

__all__ = ["DeviceFault", "HttpSide", "exchange", "fields_of", "join"]

HEAD = 64 * 1024  # bytes of a device's head


class DeviceFault(Exception):
    """The device's side of an exchange has failed; the text is for people."""


class HttpSide:
    """One end of an exchange: a connection and what h11 knows of it."""

    def __init__(self, connection: AwaitedConnection, role: Any, head: int = HEAD) -> None:
        self.connection = connection
        self.h11 = h11.Connection(role, max_incomplete_event_size=head)

    async def event(self) -> Any:
        """What comes next. OSError, h11.RemoteProtocolError."""
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            self.h11.receive_data(await self.connection.receive())
        return event

    async def say(self, event: Any) -> None:
        """Returns when more may be said. OSError."""
        data = self.h11.send(event)
        if data:
            await self.connection.send(data)

    def next(self) -> bool:
        """Be ready for another request, if both are."""
        if self.h11.our_state is not h11.DONE or self.h11.their_state is not h11.DONE:
            return False
        self.h11.start_next_cycle()
        return True


def fields_of(event: Any) -> list[Field]:
    """The fields of a head, as they were written."""
    return [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]


async def exchange(
    front: HttpSide, back: HttpSide, request: h11.Request, page: PageOrigin, keep: bool
) -> bool:
    """Ask the device, and answer; True: both go on with another protocol, and are to be joined.

    Raises:
        DeviceFault: of the device, before a byte of the answer was passed on.
        OSError, h11.ProtocolError: either side is to be cut.
    """
    said = to_device(fields_of(request), page, keep)
    try:
        await back.say(h11.Request(method=request.method, target=request.target, headers=said))
    except OSError as error:
        raise DeviceFault(str(error)) from None
    upload = Deferred.fromCoroutine(_upload(front, back))
    broken: list[BaseException] = []
    answering = Deferred.fromCoroutine(_download(front, back, page))

    def stop(why: BaseException) -> None:
        broken.append(why)
        answering.cancel()

    def failed(failure: Failure) -> None:
        if not failure.check(CancelledError) and failure.value is not None:
            stop(failure.value)

    def watch(_: None) -> None:
        left = ConnectionResetError("the browser left before the answer")
        front.connection.watch(lambda: stop(left))

    upload.addCallback(watch)
    upload.addErrback(failed)
    try:
        return await answering
    except CancelledError:
        if broken:
            raise broken[0] from None
        raise
    finally:
        front.connection.watch(None)
        upload.cancel()


async def _upload(front: HttpSide, back: HttpSide) -> None:
    """The request's body; a device that takes no more of it has perhaps answered."""
    while True:
        event = await front.event()
        if isinstance(event, h11.EndOfMessage):
            event = h11.EndOfMessage(headers=trailers(fields_of(event)))
        try:
            await back.say(event)
        except OSError:
            return
        if isinstance(event, h11.EndOfMessage):
            return


async def _download(front: HttpSide, back: HttpSide, page: PageOrigin) -> bool:
    """The answer; True: it was 101."""
    begun = False
    while True:
        try:
            event = await back.event()
            if not begun and isinstance(event, h11.ConnectionClosed):
                raise DeviceFault("it hung up without an answer")
        except (OSError, h11.RemoteProtocolError) as error:
            if begun:
                raise
            raise DeviceFault(str(error)) from None
        if isinstance(event, h11.InformationalResponse | h11.Response):
            begun = isinstance(event, h11.Response)
            if await _pass_head(front, event, page):
                return True
            continue
        if isinstance(event, h11.EndOfMessage):
            event = h11.EndOfMessage(headers=trailers(fields_of(event)))
        await front.say(event)
        if isinstance(event, h11.EndOfMessage):
            return False


async def _pass_head(front: HttpSide, event: Any, page: PageOrigin) -> bool:
    fields = fields_of(event)
    if fault := fault_of(fields):
        raise DeviceFault(fault)
    switches: bool = event.status_code == 101
    said = to_browser(fields, page)
    if switches:
        said += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade(fields))]
    elif page.last and isinstance(event, h11.Response):
        said.append((b"Connection", b"close"))
    if front.h11.their_http_version == b"1.0" and isinstance(event, h11.InformationalResponse):
        return False  # RFC 9110 section 15.2
    kind = type(event)
    await front.say(kind(status_code=event.status_code, headers=said, reason=event.reason))
    return switches


async def join(front: HttpSide, back: HttpSide) -> None:
    """Pass bytes both ways until both have ended in order. OSError: either was cut; so is the other to be."""
    ways = [_pour(front, back), _pour(back, front)]
    running = [Deferred.fromCoroutine(each) for each in ways]
    first: Deferred[None] = Deferred()
    left = len(running)

    def over(result: Any) -> None:
        nonlocal left
        left -= 1
        if not first.called and (result is not None or not left):
            first.callback(result)

    for each in running:
        each.addBoth(over)
    try:
        await first
    finally:
        for each in running:
            each.cancel()


async def _pour(source: HttpSide, sink: HttpSide) -> None:
    data, _ = source.h11.trailing_data
    while data or (data := await source.connection.receive()):
        await sink.connection.send(data)
        data = b""
    sink.connection.transport.loseWriteConnection()
