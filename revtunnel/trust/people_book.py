"""Users, groups, tokens and grants in the ledger.

Rule of this file: saving never raises (see ledger.py); a row that makes no sense is skipped, which is told,
and gives nobody anything. When a damaged ledger was moved aside nobody is known: then nobody may anything.

Source: ours.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from revtunnel.ground.limits import PeopleLimits
from revtunnel.process.admin.refusals import Invalid, NotFound
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.grants import Action, Grant, Grants
from revtunnel.trust.people import (
    GROUP_SIGN,
    Group,
    People,
    User,
    check_note,
    parse_group,
    parse_role,
    parse_scope,
    parse_user,
)
from revtunnel.trust.user_tokens import UserToken

__all__ = ["PeopleBook", "open_people"]

Kept = User | Group | UserToken | Grant
Row = tuple[Any, ...] | None
T = TypeVar("T")


class _Table(NamedTuple):
    name: str
    columns: str
    key: Callable[[Any], str | bytes]
    row: Callable[[Any], tuple[Any, ...]]


_TABLES = {
    User: _Table(
        "people",
        "name, note, member_of, created, role",
        lambda user: user.name,
        lambda user: (user.name, user.note, " ".join(user.groups), user.created, user.role),
    ),
    Group: _Table("people_groups", "name, note, created", lambda group: group.name, tuple),
    UserToken: _Table(
        "user_tokens",
        "mark, user, note, created, until, used, scope, parent",
        lambda token: token.mark,
        tuple,
    ),
    Grant: _Table(
        "grants",
        "id, holder, device, services, actions, begins, until, created, made_by",
        lambda grant: grant.id,
        lambda grant: (
            grant.id,
            grant.holder,
            grant.device,
            " ".join(grant.services),
            " ".join(sorted(action.value for action in grant.actions)),
            grant.begins,
            grant.until,
            grant.created,
            grant.by,
        ),
    ),
}


class PeopleBook:
    """What trust/people.py and trust/grants.py keep (``PeopleStore``, ``GrantStore``). One thread only."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self.warnings: list[str] = []  # rows that were skipped

    @property
    def problem(self) -> str | None:
        """Why what was changed last is not on the disk yet, though it counts; None: it is."""
        return self._ledger.problem

    def users(self) -> Iterator[User]:
        """All that make sense.

        Raises:
            LedgerError: the file cannot be read.
        """
        return self._read(User, _user)

    def groups(self) -> Iterator[Group]:
        """All that make sense; raises as ``users``."""
        return self._read(Group, _group)

    def tokens(self) -> Iterator[UserToken]:
        """All that make sense; raises as ``users``."""
        return self._read(UserToken, _token)

    def grants(self) -> Iterator[Grant]:
        """All that make sense; raises as ``users``."""
        return self._read(Grant, _grant)

    def save(self, kept: Iterable[Kept], gone: Iterable[Kept]) -> None:
        """Keep these and drop those, in one transaction."""
        changes: list[tuple[str, int | str | bytes, tuple[Any, ...] | None]] = []
        for each in kept:
            table = _TABLES[type(each)]
            changes.append((table.name, table.key(each), table.row(each)))
        for each in gone:
            table = _TABLES[type(each)]
            changes.append((table.name, table.key(each), None))
            if isinstance(each, User):  # login_secrets.py and oidc_people.py have them, where people log in
                changes += [("logins", each.name, None), ("subjects", each.name, None)]
        self._ledger.change(changes)

    def _read(self, kind: type[T], make: Callable[..., T]) -> Iterator[T]:
        table = _TABLES[kind]
        for values in self._ledger.select(f"SELECT {table.columns} FROM {table.name}"):
            try:
                yield make(*values)
            except (Invalid, ValueError, TypeError, AttributeError):
                self.warnings.append(
                    f"a row of {table.name} makes no sense and is skipped: {values[0]!a:.80}"
                )


def open_people(limits: PeopleLimits, ledger: SqliteLedger) -> tuple[People, Grants, PeopleBook]:
    """People and grants as the ledger has them.

    Raises:
        LedgerError: the file cannot be read.
    """
    book = PeopleBook(ledger)
    people = People(limits, book)
    grants = Grants(people, book)
    _take_by(ledger, people, grants)
    return people, grants, book


def _take_by(ledger: SqliteLedger, people: People, grants: Grants) -> None:
    """What other nodes change counts here by these; whoever goes takes with him what is his here."""

    def token(mark: bytes, row: Row) -> bool:
        if row is not None:
            return people.take(_token(*row))
        mine = people.token(mark)
        if mine is not None:
            people.revoke_token(mine.user, mine.id)
        return True

    def of_user(table: str, user: str, row: Row) -> bool:
        if row is not None and not people.knows(user):
            return False
        ledger.change([(table, user, row)])
        return True

    def taker(
        take: Callable[[Any], bool], make: Callable[..., Any], remove: Callable[[str], object]
    ) -> Callable[[Any, Row], bool]:
        def taken(key: str, row: Row) -> bool:
            if row is not None:
                return take(make(*row))
            with suppress(NotFound):
                remove(key)
            return True

        return taken

    ledger.takers |= {
        "people": taker(people.take, _user, people.remove_user),
        "people_groups": taker(people.take, _group, people.remove_group),
        "user_tokens": token,
        "grants": taker(grants.take, _grant, grants.remove),
        # until somebody holds them
        **{table: partial(of_user, table) for table in ("logins", "subjects")},
    }


def _user(name: str, note: str, groups: str, created: float, role: str) -> User:
    names = tuple(parse_group(group) for group in groups.split())
    return User(parse_user(name), check_note(note), names, float(created), parse_role(role))


def _group(name: str, note: str, created: float) -> Group:
    return Group(parse_group(name), check_note(note), float(created))


def _token(
    mark: bytes,
    user: str,
    note: str,
    created: float,
    until: float,
    used: float | None,
    scope: str,
    parent: str,
) -> UserToken:
    if not isinstance(mark, bytes):
        raise TypeError("no hash")
    last = None if used is None else float(used)
    kept = parse_user(user), check_note(note), float(created), float(until), last
    return UserToken(mark, *kept, parse_scope(scope), str(parent))


def _grant(
    id: str,
    holder: str,
    device: str,
    services: str,
    actions: str,
    begins: float | None,
    until: float | None,
    created: float,
    by: str,
) -> Grant:
    parse_group(holder[1:]) if holder.startswith(GROUP_SIGN) else parse_user(holder)
    return Grant(
        id,
        holder,
        device,
        tuple(services.split()),
        frozenset(Action(action) for action in actions.split()),
        None if begins is None else float(begins),
        None if until is None else float(until),
        float(created),
        by,
    )
