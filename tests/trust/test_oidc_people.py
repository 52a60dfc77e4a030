"""Whom a login makes of somebody, when the server is killed in the middle of it."""

from importlib.util import find_spec
from typing import Any

import pytest

from revtunnel.ground.limits import PeopleLimits
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.oidc_settings import OidcSettings
from revtunnel.trust.people_book import open_people
from revtunnel.trust.people_operator import PeopleOperator

pytestmark = pytest.mark.skipif(find_spec("jwt") is None, reason="PyJWT is not here")
if find_spec("jwt") is not None:
    from revtunnel.trust.oidc_people import OidcPeople
    from revtunnel.trust.oidc_tokens import NotVouched

NOON = 1_800_000_000.0
SETTINGS = OidcSettings(issuer="https://idp.example", user_claim="name", roles=(("it", "admin"),))
CLAIMS = {"sub": "1", "name": "ana", "groups": ["it"]}


class Killed(BaseException):
    """The process is no more."""


class Site:
    """Who is known, as the state file has it: a start."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.people, grants, _ = open_people(PeopleLimits(), ledger)
        told: list[Any] = []
        operator = PeopleOperator(self.people, grants, lambda: NOON, bytes, told.append)
        self.oidc = OidcPeople(self.people, operator, ledger, lambda: NOON, told.append)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_server_leaves_nobody_half_made(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The next login makes of him what it would have made: a login's, with the provider's say over him."""
    ledger = SqliteLedger(None, lambda: NOON)
    change, count = ledger.change, 0

    def counted(changes: Any) -> None:
        nonlocal count
        change(changes)
        count += 1
        if count == after:
            raise Killed

    monkeypatch.setattr(ledger, "change", counted)
    with pytest.raises(Killed):
        Site(ledger).oidc.user_of(CLAIMS, SETTINGS)
    monkeypatch.undo()

    site = Site(ledger)
    assert site.oidc.user_of(CLAIMS, SETTINGS) == "ana"
    assert site.people.user("ana").role == "admin"
    assert ledger.select("SELECT * FROM subjects") == [("ana", "https://idp.example 1", 1)]


def test_whoever_could_not_be_made_is_tied_to_nobody() -> None:
    """And a row of somebody who is not there any more goes at the start."""
    ledger = SqliteLedger(None, lambda: NOON)
    ledger.change([("subjects", "ben", ("ben", "https://idp.example 2", 1))])
    site = Site(ledger)
    assert ledger.select("SELECT * FROM subjects") == []
    site.people.limits = PeopleLimits(users=1)
    site.people.add_user("root", "", NOON)
    with pytest.raises(NotVouched, match="users"):
        site.oidc.user_of(CLAIMS, SETTINGS)
    assert ledger.select("SELECT * FROM subjects") == []
    site.people.limits = PeopleLimits()
    assert site.oidc.user_of(CLAIMS, SETTINGS) == "ana"
