"""Offers that change on an rt1 link that is up: the agent says them, the server may ask for others.

Rule of this file: each time opens and closes ports at the server, so it may not come often. An answer that
nobody waits for is not one; a question that cannot be read is answered with no, and counts as an oddity.

Source: streams/offer_messages.py; docs/link-protocol.rst "Offers".
"""

from revtunnel.ground.errors import RemoteError
from revtunnel.link.mux import Happening, Offered, OffersAsked
from revtunnel.link.rt1_services import Rt1Services
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.numbers import Tally
from revtunnel.streams.offer_messages import OfferChange, decode_change, decode_offers, encode_change

__all__ = ["Rt1Offers"]

MOST, WINDOW = 60, 60.0  # times that offers may change, in seconds


class Rt1Offers(Rt1Services):
    """What is said of them. ``offers``, ``changes``: both ends said in HELLO that they have it."""

    offers = False
    changes = False

    _changed: Tally | None = None  # made with the first

    def offer(self, payload: bytes) -> None:
        """Agent: this is offered now (``encode_offers``)."""
        self._turns.control(encode_frame(Command.OFFERS, 0, payload))

    def change(self, change: OfferChange) -> None:
        """Server: ask for another offer, or for one less."""
        self._turns.control(encode_frame(Command.CHANGE, 0, encode_change(change)))

    def spoken_of(self, names: frozenset[str]) -> None:
        """Server: these are the services of which the agent may say whether they answer."""
        self.offered = names
        self.service_states = {name: each for name, each in self.service_states.items() if name in names}

    def _offers(self, frame: Frame, now: float) -> list[Happening]:
        self._changed = self._changed or Tally(MOST, WINDOW, "changes of offers")
        self._changed.add(now)
        return [Offered(*decode_offers(frame.payload, self.limits.offers))]

    def _change(self, frame: Frame, now: float) -> list[Happening]:
        try:
            return [OffersAsked(decode_change(frame.payload), "")]
        except RemoteError as error:
            return [OffersAsked(None, str(error)), *self._glitch(str(error), now)]
