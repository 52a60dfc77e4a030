"""The clients of one service, as far as one has to wait for another.

The rules: a device may take one connection at a time, as a PLC does, and its client closes and connects again
at once. So a new client waits until those of its service that have ended before are closed at the device too,
for ``ended_wait`` at most, and once: who stays longer has said his end of file and waits for an answer. An
agent that can waits for that in our place (AFTER), which saves a round trip; else it is done here. Where
more than FEW are there it is no such service, and nobody waits. Where a record says how many a service takes
(``at_once``), further clients stand in line: first come, first served, ``line`` of them, for ``line_wait``.

Source: issue "a PLC that takes one connection at a time"; ours.
"""

import select
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.ground.limits import ServerLimits
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.commands import After

__all__ = ["WAITS", "Lines"]

WAITS = "waits"  # what ``enter`` says of one who has to
FEW = 8  # clients of a service at once, up to which it may be one that takes one at a time


class _Waiting:
    """A client that may not go yet: ``behind`` others, or until there are fewer than its record allows."""

    __slots__ = ("behind", "client", "timer")

    def __init__(self, client: ClientSocket, behind: set[ClientSocket], timer: IDelayedCall) -> None:
        self.client = client
        self.behind = behind
        self.timer = timer


class _Line:
    """One service of one device."""

    __slots__ = ("inside", "since", "stay", "waiting")

    def __init__(self) -> None:
        self.inside: set[ClientSocket] = set()  # that have a stream, or are about to
        self.stay: set[ClientSocket] = set()  # of them: who was waited for in vain
        self.since: dict[ClientSocket, float] = {}  # of them: since when the agent may have waited for them
        self.waiting: deque[_Waiting] = deque()


class Lines:
    """All of them. ``at_once``: how many a device's services take; ``serve`` gives a stream, or refuses.

    ``numbers``: by what a device's agent knows the streams of clients; None: it does not wait for them.
    """

    def __init__(
        self,
        reactor: Any,
        limits: Callable[[], ServerLimits],
        at_once: Callable[[str], int | None],
        serve: Callable[[ClientSocket], None],
        numbers: Callable[[str, Collection[ClientSocket]], tuple[int, ...] | None],
    ) -> None:
        self._reactor = reactor
        self._limits = limits
        self._at_once = at_once
        self._serve = serve
        self._numbers = numbers
        self._lines: dict[tuple[str, str], _Line] = {}

    def enter(self, client: ClientSocket) -> str:
        """Nothing: it may go on; WAITS: ``serve`` is called for it later; else the word to refuse it with."""
        client.after = None
        key = client.serial, client.name
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
        elif (most := self._at_once(client.serial)) is not None:
            if line.waiting or len(line.inside) >= most:
                return self._stand(line, client)
        elif (
            (patience := self._limits().ended_wait)
            and (behind := _ended(line.inside) - line.stay)
            and not self._agent_waits(line, client, behind, patience)
        ):
            self._add(line, client, behind, patience)
            return WAITS
        line.inside.add(client)
        return ""

    def joined(self, client: ClientSocket) -> None:
        """It has its stream already, from somebody who minds the same rules."""
        self._lines.setdefault((client.serial, client.name), _Line()).inside.add(client)

    def inside(self, serial: str, name: str) -> int:
        """How many clients of a service have a stream, or are about to."""
        line = self._lines.get((serial, name))
        return len(line.inside) + len(line.waiting) if line is not None else 0

    def left(self, client: ClientSocket) -> None:
        """It is gone, whether it had its turn or not."""
        key = client.serial, client.name
        line = self._lines.get(key)
        if line is None:
            return
        line.inside.discard(client)
        line.stay.discard(client)
        line.since.pop(client, None)
        for waiting in [*line.waiting]:
            waiting.behind.discard(client)
            if waiting.client is client:
                self._remove(line, waiting)
        self._go_on(line)
        if not line.inside and not line.waiting:
            del self._lines[key]

    def _agent_waits(
        self, line: _Line, client: ClientSocket, behind: set[ClientSocket], patience: float
    ) -> bool:
        """Whether nobody has to wait here: the agent does, or has done so long enough."""
        numbers = self._numbers(client.serial, behind)
        if numbers is None:
            return False
        now = self._reactor.seconds()
        line.stay |= {each for each in behind if now - line.since.setdefault(each, now) >= patience}
        if not behind <= line.stay:
            client.after = After(numbers, patience)
        return True

    def _stand(self, line: _Line, client: ClientSocket) -> str:
        limits = self._limits()
        if len(line.waiting) >= limits.line:
            for waiting in [*line.waiting]:
                if not waiting.client.is_here():  # which ``left`` follows
                    self._remove(line, waiting)
        if len(line.waiting) >= limits.line:
            return "too-many-clients"
        self._add(line, client, set(), limits.line_wait)
        return WAITS

    def _add(self, line: _Line, client: ClientSocket, behind: set[ClientSocket], patience: float) -> None:
        late = self._reactor.callLater(patience, self._too_late, line, client)
        line.waiting.append(_Waiting(client, behind, late))

    def _remove(self, line: _Line, waiting: _Waiting) -> None:
        line.waiting.remove(waiting)
        if waiting.timer.active():
            waiting.timer.cancel()

    def _go_on(self, line: _Line) -> None:
        """Let those go for whom there is a place now; those who were behind others in any order."""
        for waiting in [*line.waiting]:
            most = self._at_once(waiting.client.serial)
            if not waiting.behind and (most is None or len(line.inside) < most):
                self._remove(line, waiting)
                self._let_go(line, waiting.client)

    def _let_go(self, line: _Line, client: ClientSocket) -> None:
        """It has its place now, and its stream in the next turn: whoever made room is still at it."""
        line.inside.add(client)
        self._reactor.callLater(0, self._begin, client)

    def _begin(self, client: ClientSocket) -> None:
        if client.is_here():
            self._serve(client)

    def _too_late(self, line: _Line, client: ClientSocket) -> None:
        waiting = next(each for each in line.waiting if each.client is client)
        stands = not waiting.behind
        line.stay |= waiting.behind
        waiting.behind.clear()
        self._go_on(line)
        if waiting in line.waiting and stands:
            self._remove(line, waiting)
            client.refuse("too-many-clients")


def _ended(clients: Collection[ClientSocket]) -> set[ClientSocket]:
    """Those whose end of file has come, or their reset, also if nobody has read it yet; of FEW at most."""
    if len(clients) > FEW:
        return set()
    poll, asked, found = select.poll(), {}, set()
    for client in clients:
        number = client.fileno()
        if client.has_ended:
            found.add(client)
        elif number >= 0:
            poll.register(number, select.POLLRDHUP)
            asked[number] = client
    over = select.POLLRDHUP | select.POLLERR | select.POLLHUP
    if asked:
        found.update(asked[number] for number, event in poll.poll(0) if event & over)
    return found
