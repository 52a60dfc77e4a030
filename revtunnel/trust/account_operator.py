"""What a person can do about himself: password, second factor, tokens, browsers; plain methods.

Rule of this file: only with a token, or in a browser, that is good for everything: one that is for looking,
or for sessions, must not become more. A secret is in the answer that made it, and nowhere else.

Source: issue 13; RFC 6238; ours.
"""

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel import __version__
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.refusals import Conflict, Denied, NotFound
from revtunnel.process.web.askers import Asker
from revtunnel.state.audit_records import RightsChanged
from revtunnel.trust.issuer import written
from revtunnel.trust.login_secrets import SECRET, LoginSecrets, address_of_factor, step_of
from revtunnel.trust.people import People
from revtunnel.trust.people_operator import PERSON, PeopleOperator
from revtunnel.trust.user_tokens import BROWSER, Login

__all__ = ["AccountOperator", "Accounts"]

ASKED = 256  # second factors that wait for their first code


class Accounts:
    """What all persons share; ``hashing`` None: no listener has a page, so there are no passwords."""

    def __init__(
        self,
        people: People,
        operator: PeopleOperator,
        kept: LoginSecrets,
        hashing: Any,
        wall: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        tell: Callable[[RightsChanged], None],
        server: str,
    ) -> None:
        self.people = people
        self.operator = operator
        self.kept = kept
        self.hashing = hashing
        self.wall = wall
        self.random_bytes = random_bytes
        self.tell = tell
        self.server = server
        self.asked: OrderedDict[str, bytes] = OrderedDict()  # second factors by user


class AccountOperator:
    """Of one person who asks now."""

    def __init__(self, accounts: Accounts, asker: Asker) -> None:
        self._all = accounts
        self._asker = asker
        self._user = asker.name

    def about(self) -> Row:
        """Who he is."""
        login: Login = self._asker.login
        user, kept = self._all.people.user(self._user), self._all.kept.of(self._user)
        return {
            "user": self._user,
            "role": user.role or PERSON,
            "note": user.note,
            "groups": list(user.groups),
            "scope": login.scope or "all",
            "token": login.token,
            "until": written(login.until),
            "password": bool(kept.password),
            "second_factor": bool(kept.secret),
            "csrf": self._asker.csrf,
            "server": self._all.server,
            "version": __version__,
        }

    # -- password and second factor

    def password(self, password: str, current: str = "") -> "Deferred[None]":
        """Take another password.

        Raises:
            Denied: the token is for less, or the current password is another.
            Invalid: it is too short or too long.
            Busy: too many passwords are looked at.
            Conflict: nobody logs in by password here.
        """
        self._check()
        if self._all.hashing is None:
            raise Conflict("no page is served here: there are no passwords")
        return Deferred.fromCoroutine(self._password(password, current))

    async def _password(self, password: str, current: str) -> None:
        from revtunnel.trust.password_hashing import check_password

        check_password(password)
        before = self._all.kept.of(self._user).password
        if before and not await self._all.hashing.is_right(before, current):
            raise Denied("the current password is another")
        hashed = await self._all.hashing.make(password)
        if not self._all.people.knows(self._user):
            raise Denied(f"{self._user} was removed meanwhile")
        self._all.kept.set_password(self._user, hashed)
        self._did("password-set")

    def factor_new(self) -> Row:
        """Ask for a second factor.

        Raises:
            Denied: the token is for less.
            Conflict: there is one.
        """
        self._check()
        if self._all.kept.of(self._user).secret:
            raise Conflict("there is a second factor; remove it first")
        secret = self._all.random_bytes(SECRET)
        self._all.asked[self._user] = secret
        self._all.asked.move_to_end(self._user)
        while len(self._all.asked) > ASKED:
            self._all.asked.popitem(last=False)
        text = base64.b32encode(secret).decode("ascii")
        return {"secret": text, "uri": address_of_factor(secret, self._user, self._all.server)}

    def factor(self, code: str) -> None:
        """Let the second factor count that was asked for.

        Raises:
            Denied: the token is for less.
            Conflict: none was asked for, or the code is another.
        """
        self._check()
        secret = self._all.asked.get(self._user, b"")
        step = step_of(secret, code, self._all.wall())
        if not step:
            raise Conflict("that is no code of the second factor that was asked for last")
        del self._all.asked[self._user]
        self._all.kept.set_factor(self._user, secret, step)
        self._did("second-factor-set")

    def factor_remove(self, code: str) -> None:
        """Do without.

        Raises:
            Denied: the token is for less, or the code is another.
            NotFound: there is none.
        """
        self._check()
        if not self._all.kept.of(self._user).secret:
            raise NotFound("there is no second factor")
        if not self._all.kept.take_code(self._user, code, self._all.wall()):
            raise Denied("that is not its code, or was used")
        self._all.kept.set_factor(self._user, b"", 0)
        self._did("second-factor-removed")

    # -- tokens

    def tokens(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """His tokens and browsers."""
        return self._all.operator.tokens(self._user, after, limit)

    def token_new(self, note: str = "", days: int = 0, scope: str = "all") -> Row:
        """Take a further token.

        Raises:
            Denied: the token is for less.
            Invalid, Conflict: as for an operator.
        """
        self._check()
        return self._all.operator.token_new(self._user, self._user, note, days, scope)

    def token_revoke(self, token: str) -> None:
        """Let one count no more, or log a browser out.

        Raises:
            Denied: the token is for less.
            NotFound: he has none of this id.
        """
        if token != self._asker.login.token:
            self._check()
        if not token:
            raise NotFound("there is no such token")
        self._all.operator.token_revoke(self._user, self._user, token)

    # -- inside

    def _check(self) -> None:
        if set(self._asker.login.scope.split()) - {BROWSER}:
            raise Denied("this token is good for less than that")

    def _did(self, operation: str) -> None:
        self._all.tell(RightsChanged(operation, self._user, self._user))
