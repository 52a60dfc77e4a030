"""A person's localproxy in source mode, as a connection to a session: ``GET /tunnel`` with the owner's nonce.

==========================  =============================================================================
happens                     and means
==========================  =============================================================================
the local program ended     its end of file for the service, which may talk on to nobody for 5 s; whether
                            it was cut cannot be seen
the service ended           a reset behind its last byte, which closes the local program's connection
the service is refused, or  a reset at once
cut
the WebSocket is lost       every connection is cut; the session lives for its grace, and who said a
                            ``client-token`` comes back with the same nonce and that
==========================  =============================================================================

Source: next/remote-sessions.md section 5; ours.
"""

from typing import Any

from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.streams.channel_transport import ChannelTransport
from revtunnel.streams.clients import ClientSocket
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.localproxy import MAX_NAMES, LocalproxyConnections
from revtunnel.systems.sessions.localproxy_link import LocalproxyChannel, LocalproxyLink
from revtunnel.systems.sessions.remote_sessions import Came
from revtunnel.systems.sessions.session_life import Role
from revtunnel.systems.sessions.session_routes import Dial
from revtunnel.systems.sessions.session_seats import HOW_ENDED

__all__ = ["LocalproxySource", "SourceLine"]

DRAINED = 5.0  # seconds that a service may talk on to nobody


class LocalproxySource(LocalproxyLink):
    """One of them."""

    def __init__(
        self, reactor: Any, live: LiveSessions, came: Came, dial: Dial, peer: str, origin: Origin | None
    ) -> None:
        """``peer``, ``origin``: of the person, as an End has them."""
        self.session, self.seat = came.session, came.seat
        super().__init__(reactor, LocalproxyConnections(self.session.wish.offers[:MAX_NAMES], source=True))
        self._live = live
        self._dial = dial
        self._person = peer, origin

    # -- as a LocalproxyLink

    def begun(self, key: int, service: str) -> None:
        channel = self.add(key, service, key)
        wish, seat = self.session.wish, self.seat
        allowed = not self.session.over and seat.number in self.session.seats and seat.role is not Role.WATCH
        if not allowed or self._live.draining:
            channel.owner = _NOBODY
            self.finish(channel, Ended.NOT_ALLOWED)
            return

        def begin(client: ClientSocket) -> None:
            ChannelTransport(self, channel, client, lambda: None).start()

        self._dial(wish.serial, service, lambda client: None, self.session.id).came_by(begin, *self._person)

    def cut_off(self, channel: LocalproxyChannel) -> None:
        channel.patience = self.clock.callLater(
            DRAINED, self.finish, channel, Ended.RESET_BY_PEER, "its client had gone, and it did not end"
        )
        channel.owner.end_of_file()
        self._settle(channel)

    def local_ended(self, channel: LocalproxyChannel) -> None:
        if not channel.cut:
            self.say(self.connections.reset(channel.key))
            channel.cut = True
            channel.owner.end_of_file()
        self._settle(channel)

    def flushed(self, channel: Any) -> None:
        super().flushed(channel)
        self._settle(channel)

    def _settle(self, channel: LocalproxyChannel) -> None:
        if channel.ended and channel.flushed:
            self.finish(channel, Ended.CLOSED)

    def gone(self, reason: str, detail: str) -> None:
        self._live.left(self.session, self.seat)


class SourceLine:
    """It, as the connection of a seat (session_seats.Line)."""

    def __init__(self, link: LocalproxySource, peer: str) -> None:
        self.peer = peer
        self._link = link

    def moved(self) -> tuple[int, int]:
        sent, received = self._link.sums
        return received, sent

    def connections(self) -> int:
        return self._link.opened_channels

    def say(self, said: dict[str, Any]) -> None:
        """Nothing: the wire has no words."""

    def end(self, word: str, detail: str) -> None:
        self._link.fail(HOW_ENDED.get(word, Ended.OPERATOR), word, detail)

    def look(self, now: float) -> None:
        """Nothing: the WebSocket has its own signs of life."""


class _Nobody:
    """Who has a connection that was never let in."""

    def over(self, reason: Ended) -> None:
        """It is over."""


_NOBODY = _Nobody()
