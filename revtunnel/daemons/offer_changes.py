"""Offers of agents that change while their links are up, of themselves or because an operator wishes it.

Rule of this file: what an agent says counts at once, in order; an operator's wish is carried out by the
agent, or it is not. One wish for each link at a time.

Source: docs/link-protocol.rst "Offers"; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.fleet import Fleet
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.link.server_link import ServerLink
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound, valid
from revtunnel.streams.offer_messages import Answer, OfferChange

__all__ = ["OfferChanges"]

WAIT = 10.0  # seconds that an agent has for an answer


class OfferChanges:
    """Those of one server. ``open_ports`` lets clients in to what the device of a link offers now."""

    def __init__(
        self, reactor: Any, fleet: Fleet[Any], ports: ClientPorts, open_ports: Callable[[ServerLink], None]
    ) -> None:
        self._reactor = reactor
        self._fleet = fleet
        self._ports = ports
        self._open_ports = open_ports
        self._waiting: dict[ServerLink, Deferred[Answer]] = {}

    # -- from links

    def offered(self, link: ServerLink, offers: tuple[Offer, ...], answer: Answer | None) -> None:
        """An agent offers this from now on."""
        device = self._fleet.get(link.serial)
        if device is not None and device.link is link:
            device.offers = offers
            if isinstance(link.mux, Rt1Mux):
                link.mux.spoken_of(frozenset(offer.name for offer in offers))
            self._open_ports(link)
        if answer is not None and link in self._waiting:
            self._waiting.pop(link).callback(answer)

    def gone(self, link: ServerLink) -> None:
        """It answers no more."""
        waiting = self._waiting.pop(link, None)
        if waiting is not None:
            waiting.cancel()

    # -- from operators

    def add(self, serial: str, offer: str, by: str) -> "Deferred[int]":
        """Have an agent offer one thing more: the client port that it got, or 0.

        Raises:
            Invalid: that is no offer.
            NotFound: the device is not here.
            Conflict: its agent does not let servers change what it offers, or not this.
            Busy: another change is under way, or it does not answer.
        """
        wanted = valid(parse_offer, offer)
        done = self._ask(serial, OfferChange(wanted, wanted.name))
        return done.addCallback(lambda _: self._port(serial, wanted.name))

    def remove(self, serial: str, name: str, by: str) -> "Deferred[None]":
        """Have an agent offer one thing less; as ``add``. Streams that run stay."""
        if not name.isascii() or not 1 <= len(name) <= 32:
            raise Invalid(f"{name[:80]!a}: the name of an offer wanted")
        return self._ask(serial, OfferChange(None, name))

    # -- inside

    def _ask(self, serial: str, change: OfferChange) -> "Deferred[None]":
        device = self._fleet.get(serial)
        link = device.link if device is not None else None
        if link is None:
            raise NotFound(f"{serial} is not here")
        mux: Any = getattr(link, "mux", None)
        if not getattr(mux, "changes", False):
            raise Conflict(f"the agent of {serial} takes no changes of its offers: remote_offers in [agent]")
        if link in self._waiting:
            raise Busy(f"another change of what {serial} offers is under way")
        waiting: Deferred[Answer] = Deferred()
        self._waiting[link] = waiting
        mux.change(change)
        link.flush()

        def done(result: Any) -> None:
            self._waiting.pop(link, None)
            if isinstance(result, Failure):
                result.trap(CancelledError, TimeoutError)
                raise Busy(f"the agent of {serial} did not answer")
            if not result.done:
                raise Conflict(f"the agent of {serial} says no: {result.why}")

        return waiting.addTimeout(WAIT, self._reactor).addBoth(done)

    def _port(self, serial: str, name: str) -> int:
        found = (port.lease.port for port in self._ports.of(serial) if port.clients.name == name)
        return next(found, 0)
