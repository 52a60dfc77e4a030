"""Users, the groups they are in, and the tokens by which they are known.

Rule of this file: a change counts for the next question, whatever the disk says; then the store is told, then
whoever watches, with the names of all users that it concerns. Nothing here outlives its owner: who removes a
user removes tokens and grants with him, so that a later user of that name has none of them.

Times are seconds since 1970, because an expiry is a date for people; a clock that is set back makes an
expired token good again, a revoked one never.

Source: ours.
"""

import heapq
import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from revtunnel.ground.limits import PeopleLimits
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound
from revtunnel.trust.user_tokens import SCOPES, BadToken, Login, UserToken, mark_of, parse_user_token

__all__ = [
    "GROUP_SIGN",
    "ROLES",
    "Group",
    "People",
    "PeopleStore",
    "User",
    "check_note",
    "parse_group",
    "parse_role",
    "parse_scope",
    "parse_user",
]

ROLES = ("", "reader", "admin")  # what is his own; look at everything; change everything
GROUP_SIGN = "@"  # before the name of a group, where users stand too
MAX_NOTE = 128  # characters
_USER = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)
_GROUP = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class User(NamedTuple):
    """One person, or one program that acts for itself."""

    name: str
    note: str
    groups: tuple[str, ...]  # names in order, without the sign
    created: float
    role: str = ""  # of ROLES


class Group(NamedTuple):
    """Users who may the same."""

    name: str
    note: str
    created: float


class PeopleStore(Protocol):
    """Where people outlive the process. Saving never raises."""

    def users(self) -> Iterable[User]:
        """All that were kept."""

    def groups(self) -> Iterable[Group]:
        """All that were kept."""

    def tokens(self) -> Iterable[UserToken]:
        """All that were kept."""

    def save(
        self, kept: Iterable[User | Group | UserToken], gone: Iterable[User | Group | UserToken]
    ) -> None:
        """Keep these, in place of what had the same name or mark, and drop those; all or nothing."""


def parse_user(text: str) -> str:
    """Return ``text`` if it is the name of a user.

    Raises:
        Invalid: it is none; the text is shown escaped and cut.
    """
    if not _USER.fullmatch(text):
        raise Invalid(f"user {text[:80]!a}: 1 to 64 of a-z 0-9 . _ @ - wanted, a letter or digit first")
    return text


def parse_group(text: str) -> str:
    """Return ``text`` if it is the name of a group.

    Raises:
        Invalid: it is none.
    """
    if not _GROUP.fullmatch(text):
        raise Invalid(f"group {text[:80]!a}: 1 to 64 of a-z 0-9 . _ - wanted, a letter or digit first")
    return text


def check_note(text: str) -> str:
    """Return ``text`` if it may stand in a listing and in the log.

    Raises:
        Invalid: too long, or with control characters.
    """
    if len(text) > MAX_NOTE or not text.isprintable():
        raise Invalid(f"note of {len(text)} characters: up to {MAX_NOTE} wanted, none of them a control")
    return text


def parse_role(text: str) -> str:
    """Return ``text`` if it is a role; Invalid: it is none."""
    if text not in ROLES:
        raise Invalid(f"role {text[:80]!a}: reader or admin wanted, or nothing")
    return text


def parse_scope(text: str) -> str:
    """Return ``text`` if it is a token's scope; Invalid: it is none."""
    if not set(text.split()) <= set(SCOPES):
        raise Invalid(f"scope {text[:80]!a}: read or own wanted, or nothing")
    return text


