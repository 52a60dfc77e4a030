"""What an agent has learned of its paths, by server and proxy, kept in its state directory.

A JSON object in ``SERIAL.paths.json``: path -> [seconds of silence, when that was learned, since 1970].

Source: ours.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.ground.facts import Report, ServerState
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.path_keepalive import PathKeepalive
from revtunnel.state.atomic_file import make_directory, write_whole

__all__ = ["AgentPaths"]

KEPT = 30 * 86400.0  # seconds after which a path is tried anew
MAX_FILE = 64 * 1024  # bytes
MAX_PATHS = 64


class AgentPaths:
    """Tells links after how much silence they have to ask, and learns from their ends."""

    def __init__(
        self, settings: AgentSettings, report: Report, wall: Callable[[], float] = time.time
    ) -> None:
        directory = settings.state_directory
        self._file = os.path.join(directory, f"{settings.serial}.paths.json") if directory is not None else ""
        self._settings = settings
        self._report = report
        self._wall = wall
        self._since = self._load()
        known = {path: seconds for path, (seconds, _) in self._since.items()}
        self._learned = PathKeepalive(settings.limits.keepalive_least, known, self._save)

    def take(self, settings: AgentSettings) -> None:
        """Other settings from now on."""
        self._settings = settings
        self._learned.least = settings.limits.keepalive_least

    def of(self, link: AgentLink) -> float | None:
        """Seconds of silence after which a link asks; None: as its server says."""
        return self._settings.keepalive if self._settings.keepalive is not None else self.learned(link)

    def learned(self, link: AgentLink) -> float | None:
        """The same, where it was learned that the path cuts what is silent."""
        return self._learned.of(self._path(link)) if self._settings.keepalive is None else None

    def kernel_asks(self, link: AgentLink, seconds: float) -> float:
        """Seconds to which the silence of its path may grow; 0: it is asked by PING.

        A proxy answers for itself, so that its probes would say nothing of the server.
        """
        proxied = link.place[0].web or self._proxy(link) is not None
        if proxied or self._settings.keepalive is not None or self.learned(link) is not None:
            return 0.0
        return self._learned.most(self._path(link), seconds)

    def ended(self, link: AgentLink) -> None:
        """Learn from a link that was up."""
        if self._settings.keepalive is not None or link.ended is None or link.mux is None:
            return
        liveness, path, now = link.mux.liveness, self._path(link), link.clock.seconds()
        signs, first = liveness.signs, link.server.keepalive if link.server is not None else 0.0
        if signs is not None and signs.after > first:
            silence = now - signs.last(liveness.heard_at)
            most = self._learned.probe_lost(path, link.ended[0], signs.after, silence, now)
            if most is not None:
                words = f"{path} cuts what is silent for {signs.after:g} s"
                self._report(ServerState("keepalive", f"{words}: probed after {most:g} s from now on"))
            if silence >= signs.after:
                return
        silence = min(now - liveness.heard_at, liveness.keepalive)
        seconds = self._learned.ended(path, link.ended[0], silence, now)
        if seconds is not None:
            words = f"{path} cuts what is silent for {silence:.1f} s: asked after {seconds:g} s from now on"
            self._report(ServerState("keepalive", f"{words}, and all clients go by the link"))

    # -- inside

    def _path(self, link: AgentLink) -> str:
        place, proxy = link.place[0], self._proxy(link)
        return f"{place} by {proxy}" if proxy is not None else str(place)

    def _proxy(self, link: AgentLink) -> Any:
        with suppress(ValueError):
            return self._settings.proxy.proxy_for(link.place[0].host, link.place[0].port)
        return None

    def _load(self) -> dict[str, tuple[float, float]]:
        now, found = self._wall(), {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            with open(self._file, encoding="ascii") as file:
                kept: dict[str, Any] = json.loads(file.read(MAX_FILE))
            for path, (seconds, since) in [*kept.items()][:MAX_PATHS]:
                if now - KEPT < since <= now and 0.1 <= seconds <= 3600:
                    found[path] = float(seconds), float(since)
        return found

    def _save(self, known: dict[str, float]) -> None:
        now, before = self._wall(), self._since
        self._since = {
            path: before[path] if path in before and before[path][0] == seconds else (seconds, now)
            for path, seconds in [*known.items()][-MAX_PATHS:]
        }
        if not self._file:
            return
        try:
            make_directory(os.path.dirname(self._file))
            write_whole(self._file, json.dumps(self._since).encode("ascii"), 0o644)
        except OSError as error:
            why = f"{self._file}: {error.strerror}: it will be forgotten"
            self._report(ServerState("keepalive", why))
