"""Users, groups and tokens: what counts, at once and after a restart, and who hears of it."""

from pathlib import Path

import pytest

from revtunnel.ground.limits import PeopleLimits
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound
from revtunnel.state.ledger import FILE_NAME
from revtunnel.trust.people import check_note, parse_group, parse_user
from revtunnel.trust.user_tokens import BadToken, mark_of, write_user_token
from tests.support.disks import full_disk
from tests.support.people import DAY, NOON, Town, town


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the state file of this test is."""
    return str(tmp_path / FILE_NAME)


# ---- names


@pytest.mark.parametrize("name", ["ana", "a", "ana.b@example.org", "0_-", "a" * 64])
def test_names(name: str) -> None:
    """Of users; those of groups have no sign in them."""
    assert parse_user(name) == name
    if "@" not in name:
        assert parse_group(name) == name


@pytest.mark.parametrize("name", ["", "Ana", "@ana", "-a", ".a", "a/b", "a b", "a\n", "ä", "a" * 65, "a*"])
def test_what_is_no_name(name: str) -> None:
    """It says what is wanted; a group begins with its sign in lists of users, so that no user does."""
    with pytest.raises(Invalid, match=r"^user .* *: 1 to 64 of a-z"):
        parse_user(name)
    with pytest.raises(Invalid, match=r"^group .* *: 1 to 64 of a-z"):
        parse_group(name)


@pytest.mark.parametrize("note", ["a\nb", "\x1b[2J", "x" * 129, "\u202e"])
def test_notes_are_for_listings(note: str) -> None:
    """No control characters, nothing long."""
    with pytest.raises(Invalid, match="characters: up to 128 wanted"):
        check_note(note)
    assert check_note("Ana Müller, night shift") == "Ana Müller, night shift"


# ---- users and groups


def test_people_come_back(path: str) -> None:
    """Users, groups, who is in which, tokens with their times."""
    with town(path) as home:
        home.people.add_user("ana", "plant 3", NOON)
        home.user("ben", "eve")
        home.group("night", "ben", "ana")
        home.group("day", "ana")
        home.token("ana", 1, life=10.0)
        home.people.remove_member("night", "ben")
        home.people.remove_user("eve")
    with town(path) as home:
        assert home.book.warnings == []
        assert [user.name for user in home.people.users("", 10)] == ["ana", "ben"]
        assert home.people.user("ana") == ("ana", "plant 3", ("day", "night"), NOON, "")
        assert home.people.members("night") == {"ana"}
        (token,) = home.people.tokens("ana")
        assert (token.user, token.created, token.until, token.used) == ("ana", NOON, NOON + 10, None)
        assert len(home.people) == 2


def test_pages_are_in_order() -> None:
    """Above a name, so many."""
    with town() as home:
        home.user("c", "a", "b")
        home.group("z")
        home.group("y")
        assert [user.name for user in home.people.users("a", 1)] == ["b"]
        assert [user.name for user in home.people.users("b", 9)] == ["c"]
        assert [group.name for group in home.people.groups("", 9)] == ["y", "z"]


def test_what_is_not_there_is_said() -> None:
    """By its name."""
    with town() as home:
        home.user("ana")
        home.group("night")
        people = home.people
        for call in (
            lambda: people.user("eve"),
            lambda: people.remove_user("eve"),
            lambda: people.add_member("night", "eve"),
            lambda: people.remove_member("night", "eve"),
            lambda: people.new_token("eve", b"x" * 32, "", NOON, None),
            lambda: people.revoke_token("eve", None),
        ):
            with pytest.raises(NotFound, match="no user 'eve'"):
                call()
        for call in (
            lambda: people.group("day"),
            lambda: people.remove_group("day"),
            lambda: people.add_member("day", "ana"),
            lambda: people.remove_member("day", "ana"),
        ):
            with pytest.raises(NotFound, match="no group 'day'"):
                call()
        with pytest.raises(NotFound, match="ana is not in group night"):
            people.remove_member("night", "ana")
        with pytest.raises(NotFound, match="ana has no token"):
            people.revoke_token("ana", None)
        with pytest.raises(NotFound, match="ana has no token 'abc'"):
            people.revoke_token("ana", "abc")


def test_what_is_there_is_not_made_twice() -> None:
    """And nothing is told of it."""
    with town() as home:
        home.user("ana")
        home.group("night", "ana")
        home.told.clear()
        for call in (
            lambda: home.user("ana"),
            lambda: home.group("night"),
            lambda: home.people.add_member("night", "ana"),
        ):
            with pytest.raises(Conflict, match="already"):
                call()
        assert home.told == []


def test_limits_are_kept() -> None:
    """Each of them says its number, and where it was reached nothing changed."""
    limits = PeopleLimits(users=2, groups=2, groups_per_user=1, tokens_per_user=1, token_longest=10.0)
    with town(limits=limits) as home:
        home.user("ana", "ben")
        home.group("night", "ana")
        home.group("day")
        home.token("ana", life=10.0)
        for call, text in (
            (lambda: home.user("eve"), "there are 2 users, 2 at most"),
            (lambda: home.group("eve"), "there are 2 groups, 2 at most"),
            (lambda: home.people.add_member("day", "ana"), "ana has 1 groups, 1 at most"),
            (lambda: home.token("ana", 2, life=1.0), "ana has 1 tokens, 1 at most"),
        ):
            with pytest.raises(Conflict, match=text):
                call()
        with pytest.raises(Invalid, match="a life of 11 seconds: up to 10 wanted"):
            home.token("ben", 2, life=11.0)
        with pytest.raises(Invalid, match="a life of 0 seconds"):
            home.token("ben", 2, life=0.0)
        assert len(home.people) == 2
        assert home.people.members("day") == set()
        assert len(home.people.tokens("ana")) == 1


def test_every_change_is_told_with_those_it_concerns() -> None:
    """A group's end concerns its members; a group of nobody concerns nobody."""
    with town() as home:
        home.user("ana", "ben")
        home.group("night", "ana", "ben")
        home.token("ana")
        home.told.clear()
        home.people.revoke_token("ana", None)
        home.people.remove_member("night", "ben")
        home.people.remove_group("night")
        home.people.remove_user("ben")
        assert home.told == [{"ana"}, {"ben"}, {"ana"}, {"ben"}]


