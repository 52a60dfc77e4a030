"""What people log in with beside their tokens: a password's hash, and a second factor.

Rule of this file: it keeps, and decides about codes; a password is judged by password_hashing.py. A code is
good once, also over a restart: the step that it was of is kept, and none up to it counts again. Who is
removed takes his with him.

Source: RFC 6238 (30 s, 6 digits, SHA-1, one step either way); ours.
"""

import hmac
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.people import People

__all__ = ["SECRET", "Kept", "LoginSecrets", "address_of_factor"]

STEP = 30  # seconds of one code
SECRET = 20  # bytes


class Kept(NamedTuple):
    """Of one user."""

    password: str = ""  # its hash; "": none
    secret: bytes = b""  # of the second factor; b"": none
    step: int = 0  # the last one of which a code was taken


class LoginSecrets:
    """All of them. One thread only."""

    def __init__(self, people: People, ledger: SqliteLedger) -> None:
        """Take what the ledger has; what is nobody's is dropped."""
        self._ledger = ledger
        self._people = people
        self._kept = {str(row[0]): _kept(row) for row in ledger.rows("logins").values()}
        ledger.takers["logins"] = self._take
        for user in [each for each in self._kept if not people.knows(each)]:
            self.forget(user)
        before: Callable[[str], None] = people.on_removal

        def removed(holder: str) -> None:
            before(holder)
            self.forget(holder)

        people.on_removal = removed

    def of(self, user: str) -> Kept:
        """What somebody has; nothing where there is no such user."""
        return self._kept.get(user, Kept())

    def set_password(self, user: str, hashed: str) -> None:
        """Another password from now on."""
        self._keep(user, self.of(user)._replace(password=hashed))

    def set_factor(self, user: str, secret: bytes, step: int) -> None:
        """A second factor from now on, its code of ``step`` used up; b"": none any more."""
        self._keep(user, self.of(user)._replace(secret=secret, step=step))

    def take_code(self, user: str, code: str, now: float) -> bool:
        """Whether a code is good; then it is used up."""
        kept = self.of(user)
        step = step_of(kept.secret, code, now)
        if step <= kept.step:
            return False
        self._keep(user, kept._replace(step=step))
        return True

    def _take(self, user: str, row: tuple[Any, ...] | None) -> object:
        """A code that was used here stays so, though another node did not know of it yet: then that row."""
        if row is None:
            return self.forget(user) or True
        if not self._people.knows(user):
            return False
        before, kept = self.of(user), _kept(row)
        self._keep(user, kept)
        if before.secret == kept.secret and before.step > kept.step:
            self._kept[user] = both = kept._replace(step=before.step)
            return user, *both
        return True

    def forget(self, user: str) -> bool:
        """Take away password and second factor; False: there were none."""
        had = self._kept.pop(user, None) is not None
        if had:
            self._ledger.change([("logins", user, None)])
        return had

    def _keep(self, user: str, kept: Kept) -> None:
        self._kept[user] = kept
        self._ledger.change([("logins", user, (user, *kept))])


def _kept(row: tuple[Any, ...]) -> Kept:
    _, password, secret, step = row
    return Kept(str(password), bytes(secret), int(step))


def step_of(secret: bytes, code: str, now: float) -> int:
    """Of which step a code is, within one either way; 0: of none."""
    current = int(now // STEP)
    good = 0
    for step in range(max(0, current - 1), current + 2) if secret else ():
        right = _factor(secret).generate(step * STEP)
        if hmac.compare_digest(right, code.encode("ascii", "replace")):
            good = step
    return good


def address_of_factor(secret: bytes, user: str, issuer: str) -> str:
    """``otpauth://...``, as authenticators read it from a picture."""
    return _factor(secret).get_provisioning_uri(user, issuer)


def _factor(secret: bytes) -> TOTP:
    return TOTP(secret, 6, SHA1(), STEP, enforce_key_length=False)
