"""The client's node: a client whose device is at another node is given to the link of that node.

The rules: what is remembered of a device is used at once, and asked for when it is not, or was wrong, once
for a client; a device that came here meanwhile serves its client, whatever the answer; whoever cannot be told
where its device is, is refused ``directory-away``, not guessed for. A forwarded client is never forwarded
again; a client of a remote session goes to a node that can tell it from others, and knows its session
(device_answers.py).

Source: next/cluster.md sections 4 and 6; ours.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.python.failure import Failure

from revtunnel.cluster.directory import Directory
from revtunnel.cluster.named_targets import named
from revtunnel.cluster.node_records import Place
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.clients import ClientSocket

__all__ = ["Forwarding"]


class Forwarding:
    """Gives clients away. ``absent`` is told of those who stay, and of the word for them."""

    def __init__(
        self,
        directory: Directory,
        carrier: Callable[[str], Carrier | None],
        absent: Callable[[ClientSocket, str], None],
        takes_sessions: Callable[[str], bool] = lambda node: True,
    ) -> None:
        self._directory = directory
        self._carrier = carrier
        self._absent = absent
        self._takes_sessions = takes_sessions

    def open(self, client: ClientSocket) -> str:
        """Give it to the node of its device, now or soon; a word if that cannot be."""
        place = self._directory.known(client.serial)
        carrier = self._carrier(place.node) if place is not None else None
        if place is not None and carrier is not None:
            return self._give(client, place, carrier, again=True)
        self._find(client, again=True)
        return ""

    def _find(self, client: ClientSocket, again: bool) -> None:
        """Ask the directory; nobody reads the client meanwhile."""
        client.on_lost = _nothing
        found = self._directory.find(client.serial)
        found.addCallbacks(partial(self._found, client, again), partial(self._away, client))

    def _found(self, client: ClientSocket, again: bool, place: Place | None) -> None:
        client.on_lost = None
        if not client.is_here():
            return
        if place is None or place.node == self._directory.me.name:
            self._absent(client, "device-absent")
            return
        carrier = self._carrier(place.node)
        word = "node-away" if carrier is None else self._give(client, place, carrier, again)
        if word:
            client.refuse(word)

    def _away(self, client: ClientSocket, failure: Failure) -> Any:
        client.on_lost = None
        if client.is_here():
            self._absent(client, "directory-away")

    def _give(self, client: ClientSocket, place: Place, carrier: Carrier, again: bool) -> str:
        if client.session and not self._takes_sessions(place.node):
            return "device-absent"
        client.named = named(client.serial, client.name)
        client.not_there = partial(self._not_there, client, place, again)
        return carrier.open(client)

    def _not_there(self, client: ClientSocket, place: Place, again: bool) -> None:
        """Its node says that the device is not there."""
        client.named = None
        self._directory.forget(client.serial, place)
        if again:
            self._find(client, again=False)
        else:
            self._absent(client, "device-absent")


def _nothing() -> None:
    """What is lost is seen when the answer comes."""
