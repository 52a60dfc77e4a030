"""What one agent offers now: ``local`` of its settings, and what its server has added and taken away since.

Rule of this file: a server adds what ``remote_offers`` allows and nothing else. What it changed holds until
the agent ends; settings that change an offer have the last word about it.

Source: ours.
"""

from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.ground.facts import Report, ServerState
from revtunnel.ground.targets import Offer
from revtunnel.streams.commands import MAX_SIZE, Command
from revtunnel.streams.dialler import is_guarded
from revtunnel.streams.offer_messages import OfferChange, encode_offers

__all__ = ["AgentOffers", "offer_changes"]

LONGEST = MAX_SIZE[Command.OFFERS] - 300  # bytes, with room for an answer


class AgentOffers:
    """Those of one agent; to dial them and to tell servers is its own."""

    def __init__(self, settings: AgentSettings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._added: dict[str, Offer] = {}
        self._taken: dict[str, Offer] = {}  # away, as settings have them

    @property
    def now(self) -> tuple[Offer, ...]:
        """All of them."""
        local = [each for each in self._settings.local if self._taken.get(each.name) != each]
        return (*local, *self._added.values())

    def take(self, settings: AgentSettings) -> bool:
        """Other settings from now on; False: they change nothing of it."""
        before, self._settings = self.now, settings
        names = {each.name for each in settings.local}
        kept = {name: each for name, each in self._added.items() if name not in names}
        self._added = {name: each for name, each in kept.items() if self._allows(each)}
        self._taken = {each.name: each for each in settings.local if self._taken.get(each.name) == each}
        return self.now != before

    def change(self, change: OfferChange) -> str:
        """Do what the server wants: why not, or nothing."""
        refusal = self._refusal(change)
        if refusal:
            self._report(ServerState("offers", f"the server may not have {change}: {refusal}"))
            return refusal
        if change.offer is not None:
            self._added[change.name] = change.offer
        elif change.name in self._added:
            del self._added[change.name]
        else:
            self._taken |= {each.name: each for each in self.now if each.name == change.name}
        word = "added" if change.offer is not None else "took away"
        self._report(ServerState("offers", f"{word} {change}, as the server asks"))
        return ""

    def _refusal(self, change: OfferChange) -> str:
        allowed, there = self._settings.remote_offers, {each.name for each in self.now}
        if allowed == ():
            return "the agent does not let its offers be changed"
        if change.offer is None:
            return "" if change.name in there else f"nothing is called {change.name} here"
        if change.name in there:
            return f"something is called {change.name} already"
        if not self._allows(change.offer):
            return f"{change.offer.target} is not in remote_offers"
        after = (*self.now, change.offer)
        if len(after) > self._settings.link.offers or len(encode_offers(after)) > LONGEST:
            return f"{len(self.now)} services are offered, which is the most"
        return ""

    def _allows(self, offer: Offer) -> bool:
        allowed = self._settings.remote_offers
        if allowed is not None and is_guarded(offer.target):  # no * means these
            allowed = tuple(pattern for pattern in allowed if pattern.host and "*" not in pattern.host)
        return allowed is None or any(pattern.fits(offer) for pattern in allowed)


def offer_changes(old: tuple[Offer, ...], new: tuple[Offer, ...]) -> list[str]:
    """What a reload changed of ``local``, a line for each service."""
    before, after = ({each.name: each for each in offers} for offers in (old, new))
    differ = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    words = ("removed" if name not in after else "changed" if name in before else "added" for name in differ)
    return [f"[agent] local: {word} {name}" for word, name in zip(words, differ, strict=True)]
