"""What is said on a link when offers change: OFFERS is all that is offered now, CHANGE asks for others.

OFFERS holds entries as HELLO does: OFFER, once for each, and ANSWER, where it answers a CHANGE: one byte
(1: done, 0: no) and a text. CHANGE is one byte, and the offer as in HELLO, or its name alone:

====  =========  ====================
byte  meaning    behind it
====  =========  ====================
1     add        NAME=TARGET
2     take away  NAME
====  =========  ====================

Source: docs/link-protocol.rst "Offers"; ours.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.streams.commands import Tlv, cut, decode_tlvs, encode_tlvs, plain

__all__ = [
    "Answer",
    "OfferChange",
    "decode_change",
    "decode_offers",
    "encode_change",
    "encode_offer",
    "encode_offers",
    "read_offers",
]

_ANSWER = 12  # an entry that HELLO has not
_ADD, _TAKE_AWAY = 1, 2


class OfferChange(NamedTuple):
    """What a server asks for: an offer more, or one that is to go, by its name."""

    offer: Offer | None
    name: str

    def __str__(self) -> str:
        return self.name if self.offer is None else f"{self.name}={self.offer.target}"


class Answer(NamedTuple):
    """What the agent says to it."""

    done: bool
    why: str = ""


def read_offers(values: Iterable[bytes], most: int, what: str) -> tuple[Offer, ...]:
    """The offers in a message.

    Raises:
        RemoteError: a bad one, two of one name, or too many.
    """
    offers: dict[str, Offer] = {}
    for value in values:
        try:
            offer = parse_offer(value.decode("ascii"))
        except ValueError as error:
            raise RemoteError(f"{what}: {error}") from None
        if offer.name in offers or len(offers) >= most:
            raise RemoteError(f"{what}: offer {offer.name} twice, or more than {most} offers")
        offers[offer.name] = offer
    return tuple(offers.values())


def encode_offer(offer: Offer) -> bytes:
    """One of them, as it stands in an entry."""
    return f"{offer.name}={offer.target}".encode("ascii")


def encode_offers(offers: Sequence[Offer], answer: Answer | None = None) -> bytes:
    """OFFERS's payload."""
    entries: list[tuple[int, bytes]] = [(Tlv.OFFER, encode_offer(offer)) for offer in offers]
    if answer is not None:
        entries.append((_ANSWER, bytes((answer.done,)) + cut(answer.why)))
    return encode_tlvs(entries)


def decode_offers(payload: bytes, most: int) -> tuple[tuple[Offer, ...], Answer | None]:
    """What is offered, and the answer to a CHANGE, if it is one.

    Raises:
        RemoteError: it is cut, an offer is none, there twice or too many, or an answer neither yes nor no.
    """
    entries = list(decode_tlvs(payload))
    offers = read_offers((value for kind, value in entries if kind == Tlv.OFFER), most, "OFFERS")
    found = next((value for kind, value in entries if kind == _ANSWER), None)
    if found is None:
        return offers, None
    if found[:1] not in (b"\0", b"\1"):
        raise RemoteError(f"OFFERS: an answer that begins with {found[:1].hex() or 'nothing'}")
    return offers, Answer(found[:1] == b"\1", plain(found[1:]))


def encode_change(change: OfferChange) -> bytes:
    """CHANGE's payload."""
    return bytes((_TAKE_AWAY if change.offer is None else _ADD,)) + str(change).encode("ascii")


def decode_change(payload: bytes) -> OfferChange:
    """What a CHANGE asks for.

    Raises:
        RemoteError: it is cut, or no change or offer that there is.
    """
    try:
        text = payload[1:].decode("ascii")
        if payload[:1] == bytes((_ADD,)):
            offer = parse_offer(text)
            return OfferChange(offer, offer.name)
    except ValueError as error:
        raise RemoteError(f"CHANGE: {error}") from None
    if payload[:1] != bytes((_TAKE_AWAY,)) or not text:
        raise RemoteError(f"CHANGE that begins with {payload[:1].hex() or 'nothing'}")
    return OfferChange(None, text)
