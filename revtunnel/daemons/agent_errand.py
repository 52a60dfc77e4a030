"""An agent that does not stay: it ends with its first link, or when nobody has used it for a while.

======  =============================================================================================
status  when
======  =============================================================================================
0       done: clients came, and have gone
69      no server had a link for it
75      a server had, and no client came
======  =============================================================================================

Rule of this file: it looks at facts alone, ends the agent as SIGTERM does, and says why once.

Source: ReadyAgent's manner on metered lines; sysexits.h for 69 and 75.
"""

from collections import Counter
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Fact, LinkDown, LinkUp, Report, ServerState

__all__ = ["DONE", "NO_CLIENT", "NO_SERVER", "AgentErrand"]

DONE, NO_SERVER, NO_CLIENT = 0, 69, 75
_WORDS = {DONE: "done", NO_SERVER: "no server had a link for it", NO_CLIENT: "no client came"}


class AgentErrand(Service):
    """Watches while it runs, and calls ``end`` with the status, once.

    Args:
        tries: how many end without a link before it gives up.
        once: it ends with its first link.
        idle: seconds without a client after which it ends, from the start on; None: it waits for ever.
        watch: has every fact from now on.
        settle: has what happened a moment ago told first.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tries: Callable[[], int],
        once: bool,
        idle: float | None,
        watch: Callable[[Callable[[Fact], None]], object],
        report: Report,
        end: Callable[[int], None],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._tries = tries
        self._tried = 0
        self._once = once
        self._idle = idle
        self._report = report
        self._end = end
        self._settle = settle
        self._running: Counter[tuple[str, int]] = Counter()
        self._was_up = self._had_client = self._over = False
        self._timer: IDelayedCall | None = None
        watch(self._happened)

    def startService(self) -> None:
        super().startService()
        self._wait()

    def stopService(self) -> None:
        super().stopService()
        self._over = True
        self._cancel()

    # -- inside

    def _happened(self, fact: Fact) -> None:
        if self._over:
            return
        if isinstance(fact, ChannelOpened | ChannelEnded):
            self._client(fact)
        elif isinstance(fact, LinkUp):
            self._was_up = True
        elif self._once and isinstance(fact, LinkDown):
            self._finish("its link has ended")
        elif self._once and isinstance(fact, ServerState) and fact.state == "away":
            self._tried += 1
            if self._tried >= self._tries():
                self._finish("every server was tried")

    def _client(self, fact: ChannelOpened | ChannelEnded) -> None:
        self._had_client = True
        stream = fact.peer, fact.channel
        if isinstance(fact, ChannelOpened):
            self._running[stream] += 1
            self._cancel()
            return
        if self._running[stream]:  # else it never reached its target
            self._running[stream] -= 1
        self._running += Counter()  # forgets those that are none
        if not self._running:
            self._wait()

    def _wait(self) -> None:
        """Nobody is there: begin to count the time."""
        self._cancel()
        if self._idle is not None and not self._over:
            self._timer = self._clock.callLater(self._idle, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self._settle()
        if not self._running and self._timer is None:  # no client began or ended just now
            self._finish(f"no client for {self._idle:g} s")

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _finish(self, why: str) -> None:
        self._over = True
        self._cancel()
        status = NO_SERVER if not self._was_up else DONE if self._had_client else NO_CLIENT
        self._report(ServerState("ending", f"{why}: {_WORDS[status]}"))
        self._end(status)
