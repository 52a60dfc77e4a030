"""The agent's dial: only what its own list allows, a bounded number at once, and one word when it fails.

The list is asked on every CONNECT, a remote session's consent after it, and the list again for the addresses
that a listed name resolves to: a name does not open the loopback, the link-local network (cloud metadata
lives there) or a multicast group. Written literally, they are allowed.

A target may take so many connections at once, and no more: further dials wait for a place (places.py).

A target may want to know who its client is: then a PROXY header is the very first that it is sent.

Source: faults.md "ReadyAgent" row of the threat model, F16, F19, N2, N30 to N32.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.python.failure import Failure

from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.networks import is_nobodys, led_to
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Offer, Target
from revtunnel.sockets.ends import End
from revtunnel.sockets.opening import Reach, connect, open_end, resolve
from revtunnel.sockets.stages import Stage, write_all
from revtunnel.streams.places import NoPlace, Places

__all__ = ["Dialler", "Header", "NotDialled", "is_guarded", "worded"]

Header = Callable[[Origin | None], bytes]
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class NotDialled(Exception):
    """A target was not reached; ``reason`` is the word of it."""

    def __init__(self, reason: Ended, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Dial:
    """One dial: it waits for its turn, then it connects."""

    def __init__(self, target: Target, origin: Origin | None, given_up: "Callable[[_Dial], None]") -> None:
        self.target = target
        self.origin = origin
        self.wanted: Deferred[End] = Deferred(lambda _: given_up(self))
        self.connecting: Deferred[Any] | None = None


class Dialler:
    """Dials the targets of one agent. ``headers`` encodes the PROXY header of those that want one.

    ``reach`` connects to one address, as ``connect`` does; ``at_once``: how many connections targets take
    that do not take any number.
    """

    def __init__(
        self,
        reactor: Any,
        limits: AgentLimits,
        offers: Sequence[Offer],
        headers: Mapping[Target, Header] | None = None,
        reach: Reach = connect,
        at_once: Mapping[Target, int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._places: dict[Target, Places] = {}
        self.elsewhere = 0  # of the dials in flight, how many others may have
        self.on_offer: Callable[[], None] = lambda: None  # the list has changed
        self._limits = limits
        self._reach = reach
        self.offer(offers, headers, at_once)
        # why a remote session may not have a target, or nothing; set by whoever asks the site
        self.consents: Callable[[str, Target], str] = lambda session, target: "no session is allowed here"
        self._lookups = DeferredSemaphore(limits.lookups)
        self._dialling = 0
        self._waiting: deque[_Dial] = deque()
        self._beginning = False

    def dial(
        self,
        target: Target,
        origin: Origin | None = None,
        session: str = "",
        first: "Deferred[None] | None" = None,
    ) -> "Deferred[End]":
        """Connect to a target; fails with NotDialled. Cancel it when nobody wants it any more.

        ``origin`` is where the client comes from; None: nobody knows. ``session``: the remote session that it
        is of. ``first``: what has to be waited for before anything is done.
        """
        if first is not None:
            return Deferred.fromCoroutine(self._later(first, target, origin, session))
        if target not in self._allowed:
            return _failed(Ended.NOT_ALLOWED, f"{target} is not on this agent's list")
        if session and (why := self.consents(session, target)):
            return _failed(Ended.NOT_ALLOWED, why)
        if target in self._places:
            return Deferred.fromCoroutine(self._in_place(self._places[target], target, origin))
        return self._queue(target, origin)

    async def _later(
        self, first: "Deferred[None]", target: Target, origin: Origin | None, session: str
    ) -> End:
        """The same behind something else."""
        try:
            await first
        except CancelledError:
            raise _unwanted(target) from None
        return await self.dial(target, origin, session)

    async def _in_place(self, places: Places, target: Target, origin: Origin | None) -> End:
        """The same where a place at the target has to be waited for."""

        def dial() -> "Deferred[End]":
            if target in self._allowed:
                return self._queue(target, origin)
            return _failed(Ended.NOT_ALLOWED, f"{target} is not on this agent's list any more")

        try:
            return await places.connect(self._limits, dial)
        except NoPlace as error:
            raise NotDialled(Ended.OUT_OF_RESOURCES, f"{target} {error}") from None
        except CancelledError:
            raise _unwanted(target) from None

    def _queue(self, target: Target, origin: Origin | None) -> "Deferred[End]":
        """Dial when it is its turn, among all targets."""
        if len(self._waiting) >= self._limits.dials_waiting:
            return _failed(Ended.OUT_OF_RESOURCES, f"{self._dialling} dials run, {len(self._waiting)} wait")
        dial = _Dial(target, origin, self._given_up)
        self._waiting.append(dial)
        self._next()
        return dial.wanted

    def offer(
        self,
        offers: Sequence[Offer],
        headers: Mapping[Target, Header] | None = None,
        at_once: Mapping[Target, int] | None = None,
    ) -> None:
        """Dial these targets from now on, and no others; what was dialled before stays."""
        self._allowed = frozenset(offer.target for offer in offers)
        self._headers = dict(headers or {})
        places = ((target, self._places.get(target), most) for target, most in (at_once or {}).items())
        self._places = {
            target: there if there is not None and there.most == most else Places(self._reactor, most)
            for target, there, most in places
        }
        self.on_offer()

    def simple(self) -> list[Target]:
        """The addresses on the list whose dial is a connect and nothing else."""
        if self._reach is not connect:
            return []
        others = self._headers.keys() | self._places.keys()
        return sorted((each for each in self._allowed - others if each.is_literal), key=str)

    def set_limits(self, limits: AgentLimits) -> None:
        """Other limits from now on."""
        self._limits = limits

    def _next(self) -> None:
        """Begin what may begin; a dial that fails at once comes here again, and finds us at it."""
        if self._beginning:
            return
        self._beginning = True
        try:
            while self._waiting and self._dialling < self._limits.dials - self.elsewhere:
                self._dialling += 1
                self._connect(self._waiting.popleft())
        finally:
            self._beginning = False

    def _connect(self, dial: "_Dial") -> None:
        def done(result: Any) -> None:
            self._dialling -= 1
            if isinstance(result, Failure):
                dial.wanted.errback(Failure(worded(result.value, dial.target)))
            else:
                dial.wanted.callback(result)
            self._next()

        target = dial.target
        names = resolve if target.host == "localhost" else self._guarded_names
        where = target.host, target.port, self._limits.dial
        dial.connecting = open_end(
            self._reactor, *where, self._stages(dial), names, self._reach, at_once=True
        )
        dial.connecting.addBoth(done)

    def _stages(self, dial: "_Dial") -> Sequence[Stage]:
        """What comes before anybody else can write: who its client is."""
        encode = self._headers.get(dial.target)
        if encode is None:
            return ()
        header = encode(dial.origin)

        async def say_client(end: End) -> End:
            await write_all(self._reactor, end, header)
            return end

        return (say_client,)

    def _given_up(self, dial: "_Dial") -> None:
        """Nobody wants it any more: its place is free at once."""
        if dial.connecting is None:
            self._waiting.remove(dial)
            dial.wanted.errback(Failure(_unwanted(dial.target)))
        else:
            dial.connecting.cancel()

    async def _guarded_names(self, reactor: Any, host: str, port: int) -> Sequence[Any]:
        """The addresses that a name may lead to, a few questions at a time: threads never run out (N32).

        A question cannot be taken back: it has its place until it is answered, whoever still waits for that.
        """
        await self._lookups.acquire()
        answer: Deferred[Sequence[Any]] = Deferred()

        def answered(found: Any) -> None:
            self._lookups.release()
            answer.callback(found)

        Deferred.fromCoroutine(resolve(reactor, host, port)).addBoth(answered)
        found = [each for each in await answer if _guarded(each)]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address that is allowed")
        return found


def _failed(reason: Ended, detail: str) -> "Deferred[End]":
    waiting: Deferred[End] = Deferred()
    waiting.errback(Failure(NotDialled(reason, detail)))
    return waiting


def _unwanted(target: Target) -> NotDialled:
    return NotDialled(Ended.RESET_BY_PEER, f"{target}: nobody wants it any more")


def worded(error: BaseException | None, target: Target) -> NotDialled:
    """The word and sentence for a failed connect."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):
        return NotDialled(
            Ended.UNREACHABLE, f"{target}: the name is unknown, or only of addresses not allowed"
        )
    if code == errno.ECONNREFUSED:
        return NotDialled(Ended.REFUSED, f"{target} refused the connection")
    if isinstance(error, TimeoutError):
        return NotDialled(Ended.TIMED_OUT, f"{target} did not answer in time")
    if code in NO_ROOM:
        return NotDialled(Ended.OUT_OF_RESOURCES, f"{target}: no descriptor or memory left here")
    if code == errno.ENOENT:
        return NotDialled(Ended.REFUSED, f"{target}: nobody listens there")
    return NotDialled(Ended.UNREACHABLE, f"{target}: {os.strerror(code) if code else error}")


def is_guarded(target: Target) -> bool:
    """Whether only who writes a target out means it: this machine, its link, where clouds answer."""
    if target.path is not None or target.host == "localhost":
        return True
    return target.is_literal and not _guarded(target)


def _guarded(address: Any) -> bool:
    """Whether a listed name may lead to this address."""
    host = led_to(str(getattr(address, "host", "0.0.0.0")))
    return not (host.is_loopback or is_nobodys(host))
