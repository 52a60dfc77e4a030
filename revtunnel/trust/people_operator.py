"""What an operator can do about people and grants: plain methods with plain values, for every interface.

Listings come in pages: ``(rows, next)``; ``next`` is what the next page begins after, or None at the end.
Times in rows are UTC; times that are asked for are days, or times in UTC.

Rule of this file: words and limits of arguments are judged here, what they do is done by people.py and
grants.py. A token is in the answer that made it, and nowhere else.

Source: ours.
"""

import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from revtunnel.ground.labels import MAX_LABELS, parse_label
from revtunnel.ground.serials import parse_serial
from revtunnel.ground.targets import is_label
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import page
from revtunnel.process.admin.refusals import Invalid, NotFound, valid
from revtunnel.state.audit_records import RightsChanged
from revtunnel.trust.grants import Action, Grant, Grants, Question
from revtunnel.trust.issuer import written
from revtunnel.trust.people import GROUP_SIGN, Group, People, parse_role
from revtunnel.trust.user_tokens import OWN, READ, SECRET_SIZE, UserToken, write_user_token

__all__ = ["PeopleOperator"]

DAY = 86_400.0
PERSON = "person"  # the role of whoever has none
_ID_SIZE = 6  # random bytes that name a grant
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?Z", re.ASCII)
_ACTIONS = ", ".join(action.value for action in Action)


