"""What a person asks on ``/control``, and what is answered; control_route.py has the table.

Rule of this file: plain values in, plain values out. What is asked wrongly is answered, not punished; nothing
of somebody else's session is told to one who may not know of it.

Source: issue 10, part 4; ours.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.process.web.web_routes import WebCall
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.session_life import RemoteSession, Role, SessionRefused
from revtunnel.systems.sessions.session_seats import SERVICES, Start
from revtunnel.trust.grants import Action
from revtunnel.trust.user_tokens import Login

__all__ = ["MAX_TEXT", "ROLES", "ControlAsks", "session_row", "started_row", "visible"]

MAX_TEXT = 16_384  # bytes of a message, either way
ROWS = 100  # of one answer: what fits into a message in any case
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)
_SERIAL = re.compile(r"[A-Za-z0-9._:*?-]{1,64}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_USER = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)
ROLES = {"watch": Role.WATCH, "use": Role.USE, "take": Role.TAKE}
Said = dict[str, Any]


class _Malformed(Exception):
    """It was asked wrongly; the text says how."""


class _Later(Exception):
    """The device's site is asked first; then this is the answer."""

    def __init__(self, session: RemoteSession, work: Callable[[], Said]) -> None:
        super().__init__()
        self.session = session
        self.work = work


class _Looked(Exception):
    """Other nodes are asked first; then what they said makes the answer."""

    def __init__(self, looking: "Deferred[Any]", work: Callable[[Any], Said]) -> None:
        super().__init__()
        self.looking = looking
        self.work = work


class ControlAsks:
    """The answers. ``at``: a monotonic time for people."""

    def __init__(self, live: LiveSessions, at: Callable[[float], str]) -> None:
        self._live = live
        self._at = at
        self._asks: dict[str, Callable[[Login, Said, WebCall], Said]] = {
            "services": self._services,
            "start": self._start,
            "end": self._end,
            "share": self._share,
            "sessions": self._sessions,
            "nonce": self._nonce,
        }

    def answer(self, text: str, login: Login, call: WebCall, say: Callable[[Said], None]) -> None:
        """Say the answer to a message: now, or when a device's site has answered."""
        number: Any = None

        def attempt(work: Callable[[], Said]) -> None:
            try:
                found = work()
                say({"id": number, "ok": found})
            except _Malformed as error:
                say({"id": number, "error": {"word": "malformed", "why": str(error)}})
            except SessionRefused as error:
                say({"id": number, "error": {"word": error.word, "why": str(error)}})
            except _Later as later:
                work = later.work
                self._live.when_answered(later.session, lambda: attempt(work))
            except _Looked as looked:
                then = looked.work
                looked.looking.addCallback(lambda found: attempt(lambda: then(found)))

        def asked() -> Said:
            nonlocal number
            said = _object(text)
            number = _number(said)
            ask = self._asks.get(_text(said, "ask", re.compile(r"[a-z]{1,16}")))
            if ask is None:
                raise _Malformed("ask: " + ", ".join(self._asks) + " wanted")
            return ask(login, said, call)

        attempt(asked)

    # -- each

    def _services(self, login: Login, said: Said, call: WebCall) -> Said:
        after = _text(said, "after", _SERIAL, "")
        pattern, rights = _text(said, "device", _SERIAL, ""), self._live.rights
        one = rights.is_one(pattern)
        looking = rights.look(pattern) if one else rights.look_behind(after)
        if looking is None:
            return self._listed(login, after, pattern, ())
        raise _Looked(looking, lambda found: self._listed(login, after, pattern, () if one else found))

    def _listed(self, login: Login, after: str, pattern: str, elsewhere: Sequence[DeviceElsewhere]) -> Said:
        page = self._live.rights.listing(login, after, pattern, self._live.wall(), ROWS, elsewhere)
        kept: list[Said] = []
        after, more = page.after, page.more
        size = 200
        for row in page.services:
            size += len(json.dumps(row, separators=(",", ":"))) + 1
            if size > MAX_TEXT and kept and row["device"] != kept[-1]["device"]:
                after, more = kept[-1]["device"], True
                break
            kept.append(row)
        return {"services": kept, "more": more, "after": after}

    def _start(self, login: Login, said: Said, call: WebCall) -> Said:
        services = said.get("services")
        if not isinstance(services, list) or not 1 <= len(services) <= SERVICES:
            raise _Malformed(f"services: a list of 1 to {SERVICES} names wanted")
        if not all(isinstance(each, str) and _NAME.fullmatch(each) for each in services):
            raise _Malformed("services: names wanted, 1 to 32 of A-Z a-z 0-9 . _ - each")
        names = tuple(dict.fromkeys(services))
        flags = _flag(said, "private"), _flag(said, "take_over")
        asked = Start(_text(said, "device", _SERIAL), names, *flags)
        looking = self._live.rights.look(asked.serial)
        if looking is None:
            return self._begun(login, asked, call)
        raise _Looked(looking, lambda _: self._begun(login, asked, call))

    def _begun(self, login: Login, asked: Start, call: WebCall) -> Said:
        session = self._live.start(login, asked, call.peer)
        if session.status == "initializing":
            raise _Later(session, lambda: started_row(self._live, login, session))
        return started_row(self._live, login, session)

    def _end(self, login: Login, said: Said, call: WebCall) -> Said:
        self._live.end_by(login, _text(said, "session", _ID), call.peer)
        return {}

    def _share(self, login: Login, said: Said, call: WebCall) -> Said:
        number, person = _text(said, "session", _ID), _text(said, "with", _USER)
        role = ROLES.get(_text(said, "role", _NAME))
        if role is None:
            raise _Malformed("role: watch, use or take wanted")
        nonce = self._live.share(number, login.user, person, role, call.peer)
        host = call.request.headers["Host"]
        return {"nonce": nonce, "url": f"revtunnel://{host}/s/{number}#{nonce}"}

    def _sessions(self, login: Login, said: Said, call: WebCall) -> Said:
        rows: list[Said] = []
        more = False
        for session in visible(self._live, login):
            if len(rows) >= ROWS // 4:
                more = True
                break
            rows.append(session_row(self._live.counted(session), self._at))
        while len(json.dumps(rows)) > MAX_TEXT - 200:
            rows.pop()
            more = True
        return {"sessions": rows, "more": more}

    def _nonce(self, login: Login, said: Said, call: WebCall) -> Said:
        number = _text(said, "session", _ID)
        return {"nonce": self._live.nonce(login.user, number, _flag(said, "browser"))}


