"""What happens, as it happens, for pages and programs: server-sent events of the facts that ``watch`` shows.

Rule of this file: nobody makes the server wait, or hold more than a named number of bytes for him. Whoever
does not read is reset and counted; whoever reads on from a number gets what he missed, if it is among the
last ``KEPT``, and is told if it is not. A person sees the facts that name him, a reader all.

======================  ====================================================================================
limit                   what happens beyond it
======================  ====================================================================================
``most``                readers in all: the next one gets 503
``most_per_person``     likewise
``UNSENT`` bytes        of facts waiting for a reader: he is reset
``STALLED`` seconds     without taking what waits for him: likewise
======================  ====================================================================================

Source: HTML Living Standard, "Server-sent events"; next/web.md section 3; ours.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from revtunnel.ground.facts import Fact
from revtunnel.process.admin.admin_boxes import in_json
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.web.askers import Asker
from revtunnel.process.web.http_answers import HttpRefused, header

__all__ = ["EventStreams"]

KEPT = 1000  # facts for those who come back
UNSENT = 256 * 1024
STALLED = 10.0
BREATH = 15.0  # seconds between signs of life, and looks whether the reader may still


class _Told(NamedTuple):
    number: int
    row: Row

    @property
    def text(self) -> bytes:
        return f"id: {self.number}\nevent: {self.row['event']}\ndata: {in_json(self.row)}\n\n".encode("ascii")


class EventStreams:
    """All readers of a server.

    ``watch`` has every fact from now on (``DaemonOperator.watch``); ``now``: the time of day, as log lines
    have it; ``stands``: whether somebody's login still counts.
    """

    most = 64
    most_per_person = 8

    def __init__(
        self,
        clock: Any,
        watch: Callable[[Callable[[Fact], None]], Callable[[], None]],
        now: Callable[[], str],
        stands: Callable[[Asker], bool],
    ) -> None:
        self.clock = clock
        self.stands = stands
        self.ended: Counter[str] = Counter()  # readers, by the word for it
        self.readers: set[_Reader] = set()
        self._now = now
        self._kept: deque[_Told] = deque(maxlen=KEPT)
        self._number = 0
        self._unwatch = watch(self._fact)

    def open(self, request: Any, asker: Asker, kinds: frozenset[str], own: bool) -> None:
        """Let somebody read from now on; ``kinds``: only these events; none: all.

        ``own``: only those that name him.

        Raises:
            HttpRefused: there are too many readers.
        """
        his = sum(each.asker.name == asker.name for each in self.readers)
        if len(self.readers) >= self.most or his >= self.most_per_person:
            raise HttpRefused(503, "busy", "too many read events", Retry_After="10")
        reader = _Reader(self, request, asker, kinds, own)
        self.readers.add(reader)
        reader.begin(self._missed(header(request, "last-event-id")))

    def look(self) -> None:
        """Somebody's rights have changed: end the streams of those who may no longer."""
        for reader in [*self.readers]:
            if not self.stands(reader.asker):
                reader.end("logged-out")

    def stop(self) -> None:
        """End all."""
        self._unwatch()
        self._unwatch = lambda: None
        for reader in [*self.readers]:
            reader.end("stopping")

    def _missed(self, text: str) -> tuple[int, list[_Told], bool]:
        """The last number, what came behind the one that was said, and whether something is missing."""
        if not (text.isascii() and text.isdecimal() and len(text) <= 15):
            return self._number, [], False
        found = [each for each in self._kept if each.number > int(text)]
        whole = int(text) <= self._number and len(found) == self._number - int(text)
        return self._number, found, not whole

    def _fact(self, fact: Fact) -> None:
        self._number += 1
        row = {"ts": self._now(), "level": fact.severity.value, **fact.row()}
        told = _Told(self._number, row)
        self._kept.append(told)
        for reader in [*self.readers]:
            reader.tell(told)


@implementer(IPushProducer)
class _Reader:
    """One of them: its request's producer."""

    def __init__(
        self, streams: EventStreams, request: Any, asker: Asker, kinds: frozenset[str], own: bool
    ) -> None:
        self.asker = asker
        self._streams = streams
        self._request = request
        self._kinds = kinds
        self._own = own
        self._waiting: deque[bytes] = deque()
        self._unsent = 0
        self._paused = False
        self._over = False
        self._stalled: IDelayedCall | None = None
        self._breath: IDelayedCall | None = None

    def begin(self, missed: tuple[int, list[_Told], bool]) -> None:
        """Say hello, and what was missed."""
        request = self._request
        for name, value in (
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Accel-Buffering", "no"),
        ):
            request.setHeader(name, value)
        request.notifyFinish().addBoth(lambda _: self._gone("left"))
        request.registerProducer(self, True)
        number, found, lost = missed
        self._say(f"id: {number - len(found)}\nevent: hello\ndata: {in_json({'missed': lost})}\n\n".encode())
        for told in found:
            self.tell(told)
        self._breathe()

    def tell(self, told: _Told) -> None:
        """A fact, if it is for him."""
        row = told.row
        if self._kinds and row["event"] not in self._kinds:
            return
        if self._own and row.get("user") != self.asker.name:
            return
        self._say(told.text)

    def end(self, why: str) -> None:
        """In order, with a last word."""
        if not self._over:
            self._gone(why)
            self._request.write(f"event: over\ndata: {in_json({'why': why})}\n\n".encode())
            self._request.unregisterProducer()
            self._request.finish()

    # -- from the transport

    def pauseProducing(self) -> None:
        """He does not take what was written."""
        if not self._paused:
            self._paused = True
            self._stalled = self._streams.clock.callLater(STALLED, self._cut)

    def resumeProducing(self) -> None:
        """He took it all."""
        self._paused = False
        _cancel(self._stalled)
        while self._waiting and not self._paused and not self._over:
            text = self._waiting.popleft()
            self._unsent -= len(text)
            self._request.write(text)

    def stopProducing(self) -> None:
        """The transport is gone; the request says so."""

    # -- inside

    def _say(self, text: bytes) -> None:
        if self._over:
            return
        if not self._paused:
            self._request.write(text)
            return
        self._waiting.append(text)
        self._unsent += len(text)
        if self._unsent > UNSENT:
            self._cut()

    def _breathe(self) -> None:
        if not self._streams.stands(self.asker):
            self.end("logged-out")
            return
        if not self._paused:
            self._say(b":\n\n")
        self._breath = self._streams.clock.callLater(BREATH, self._breathe)

    def _cut(self) -> None:
        self._gone("stalled")
        self._request.channel.transport.abortConnection()

    def _gone(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._streams.ended[why] += 1
            self._streams.readers.discard(self)
        _cancel(self._stalled)
        _cancel(self._breath)
        self._waiting.clear()


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
