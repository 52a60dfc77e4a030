"""A session from the command line to its end: started or handed over, its local ports, its program.

The rules: what was opened is closed before the program ends; the session ends with what it was for (the
program behind ``--exec``, the connection of ``-W``, else the person's Ctrl-C).

Source: next/remote-sessions.md section 7; ours.
"""

import argparse
import os
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.connect.addressing import SCHEME, Handed, ServerAddress, parse_handed, parse_services
from revtunnel.connect.console_output import Telling, sized
from revtunnel.connect.control import Control, open_control
from revtunnel.connect.dialling import DialWay
from revtunnel.connect.held_session import HeldSession
from revtunnel.connect.local_ports import LocalPort, LocalSocket, PortRules, open_port
from revtunnel.connect.logins import Logins
from revtunnel.connect.one_shot_commands import way_to
from revtunnel.connect.outcomes import DONE, TRY_AGAIN, UNREACHABLE, USAGE, Stop, for_channel
from revtunnel.connect.own_program import Program, filled_in
from revtunnel.connect.stdio import StandardTransport
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.listening import Listeners
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.streams.channel import Channel
from revtunnel.systems.sessions.session_link import SUBPROTOCOL

__all__ = ["Connecting"]

LAST_WORD = 5.0  # seconds for the other side's last word on a connection that has ended here
PROGRESS = 1.0  # seconds between two lines of progress
Said = dict[str, Any]


