"""Whom a login by OpenID Connect makes of somebody: the user that he is here, and what he may.

Rule of this file: a name counts once. The first login ties the provider's ``sub`` to a user; from then on
that alone says who it is, so whoever gets the mail address or the name of somebody later is not him. Whom
operators made has what operators gave him. Whom a login made has the role and the groups that the provider
says at each login, and nothing else; where they mean nothing here he is not let in, and loses what he had.

Source: OpenID Connect Core 1.0 section 5.7 (sub and iss are the only lasting name); ours.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from revtunnel.process.admin.refusals import Invalid, OperatorError
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.oidc_settings import ROLES, OidcSettings
from revtunnel.trust.oidc_tokens import NotVouched
from revtunnel.trust.people import GROUP_SIGN, People, parse_user
from revtunnel.trust.people_operator import PERSON, PeopleOperator

__all__ = ["OidcPeople"]

BY = "oidc"  # who did it, in the audit file
GROUPS = 1000  # of the provider, of one person


class Tied(NamedTuple):
    """One user who has come by the provider."""

    user: str
    subject: str  # issuer, a blank, and sub; "": whoever comes next by his name
    made: int  # 1: by a login, 0: by an operator


class OidcPeople:
    """All of them, in the state file. ``tell``: the audit file, which must not raise."""

    def __init__(
        self,
        people: People,
        operator: PeopleOperator,
        ledger: SqliteLedger,
        wall: Callable[[], float],
        tell: Callable[[RightsChanged], None],
    ) -> None:
        self._people = people
        self._operator = operator
        self._ledger = ledger
        self._wall = wall
        self._tell = tell
        rows = [Tied(*row) for row in ledger.select("SELECT user, subject, made FROM subjects")]
        self._of = {row.user: row for row in rows}
        self._users = {row.subject: row.user for row in rows if row.subject}
        for user in [each for each in self._of if not people.knows(each)]:
            self._gone(user)
        ledger.takers["subjects"] = self._take
        people.on_removal = self._removed_too(people.on_removal)

    def user_of(self, claims: Mapping[str, Any], settings: OidcSettings) -> str:
        """Whose login it is, with what he may set right.

        Raises:
            NotVouched: nobody's.
        """
        subject = f"{settings.issuer} {claims['sub']}"
        role, groups = self._means(claims, settings)
        name = self._users.get(subject)
        if name is None:
            name = self._first(subject, _name(claims, settings), role, groups)
        if self._of[name].made:
            try:
                self._set_right(name, role, groups)
            except OperatorError as error:
                raise NotVouched(str(error)) from None
            if not role and not groups:
                raise NotVouched(f"none of the groups of {name} means anything here any more")
        return name

    def forget(self, user: str) -> bool:
        """Tie a user to nobody; whoever comes next by his name is him. False: he was not.

        Whom a login made stays so: the next one keeps none of the rights that he does not bring himself.
        """
        tied = self._of.get(user)
        if tied is None or not tied.subject:
            return False
        del self._users[tied.subject]
        self._keep(tied._replace(subject=""))
        return True

    # -- inside

    def _first(self, subject: str, name: str, role: str, groups: frozenset[str]) -> str:
        """Tie somebody new to a user, who is made if what he has there means something here."""
        before = self._of.get(name)
        if before is not None and before.subject:
            raise NotVouched(f"user {name} is tied to somebody else at the provider")
        is_new = not self._people.knows(name)
        made = is_new or (before is not None and before.made)
        if made and not role and not groups:
            raise NotVouched(f"no operator made {name}, and none of his groups means anything here")
        # first, so that no user whom a login had made when the server was killed looks like an operator's
        self._keep(Tied(name, subject, int(made)))
        if is_new:
            try:
                self._people.add_user(name, "", self._wall())
            except OperatorError as error:
                self._gone(name)
                raise NotVouched(str(error)) from None
            self._tell(RightsChanged("user-added", name, BY))
        self._users[subject] = name
        self._tell(RightsChanged("user-tied", name, BY, subject))
        return name

    def _keep(self, tied: Tied) -> None:
        self._of[tied.user] = tied
        self._ledger.change([("subjects", tied.user, tuple(tied))])

    def _gone(self, user: str) -> None:
        tied = self._of.pop(user, None)
        if tied is not None:
            self._users.pop(tied.subject, None)
            self._ledger.change([("subjects", user, None)])

    def _take(self, user: str, row: tuple[Any, ...] | None) -> bool:
        if row is not None and not self._people.knows(user):
            return False
        self._gone(user)
        if row is not None:
            tied = Tied(*row)
            self._keep(tied)
            self._users.update({tied.subject: user} if tied.subject else {})
        return True

    def _set_right(self, name: str, role: str, groups: frozenset[str]) -> None:
        user = self._people.user(name)
        if user.role != role:
            self._operator.user_edit(name, BY, role=role or PERSON)
        for group in frozenset(user.groups) - groups:
            self._operator.member_remove(group, name, BY)
        for group in groups - frozenset(user.groups):
            self._operator.member_add(group, name, BY)

    def _means(self, claims: Mapping[str, Any], settings: OidcSettings) -> tuple[str, frozenset[str]]:
        """The role and the groups here that somebody's groups there mean."""
        said = claims.get(settings.groups_claim, [])
        theirs = {
            each for each in (said if isinstance(said, list) else [said])[:GROUPS] if isinstance(each, str)
        }
        roles = {ours for each, ours in settings.roles if each in theirs}
        groups = {ours for each, ours in settings.groups if each in theirs}
        return max(roles, key=ROLES.index, default=""), frozenset(
            each for each in groups if self._people.knows(GROUP_SIGN + each)
        )

    def _removed_too(self, before: Callable[[str], None]) -> Callable[[str], None]:
        def removed(holder: str) -> None:
            before(holder)
            self._gone(holder)

        return removed


def _name(claims: Mapping[str, Any], settings: OidcSettings) -> str:
    said = claims.get(settings.user_claim)
    if not isinstance(said, str):
        raise NotVouched(f"the ID token has no {settings.user_claim}")
    if settings.user_claim == "email" and claims.get("email_verified") is not True:
        raise NotVouched("the mail address was not verified by the provider")
    try:
        return parse_user(said.lower() if said.isascii() else said)  # small letters of others may be ASCII
    except Invalid as error:
        raise NotVouched(f"{settings.user_claim}: {error}") from None