def test_a_watcher_may_go_and_sees_what_counts() -> None:
    """When it hears of a change that change is made."""
    with town() as home:
        home.user("ana")
        home.token("ana")
        seen: list[int] = []
        go = home.people.watch(lambda users: seen.append(len(home.people.tokens("ana"))))
        home.people.revoke_token("ana", None)
        go()
        home.people.remove_user("ana")
        assert seen == [0]


# ---- tokens


def test_whoever_shows_a_token_is_its_user() -> None:
    """Until its time is over, to the second."""
    with town() as home:
        home.user("ana")
        written = home.token("ana", life=100.0)
        login = home.people.log_in(written, NOON + 99.9)
        assert (login.user, login.until) == ("ana", NOON + 100)
        assert login.token == mark_of((1).to_bytes(32, "big")).hex()[:12]
        assert home.people.standing(login, NOON + 99.9) == ""
        assert home.people.standing(login, NOON + 100) == "token-expired"
        with pytest.raises(BadToken, match="is over") as caught:
            home.people.log_in(written, NOON + 100)
        assert caught.value.word == "expired"


def test_a_token_nobody_gave_is_nobodys() -> None:
    """Whatever it looks like."""
    with town() as home:
        home.user("ana")
        home.token("ana")
        for text, word in ((write_user_token(b"y" * 32), "unknown"), ("ana", "malformed")):
            with pytest.raises(BadToken) as caught:
                home.people.log_in(text, NOON)
            assert caught.value.word == word


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("end", ["revoke", "revoke all", "remove"])
def test_revoked_is_at_once_and_for_good(path: str, end: str, restart: bool) -> None:
    """For new logins and for those that stand; another token of the same user goes on."""
    with town(path) as home:
        home.user("ana")
        written, other = home.token("ana", 1), home.token("ana", 2)
        login, second = home.people.log_in(written, NOON), home.people.log_in(other, NOON)
        if end == "remove":
            home.people.remove_user("ana")
        else:
            assert home.people.revoke_token("ana", None if "all" in end else login.token) == len(end.split())
        assert home.people.standing(login, NOON) == ("no-user" if end == "remove" else "token-revoked")
        assert (home.people.standing(second, NOON) == "") == (end == "revoke")
        if end == "remove":  # somebody else of that name
            home.user("ana")
            assert home.people.standing(login, NOON) == "token-revoked"
        if not restart:
            with pytest.raises(BadToken):
                home.people.log_in(written, NOON)
    if restart:
        with town(path) as home, pytest.raises(BadToken):
            home.people.log_in(written, NOON)