class Connecting:
    """One session; ``run`` is all of it."""

    def __init__(self, reactor: Any, options: argparse.Namespace, logins: Logins, telling: Telling) -> None:
        self.held: HeldSession | None = None
        self._reactor = reactor
        self._listeners = Listeners(reactor, lambda fact: None)
        self._options = options
        self._logins = logins
        self._telling = telling
        self._ports: list[LocalPort] = []
        self._program: Program | None = None
        self._stopped = False
        self._device = ""

    async def run(self) -> int:
        """The exit status. Stop: as it says."""
        try:
            session, nonce, way, fresh = await self._granted()

            async def dial(nonce: str) -> Upgraded:
                return await way.upgrade(f"/session/client/{session}", SUBPROTOCOL, nonce)

            self.held = held = HeldSession(self._reactor, dial, fresh, self._telling, way.limits)
            said = await held.start(nonce)
            return await self._go_on(held, said)
        finally:
            for port in self._ports:
                port.close()

    def stop(self, number: int, terminal: bool) -> bool:
        """A signal came; ``terminal``: a program of ours has got it too. False: nothing has to be ended."""
        self._stopped = True
        if self._program is not None:
            if not terminal:
                self._program.pass_on(number)
        elif self.held is not None:
            self.held.end()
        return self.held is not None

    # -- what is granted

    async def _granted(self) -> tuple[str, str, DialWay, Callable[[], Awaitable[str]] | None]:
        """The session, its first nonce, the way to its server, and who gives another nonce."""
        handed = self._handed()
        if handed is not None:
            known = self._logins.of.get(str(handed.server))
            way = way_to(self._reactor, self._options, handed.server, known)
            return handed.session, handed.nonce, way, None
        device, services = self._wanted()
        server = self._logins.server(self._options.server)
        login = self._logins.login(server, os.environ)
        way = way_to(self._reactor, self._options, server, login)
        controlled = partial(open_control, self._reactor, way, login.token, self._options.timeout)
        answer = await self._start(controlled, device, services)
        session = str(answer.get("session", ""))

        async def fresh() -> str:
            with closing(await controlled()) as control:
                return str((await control.ask("nonce", session=session)).get("nonce", ""))

        return session, str(answer.get("nonce", "")), way, fresh

    def _handed(self) -> Handed | None:
        """What a URL says, if there is one; a login at its place says whether it has TLS."""
        texts = [self._options.direct] if self._options.direct else self._options.what
        if len(texts) != 1 or not texts[0].startswith(SCHEME):
            return None
        try:
            handed = parse_handed(texts[0])
        except ValueError as error:
            raise Stop(USAGE, str(error)) from None
        plain = ServerAddress(handed.server.host, handed.server.port, secure=False)
        if self._options.plaintext or str(plain) in self._logins.of:
            return Handed(plain, handed.session, handed.nonce)
        return handed

    def _wanted(self) -> tuple[str, list[str]]:
        texts = [self._options.direct] if self._options.direct else self._options.what
        try:
            return parse_services(texts)
        except ValueError as error:
            raise Stop(USAGE, str(error)) from None

    async def _start(
        self, controlled: Callable[[], Awaitable[Control]], device: str, services: list[str]
    ) -> Said:
        """Ask for the session."""
        with closing(await controlled()) as control:
            if not services:
                rows = (await control.ask("services", device=device)).get("services", [])
                services = [str(row["service"]) for row in rows if row.get("device") == device]
                if not services:
                    raise Stop.by_word("unknown", f"no service of {device} that you may reach")
            flags = {"private": self._options.private, "take_over": self._options.take_over}
            return await control.ask("start", device=device, services=services, **flags)

    # -- what is done with it

    async def _go_on(self, held: HeldSession, said: Said) -> int:
        self._device = str(said.get("device", ""))
        services = [(str(row["name"]), int(row.get("port") or 0)) for row in said.get("services", [])]
        if not services:
            raise Stop(UNREACHABLE, "the session has no services")
        if self._options.direct:
            return await self._direct(held, services)
        about = {key: said.get(key) for key in ("session", "device", "role", "idle", "maximum")}
        self._telling.happened("session", **about)
        if said.get("role") != "watch":
            self._open_ports(held, services)
        if self._telling.progresses:
            self._progress(held)
        if self._options.program:
            return await self._with_program(held)
        return self._ended(await held.over)

    def _open_ports(self, held: HeldSession, services: list[tuple[str, int]]) -> None:
        options = self._options
        rules = PortRules(options.listen, options.port or 0, options.address_range, options.any_user)
        for service, own in services:
            port = open_port(self._reactor, self._listeners, service, own, rules, held.give, held.left)
            port.on_stranger = partial(self._telling.happened, "stranger", service=service)
            self._ports.append(port)
            held.listening(service, port.address, port.port)
            where = {"address": port.address, "port": port.port, "place": port.place}
            self._telling.happened("listening", device=self._device, service=service, **where)

    async def _with_program(self, held: HeldSession) -> int:
        """The session ends with the program; if it ends before, the program may have something to do yet."""
        if not self._ports:
            raise Stop(USAGE, "--exec: who only watches has no local port")
        port, program = self._ports[0], Program()
        words = filled_in(self._options.program, port.address, port.port, port.service)
        held.over.addCallback(self._told)
        try:
            program.start(self._reactor, words)
        except Stop:
            held.end()
            await held.over
            raise
        self._program = program
        status = await program.over
        self._program = None
        held.end()
        await held.over
        return status

    async def _direct(self, held: HeldSession, services: list[tuple[str, int]]) -> int:
        """Standard input and output are the connection."""
        wanted = self._options.direct.rpartition("/")[2]
        service = services[0][0] if self._options.direct.startswith(SCHEME) else wanted
        ended: Deferred[tuple[Ended, str]] = Deferred()
        written: Deferred[None] = Deferred()

        def channel_over(channel: Channel, reason: Ended, detail: str) -> None:
            if not ended.called:
                ended.callback((reason, detail))

        def left(socket: LocalSocket) -> None:
            held.left(socket)
            written.callback(None)
            self._reactor.callLater(LAST_WORD, channel_over, None, Ended.RESET_BY_PEER, "it has not ended")

        def gone(stop: Stop) -> Stop:
            channel_over(None, Ended.LINK_LOST, str(stop))  # type: ignore[arg-type]
            return stop

        held.on_channel = channel_over
        held.over.addCallback(gone)
        local = LocalSocket(self._reactor, None, service, held.give, left)
        StandardTransport(self._reactor, local).start()
        reason, detail = await ended
        await written
        held.end()
        stop = await held.over
        if reason is Ended.CLOSED or self._stopped:
            return DONE
        if reason is Ended.LINK_LOST and stop.status not in (DONE, TRY_AGAIN):
            raise stop
        raise Stop(
            for_channel(reason), f"{self._options.direct.partition('#')[0]}: {reason.word} {detail}".rstrip()
        )

    # -- what is told

    def _told(self, stop: Stop) -> Stop:
        if str(stop):
            self._telling.happened("ended", word=str(stop).partition(":")[0], detail=str(stop))
        return stop

    def _ended(self, stop: Stop) -> int:
        self._told(stop)
        return stop.status

    def _progress(self, held: HeldSession) -> None:
        if held.over.called:
            return
        to_device, to_client = held.moved
        trip = held.link.round_trip if held.link is not None else None
        parts = [
            f"{held.running} connections",
            f"{sized(to_device)} to the device",
            f"{sized(to_client)} from it",
            f"{trip * 1000:.0f} ms" if trip is not None else "",
        ]
        self._telling.progress(", ".join(filter(None, parts)))
        self._reactor.callLater(PROGRESS, self._progress, held)
