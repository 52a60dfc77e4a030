"""What is asked and answered at once: login, logout, list, sessions, end, share.

Source: next/remote-sessions.md; ours.
"""

import argparse
import os
import sys
from contextlib import closing
from typing import Any

from revtunnel.connect.addressing import ServerAddress, parse_server, parse_session
from revtunnel.connect.console_output import Telling, clean
from revtunnel.connect.control import Control, open_control
from revtunnel.connect.dialling import DialWay
from revtunnel.connect.logins import KeptLogin, Logins
from revtunnel.connect.outcomes import DENIED, DONE, USAGE, Stop

__all__ = ["Errands", "token_typed", "way_to"]

PAGES = 1000  # of a listing


def token_typed() -> str:
    """The token that a person types, or that standard input has. Stop: none came."""
    if sys.stdin.isatty():
        from getpass import getpass

        text = getpass("token: ")
    else:
        text = sys.stdin.readline(1024)
    token = text.strip()
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        raise Stop(USAGE, "no token: one word of printable ASCII wanted")
    return token


def way_to(
    reactor: Any, options: argparse.Namespace, server: ServerAddress, login: KeptLogin | None
) -> DialWay:
    """How a server is reached, by what was typed and what is kept."""
    ca = options.ca or (login.ca if login is not None else "")
    return DialWay(reactor, server, os.environ, ca, options.plaintext, options.timeout)


class Errands:
    """One errand; each method is one, and returns the exit status."""

    def __init__(self, reactor: Any, options: argparse.Namespace, logins: Logins, telling: Telling) -> None:
        self._reactor = reactor
        self._options = options
        self._logins = logins
        self._telling = telling

    async def login(self) -> int:
        """Try a token, and keep it."""
        server = _typed(self._options.what[0])
        token = token_typed()
        ca = os.path.abspath(self._options.ca) if self._options.ca else ""
        way = way_to(self._reactor, self._options, server, KeptLogin("", "", ca))
        control = await open_control(self._reactor, way, token, self._options.timeout)
        control.close()
        self._logins.keep(server, KeptLogin(token, control.user, ca))
        print(f"logged in at {server} as {clean(control.user)}")
        return DONE

    async def logout(self) -> int:
        """Forget a token."""
        server = self._logins.server(self._options.what[0] if self._options.what else self._options.server)
        if not self._logins.forget(server):
            raise Stop(DENIED, f"no login for {server}")
        print(f"no login for {server} is kept any more; the token itself is good until it is revoked")
        return DONE

    async def list(self) -> int:
        """Devices and services."""
        pattern = {"device": self._options.what[0]} if self._options.what else {}
        rows: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        with closing(await self._control()) as control:
            for _ in range(PAGES):
                answer = await control.ask("services", **pattern, **after)
                page = [row for row in answer.get("services", []) if isinstance(row, dict)]
                rows += page
                if not answer.get("more") or not answer.get("after"):
                    break  # a page may be empty, and others behind it are not
                after = {"after": str(answer["after"])}
        if not self._options.json:
            rows = [{**row, "online": "yes" if row.get("online") else "no"} for row in rows]
        self._telling.rows(rows, ("device", "service", "port", "online"))
        return DONE

    async def sessions(self) -> int:
        """Running sessions."""
        with closing(await self._control()) as control:
            answer = await control.ask("sessions")
        rows = [row for row in answer.get("sessions", []) if isinstance(row, dict)]
        if not self._options.json:
            rows = [{**row, "services": " ".join(map(str, row.get("services", [])))} for row in rows]
        self._telling.rows(rows, ("session", "device", "services", "user", "state", "since"))
        return DONE

    async def end(self) -> int:
        """End a session."""
        session = _session(self._options.what[0])
        with closing(await self._control()) as control:
            await control.ask("end", session=session)
        return DONE

    async def share(self) -> int:
        """Invite somebody."""
        session, options = _session(self._options.what[0]), self._options
        asked = {"session": session, "with": options.guest, "role": options.role or "watch"}
        with closing(await self._control()) as control:
            answer = await control.ask("share", **asked)
        print(clean(answer.get("url", "")))
        return DONE

    async def _control(self) -> Control:
        server = self._logins.server(self._options.server)
        login = self._logins.login(server, os.environ)
        way = way_to(self._reactor, self._options, server, login)
        return await open_control(self._reactor, way, login.token, self._options.timeout)


def _typed(text: str) -> ServerAddress:
    try:
        return parse_server(text)
    except ValueError as error:
        raise Stop(USAGE, str(error)) from None


def _session(text: str) -> str:
    try:
        return parse_session(text)
    except ValueError as error:
        raise Stop(USAGE, str(error)) from None
