"""Who may do what to which service of which device, and by which grant.

The rule: what no grant allows is denied; grants only allow, none takes away. A grant fits when its holder is
the user or a group that he is in, and its device, one of its services, one of its actions and its time fit.
Where several fit, the one that lasts longest answers, so that nothing ends that may go on.

A device is named by its serial, ``plc-*``, or by one of its labels, ``label=line=3``; ``*`` stands for any
characters, ``?`` for one, case counts. A serial has no ``=``, so that neither is ever read as the other.

Source: ours.
"""

import fnmatch
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound
from revtunnel.trust.people import GROUP_SIGN, People
from revtunnel.trust.user_tokens import Login

__all__ = ["Action", "Grant", "GrantStore", "Grants", "Question", "Verdict", "decide"]

LABEL = "label="  # before a pattern that is one of labels
_SERIALS = re.compile(r"[A-Za-z0-9._:*?-]{1,64}", re.ASCII)
_LABELS = re.compile(r"label=[A-Za-z0-9._=*?-]{1,97}", re.ASCII)
_SERVICES = re.compile(r"[A-Za-z0-9._*?-]{1,32}", re.ASCII)


class Action(Enum):
    """What a person may do to a service of a device."""

    LIST = "list"  # see that it is there, and its sessions
    START = "start"  # begin a session
    END = "end"  # end a session of somebody else
    SHARE = "share"  # let somebody else into a session of one's own
    OBSERVE = "observe"  # watch a session of somebody else


@dataclass(frozen=True, slots=True)
class Question:
    """May this user do this?"""

    user: str
    action: Action
    serial: str
    service: str  # the name of an offer
    at: float  # seconds since 1970
    labels: Collection[str] = ()  # of the device


@dataclass(frozen=True, slots=True)
class Grant:
    """One promise. Times are seconds since 1970; None is any time.

    Raises:
        Invalid: a part is wrong; the text names it.
    """

    id: str
    holder: str  # user, or ``@`` and group
    device: str
    services: tuple[str, ...]
    actions: frozenset[Action]
    begins: float | None = None
    until: float | None = None
    created: float = 0.0
    by: str = ""  # who made it
    _device: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _services: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_label = self.device.startswith(LABEL)
        if not (_LABELS if by_label else _SERIALS).fullmatch(self.device):
            wanted = "a serial or label=LABEL wanted, * and ? for any characters and for one"
            raise Invalid(f"device {self.device[:120]!a}: {wanted}")
        wrong = next((each for each in self.services if not _SERVICES.fullmatch(each)), None)
        if wrong is not None or not self.services:
            text = "no service" if wrong is None else f"service {wrong[:80]!a}"
            raise Invalid(f"{text}: names wanted, 1 to 32 of A-Z a-z 0-9 . _ - each, with * and ?")
        if not self.actions:
            raise Invalid(f"no action: one or more of {', '.join(each.value for each in Action)} wanted")
        if self.begins is not None and self.until is not None and self.begins >= self.until:
            raise Invalid("a grant ends after it begins")
        device = re.compile(fnmatch.translate(self.device.removeprefix(LABEL)))
        object.__setattr__(self, "_device", device)
        services = "|".join(fnmatch.translate(each) for each in self.services)
        object.__setattr__(self, "_services", re.compile(services))

    def misfit(self, question: Question) -> str:
        """The first thing that does not fit, whoever asks; or nothing: it fits.

        ``action``, ``device``, ``service``, ``not-yet``, ``over``.
        """
        if question.action not in self.actions:
            return "action"
        if self.device.startswith(LABEL):
            if not any(map(self._device.match, question.labels)):
                return "device"
        elif not self._device.match(question.serial):
            return "device"
        if not self._services.match(question.service):
            return "service"
        return self.untimely(question.at)

    def untimely(self, at: float) -> str:
        """``not-yet``, ``over``, or nothing: it is in force."""
        if self.begins is not None and at < self.begins:
            return "not-yet"
        return "over" if self.until is not None and at >= self.until else ""


class Verdict(NamedTuple):
    """What a question is answered."""

    grant: Grant | None  # the one that allows it; None: denied
    until: float | None = None  # when allowed: from then on the question has to be put again; None: never
    why: str = ""  # when denied: no-user, token-revoked, token-expired, no-grant, not-yet, over

    @property
    def allowed(self) -> bool:
        """Whether he may."""
        return self.grant is not None


class GrantStore(Protocol):
    """Where grants outlive the process. Saving never raises."""

    def grants(self) -> Iterable[Grant]:
        """All that were kept."""

    def save(self, kept: Iterable[Grant], gone: Iterable[Grant]) -> None:
        """Keep these, drop those; all or nothing."""


def decide(grants: Iterable[Grant], question: Question) -> Verdict:
    """What the user's own grants and those of his groups say; their order does not matter."""
    best: Grant | None = None
    why = "no-grant"
    for grant in grants:
        word = grant.misfit(question)
        if not word:
            if best is None or _lasting(grant) > _lasting(best):
                best = grant
        elif word == "not-yet" or (word == "over" and why == "no-grant"):
            why = word
    return Verdict(None, None, why) if best is None else Verdict(best, best.until)