class People:
    """Who is known. ``limits`` may be set anew at any time. One thread only."""

    def __init__(self, limits: PeopleLimits, store: PeopleStore) -> None:
        """Take what the store has; what belongs to nobody there is dropped for good."""
        self.limits = limits
        # called with the name of a user, or with the sign the name of a group, that is about to go
        self.on_removal: Callable[[str], None] = lambda holder: None
        self._store = store
        self._watchers: list[Callable[[frozenset[str]], None]] = []
        self._groups = {group.name: group for group in store.groups()}
        self._users: dict[str, User] = {}
        self._members: dict[str, set[str]] = {name: set() for name in self._groups}
        self._tokens: dict[bytes, UserToken] = {}
        self._of: dict[str, set[bytes]] = {}  # user -> marks
        self._ids: dict[str, bytes] = {}  # id -> mark
        self._used: set[bytes] = set()  # marks whose last use is not on the disk
        self._wrote = -math.inf
        for user in store.users():
            groups = tuple(name for name in user.groups if name in self._groups)
            self._hold_user(user._replace(groups=groups))
        tokens = list(store.tokens())
        for token in tokens:
            if token.user in self._users:
                self._hold_token(token)
        lost = [token for token in tokens if token.user not in self._users]
        if lost:
            store.save([], lost)

    def __len__(self) -> int:
        return len(self._users)

    # -- who watches

    def watch(self, watcher: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Hear of every change from now on, as the users whose rights may be others now; the answer ends it.

        A token or a grant whose time is over is no change: who relies on one asks again at its ``until``.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def changed(self, users: Iterable[str]) -> None:
        """Tell the watchers, once what changed counts."""
        concerned = frozenset(users)
        for watcher in list(self._watchers):
            watcher(concerned)

    def everybody_changed(self) -> None:
        """Tell the watchers that anybody's rights may be others now."""
        self.changed(self._users)

    # -- users

    def user(self, name: str) -> User:
        """One user.

        Raises:
            NotFound: nobody has that name.
        """
        found = self._users.get(name)
        if found is None:
            raise NotFound(f"there is no user {name[:80]!a}")
        return found

    def knows(self, holder: str) -> bool:
        """Whether there is a user, or with the sign a group, of that name."""
        return holder in self._users or (
            holder.startswith(GROUP_SIGN) and holder.removeprefix(GROUP_SIGN) in self._groups
        )

    def users(self, after: str, limit: int) -> list[User]:
        """A page of users by name, above ``after``."""
        return [self._users[name] for name in _page(self._users, after, limit)]

    def add_user(self, name: str, note: str, now: float, role: str = "") -> User:
        """Make a user, who has no token, no group and no grant yet.

        Raises:
            Invalid: the name or the note.
            Conflict: the name is taken, or there are as many users as there may be.
        """
        if parse_user(name) in self._users:
            raise Conflict(f"user {name} is there already")
        _room(len(self._users), self.limits.users, "users")
        user = User(name, check_note(note), (), now, parse_role(role))
        self._hold_user(user)
        self._store.save([user], [])
        self.changed([name])
        return user

    def change_user(self, name: str, note: str | None, role: str | None) -> User:
        """Give a user another note or role; None: as it was.

        Raises:
            NotFound: nobody has that name.
            Invalid: the note or the role.
        """
        user = self.user(name)
        user = user._replace(
            note=user.note if note is None else check_note(note),
            role=user.role if role is None else parse_role(role),
        )
        self._users[name] = user
        self._store.save([user], [])
        self.changed([name])
        return user

    def remove_user(self, name: str) -> None:
        """Take a user away, with his tokens and his grants.

        Raises:
            NotFound: nobody has that name.
        """
        user = self.user(name)
        self.on_removal(name)
        gone = self.tokens(name)
        del self._users[name]
        for group in user.groups:
            self._members[group].discard(name)
        for token in gone:
            self._drop_token(token)
        self._store.save([], [*gone, user])
        self.changed([name])

    # -- groups

    def group(self, name: str) -> Group:
        """One group.

        Raises:
            NotFound: none has that name.
        """
        found = self._groups.get(name)
        if found is None:
            raise NotFound(f"there is no group {name[:80]!a}")
        return found

    def groups(self, after: str, limit: int) -> list[Group]:
        """A page of groups by name, above ``after``."""
        return [self._groups[name] for name in _page(self._groups, after, limit)]

    def members(self, name: str) -> frozenset[str]:
        """The users in a group; none where there is no such group."""
        return frozenset(self._members.get(name, ()))

    def add_group(self, name: str, note: str, now: float) -> Group:
        """Make a group of nobody.

        Raises:
            Invalid: the name or the note.
            Conflict: the name is taken, or there are as many groups as there may be.
        """
        if parse_group(name) in self._groups:
            raise Conflict(f"group {name} is there already")
        _room(len(self._groups), self.limits.groups, "groups")
        group = Group(name, check_note(note), now)
        self._groups[name] = group
        self._members[name] = set()
        self._store.save([group], [])
        return group

    def remove_group(self, name: str) -> None:
        """Take a group away, with its grants; its members stay.

        Raises:
            NotFound: none has that name.
        """
        group = self.group(name)
        self.on_removal(GROUP_SIGN + name)
        members = self._members.pop(name)
        del self._groups[name]
        left = [self._regroup(member, drop=name) for member in members]
        self._store.save(left, [group])
        self.changed(members)

    def add_member(self, group: str, name: str) -> None:
        """Put a user into a group.

        Raises:
            NotFound: there is no such user, or group.
            Conflict: he is in it, or in as many as he may be.
        """
        self.group(group)
        user = self.user(name)
        if group in user.groups:
            raise Conflict(f"{name} is in group {group} already")
        _room(len(user.groups), self.limits.groups_per_user, "groups", name)
        self._members[group].add(name)
        self._store.save([self._regroup(name, add=group)], [])
        self.changed([name])

    def remove_member(self, group: str, name: str) -> None:
        """Take a user out of a group.

        Raises:
            NotFound: there is no such user, or group, or he is not in it.
        """
        self.group(group)
        if group not in self.user(name).groups:
            raise NotFound(f"{name} is not in group {group}")
        self._members[group].discard(name)
        self._store.save([self._regroup(name, drop=group)], [])
        self.changed([name])

    # -- what other nodes know

    def take(self, kept: User | Group | UserToken) -> bool:
        """Have what another node knows in place of what is here; False: a token's user is not known yet."""
        if isinstance(kept, UserToken):
            if kept.user not in self._users:
                return False
            self._hold_token(kept)
        elif isinstance(kept, User):
            for group in self._users[kept.name].groups if kept.name in self._users else ():
                self._members[group].discard(kept.name)
            self._hold_user(kept)
        else:
            self._groups[kept.name] = kept
            self._members.setdefault(kept.name, set())
        self._store.save([kept], [])
        self.changed([kept.name] if isinstance(kept, User) else [])
        return True

    # -- tokens

    def token(self, mark: bytes) -> UserToken | None:
        """One token by what is kept of its secret."""
        return self._tokens.get(mark)

    def tokens(self, name: str) -> list[UserToken]:
        """The tokens of a user, the oldest first; those whose time is over too, until he gets another."""
        return sorted((self._tokens[mark] for mark in self._of.get(name, ())), key=_age)

    def new_token(
        self,
        name: str,
        secret: bytes,
        note: str,
        now: float,
        life: float | None,
        scope: str = "",
        parent: str = "",
    ) -> UserToken:
        """Let whoever shows ``secret`` be this user, for ``life`` seconds; None: as long as is usual.

        Raises:
            NotFound: nobody has that name.
            Invalid: the note, or a life that may not be asked for.
            Conflict: he has as many as he may have.
        """
        self.user(name)
        life = self.limits.token_life if life is None else life
        if not 0 < life <= self.limits.token_longest:
            raise Invalid(f"a life of {life:.0f} seconds: up to {self.limits.token_longest:.0f} wanted")
        scope = parse_scope(scope)
        token = UserToken(mark_of(secret), name, check_note(note), now, now + life, None, scope, parent)
        is_browser = token.is_browser
        late = [each for each in self.tokens(name) if each.until <= now]
        same = [each for each in self.tokens(name) if each.is_browser == is_browser and each not in late]
        if is_browser:  # the one that was quiet longest makes room
            same.sort(key=UserToken.seen)
            late += same[: max(0, len(same) - self.limits.browsers_per_user + 1)]
        else:
            _room(len(same), self.limits.tokens_per_user, "tokens", name)
        if token.id in self._ids:
            raise Conflict("another token is called the same; ask again")
        for each in late:
            self._drop_token(each)
        self._hold_token(token)
        self._store.save([token], late)
        return token

    def revoke_token(self, name: str, token: str | None) -> int:
        """Let a token of a user count no more, by its id; None: all of them. How many there were.

        Raises:
            NotFound: there is no such user, or he has no such token.
        """
        self.user(name)
        gone = [each for each in self.tokens(name) if token in (None, each.id, each.parent)]
        if not gone:
            raise NotFound(f"{name} has no token{'' if token is None else f' {token[:80]!a}'}")
        for each in gone:
            self._drop_token(each)
        self._store.save([], gone)
        self.changed([name])
        return len(gone)

    def log_in(self, text: str, now: float) -> Login:
        """Who it is that shows a token; the token is noted as used.

        Raises:
            BadToken: it does not count.
        """
        mark = mark_of(parse_user_token(text))
        token = self._tokens.get(mark)
        if token is None:
            raise BadToken("unknown", "the token was never given, or was revoked")
        if token.until <= now:
            raise BadToken("expired", f"the time of token {token.id} of {token.user} is over")
        if token.is_browser and now - token.seen() > self.limits.browser_idle:
            raise BadToken("expired", f"the browser of {token.user} was quiet for too long")
        self._tokens[mark] = token._replace(used=now)
        self._used.add(mark)
        limits = self.limits
        if len(self._used) > limits.uses_waiting or not 0 <= now - self._wrote < limits.uses_wait:
            self.write_uses(now)
        return Login(token.user, token.id, token.until, token.scope)

    def standing(self, login: Login, now: float) -> str:
        """Why a login counts no more; or nothing: it counts.

        ``no-user``, ``token-revoked``, ``token-expired``.
        """
        if login.user not in self._users:
            return "no-user"
        if login.token not in self._ids:
            return "token-revoked"
        return "token-expired" if login.until <= now else ""

    def write_uses(self, now: float) -> None:
        """Bring the times of last uses to the disk that wait; for an orderly stop as well."""
        used = [self._tokens[mark] for mark in self._used]
        self._used.clear()
        self._wrote = now
        if used:
            self._store.save(used, [])

    # -- inside

    def _hold_user(self, user: User) -> None:
        self._users[user.name] = user
        for group in user.groups:
            self._members.setdefault(group, set()).add(user.name)  # of one that another node tells of next

    def _regroup(self, name: str, add: str | None = None, drop: str | None = None) -> User:
        user = self._users[name]
        groups = {*user.groups, *([add] if add else [])} - {drop}
        self._users[name] = user._replace(groups=tuple(sorted(groups)))
        return self._users[name]

    def _hold_token(self, token: UserToken) -> None:
        self._tokens[token.mark] = token
        self._ids[token.id] = token.mark
        self._of.setdefault(token.user, set()).add(token.mark)

    def _drop_token(self, token: UserToken) -> None:
        del self._tokens[token.mark]
        del self._ids[token.id]
        self._used.discard(token.mark)
        marks = self._of[token.user]
        marks.discard(token.mark)
        if not marks:
            del self._of[token.user]


def _age(token: UserToken) -> tuple[float, bytes]:
    return token.created, token.mark


def _page(names: Iterable[str], after: str, limit: int) -> list[str]:
    return heapq.nsmallest(limit, (name for name in names if name > after))


def _room(there: int, most: int, what: str, whose: str = "") -> None:
    if there >= most:
        raise Conflict(f"{f'{whose} has' if whose else 'there are'} {there} {what}, {most} at most")
