"""The listening sockets that settings name: as those change, some are closed, some opened.

The rule: all others stay as they are, with whoever waits there. A port may go from one listener to another,
or to a device's clients, so all that goes is closed before anything is opened.

Source: ours.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from twisted.internet.error import CannotListenError

from revtunnel.ground.targets import place
from revtunnel.sockets.listening import Came, Listener, Listeners

__all__ = ["OpenListeners", "WantedListener"]


class WantedListener(NamedTuple):
    """One address of a listener. ``came`` stays with the socket, and goes by what holds when it is called."""

    name: str  # of the settings that want it, for people
    host: str
    port: int
    backlog: int
    came: Came
    must: bool = False  # that another program has the port stops a start


class OpenListeners:
    """Those that are wanted, in that order. One that cannot be had is tried again (``Listeners.keep``).

    ``they_begin``: as for ``Listeners.keep``.
    """

    def __init__(self, listeners: Listeners, they_begin: bool = False) -> None:
        self._listeners = listeners
        self._they_begin = they_begin
        self._kept: dict[tuple[str, str, int], Listener] = {}  # by name and address as it is written

    @property
    def all(self) -> list[Listener]:
        """All of them."""
        return list(self._kept.values())

    @property
    def places(self) -> str:
        """Where they are, for people."""
        return ", ".join(listener.place for listener in self.all)

    def of(self, name: str) -> list[Listener]:
        """Those whose names begin so."""
        return [listener for key, listener in self._kept.items() if key[0].startswith(name)]

    def start(self, wanted: Sequence[WantedListener]) -> None:
        """Open all. CannotListenError: one cannot be had at all."""
        for each in wanted:
            self._kept[each[:3]] = self._listeners.keep(*each, they_begin=self._they_begin)

    def close_others(self, wanted: Sequence[WantedListener]) -> None:
        """Close what is not wanted any more."""
        found = {each[:3]: self._find(each) for each in wanted}
        stay = {key: listener for key, listener in found.items() if listener is not None}
        for listener in self.all:
            if listener not in stay.values():
                listener.stop()
        self._kept = stay

    def open_missing(self, wanted: Sequence[WantedListener]) -> list[str]:
        """Open what is wanted and not open yet; a line for each that cannot be."""
        before, self._kept, errors = self._kept, {}, []
        for each in wanted:
            try:
                self._kept[each[:3]] = before.get(each[:3]) or self._listeners.listen(
                    *each[1:5], they_begin=self._they_begin
                )
            except CannotListenError as error:
                where = place(each.host, each.port)
                errors.append(f"{each.name}: {where} cannot be opened: {error.socketError.strerror}")
                with suppress(CannotListenError):
                    self._kept[each[:3]] = self._listeners.keep(*each[:5], they_begin=self._they_begin)
        return errors

    def stop(self) -> None:
        """Close all."""
        self.close_others(())

    def _find(self, wanted: WantedListener) -> Listener | None:
        """The open one that this names, also by the port that it was given where any was wanted."""
        same = (
            listener
            for key, listener in self._kept.items()
            if key[:2] == wanted[:2] and wanted.port in (key[2], listener.port) and listener.is_open
        )
        return next(same, None)
