"""A service of a device as a Twisted endpoint, for programs: ``revtunnel:serial=plc-7:target=http``.

The rules: the login is the one of revtunnel-connect; each connection is a session of its own, which ends with
it; nothing is given to the Protocol before the service has answered. A connection that was cut, wherever that
was, is a ``ConnectionLost``, and only one that both sides have ended a ``ConnectionDone``.

Source: Twisted's IStreamClientEndpoint; docs/connect.rst "Programs"; ours.
"""

import os
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import ConnectError, TimeoutError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from zope.interface import implementer

from revtunnel.connect.control import open_control
from revtunnel.connect.device_transport import DeviceTransport
from revtunnel.connect.dialling import DialWay
from revtunnel.connect.held_session import HeldSession
from revtunnel.connect.logins import Logins, place_of
from revtunnel.connect.outcomes import UNREACHABLE, Stop
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.streams.channel import Channel
from revtunnel.systems.sessions.session_link import SUBPROTOCOL, SessionClient

__all__ = ["DeviceAddress", "DeviceEndpoint"]


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """What a connection leads to, in place of a host and a port."""

    serial: str
    target: str


class _Wanted:
    """In want of a channel, as a session sees it; ``answered`` fires once, or fails with a Stop."""

    channel: Channel | None = None

    def __init__(self, service: str) -> None:
        self.service = service
        self.answered: Deferred[tuple[SessionClient, Channel]] = Deferred()
        self._detail = ""
        self._link: SessionClient | None = None

    @property
    def waits(self) -> bool:
        """Whether it has no channel yet, and still wants one."""
        return self.channel is None and not self.answered.called

    def attach(self, link: SessionClient, channel: Channel) -> None:
        """It has one, which is to be answered."""
        self._link, self.channel = link, channel
        channel.owner = self

    def may_read(self) -> None:
        """The service has answered."""
        if not self.answered.called:
            self.answered.callback((self._link, self.channel))  # type: ignore[arg-type]

    def ended(self, channel: Channel, reason: Ended, detail: str) -> None:
        """Why the channel ends, before it does."""
        self._detail = detail

    def over(self, reason: Ended) -> None:
        """It was refused."""
        self.fail(Stop.by_word(reason.word, self._detail))

    def look(self) -> None:
        """Nothing: a channel says its reset by itself."""

    def abort(self) -> None:
        """The session is over, which says why."""

    def fail(self, stop: Stop) -> Stop:
        """There will be none."""
        if not self.answered.called:
            self.answered.errback(stop)
        return stop


class _Unheard:
    """Nobody is told what happens to the session: the Protocol sees what concerns it."""

    def happened(self, event: str, **more: Any) -> None:
        """As ``Teller``."""


@implementer(IStreamClientEndpoint)
class DeviceEndpoint:
    """A service of a device. ``server``, ``ca``: as options of revtunnel-connect; "": of the login."""

    def __init__(
        self, reactor: Any, serial: str, target: str, server: str = "", ca: str = "", timeout: float = 30.0
    ) -> None:
        self._reactor = reactor
        self._address = DeviceAddress(serial, target)
        self._server = server
        self._ca = ca
        self._timeout = timeout

    def connect(self, protocolFactory: Any) -> "Deferred[Any]":
        """Twisted's. ConnectError: it says which of login, server, right, device or service it was."""
        work = Deferred.fromCoroutine(self._connect(protocolFactory))
        return work.addTimeout(self._timeout, self._reactor).addErrback(self._explain)

    async def _connect(self, factory: Any) -> Any:
        way, session, nonce = await self._start()

        async def dial(nonce: str) -> Upgraded:
            return await way.upgrade(f"/session/client/{session}", SUBPROTOCOL, nonce)

        held = HeldSession(self._reactor, dial, None, _Unheard(), way.limits)
        wanted = _Wanted(self._address.target)
        held.on_channel = wanted.ended
        held.over.addCallback(wanted.fail)
        try:
            await held.start(nonce)
            held.give(wanted)  # type: ignore[arg-type]  # a LocalSocket as far as a session asks
            link, channel = await wanted.answered
            protocol = factory.buildProtocol(self._address)
            if protocol is None:
                raise Stop(UNREACHABLE, "the factory made no Protocol")
            DeviceTransport(link, channel, protocol, self._address, held.end).start()
        except BaseException:  # the caller has given up, too
            wanted.answered.addErrback(lambda failure: None)
            held.end()
            raise
        return protocol

    async def _start(self) -> tuple[DialWay, str, str]:
        """A session: the way to its server, its number, and what lets us in."""
        logins = Logins(place_of(os.environ))
        server = logins.server(self._server)
        login = logins.login(server, os.environ)
        way = DialWay(self._reactor, server, os.environ, self._ca or login.ca, timeout=self._timeout)
        serial, target = self._address.serial, self._address.target
        with closing(await open_control(self._reactor, way, login.token, self._timeout)) as control:
            answer = await control.ask("start", device=serial, services=[target])
        return way, str(answer.get("session", "")), str(answer.get("nonce", ""))

    def _explain(self, failure: Any) -> Any:
        name = f"{self._address.serial}/{self._address.target}"
        if failure.check(Stop):
            raise ConnectError(string=f"{name}: {failure.value}") from None
        if failure.check(Late):
            raise TimeoutError(string=f"{name}: no answer in {self._timeout:g} s") from None
        return failure
