"""A room with people: its devices, everybody's grants, and the remote sessions of the server, in memory.

Rule of this file: all is the real thing but the WebSocket of a seat, whose place an ``Ear`` takes.

::

    room = SessionRoom()                             # plc-1: console and web; ana may all, ben nothing
    session, nonce = room.begin("ana", "console")
    ear = room.come(session, nonce)
    room.advance(1.0)                                # a tick
"""

from typing import Any

from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.ways.websocket_upgrade import request_of
from revtunnel.systems.sessions.control_asks import ControlAsks
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.remote_sessions import Came, RemoteSessions
from revtunnel.systems.sessions.session_facts import PersonRefused
from revtunnel.systems.sessions.session_life import RemoteSession, Seat, SessionLimits
from revtunnel.systems.sessions.session_operator import SessionRows
from revtunnel.systems.sessions.session_rights import Rights
from revtunnel.systems.sessions.session_seats import Start
from revtunnel.trust.user_tokens import Login
from tests.support.people import grant_of
from tests.support.room import Room

__all__ = ["ALL", "Ear", "SessionRoom", "call_of"]

ALL = "list start end share observe"
PEER = "192.0.2.7:4711"


def call_of(path: str, *headers: tuple[str, str], peer: str = PEER, origin: str | None = None) -> WebCall:
    """A request as a route is given it."""
    request = request_of("GET", path, [("Host", "gate.example"), *headers])
    return WebCall(request, path, "", peer, True, origin, "main")


class Ear:
    """A connection of a seat: it keeps what it is told."""

    peer = PEER

    def __init__(self, room: "SessionRoom", session: RemoteSession, seat: Seat) -> None:
        self.room = room
        self.session = session
        self.seat = seat
        self.sums = 0, 0
        self.opened = 0
        self.said: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.looks = 0

    def moved(self) -> tuple[int, int]:
        """So far."""
        return self.sums

    def connections(self) -> int:
        """So far."""
        return self.opened

    def say(self, said: dict[str, Any]) -> None:
        """A command."""
        self.said.append(said)

    def end(self, word: str, detail: str) -> None:
        """Cut: as a connection does, it says that it is over."""
        self.ended.append(word)
        self.room.live.left(self.session, self.seat)

    def look(self, now: float) -> None:
        """A tick."""
        self.looks += 1

    def go(self) -> None:
        """The person's side is lost."""
        self.room.live.left(self.session, self.seat)


class SessionRoom(Room):
    """The room, ana and ben, and the sessions, ticking."""

    def __init__(self, limits: SessionLimits | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.pump()
        board = self.switchboard
        self.set_back = 0.0  # seconds that the wall clock was set back
        rights = Rights(self.grants, board.fleet, board.access, self._labels_of, lambda: board.say.nodes)
        sessions = RemoteSessions(limits or SessionLimits(), self.random_bytes)
        self.live = LiveSessions(
            *(
                self.clock,
                self.wall_clock,
                sessions,
                self.people,
                rights,
                self.audit,
                board.report,
                board.say,
            ),
            muted=lambda serial: self.mutes.of(serial) is not None,
        )
        self.mutes.watchers.append(self.live.mute)
        self.operator.remote.live = self.live
        self.operator.wires["remote"] = SessionRows(self.live, self.operator.at)
        self.asks = ControlAsks(self.live, self.operator.at)
        self.told: list[dict[str, Any]] = []  # answers of /control
        self.logins: dict[str, Login] = {}
        for name in ("ana", "ben"):
            self.add(name)
        self.grant("ana", ALL, id="g1")
        self.live.tick()

    _bytes = 0

    def random_bytes(self, size: int) -> bytes:
        """Numbered."""
        self._bytes += 1
        return self._bytes.to_bytes(size, "big")

    def wall_clock(self) -> float:
        """Seconds since 1970, as the machine believes."""
        return self.wall() - self.set_back

    def add(self, name: str, life: float = 86_400.0) -> Login:
        """A user who has logged in."""
        self.people.add_user(name, "", self.wall())
        token = self.people.new_token(name, name.encode().ljust(32), "", self.wall(), life)
        self.logins[name] = Login(name, token.id, token.until)
        return self.logins[name]

    def grant(
        self, holder: str, actions: str, device: str = "*", services: str = "*", id: str = "g9", **times: Any
    ) -> str:
        """Let somebody do something."""
        self.grants.add(grant_of(id, holder, device, services, actions, **times))
        return id

    def ask_control(self, user: str, text: str) -> dict[str, Any] | None:
        """The answer to a message of /control; None: not yet, it will be the last of ``told``."""
        count = len(self.told)
        self.asks.answer(text, self.logins[user], call_of("/control"), self.told.append)
        return self.told[-1] if len(self.told) > count else None

    def begin(self, user: str, *services: str, **more: Any) -> tuple[RemoteSession, str]:
        """A session to plc-1, and its owner's nonce."""
        session = self.live.start(self.logins[user], Start("plc-1", services, **more), PEER)
        return session, self.live.nonce(user, session.id, False)

    def come(self, session: RemoteSession, nonce: str) -> Ear:
        """Somebody comes with a nonce."""
        came: Came = self.live.enter(nonce, session.id, PEER)
        ear = Ear(self, session, came.seat)
        self.live.attach(session, came.seat, ear)
        return ear

    def refusals(self) -> list[tuple[str, str, str]]:
        """Action, user and word of each."""
        return [
            (each.action, each.user, each.reason) for each in self.facts if isinstance(each, PersonRefused)
        ]
