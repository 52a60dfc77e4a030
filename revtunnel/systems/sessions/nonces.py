"""Nonces: who may come to a session; each is good once, for a short time, and for one role of one person.

A nonce is 32 random bytes in base64url, 43 characters; only its SHA-256 is kept, so that neither a core dump
nor a log of this process lets anybody in. Looking one up is looking up a key of a dict, whose time says
nothing about how much of a guess is right.

==========  ======  =============================================================
word        status  a nonce that is presented is
==========  ======  =============================================================
wrong       401     none of ours, or forgotten
used        401     used up
expired     401     too old
withdrawn   401     given back: its owner is another now, or has a newer one
swapped     403     right, but for the endpoint of the other side
elsewhere   403     right, but for another session
not-yours   403     right, but for another person
ended       410     of a session that has ended
==========  ======  =============================================================

A refusal changes nothing: a replayed nonce ends no session, and one that was shown at the wrong port is still
good at the right one. What waits is bounded for each session, what is over by number in all.

Source: next/remote-sessions.md section 2 "Credentials" and section 5 (``client-token``).
"""

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from revtunnel.systems.sessions.session_life import Role, SessionRefused

__all__ = ["NONCE", "STATUS", "Bound", "NonceRefused", "Nonces"]

SIZE = 32  # random bytes
NONCE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
ENDLESS = float("inf")
STATUS = {
    "wrong": 401,
    "used": 401,
    "expired": 401,
    "withdrawn": 401,
    "swapped": 403,
    "elsewhere": 403,
    "not-yours": 403,
    "ended": 410,
}


class Bound(NamedTuple):
    """What a nonce is for."""

    session: str
    role: Role
    person: str
    page: str = ""  # it opens the web page of this service, and nothing else; "": no page


class NonceRefused(Exception):
    """A nonce does not let anybody in. ``bound`` is what it was for, where that is known: for the audit."""

    def __init__(self, word: str, bound: Bound | None = None) -> None:
        super().__init__(f"the nonce is {word}")
        self.word = word
        self.bound = bound
        self.status = STATUS[word]  # of HTTP


class _Kept:
    """One nonce that may still be used."""

    __slots__ = ("bound", "resume", "token", "until")

    def __init__(self, bound: Bound, until: float, resume: bool) -> None:
        self.bound = bound
        self.until = until
        self.resume = resume  # it lets somebody come back
        self.token: bytes | None = None  # used already, and good again for whoever says this (its SHA-256)


class Nonces:
    """All nonces of one server. ``random_bytes`` must not be guessable; times are monotonic seconds."""

    def __init__(self, random_bytes: Callable[[int], bytes], each: int, spent: int) -> None:
        """``each``: nonces of one session that wait; ``spent``: those in all that are over and remembered."""
        self._random_bytes = random_bytes
        self._each = each
        self._most_spent = spent
        self._kept: dict[bytes, _Kept] = {}
        self._of: dict[str, dict[bytes, None]] = {}  # by session, the oldest first
        self._spent: OrderedDict[bytes, tuple[Bound, str]] = OrderedDict()

    def __len__(self) -> int:
        """How many could still be used."""
        return len(self._kept)

    @property
    def remembered(self) -> int:
        """How many are over and known by their fault."""
        return len(self._spent)

    def issue(self, bound: Bound, now: float, until: float) -> str:
        """A nonce, good before ``until``.

        Raises:
            SessionRefused: ``too-many`` of this session wait.
        """
        waiting = self._of.get(bound.session, {})
        for key in [each for each in waiting if self._kept[each].until <= now]:
            self._over(key, "expired")
        if len(waiting) >= self._each:
            raise SessionRefused("too-many", f"{len(waiting)} nonces of the session wait, limit {self._each}")
        return self._keep(bound, until, False)

    def resume(self, bound: Bound) -> str:
        """What lets somebody come back, until ``hasten`` limits it; it takes the place of the last one."""
        for key in [*self._of.get(bound.session, ())]:
            if self._kept[key].bound == bound and self._kept[key].resume:
                self._over(key, "withdrawn")
        return self._keep(bound, ENDLESS, True)

    def session_of(self, text: str) -> str:
        """What session a nonce is or was for, for an endpoint whose path does not say; "": of none."""
        key = _hash(text)
        kept, spent = self._kept.get(key), self._spent.get(key)
        bound = kept.bound if kept is not None else spent[0] if spent is not None else None
        return bound.session if bound is not None else ""

    def judge(
        self, text: str, session: str, side: str, now: float, person: str = "", token: str = ""
    ) -> Bound:
        """What a nonce is for, if it is good here and now; ``spend`` uses it up.

        Args:
            text: as it was presented.
            session: whose endpoint it was shown at; ``side``: ``client`` or ``device``.
            person: who shows it, where that is known by other means.
            token: whoever says one may use the nonce again with it, until ``hasten`` limits that.

        Raises:
            NonceRefused: it lets nobody in.
        """
        key = _hash(text) if NONCE.fullmatch(text) else b""
        kept = self._kept.get(key)
        if kept is None:
            bound, word = self._spent.get(key, (None, "wrong"))
            raise NonceRefused(word, bound)
        word = _fault(kept, session, side, now, person, token)
        if word:
            raise NonceRefused(word, kept.bound)
        return kept.bound

    def spend(self, text: str, token: str = "") -> None:
        """Use up a nonce that was judged; with a token it stays, for whoever says the same token."""
        kept = self._kept[_hash(text)]
        if token:
            kept.token, kept.until = _hash(token), ENDLESS
        else:
            self._over(_hash(text), "used")

    def hasten(self, bound: Bound, until: float) -> None:
        """Whoever came is gone: what would let him in for ever lets him in until then."""
        for key in self._of.get(bound.session, ()):
            kept = self._kept[key]
            if kept.bound == bound and kept.until == ENDLESS:
                kept.until = until

    def withdraw(self, session: str, person: str, role: Role | None = None) -> None:
        """None of these is good any more; without a role, all that the person has at the client's side."""
        for key in [*self._of.get(session, ())]:
            bound = self._kept[key].bound
            if bound.person == person and (bound.role is role if role else bound.role.side == "client"):
                self._over(key, "withdrawn")

    def end(self, session: str) -> None:
        """The session has ended: so have its nonces."""
        for key in [*self._of.get(session, ())]:
            self._over(key, "ended")

    # -- inside

    def _keep(self, bound: Bound, until: float, resume: bool) -> str:
        text = base64.urlsafe_b64encode(self._random_bytes(SIZE)).rstrip(b"=").decode("ascii")
        self._kept[_hash(text)] = _Kept(bound, until, resume)
        self._of.setdefault(bound.session, {})[_hash(text)] = None
        return text

    def _over(self, key: bytes, word: str) -> None:
        """It is good no more: known by its fault, while there is room."""
        bound = self._kept.pop(key).bound
        waiting = self._of[bound.session]
        waiting.pop(key)
        if not waiting:
            del self._of[bound.session]
        self._spent[key] = bound, word
        while len(self._spent) > self._most_spent:
            self._spent.popitem(last=False)


def _fault(kept: _Kept, session: str, side: str, now: float, person: str, token: str) -> str:
    """Why this nonce lets nobody in here and now; "": it does."""
    if kept.bound.session != session:
        return "elsewhere"
    if kept.bound.role.side != side:
        return "swapped"
    if person and kept.bound.person != person:
        return "not-yours"
    if kept.token is not None and (not token or _hash(token) != kept.token):
        return "used"
    return "expired" if now >= kept.until else ""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