def _lasting(grant: Grant) -> tuple[bool, float, str]:
    return (grant.until is None, grant.until or 0.0, grant.id)


class Grants:
    """All grants, and the answer to every question. ``people`` has the limits. One thread only."""

    def __init__(self, people: People, store: GrantStore) -> None:
        """Take what the store has; grants of nobody are dropped for good."""
        self._people = people
        self._store = store
        self._grants: dict[str, Grant] = {}
        self._of: dict[str, dict[str, Grant]] = {}  # holder -> id -> grant
        people.on_removal = self._forget
        found = list(store.grants())
        for grant in found:
            if people.knows(grant.holder):
                self._hold(grant)
        lost = [grant for grant in found if grant.id not in self._grants]
        if lost:
            store.save([], lost)

    def __len__(self) -> int:
        return len(self._grants)

    # -- questions

    def may(self, question: Question) -> Verdict:
        """Whether a user may do something, and by which grant."""
        if not self._people.knows(question.user) or question.user.startswith(GROUP_SIGN):
            return Verdict(None, None, "no-user")
        return decide(self.concerning(question.user), question)

    def still(self, login: Login, question: Question) -> Verdict:
        """The same for somebody who logged in: his token has to be good too.

        For what runs: ask again when the watchers of ``people`` name him, and at ``until``.
        """
        why = self._people.standing(login, question.at)
        if why:
            return Verdict(None, None, why)
        verdict = self.may(question)
        if verdict.grant is None:
            return verdict
        until = login.until if verdict.until is None else min(login.until, verdict.until)
        return verdict._replace(until=until)

    def concerning(self, user: str) -> list[Grant]:
        """The grants of a user and of his groups."""
        holders = (user, *(GROUP_SIGN + name for name in self._people.user(user).groups))
        return [grant for holder in holders for grant in self._of.get(holder, {}).values()]

    # -- what an operator does

    def of(self, holder: str) -> list[Grant]:
        """The grants that a user, or with the sign a group, has itself, by id."""
        return sorted(self._of.get(holder, {}).values(), key=lambda grant: grant.id)

    def page(self, after: tuple[str, str], limit: int) -> list[Grant]:
        """A page of all grants by holder and id, above ``after``."""
        found: list[Grant] = []
        for holder in sorted(holder for holder in self._of if holder >= after[0]):
            found += (grant for grant in self.of(holder) if (holder, grant.id) > after)
            if len(found) >= limit:
                break
        return found[:limit]

    def add(self, grant: Grant) -> None:
        """Let a grant count.

        Raises:
            NotFound: its holder is nobody.
            Invalid: it is over, or names too many services.
            Conflict: there are as many as there may be.
        """
        limits = self._people.limits
        if not self._people.knows(grant.holder):
            raise NotFound(f"there is no user or group {grant.holder[:80]!a}")
        if len(grant.services) > limits.services:
            raise Invalid(f"{len(grant.services)} services in one grant, {limits.services} at most")
        if grant.untimely(grant.created) == "over":
            raise Invalid("its time is over already")
        own = len(self._of.get(grant.holder, ()))
        if own >= limits.grants_per_holder:
            raise Conflict(f"{grant.holder} has {own} grants, {limits.grants_per_holder} at most")
        if len(self._grants) >= limits.grants:
            raise Conflict(f"there are {len(self._grants)} grants, {limits.grants} at most")
        if grant.id in self._grants:
            raise Conflict("another grant is called the same; ask again")
        self._hold(grant)
        self._store.save([grant], [])
        self._people.changed(self._users(grant.holder))

    def take(self, grant: Grant) -> bool:
        """Let one count that another node knows; False: its holder is not known yet."""
        if not self._people.knows(grant.holder):
            return False
        self._hold(grant)
        self._store.save([grant], [])
        self._people.changed(self._users(grant.holder))
        return True

    def remove(self, id: str) -> Grant:
        """Let a grant count no more.

        Raises:
            NotFound: there is none.
        """
        grant = self._grants.pop(id, None)
        if grant is None:
            raise NotFound(f"there is no grant {id[:80]!a}")
        own = self._of[grant.holder]
        del own[id]
        if not own:
            del self._of[grant.holder]
        self._store.save([], [grant])
        self._people.changed(self._users(grant.holder))
        return grant

    # -- inside

    def _hold(self, grant: Grant) -> None:
        self._grants[grant.id] = grant
        self._of.setdefault(grant.holder, {})[grant.id] = grant

    def _forget(self, holder: str) -> None:
        """Its holder goes; whoever watches is told of that."""
        gone = self._of.pop(holder, {})
        for id in gone:
            del self._grants[id]
        if gone:
            self._store.save([], gone.values())

    def _users(self, holder: str) -> Collection[str]:
        if holder.startswith(GROUP_SIGN):
            return self._people.members(holder.removeprefix(GROUP_SIGN))
        return [holder]
