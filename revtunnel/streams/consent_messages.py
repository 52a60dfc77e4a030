"""What is said about remote sessions on a link: SESSION asks the device's site, CONSENT is its answer.

SESSION begins with one byte, and the session's id:

====  =======  ==============================================================================
byte  meaning  behind the id
====  =======  ==============================================================================
1     asked    entries: type u8, length u8, value; a type that is not known is skipped
2     over     nothing
====  =======  ==============================================================================

The entries are 1, the user; 2, the name of a service, once for each; 3, the user's address. CONSENT is the
id, one byte (1: yes, 0: no) and a text. An id is 16 bytes, here 32 hexadecimal digits.

Rule of this file: the names in a SESSION may become words of a command line at the site, so whatever is more
than a plain name is refused, and so is one that would look like an option.

Source: docs/link-protocol.rst "Sessions"; ours.
"""

import re
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.streams.commands import cut, decode_tlvs, encode_tlvs, plain

__all__ = [
    "MAX_SERVICES",
    "SHORTEST",
    "ConsentRequest",
    "decode_consent",
    "decode_session",
    "encode_asked",
    "encode_consent",
    "encode_over",
    "is_over",
]

MAX_SERVICES = 64
_ID = 16  # bytes
SHORTEST = 1 + _ID  # bytes of a SESSION
_ASKED, _OVER = 1, 2
_USER, _SERVICE, _ADDRESS = 1, 2, 3
_FORMS = {
    _USER: re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII),
    _SERVICE: re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,31}", re.ASCII),
    _ADDRESS: re.compile(r"(?:[A-Za-z0-9\[][A-Za-z0-9.:%\[\]-]{0,79})?", re.ASCII),
}
_NAMES = {_USER: "user", _SERVICE: "service", _ADDRESS: "address"}


class ConsentRequest(NamedTuple):
    """May this person have a session?"""

    session: str
    user: str
    services: tuple[str, ...]
    address: str = ""  # where the user is; empty: not known


def encode_asked(asked: ConsentRequest) -> bytes:
    """SESSION's payload that asks."""
    entries = [(_USER, asked.user), *((_SERVICE, name) for name in asked.services)]
    if asked.address and _FORMS[_ADDRESS].fullmatch(asked.address):  # else it is better not known
        entries.append((_ADDRESS, asked.address))
    values = encode_tlvs([(kind, value.encode("ascii", "replace")) for kind, value in entries])
    return bytes((_ASKED,)) + bytes.fromhex(asked.session) + values


def encode_over(session: str) -> bytes:
    """SESSION's payload that says that it is over."""
    return bytes((_OVER,)) + bytes.fromhex(session)


def is_over(payload: bytes) -> bool:
    """Whether a SESSION's payload says that one is over; it wants no answer then."""
    return payload[0] == _OVER


def decode_session(payload: bytes) -> ConsentRequest | str:
    """What a SESSION asks, or the id of the one that is over.

    Raises:
        RemoteError: it is cut, of another kind, or has a name that is none.
    """
    if len(payload) < SHORTEST or payload[0] not in (_ASKED, _OVER):
        raise RemoteError(
            f"SESSION of {len(payload)} bytes that begins with {payload[:1].hex() or 'nothing'}"
        )
    session = payload[1 : 1 + _ID].hex()
    if payload[0] == _OVER:
        return session
    found: dict[int, list[str]] = {kind: [] for kind in _FORMS}
    for kind, value in decode_tlvs(payload[1 + _ID :]):
        if kind in _FORMS:
            found[kind].append(_name(kind, value))
    users, services, addresses = found[_USER], found[_SERVICE], found[_ADDRESS]
    if len(users) != 1 or len(addresses) > 1 or not 1 <= len(services) <= MAX_SERVICES:
        counts = f"{len(users)} users, {len(services)} services and {len(addresses)} addresses"
        raise RemoteError(f"SESSION with {counts}; one user, 1 to {MAX_SERVICES} services wanted")
    return ConsentRequest(session, users[0], tuple(dict.fromkeys(services)), "".join(addresses))


def _name(kind: int, value: bytes) -> str:
    text = value.decode("ascii", "replace")
    if not _FORMS[kind].fullmatch(text):
        raise RemoteError(f"SESSION: {_NAMES[kind]} {text[:80]!a} is none")
    return text


def encode_consent(session: str, yes: bool, why: str = "") -> bytes:
    """CONSENT's payload; a text over 200 bytes is cut."""
    return bytes.fromhex(session) + bytes((yes,)) + cut(why)


def decode_consent(payload: bytes) -> tuple[str, bool, str]:
    """The session of a CONSENT, whether it is a yes, and why.

    Raises:
        RemoteError: it is cut, or neither yes nor no.
    """
    if len(payload) <= _ID or payload[_ID] > 1:
        raise RemoteError(f"CONSENT of {len(payload)} bytes, an id and 0 or 1 wanted")
    return payload[:_ID].hex(), bool(payload[_ID]), plain(payload[_ID + 1 :])
