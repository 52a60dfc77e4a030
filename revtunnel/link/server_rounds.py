"""The servers of an agent in the order in which they are tried, round after round.

A round is every server that is written, once; one that is a name of SRV stands for the link ports that DNS
lists under it, in an order that is made anew each time. The rules: what DNS said holds for its TTL and for
the round that was under way, and then it is asked again; where no name server answers, what was said last
holds on.

Source: RFC 2782; docs/operations.rst; ours.
"""

import errno
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from revtunnel.ground.server_places import ServerPlace
from revtunnel.sockets.ways.service_names import Found, in_order, look_up

__all__ = ["ServerRounds", "ask_next"]

Answer = TypeVar("Answer")
PATIENCE = 8.0  # seconds for an answer
LookUp = Callable[[Any, str], Coroutine[Any, Any, Found]]  # reactor and name


class ServerRounds:
    """Gives one server after the other. ``random`` gives floats in [0, 1)."""

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[ServerPlace],
        random: Callable[[], float],
        look_up: LookUp = look_up,
    ) -> None:
        self.asked: ServerPlace | None = None  # what the last try was for, before DNS was asked
        self._reactor = reactor
        self._servers = tuple(servers)
        self._random = random
        self._look_up = look_up
        self._found: dict[str, tuple[Found, float]] = {}  # and until when it holds
        self._rest: deque[tuple[ServerPlace, ServerPlace | None]] = deque()  # and what it was listed under

    def take(self, servers: Sequence[ServerPlace]) -> None:
        """Other servers from now on."""
        if tuple(servers) != self._servers:
            self._servers = tuple(servers)
            self._rest.clear()

    @property
    def over(self) -> bool:
        """Whether every server of this round was given."""
        return not self._rest

    @property
    def places(self) -> list[ServerPlace]:
        """All link ports and web listeners that are known now."""
        return [place for each in self._servers for place in (self._listed(each) if each.service else [each])]

    def first(self, place: ServerPlace) -> None:
        """Give this one next, and then go on."""
        self._rest.appendleft((place, None))

    def renew(self) -> None:
        """A while has passed with a link: what is left of a name of SRV begins anew."""
        rest = dict.fromkeys(under or place for place, under in self._rest)
        self._rest = deque((each, None) for each in rest)

    async def next(self) -> ServerPlace:
        """The next one to be tried. OSError: DNS lists none under its name."""
        if not self._rest:
            self._rest.extend((each, None) for each in self._servers)
        place, under = self._rest.popleft()
        self.asked = under or place
        if not place.service:
            return place
        await self._ask(place)
        self._rest.extendleft((each, place) for each in reversed(self._listed(place)))
        return self._rest.popleft()[0]

    # -- inside

    async def _ask(self, service: ServerPlace) -> None:
        """Have an answer that holds, or the last one where nobody answers."""
        known = self._found.get(service.host)
        if known is not None and known[1] > self._reactor.seconds():
            return
        looking = Deferred.fromCoroutine(self._look_up(self._reactor, service.host))
        try:
            found = await looking.addTimeout(PATIENCE, self._reactor, _late)
        except TimeoutError:
            if known is None:
                raise
            return
        except OSError:
            self._found.pop(service.host, None)
            raise
        self._found[service.host] = found, self._reactor.seconds() + found.ttl

    def _listed(self, service: ServerPlace) -> list[ServerPlace]:
        found = self._found.get(service.host)
        order = in_order(found[0].listed, self._random) if found is not None else []
        return [ServerPlace(each.host, each.port, name=service.name) for each in order]


def _late(result: Any, seconds: float) -> Any:
    return Failure(TimeoutError(errno.ETIMEDOUT, f"no name server answered in {seconds:g} s"))


def ask_next(rounds: ServerRounds, ask: "Callable[[ServerPlace], Deferred[Answer]]") -> "Deferred[Answer]":
    """What the next server answers. Fails as ``ask`` does, or as ``next``."""

    async def asked() -> Answer:
        return await ask(await rounds.next())

    return Deferred.fromCoroutine(asked())
