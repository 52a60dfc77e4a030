"""Who may have a certificate: whoever shows a one-time token, and a device that still has a good one.

A token is written once, for a person to paste, and holds all that the agent needs to know: whom to trust,
what to say, who it is. The server keeps a hash of the secret only. ::

    rttok1_ base64url( SHA-256 of the authority's public key | secret of 16 bytes | serial )

Rule of this file: every refusal is the same ``LinkDenied``, made after the same work; why is for our own log.
A refusal costs the address that it came from one of its tries; an address without tries is refused unheard.

Source: docs/link-protocol.rst "Enrolment"; faults.md "Device identity", "Pre-auth limits", "Lockout".
"""

import base64
import hashlib
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from revtunnel.ground.deadlines import Deadlines
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.serials import parse_serial
from revtunnel.link.handshake import LinkDenied
from revtunnel.sockets.tls.enroll import SECRET_SIZE

__all__ = [
    "Enrolment",
    "EnrolmentToken",
    "TokenRow",
    "TokenStore",
    "TooManyTokens",
    "directory_away",
    "parse_token",
    "write_token",
]

PREFIX = "rttok1_"
PIN_SIZE = 32
_HEAD = PIN_SIZE + SECRET_SIZE
_TEXT = "refused: "  # before every reason in our log


class EnrolmentToken(NamedTuple):
    """What a written token says."""

    pin: bytes  # SHA-256 of the authority's SubjectPublicKeyInfo
    secret: bytes
    serial: str


class TokenRow(NamedTuple):
    """A token as the ledger keeps it."""

    mark: bytes  # SHA-256 that stands for the secret
    serial: str
    left: float  # seconds


class TokenStore(Protocol):
    """Where tokens outlive the process."""

    def tokens(self) -> Iterable[TokenRow]:
        """All that were kept."""

    def save_tokens(self, rows: Iterable[TokenRow], gone: Iterable[bytes]) -> None:
        """Keep these, drop those marks."""


class TooManyTokens(Exception):
    """As many tokens wait as may wait."""


@dataclass(frozen=True, slots=True)
class _Given:
    serial: str
    until: float


def write_token(token: EnrolmentToken) -> str:
    """The written form: ASCII without white space, about 75 characters and the serial's."""
    data = token.pin + token.secret + token.serial.encode("ascii")
    return PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_token(text: str) -> EnrolmentToken:
    """Read a written token; white space around it is ignored.

    Raises:
        ValueError: it is none. The text is not repeated: it may be a secret.
    """
    text = text.strip()
    if not text.startswith(PREFIX):
        raise ValueError(f"a token begins with {PREFIX}")
    written = text[len(PREFIX) :]
    try:
        data = base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))
        serial = parse_serial(data[_HEAD:].decode("ascii"))
    except (ValueError, RemoteError):
        raise ValueError(f"not a whole token: {len(text)} characters") from None
    token = EnrolmentToken(data[:PIN_SIZE], data[PIN_SIZE:_HEAD], serial)
    if write_token(token) != text:  # the decoder skips and swaps characters
        raise ValueError(f"not a whole token: {len(text)} characters")
    return token


def directory_away(why: str) -> LinkDenied:
    """What only all nodes together know is not known now; an agent asks again."""
    text = f"directory-away: {why}"
    return LinkDenied(GoAway.OVERLOADED, text, told="directory-away: ask again", word="directory-away")


def mark_of(secret: bytes) -> bytes:
    """What the server keeps of a secret."""
    return hashlib.sha256(b"rt1 token" + secret).digest()


def source_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 address is in."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