def test_a_removed_user_leaves_nothing_to_a_later_one(path: str) -> None:
    """Neither groups nor tokens nor grants, also after a restart."""
    with town(path) as home:
        home.user("ana", "ben")
        home.group("night", "ana")
        home.token("ana")
        home.grant("ana")
        home.people.remove_user("ana")
        home.user("ana")
    with town(path) as home:
        assert home.people.user("ana").groups == ()
        assert (home.people.tokens("ana"), home.grants.concerning("ana")) == ([], [])
        assert home.people.members("night") == set()


def test_what_belongs_to_nobody_is_dropped_for_good(path: str) -> None:
    """A crash between two changes, or a row that was lost, must not give a later user what was another's."""
    with town(path) as home:
        home.user("ana")
        home.group("night", "ana")
        written = home.token("ana")
        home.grant("ana", id="a")
        home.grant("@night", id="n")
        home.ledger.change([("people", "ana", None), ("people_groups", "night", None)])
    with town(path) as home:
        assert (len(home.people), len(home.grants)) == (0, 0)
        with pytest.raises(BadToken, match="never given"):
            home.people.log_in(written, NOON)
        for table in ("user_tokens", "grants"):
            assert home.ledger.select(f"SELECT count(*) FROM {table}") == [(0,)]
    with town(path) as home:
        home.user("ana")
        assert home.people.tokens("ana") == []


def test_a_group_that_is_lost_is_nobodys(path: str) -> None:
    """Whoever was in it stays."""
    with town(path) as home:
        home.user("ana")
        home.group("night", "ana")
        home.ledger.change([("people_groups", "night", None)])
    with town(path) as home:
        assert home.people.user("ana").groups == ()


def test_late_tokens_make_room(path: str) -> None:
    """They are shown until then."""
    with town(path, PeopleLimits(tokens_per_user=1)) as home:
        home.user("ana")
        home.token("ana", 1, life=10.0)
        assert len(home.people.tokens("ana")) == 1
        home.token("ana", 2, NOON + 10)
        assert [token.created for token in home.people.tokens("ana")] == [NOON + 10]
    with town(path) as home:
        assert len(home.people.tokens("ana")) == 1


def test_two_tokens_are_never_called_the_same() -> None:
    """The second one is refused; it would be the same secret, or one in 2^48."""
    with town() as home:
        home.user("ana", "ben")
        home.token("ana", 1)
        with pytest.raises(Conflict, match="ask again"):
            home.token("ben", 1)


# ---- last use


def used(home: Town) -> list[float | None]:
    """What the disk has."""
    return [row[0] for row in home.ledger.select("SELECT used FROM user_tokens ORDER BY created")]


def test_last_use_is_written_now_and_then() -> None:
    """In memory at once; on the disk after ``uses_wait``, or when somebody stops in order."""
    with town(limits=PeopleLimits(uses_wait=60.0)) as home:
        home.user("ana")
        written = home.token("ana")
        for second in (0.0, 1.0, 59.9):
            home.people.log_in(written, NOON + second)
            assert home.people.tokens("ana")[0].used == NOON + second
            assert used(home) == [NOON]
        home.people.log_in(written, NOON + 60)
        assert used(home) == [NOON + 60]
        home.people.log_in(written, NOON + 61)
        home.people.write_uses(NOON + 61)
        assert used(home) == [NOON + 61]


def test_last_uses_that_wait_are_few() -> None:
    """One more than ``uses_waiting``, and all are written."""
    with town(limits=PeopleLimits(uses_waiting=2)) as home:
        written = []
        for number in range(4):
            home.user(f"u{number}")
            written.append(home.token(f"u{number}", number + 1, NOON - 4 + number))
        for number in range(4):
            home.people.log_in(written[number], NOON + number)
        assert used(home) == [NOON, NOON + 1, NOON + 2, NOON + 3]
        for number in range(2):
            home.people.log_in(written[number], NOON + 10)
        assert used(home) == [NOON, NOON + 1, NOON + 2, NOON + 3]