class PeopleOperator:
    """People and grants. ``by`` is the operator's name, for the audit file."""

    def __init__(
        self,
        people: People,
        grants: Grants,
        wall: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        tell: Callable[[RightsChanged], None],
        labels_of: Callable[[str], Collection[str]] = lambda serial: (),
    ) -> None:
        """``tell`` hears of all that was done, and must not raise; ``labels_of`` knows a device's labels."""
        self._people = people
        self._grants = grants
        self._wall = wall
        self._random_bytes = random_bytes
        self._tell = tell
        self._labels_of = labels_of
        # takes away password and second factor of a user; False: there are none
        self.forget_login: Callable[[str], bool] = lambda user: False

    @property
    def count(self) -> int:
        """Users."""
        return len(self._people)

    # -- users and tokens

    def users(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Users by name."""
        return page((user.name for user in self._people.users(after, PAGE + 1)), limit, self._user)

    def user(self, user: str) -> Row:
        """One user.

        Raises:
            NotFound: there is no such user.
        """
        return self._user(user)

    def user_add(self, user: str, by: str, note: str = "", days: int = 0, role: str = "") -> Row:
        """Make a user with a first token, which is in this answer only.

        Args:
            days: that the token is good; 0: as long as is usual.

        Raises:
            Invalid: the name, the note, the days or the role.
            Conflict: the name is taken, or no more may be.
        """
        now, life = self._wall(), self._life(days)
        self._people.add_user(user, note, now, _role(role))
        token = self._give(user, "", now, life)
        self._did("user-added", user, by, _role(role))
        return token

    def user_edit(self, user: str, by: str, note: str | None = None, role: str | None = None) -> None:
        """Give a user another note or another role; what is missing stays.

        Raises:
            NotFound: there is no such user.
            Invalid: the note or the role.
        """
        self._people.change_user(user, note, None if role is None else _role(role))
        self._did("user-changed", user, by, role or "")

    def user_reset(self, user: str, by: str) -> None:
        """Take password and second factor away from a user, and log his browsers out; his tokens stay.

        Raises:
            NotFound: there is no such user, or he has neither.
        """
        self._people.user(user)
        if not self.forget_login(user):
            raise NotFound(f"{user} has no password and no second factor")
        for token in self._people.tokens(user):
            if token.is_browser:
                self._people.revoke_token(user, token.id)
        self._did("login-reset", user, by)

    def user_remove(self, user: str, by: str) -> None:
        """Take a user away with his tokens and grants; what he has running ends.

        Raises:
            NotFound: there is no such user.
        """
        self._people.remove_user(user)
        self._did("user-removed", user, by)

    def tokens(self, user: str, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """The tokens of a user, the oldest first. There are few: they are one page.

        Raises:
            NotFound: there is no such user.
        """
        self._people.user(user)
        now = self._wall()
        return [self._token(token, now) for token in self._people.tokens(user)], None

    def token_new(self, user: str, by: str, note: str = "", days: int = 0, scope: str = "all") -> Row:
        """Give a user a further token, which is in this answer only.

        Raises:
            NotFound: there is no such user.
            Invalid: the note, the days or the scope.
            Conflict: he has as many as he may have.
        """
        token = self._give(user, note, self._wall(), self._life(days), _scope(scope))
        self._did("token-given", f"{user}/{token['id']}", by, token["scope"])
        return token

    def token_revoke(self, user: str, by: str, token: str = "") -> int:
        """Let a token count no more, by its id, or all of the user's; what was begun with it ends. How many.

        Raises:
            NotFound: there is no such user, or he has no such token.
        """
        count = self._people.revoke_token(user, token or None)
        self._did("token-revoked", f"{user}/{token or '*'}", by)
        return count

    # -- groups

    def groups(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Groups by name."""
        return page(self._people.groups(after, PAGE + 1), limit, self._group, lambda group: group.name)

    def members(self, group: str, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """The users in a group, by name.

        Raises:
            NotFound: there is no such group.
        """
        self._people.group(group)
        return page(sorted(name for name in self._people.members(group) if name > after), limit, self._user)

    def group_add(self, group: str, by: str, note: str = "") -> None:
        """Make a group of nobody.

        Raises:
            Invalid: the name or the note.
            Conflict: the name is taken, or no more may be.
        """
        self._people.add_group(group, note, self._wall())
        self._did("group-added", GROUP_SIGN + group, by)

    def group_remove(self, group: str, by: str) -> None:
        """Take a group away with its grants; its members stay.

        Raises:
            NotFound: there is no such group.
        """
        self._people.remove_group(group)
        self._did("group-removed", GROUP_SIGN + group, by)

    def member_add(self, group: str, user: str, by: str) -> None:
        """Put a user into a group.

        Raises:
            NotFound: there is no such user, or group.
            Conflict: he is in it, or in as many as he may be.
        """
        self._people.add_member(group, user)
        self._did("member-added", f"{GROUP_SIGN}{group}/{user}", by)

    def member_remove(self, group: str, user: str, by: str) -> None:
        """Take a user out of a group.

        Raises:
            NotFound: there is no such user, or group, or he is not in it.
        """
        self._people.remove_member(group, user)
        self._did("member-removed", f"{GROUP_SIGN}{group}/{user}", by)

    # -- grants

    def grants(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Grants by holder, groups first; ``after`` is ``HOLDER/GRANT``."""
        holder, _, id = after.partition("/")
        found = self._grants.page((holder, id), PAGE + 1)
        return page(found, limit, self._grant, lambda grant: f"{grant.holder}/{grant.id}")

    def grant_add(
        self,
        holder: str,
        device: str,
        services: Sequence[str],
        by: str,
        actions: Sequence[str] = ("list", "start"),
        begins: str = "",
        until: str = "",
    ) -> Row:
        """Let a user, or a group with ``@`` before its name, do something; the grant.

        Args:
            device: pattern of serials, or ``label=`` and pattern of labels.
            services: names of offers, or patterns.
            begins, until: ``YYYY-MM-DD`` (that day is in it) or ``YYYY-MM-DDTHH:MM[:SS]Z``; empty: any time.

        Raises:
            NotFound: there is no such user, or group.
            Invalid: another argument.
            Conflict: there are as many grants as there may be.
        """
        grant = Grant(
            self._random_bytes(_ID_SIZE).hex(),
            holder,
            device,
            tuple(dict.fromkeys(services)),
            frozenset(_action(action) for action in actions),
            _moment("begins", begins, 0),
            _moment("until", until, 1),
            self._wall(),
            by,
        )
        self._grants.add(grant)
        row = self._grant(grant)
        what = f"{device} {','.join(grant.services)} {','.join(row['actions'])}"
        self._did("grant-added", f"{holder}/{grant.id}", by, what)
        return row

    def grant_remove(self, grant: str, by: str) -> Row:
        """Let a grant count no more; what it alone allowed ends. The grant.

        Raises:
            NotFound: there is none.
        """
        row = self._grant(self._grants.remove(grant))
        self._did("grant-removed", f"{row['holder']}/{grant}", by)
        return row

    def may(
        self, user: str, action: str, serial: str, service: str, labels: Sequence[str] = (), at: str = ""
    ) -> Row:
        """Whether a user may do something now, by which grant, and what each of his grants says to it.

        Args:
            labels: of the device, beside those that are known of it.
            at: another time than now, as in ``grant_add``.

        Raises:
            NotFound: there is no such user.
            Invalid: another argument.
        """
        self._people.user(user)
        moment = _moment("at", at, 0)
        now = self._wall() if moment is None else moment
        known = _labels([*self._labels_of(valid(parse_serial, serial)), *labels])
        question = Question(user, _action(action), serial, _service(service), now, known)
        verdict = self._grants.may(question)
        considered = [
            {**self._grant(grant), "misfit": grant.misfit(question)}
            for grant in self._grants.concerning(user)
        ]
        return {
            "user": user,
            "action": action,
            "serial": serial,
            "service": service,
            "labels": sorted(known),
            "at": written(now),
            "allowed": verdict.allowed,
            "grant": verdict.grant.id if verdict.grant else "",
            "until": _written_or_none(verdict.until),
            "why": verdict.why,
            "considered": sorted(considered, key=lambda row: (row["misfit"] != "", row["misfit"]))[:PAGE],
        }

    # -- rows

    def _user(self, name: str) -> Row:
        user = self._people.user(name)
        tokens = self._people.tokens(name)
        used = [token.used for token in tokens if token.used is not None]
        return {
            "user": name,
            "note": user.note,
            "groups": list(user.groups),
            "tokens": len(tokens),
            "grants": len(self._grants.of(name)),
            "role": user.role or PERSON,
            "created": written(user.created),
            "used": _written_or_none(max(used, default=None)),
        }

    def _group(self, group: Group) -> Row:
        return {
            "group": group.name,
            "note": group.note,
            "members": len(self._people.members(group.name)),
            "grants": len(self._grants.of(GROUP_SIGN + group.name)),
            "created": written(group.created),
        }

    @staticmethod
    def _token(token: UserToken, now: float) -> Row:
        return {
            "id": token.id,
            "user": token.user,
            "note": token.note,
            "created": written(token.created),
            "until": written(token.until),
            "used": _written_or_none(token.used),
            "scope": token.scope or "all",
            "expired": token.until <= now,
        }

    def _grant(self, grant: Grant) -> Row:
        return {
            "grant": grant.id,
            "holder": grant.holder,
            "device": grant.device,
            "services": list(grant.services),
            "actions": [action.value for action in Action if action in grant.actions],
            "begins": _written_or_none(grant.begins),
            "until": _written_or_none(grant.until),
            "state": grant.untimely(self._wall()) or "in-force",
            "created": written(grant.created),
            "by": grant.by,
        }

    # -- inside

    def _life(self, days: int) -> float | None:
        most = int(self._people.limits.token_longest // DAY)
        if not 0 <= days <= most:
            raise Invalid(f"{days} days: 1 to {most} wanted, or 0 for what is usual")
        return days * DAY if days else None

    def _give(self, user: str, note: str, now: float, life: float | None, scope: str = "") -> dict[str, Any]:
        secret = self._random_bytes(SECRET_SIZE)
        token = self._people.new_token(user, secret, note, now, life, scope)
        return {**self._token(token, now), "token": write_user_token(secret)}

    def _did(self, operation: str, subject: str, by: str, detail: str = "") -> None:
        self._tell(RightsChanged(operation, subject, by, detail))


def _action(text: str) -> Action:
    try:
        return Action(text)
    except ValueError:
        raise Invalid(f"action {text[:80]!a}: one of {_ACTIONS} wanted") from None


def _service(text: str) -> str:
    if not is_label(text):
        raise Invalid(f"service {text[:80]!a}: 1 to 32 of A-Z a-z 0-9 . _ - wanted")
    return text


def _role(text: str) -> str:
    return "" if text == PERSON else parse_role(text)


def _scope(text: str) -> str:
    if text not in ("all", READ, OWN):
        raise Invalid(f"scope {text[:80]!a}: all, {READ} or {OWN} wanted")
    return "" if text == "all" else text


def _labels(texts: Sequence[str]) -> frozenset[str]:
    if len(texts) > MAX_LABELS:
        raise Invalid(f"{len(texts)} labels, {MAX_LABELS} at most")
    return frozenset(valid(parse_label, text) for text in texts)


def _moment(name: str, text: str, days: int) -> float | None:
    """Seconds since 1970; a day is its beginning, or with ``days`` 1 its end. None for nothing."""
    if not text:
        return None
    try:
        if _DAY.fullmatch(text):
            return (datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days)).timestamp()
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass
    wanted = "a day such as 2027-12-31 wanted, or a time such as 2027-12-31T18:00Z"
    raise Invalid(f"{name} {text[:80]!a}: {wanted}")


def _written_or_none(moment: float | None) -> str | None:
    return None if moment is None else written(moment)