class Enrolment:
    """The tokens that wait, and the addresses that failed. ``limits`` may be set anew at any time."""

    def __init__(self, limits: EnrolmentLimits, now: float, store: TokenStore) -> None:
        self.limits = limits
        self._store = store
        self._given: dict[bytes, _Given] = {}
        self._of: dict[str, set[bytes]] = {}  # by serial
        self._ends: Deadlines[bytes] = Deadlines()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        for row in store.tokens():
            self._put(row.mark, row.serial, now + min(row.left, limits.token_life))
        self._forget(now)

    def __len__(self) -> int:
        return len(self._given)

    # -- what an operator does

    def give(self, serial: str, secret: bytes, now: float) -> None:
        """Let whoever shows ``secret`` have one certificate of ``serial``, within ``token_life`` seconds.

        An older token of the serial is void from now on.

        Raises:
            TooManyTokens: the next one has to wait until one is used or its time is up.
        """
        self._forget(now)
        old = self._of.get(serial, set())
        if len(self._given) - len(old) >= self.limits.tokens:
            raise TooManyTokens(f"{len(self._given)} tokens wait to be used")
        gone = self._drop(list(old))
        mark, left = mark_of(secret), self.limits.token_life
        self._put(mark, serial, now + left)
        self._store.save_tokens([TokenRow(mark, serial, left)], gone)

    def take(self, mark: bytes, row: TokenRow | None, now: float) -> None:
        """Hold what another node has given, or let go what it has let go."""
        self._drop([mark] if mark in self._given else [])
        if row is not None:
            self._put(mark, row.serial, now + row.left)

    def waits(self, serial: str) -> bool:
        """Whether a token of a serial may still be used."""
        return serial in self._of

    def withdraw(self, serial: str) -> int:
        """Make the tokens of a serial void: how many there were."""
        gone = self._drop(list(self._of.get(serial, ())))
        if gone:
            self._store.save_tokens([], gone)
        return len(gone)

    # -- what a device asks

    def hear(self, source: str, now: float) -> None:
        """Before anything that ``source`` sends is looked at.

        Raises:
            Denied: it failed too often of late.
        """
        failures = self._failures.get(source_of(source))
        while failures and failures[0] <= now - self.limits.wrong_window:
            failures.popleft()
        if failures and len(failures) >= self.limits.wrong_tries:
            raise LinkDenied(GoAway.DENIED, f"{_TEXT}{len(failures)} failures from {source} of late")

    def refuse(self, source: str, why: str, now: float) -> LinkDenied:
        """Count a failure; the refusal, to be raised."""
        key = source_of(source)
        failures = self._failures.setdefault(key, deque(maxlen=max(1, self.limits.wrong_tries)))
        failures.append(now)
        self._failures.move_to_end(key)
        while len(self._failures) > self.limits.sources:
            self._failures.popitem(last=False)
        return LinkDenied(GoAway.DENIED, f"{_TEXT}{why}")

    def redeem(self, secret: bytes, asked: str | None, source: str, now: float) -> str:
        """The serial that a token is good for; it is used up.

        Args:
            asked: the serial that the request names; None: it names none.

        Raises:
            Denied: wrong, used or late secret, or a request for another serial; then the token stays.
        """
        mark, serial, _ = self.judge(secret, asked, source, now)
        self._store.save_tokens([], self._drop([mark]))
        return serial

    def knows(self, secret: bytes) -> bool:
        """Whether a token waits that has it."""
        return mark_of(secret) in self._given

    def judge(self, secret: bytes, asked: str | None, source: str, now: float) -> TokenRow:
        """The token that a secret is; it stays. Arguments and errors as of ``redeem``."""
        mark = mark_of(secret)
        given = self._given.get(mark)
        if given is None or given.until <= now:
            raise self.refuse(source, "the token is wrong, used or too late", now)
        if asked is not None and asked != given.serial:
            raise self.refuse(source, f"the token is for {given.serial}, the request for {asked}", now)
        return TokenRow(mark, given.serial, given.until - now)

    def renew(self, serial: str | None, asked: str | None, today: int, source: str, now: float) -> str:
        """The serial that a device may have again: its own.

        Args:
            serial: of the certificate that it showed and that was accepted; None: it showed none.
            today: how many certificates of that serial were issued in the last 24 hours.

        Raises:
            Denied: it showed none, asks for another, or asks too often.
        """
        if serial is None:
            raise self.refuse(source, "neither a token nor a certificate", now)
        if asked is not None and asked != serial:
            raise self.refuse(source, f"the certificate is for {serial}, the request for {asked}", now)
        if today >= self.limits.renewals:
            raise self.refuse(source, f"{serial} got {today} certificates in 24 hours", now)
        return serial

    # -- inside

    def _put(self, mark: bytes, serial: str, until: float) -> None:
        self._given[mark] = _Given(serial, until)
        self._of.setdefault(serial, set()).add(mark)
        self._ends.set(mark, until)

    def _drop(self, marks: list[bytes]) -> list[bytes]:
        for mark in marks:
            serial = self._given.pop(mark).serial
            self._ends.set(mark, None)
            self._of[serial].discard(mark)
            if not self._of[serial]:
                del self._of[serial]
        return marks

    def _forget(self, now: float) -> None:
        gone = self._drop(list(self._ends.due(now)))
        if gone:
            self._store.save_tokens([], gone)
