"""Whether the services beside an agent answer: an agent that is up is no machine that is up.

Rule of this file: each service that ``probe`` names is dialled every ``probe_interval``, by the same dialler
and list as for clients, one look at a time; what has changed is told once, and every server that comes up is
told what is known. A look is a connection of its own: ``probe`` is not for what takes one at a time.

Source: docs/link-protocol.rst "Services that are looked at"; ours.
"""

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from revtunnel.daemons.agent_settings import ProbeSettings
from revtunnel.ground.facts import Report
from revtunnel.ground.targets import Offer, Target
from revtunnel.sockets.ends import End
from revtunnel.sockets.stages import pause, read_some, write_all
from revtunnel.streams.dialler import NotDialled
from revtunnel.streams.service_state import ServiceState

__all__ = ["ServiceProbes"]

LONGEST = 1024  # bytes of a status line
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")


class ServiceProbes:
    """All looks of one agent. ``dial`` is its dialler's."""

    def __init__(
        self, reactor: Any, dial: Callable[[Target], "Deferred[End]"], serial: str, report: Report
    ) -> None:
        self._reactor = reactor
        self._dial = dial
        self._serial = serial
        self._report = report
        self._rules = ProbeSettings()
        self._looked_at: dict[str, tuple[Target, str]] = {}
        self._running: dict[str, Deferred[None]] = {}  # a look, or the pause before it
        self._found: dict[str, ServiceState] = {}
        self._say: Callable[[ServiceState], None] = lambda state: None

    def take(self, rules: ProbeSettings, local: tuple[Offer, ...]) -> None:
        """Other settings; what is looked at as before goes on."""
        targets = {offer.name: offer.target for offer in local}
        wanted = {name: (targets[name], path) for name, path in rules.probe if name in targets}
        before, self._rules = self._rules, rules
        for name in [each for each in self._running if wanted.get(each) != self._looked_at[each]]:
            self._forget(name)
        if rules.probe_interval != before.probe_interval:
            self.stop()
        self._looked_at = wanted
        for name in wanted.keys() - self._running.keys():
            self._run(name)

    def link_up(self, say: Callable[[ServiceState], None]) -> None:
        """A server is there, to be told so."""
        self._say = say
        for state in self._found.values():
            say(state)

    def stop(self) -> None:
        """Look no more."""
        for name in [*self._running]:
            self._running.pop(name).cancel()

    # -- inside

    def _forget(self, name: str) -> None:
        self._running.pop(name).cancel()
        self._found.pop(name, None)

    def _run(self, name: str) -> None:
        running = self._running[name] = Deferred.fromCoroutine(self._go_on(name))
        running.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _go_on(self, name: str) -> None:
        while True:
            self._tell(await self._look(name))
            await pause(self._reactor, self._rules.probe_interval)

    async def _look(self, name: str) -> ServiceState:
        target, path = self._looked_at[name]
        wait = self._rules.probe_wait
        late = TimeoutError(f"{target} did not answer in {wait:g} s")
        looking = Deferred.fromCoroutine(self._ask(target, path))
        looking.addTimeout(wait, self._reactor, lambda result, _: _late(result, late))
        try:
            return ServiceState(name, True, await looking)
        except (NotDialled, OSError, TimeoutError) as error:
            return ServiceState(name, False, str(error))

    async def _ask(self, target: Target, path: str) -> str:
        """What it answers, nothing where a connection is enough. OSError: nothing good."""
        end = await self._dial(target)
        try:
            answer = await self._status(end, target, path) if path else ""
        except BaseException:
            end.abort()
            raise
        end.close()
        return answer

    async def _status(self, end: End, target: Target, path: str) -> str:
        request = f"GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
        await write_all(self._reactor, end, request.encode("ascii"))
        said = b""
        while b"\n" not in said and len(said) < LONGEST:
            more = await read_some(self._reactor, end)
            if not more:
                break
            said += more
        status = _STATUS.match(said)
        if status is None:
            raise OSError(f"{target} does not answer as HTTP does")
        if status[1] >= b"500":
            raise OSError(f"{target} answers {status[1].decode()}")
        return f"answers {status[1].decode()}"

    def _tell(self, state: ServiceState) -> None:
        if self._found.get(state.name) == state:
            return
        self._found[state.name] = state
        self._report(state.fact(self._serial))
        self._say(state)


def _late(result: Any, late: TimeoutError) -> Any:
    return Failure(late) if isinstance(result, Failure) else result
