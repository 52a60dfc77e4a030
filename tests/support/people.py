"""People and grants over a real ledger, with secrets that are easy to tell apart."""

import contextlib
from collections.abc import Iterator

from revtunnel.ground.limits import PeopleLimits
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.grants import Action, Grant, Grants
from revtunnel.trust.people import People
from revtunnel.trust.people_book import PeopleBook, open_people
from revtunnel.trust.user_tokens import write_user_token

NOON = 1_800_000_000.0
DAY = 86_400.0


class Town:
    """Everybody, what they may, and who of them was told to be looked at again."""

    def __init__(self, ledger: SqliteLedger, limits: PeopleLimits) -> None:
        self.ledger = ledger
        self.people: People
        self.grants: Grants
        self.book: PeopleBook
        self.people, self.grants, self.book = open_people(limits, ledger)
        self.told: list[set[str]] = []
        self.people.watch(lambda users: self.told.append(set(users)))

    def user(self, *names: str) -> None:
        """Make users."""
        for name in names:
            self.people.add_user(name, "", NOON)

    def group(self, name: str, *members: str) -> None:
        """Make a group with members."""
        self.people.add_group(name, "", NOON)
        for member in members:
            self.people.add_member(name, member)

    def token(self, user: str, number: int = 1, now: float = NOON, life: float | None = None) -> str:
        """Give a token; written."""
        secret = number.to_bytes(32, "big")
        self.people.new_token(user, secret, "", now, life)
        return write_user_token(secret)

    def grant(self, holder: str, device: str = "*", services: str = "*", id: str = "g") -> Grant:
        """Let somebody see and start."""
        found = grant_of(id, holder, device, services)
        self.grants.add(found)
        return found


def grant_of(
    id: str = "g",
    holder: str = "ana",
    device: str = "*",
    services: str = "*",
    actions: str = "list start",
    begins: float | None = None,
    until: float | None = None,
) -> Grant:
    """A grant from words with blanks between."""
    chosen = frozenset(Action(word) for word in actions.split())
    return Grant(id, holder, device, tuple(services.split()), chosen, begins, until, NOON, "root")


@contextlib.contextmanager
def town(path: str | None = None, limits: PeopleLimits | None = None) -> Iterator[Town]:
    """A town whose ledger is closed at the end."""
    ledger = SqliteLedger(path, lambda: NOON)
    try:
        yield Town(ledger, limits or PeopleLimits())
    finally:
        ledger.close()
