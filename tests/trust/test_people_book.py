"""Rows of people and grants: whole ones come back, others give nobody anything."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from revtunnel.state.ledger import FILE_NAME
from revtunnel.trust.grants import Action
from tests.support.people import NOON, grant_of, town


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the state file of this test is."""
    return str(tmp_path / FILE_NAME)


def test_a_grant_comes_back_whole(path: str) -> None:
    """With all of its parts."""
    grants = [
        grant_of("a", "ana", "plc-*", "ssh http*", "list share", NOON - 1, NOON + 1),
        grant_of("b", "@night", "label=line=3", "vnc", "observe"),
    ]
    with town(path) as home:
        home.user("ana")
        home.group("night")
        for grant in grants:
            home.grants.add(grant)
        home.grant("ana", id="c")
        home.grants.remove("c")
    with town(path) as home:
        assert home.grants.of("ana") + home.grants.of("@night") == grants
        assert home.grants.of("ana")[0].actions == {Action.LIST, Action.SHARE}


SPOILED = [
    ("people", "UPDATE people SET name = 'Ana!'", "ana"),
    ("people", "UPDATE people SET note = CAST(x'ff0a' AS TEXT)", "ana"),
    ("people", "UPDATE people SET member_of = 'night Day'", "ana"),
    ("people", "UPDATE people SET created = 'soon'", "ana"),
    ("people_groups", "UPDATE people_groups SET name = '@night'", "@night"),
    ("user_tokens", "UPDATE user_tokens SET until = 'never'", "token"),
    ("user_tokens", "UPDATE user_tokens SET user = ''", "token"),
    ("user_tokens", "UPDATE user_tokens SET mark = '12345678901234567890123456789012'", "token"),
    ("grants", "UPDATE grants SET holder = 'ana*'", "grant"),
    ("grants", "UPDATE grants SET holder = '@'", "grant"),
    ("grants", "UPDATE grants SET device = '[a-z]'", "grant"),
    ("grants", "UPDATE grants SET device = ''", "grant"),
    ("grants", "UPDATE grants SET services = ' '", "grant"),
    ("grants", "UPDATE grants SET services = 'ssh,http'", "grant"),
    ("grants", "UPDATE grants SET actions = ''", "grant"),
    ("grants", "UPDATE grants SET actions = 'start everything'", "grant"),
    ("grants", "UPDATE grants SET until = 'never'", "grant"),
    ("grants", "UPDATE grants SET begins = 2, until = 1", "grant"),
]


@pytest.mark.parametrize(("table", "spoil", "what"), SPOILED)
def test_a_row_that_makes_no_sense_gives_nobody_anything(
    path: str, table: str, spoil: str, what: str
) -> None:
    """It is skipped and told; the rest is there."""
    with town(path) as home:
        home.user("ana")
        home.group("night")
        home.token("ana")
        home.grant("ana")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(spoil)
        other.commit()
    with town(path) as home:
        (warning,) = home.book.warnings
        assert warning.startswith(f"a row of {table} makes no sense and is skipped: ")
        there = home.people.knows("ana")
        assert {
            "ana": not there,
            "@night": not home.people.knows("@night"),
            "token": there and home.people.tokens("ana") == [],
            "grant": there and len(home.grants) == 0,
        }[what]
        if what in ("token", "grant"):
            assert home.people.knows("@night")
