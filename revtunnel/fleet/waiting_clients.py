"""Clients that came while their device was away, and wait for it.

Rule of this file: nobody waits without an end in time; who may wait is judged before, and again when the
device is here. They are not read; a reset of one is noticed with every ``look``.

Source: ours.
"""

from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.streams.clients import ClientSocket

__all__ = ["WaitingClients"]


class WaitingClients:
    """Those of one server, by device."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, dict[ClientSocket, IDelayedCall]] = {}  # in their order

    @property
    def serials(self) -> list[str]:
        """The devices that are waited for."""
        return [*self._waiting]

    def count(self, serial: str) -> int:
        """How many wait for a device."""
        return len(self._waiting.get(serial, ()))

    def hold(self, client: ClientSocket, seconds: float) -> None:
        """Let it wait so long; then it is refused."""
        client.on_lost = partial(self._forget, client)
        late = self._clock.callLater(seconds, self._refuse, client, "device-absent")
        self._waiting.setdefault(client.serial, {})[client] = late

    def take(self, serial: str) -> list[ClientSocket]:
        """Those who waited for a device and are still there, in their order; they wait no more."""
        taken = [*self._waiting.get(serial, ())]
        for client in taken:
            self._forget(client)
        return [client for client in taken if client.is_here()]

    def refuse(self, word: str) -> None:
        """Turn all of them away."""
        for client in self._all():
            self._refuse(client, word)

    def look(self) -> None:
        """Notice who was cut."""
        for client in self._all():
            client.look()

    def _all(self) -> list[ClientSocket]:
        return [client for waiting in self._waiting.values() for client in waiting]

    def _forget(self, client: ClientSocket) -> None:
        waiting = self._waiting[client.serial]
        late = waiting.pop(client)
        if late.active():
            late.cancel()
        if not waiting:
            del self._waiting[client.serial]
        client.on_lost = None

    def _refuse(self, client: ClientSocket, word: str) -> None:
        self._forget(client)
        client.refuse(word)