def started_row(live: LiveSessions, login: Login, session: RemoteSession) -> Said:
    """What somebody needs who has started a session.

    Raises:
        SessionRefused: the device's site said no.
    """
    if session.over:
        raise SessionRefused("denied", f"by the device's site: {session.detail or session.ended}")
    ports = {offer.name: offer.target.port for offer in live.rights.services(session.wish.serial)}
    return {
        "session": session.id,
        "nonce": live.nonce(login.user, session.id, browser=False),
        "services": [{"name": name, "port": ports.get(name, 0)} for name in session.wish.offers],
        "state": session.status,
        "idle": round(session.limits.idle),
        "maximum": round(session.limits.maximum),
    }


def visible(live: LiveSessions, login: Login) -> Iterator[RemoteSession]:
    """Somebody's own sessions that run, then those of others that he may observe."""
    wall = live.wall()
    own = [each for each in live.sessions if each.owner == login.user and not each.over]
    yield from own
    for session in live.sessions:
        if session.over or session.owner == login.user:
            continue
        wish = session.wish
        if live.rights.may(login, Action.OBSERVE, wish.serial, wish.offers, wall).allowed:
            yield session


def session_row(session: RemoteSession, at: Callable[[float], str]) -> Said:
    """A session for whoever may see it."""
    return {
        "session": session.id,
        "user": session.owner,
        "device": session.wish.serial,
        "services": [*session.wish.offers],
        "state": session.status,
        "since": at(session.since),
        "private": session.wish.private,
        "people": sorted(
            f"{seat.person} ({seat.role.value})"
            for seat in session.seats.values()
            if seat.role is not Role.DEVICE
        ),
        "bytes_to_device": session.bytes_to_device,
        "bytes_to_client": session.bytes_to_client,
    }


# -- arguments


def _number(said: Said) -> int:
    number = said.get("id")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**53:
        raise _Malformed("id: a whole number wanted")
    return number


def _object(text: str) -> Said:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise _Malformed("JSON wanted") from None
    if not isinstance(said, dict):
        raise _Malformed("a JSON object wanted")
    return said


def _text(said: Said, name: str, form: re.Pattern[str], default: str | None = None) -> str:
    found = said.get(name, default)
    if found == default and default is not None:
        return default
    if not isinstance(found, str) or not form.fullmatch(found):
        raise _Malformed(f"{name}: {'missing' if found is None else 'not of its form'}")
    return found


def _flag(said: Said, name: str) -> bool:
    found = said.get(name, False)
    if not isinstance(found, bool):
        raise _Malformed(f"{name}: true or false wanted")
    return found