def test_a_clock_that_is_set_back_stops_no_writing() -> None:
    """The next use is written, and so is a token that was used and is revoked then: not at all."""
    with town() as home:
        home.user("ana")
        written = home.token("ana", life=DAY)
        home.people.log_in(written, NOON)
        home.people.log_in(written, NOON - 3600)
        assert used(home) == [NOON - 3600]
        home.people.log_in(written, NOON - 3599)
        home.people.revoke_token("ana", None)
        home.people.write_uses(NOON)
        assert used(home) == []


# ---- the disk


def test_what_the_disk_does_not_take_counts_all_the_same(path: str) -> None:
    """Nothing is raised, ``problem`` tells, and the next change brings all of it there."""
    with town(path) as home:
        home.user("ana", "ben")
        written = home.token("ana", 1)
        with full_disk(4096):
            home.people.remove_user("ben")
            home.people.revoke_token("ana", None)
            assert home.book.problem is not None
            with pytest.raises(BadToken):
                home.people.log_in(written, NOON)
        home.user("eve")
        assert home.book.problem is None
    with town(path) as home:
        assert [user.name for user in home.people.users("", 9)] == ["ana", "eve"]
        assert home.people.tokens("ana") == []


def test_after_damage_nobody_is_known(path: str) -> None:
    """Denied by default: who was there has to be made again, as far as the journal has not kept it."""
    with town(path) as home:
        home.user("ana")
        written = home.token("ana")
    Path(path).write_bytes(b"x" * 5000)
    with town(path) as home:
        assert home.ledger.moved_aside
        assert home.people.log_in(written, NOON)
    for name in (path, f"{path}.changes"):
        Path(name).write_bytes(b"x" * 5000)
    with town(path) as home:
        assert home.ledger.moved_aside
        with pytest.raises(BadToken):
            home.people.log_in(written, NOON)


# ---- roles, scopes, browsers


def test_roles_and_scopes_come_back_and_others_are_refused(path: str) -> None:
    """A change is told to who watches."""
    with town(path) as home:
        home.people.add_user("ana", "", NOON, "admin")
        home.people.add_user("ben", "", NOON)
        home.people.change_user("ben", None, "reader")
        home.people.new_token("ben", bytes(32), "", NOON, None, "read")
        assert home.told[-1] == {"ben"}
        for wrong in ("root", "Admin"):
            with pytest.raises(Invalid, match="role"):
                home.people.change_user("ben", None, wrong)
        with pytest.raises(Invalid, match="scope"):
            home.people.new_token("ben", bytes(32), "", NOON, None, "read all")
    with town(path) as home:
        assert [home.people.user(name).role for name in ("ana", "ben")] == ["admin", "reader"]
        assert home.people.log_in(write_user_token(bytes(32)), NOON).scope == "read"


def test_browsers_make_room_for_each_other_and_end_when_they_are_quiet() -> None:
    """The one that was quiet longest goes; other tokens are not counted with them."""
    with town(limits=PeopleLimits(browsers_per_user=2, tokens_per_user=1, browser_idle=60.0)) as home:
        home.user("ana")
        home.token("ana", 9)
        written = []
        for number in (1, 2):
            secret = number.to_bytes(32, "big")
            home.people.new_token("ana", secret, "", NOON + number, 1000.0, "browser")
            written.append(write_user_token(secret))
        assert home.people.log_in(written[0], NOON + 50.0).scope == "browser"
        home.people.new_token("ana", bytes(32), "", NOON + 51.0, 1000.0, "browser")
        with pytest.raises(BadToken) as caught:
            home.people.log_in(written[1], NOON + 52.0)
        assert caught.value.word == "unknown"
        home.people.log_in(written[0], NOON + 109.0)
        with pytest.raises(BadToken) as caught:
            home.people.log_in(written[0], NOON + 170.0)
        assert caught.value.word == "expired"


def test_a_token_takes_what_was_given_for_it_along() -> None:
    """A browser that was logged in with a token is logged out with it."""
    with town() as home:
        home.user("ana")
        home.token("ana", 1)
        parent = home.people.tokens("ana")[0].id
        home.people.new_token("ana", bytes(32), "", NOON, 1000.0, "browser", parent)
        assert home.people.revoke_token("ana", parent) == 2
        assert home.people.tokens("ana") == []
