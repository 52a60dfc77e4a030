"""Webhooks: chosen facts go to other people's servers, each at least once, in order, or to the dead letters.

Rule of this file: a fact counts as accepted when it is in the state file, and leaves it when its receiver has
answered 2xx, or an operator has dropped it; what is accepted outlives a killed process, and is posted again
with the same id where nobody knows whether it came. One hook never waits for another. Facts about webhooks
are told to no hook, lest they feed themselves.

Source: Standard Webhooks 1.0; ground/retries.py; ours.
"""

import fnmatch
import heapq
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from revtunnel.daemons.webhook_settings import LEVELS, WebhookSettings
from revtunnel.ground.facts import Fact, Report, Severity
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import page
from revtunnel.process.admin.refusals import Conflict, NotFound
from revtunnel.process.logs import timestamp
from revtunnel.state.change_journal import Change
from revtunnel.state.ledger import SqliteLedger

__all__ = ["Message", "WebhookDead", "WebhookDropped", "Webhooks"]

log = Logger(namespace="revtunnel.webhooks")
LARGEST = 64 * 1024  # bytes of a body
_ID = re.compile("msg_[0-9a-f]{26}")
OURS = "webhook"  # what facts about webhooks begin with, and what Retries know them by


@dataclass(frozen=True, slots=True)
class WebhookDropped(Fact):
    """A hook's queue is full: facts are dropped from now on. Said once until there is room."""

    word = "webhook-dropped"
    severity = Severity.WARN
    hook: str
    waiting: int


@dataclass(frozen=True, slots=True)
class WebhookDead(Fact):
    """A message could not be delivered in time; it is a dead letter now."""

    word = "webhook-dead"
    severity = Severity.WARN
    hook: str
    id: str
    what: str  # the fact
    detail: str


class Message(NamedTuple):
    """One fact for one hook; a row of the state file."""

    number: int
    hook: str
    id: str
    event: str
    body: bytes
    made: float  # seconds since 1970; when it was given to the queue
    why: str  # it is dead because; "": it waits


class _Hook:
    """One of them; without settings: its section is gone, and what is kept waits for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: WebhookSettings | None = None
        self.waiting: OrderedDict[int, Message] = OrderedDict()
        self.dead: OrderedDict[int, Message] = OrderedDict()
        self.sending: Deferred[None] | None = None
        self.failing = ""  # why the last try failed; "": it did not
        self.is_due = True  # the next one need not wait for its time
        self.counts = {"delivered": 0, "failed": 0, "dropped": 0, "dead": 0}
        self.is_full = False
        self._wants: dict[type[Fact], bool] = {}

    def take(self, settings: WebhookSettings | None) -> None:
        """Other settings from now on."""
        self.settings = settings
        self._wants.clear()

    def wants(self, fact: Fact) -> bool:
        """Whether its settings name such facts."""
        kind = type(fact)
        if kind not in self._wants:
            said = self.settings.facts if self.settings else ()
            self._wants[kind] = any(_names(each, kind) for each in said)
        return self._wants[kind]


class Webhooks:
    """All of them. ``retries`` has the back-off of each."""

    def __init__(
        self,
        reactor: Any,
        ledger: SqliteLedger,
        retries: Retries,
        report: Report,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Take what the ledger has; nothing is sent before ``take``.

        Raises:
            LedgerError: it cannot be read.
        """
        self._reactor = reactor
        self._ledger = ledger
        self._retries = retries
        self._report = report
        self._random_bytes = random_bytes
        self._server = ""
        self._hooks: dict[str, _Hook] = {}
        self._last = 0
        self._stopped = False
        rows = ledger.select("SELECT number, hook, id, event, body, made, why FROM webhooks ORDER BY number")
        for row in rows:
            message = Message(*row)
            if not (isinstance(message.body, bytes) and _ID.fullmatch(str(message.id))):
                ledger.warnings.append(f"a row of webhooks makes no sense and is skipped: {row[0]}")
                continue
            hook = self._hooks.setdefault(message.hook, _Hook(message.hook))
            (hook.dead if message.why else hook.waiting)[message.number] = message
            self._last = message.number

    def take(self, settings: Iterable[WebhookSettings], server: str) -> bool:
        """Have these hooks from now on; whether there are any. ``server``: our name in messages."""
        self._server = server
        told = {each.name: each for each in settings}
        for name in told:
            self._hooks.setdefault(name, _Hook(name))
        for hook in self._hooks.values():
            before = hook.settings
            hook.take(told.get(hook.name))
            if hook.settings != before:
                self._rest(hook)
                self._soon(hook)
        return bool(told)

    def told(self, fact: Fact) -> None:
        """Something happened."""
        for hook in () if self._stopped else self._hooks.values():
            if hook.wants(fact) and not _is_ours(fact):
                row = fact.row()
                del row["event"]
                self._add(hook, fact.word, row)

    def stop(self) -> None:
        """Send no more, and take no more; what waits is in the state file."""
        self._stopped = True
        for hook in self._hooks.values():
            if hook.sending is not None:
                hook.sending.cancel()

    # -- operations

    def rows(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Hooks by name."""
        names = sorted(name for name in self._hooks if name > after)
        return page(names, limit, lambda name: self._row(self._hooks[name]))

    def dead(self, hook: str, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """The dead letters of a hook, by id.

        Raises:
            NotFound: there is no such hook.
        """
        behind = (each for each in self._hook(hook).dead.values() if each.id > after)
        found = heapq.nsmallest(PAGE + 1, behind, key=lambda each: each.id)
        return page(found, limit, _dead_row, lambda each: each.id)

    def redeliver(self, hook: str, id: str = "") -> int:
        """Let a dead letter, or all of them, wait again behind what waits, with their ids; how many.

        Raises:
            NotFound: there is no such hook, or no such letter.
            Conflict: its queue has no room, or its section is gone.
        """
        one = self._hook(hook)
        found = self._letters(one, id)
        if one.settings is None:
            raise Conflict(f"there is no [webhook {hook}] any more")
        if len(one.waiting) + len(found) > one.settings.queue:
            raise Conflict(f"{len(one.waiting)} messages wait, {one.settings.queue} at most")
        changes: list[Change] = []
        for each in found:
            del one.dead[each.number]
            self._last += 1
            again = each._replace(number=self._last, made=self._ledger.wall, why="")
            one.waiting[again.number] = again
            changes += [("webhooks", each.number, None), ("webhooks", again.number, tuple(again))]
        self._ledger.change(changes)
        self._soon(one)
        return len(found)

    def drop(self, hook: str, id: str = "") -> int:
        """Forget a dead letter, or all of them; of a hook whose section is gone, all it has. How many.

        Raises:
            NotFound: there is no such hook, or no such letter.
        """
        one = self._hook(hook)
        found = self._letters(one, id)
        if one.settings is None and not id:
            found += one.waiting.values()
            del self._hooks[hook]
        for each in found:
            one.dead.pop(each.number, None)
        self._ledger.change([("webhooks", each.number, None) for each in found])
        return len(found)

    def test(self, hook: str) -> None:
        """Give a hook a message of its own.

        Raises:
            NotFound: there is no such hook.
            Conflict: its queue has no room, or its section is gone.
        """
        one = self._hook(hook)
        if one.settings is None or not self._add(one, f"{OURS}-test", {}):
            raise Conflict(f"[webhook {hook}] is gone, or its queue is full")

    def counts(self) -> dict[str, dict[str, int]]:
        """What each hook has, and has done since the start: ``waiting``, ``letters``, ``delivered``, ..."""
        return {
            name: {"waiting": len(hook.waiting), "letters": len(hook.dead), **hook.counts}
            for name, hook in self._hooks.items()
        }

    # -- inside

    def _row(self, hook: _Hook) -> Row:
        at = urlsplit(hook.settings.url) if hook.settings else None
        return {
            "hook": hook.name,
            "to": f"{at.scheme}://{at.netloc}" if at else "",  # a path may be a secret
            "state": "gone" if at is None else "failing" if hook.failing else "well",
            "waiting": len(hook.waiting),
            "dead": len(hook.dead),
            **{name: hook.counts[name] for name in ("delivered", "failed", "dropped")},
            "problem": hook.failing,
        }

    def _hook(self, name: str) -> _Hook:
        if name not in self._hooks:
            raise NotFound(f"there is no webhook {name[:80]!a}")
        return self._hooks[name]

    def _letters(self, hook: _Hook, id: str) -> list[Message]:
        found = [each for each in hook.dead.values() if id in ("", each.id)]
        if id and not found:
            raise NotFound(f"{hook.name} has no dead letter {id[:80]!a}")
        return found

    def _add(self, hook: _Hook, event: str, data: Row) -> bool:
        """Accept a fact; False: there is no room, or it is too large."""
        assert hook.settings is not None
        now = self._ledger.wall
        said = {"type": event, "timestamp": timestamp(now), "server": self._server, "data": data}
        body = json.dumps(said, separators=(",", ":"), default=str).encode("ascii")
        if len(hook.waiting) >= hook.settings.queue or len(body) > LARGEST:
            hook.counts["dropped"] += 1
            if not hook.is_full:
                hook.is_full = True
                self._report(WebhookDropped(hook.name, len(hook.waiting)))
            return False
        hook.is_full = False
        self._last += 1
        id = f"msg_{self._last:010x}{self._random_bytes(8).hex()}"
        message = Message(self._last, hook.name, id, event, body, now, "")
        hook.waiting[message.number] = message
        self._ledger.change([("webhooks", message.number, tuple(message))])
        self._soon(hook)
        return True

    def _soon(self, hook: _Hook) -> None:
        """Send the next, unless one is on its way, or the last try failed."""
        if hook.sending is None and hook.is_due:
            hook.sending = Deferred.fromCoroutine(self._send(hook))
            hook.sending.addErrback(lambda bug: log.failure("sending to a webhook failed", bug))

    async def _send(self, hook: _Hook) -> None:
        """Send what waits, one after the other, until one try fails."""
        try:
            await self._turn()
            while hook.waiting and hook.settings is not None and not self._stopped:
                message = next(iter(hook.waiting.values()))
                why = await self._deliver(hook.settings, message)
                if why:
                    self._failed(hook, message, why)
                    return
                self._delivered(hook, message)
        except CancelledError:
            pass
        finally:
            hook.sending = None

    def _turn(self) -> "Deferred[None]":
        """Never in the call that told of it."""
        turn: Deferred[None] = Deferred(lambda _: due.cancel())
        due = self._reactor.callLater(0, turn.callback, None)
        return turn

    async def _deliver(self, settings: WebhookSettings, message: Message) -> str:
        from revtunnel.daemons.webhook_delivery import deliver

        return await deliver(self._reactor, settings, message.id, message.body, self._ledger.wall)

    def _delivered(self, hook: _Hook, message: Message) -> None:
        hook.counts["delivered"] += 1
        hook.failing = ""
        hook.waiting.pop(message.number, None)
        self._ledger.change([("webhooks", message.number, None)])
        self._retries.well(f"{OURS} {hook.name}")

    def _failed(self, hook: _Hook, message: Message, why: str) -> None:
        hook.counts["failed"] += 1
        if hook.settings is not None and self._ledger.wall - message.made > hook.settings.patience:
            self._bury(hook, message._replace(why=why[:200]), hook.settings.dead)
        if self._hooks.get(hook.name) is hook:
            hook.failing, hook.is_due = why, False
            self._retries.failed(f"{OURS} {hook.name}", why, partial(self._again, hook))

    def _again(self, hook: _Hook) -> None:
        """It is time for another try, or nothing is left to try."""
        hook.is_due = True
        if not hook.waiting or hook.settings is None:
            self._rest(hook)
        self._soon(hook)

    def _rest(self, hook: _Hook) -> None:
        """Forget that the last try failed."""
        hook.failing, hook.is_due = "", True
        self._retries.drop(f"{OURS} {hook.name}")

    def _bury(self, hook: _Hook, message: Message, most: int) -> None:
        """Make a dead letter of it; the oldest makes room."""
        hook.counts["dead"] += 1
        hook.waiting.pop(message.number, None)
        hook.dead[message.number] = message
        self._ledger.change([("webhooks", message.number, tuple(message))])
        while len(hook.dead) > most:
            self._ledger.change([("webhooks", hook.dead.popitem(last=False)[0], None)])
        self._report(WebhookDead(hook.name, message.id, message.event, message.why))


def _names(text: str, kind: type[Fact]) -> bool:
    """Whether a word of the settings means facts of this kind."""
    if text.startswith("@"):
        return LEVELS.index(kind.severity.value) >= LEVELS.index(text[1:])
    return fnmatch.fnmatchcase(kind.word, text)


def _is_ours(fact: Fact) -> bool:
    about = getattr(fact, "what", "")
    return fact.word.startswith(f"{OURS}-") or (isinstance(about, str) and about.startswith(f"{OURS} "))


def _dead_row(message: Message) -> Row:
    return {"id": message.id, "event": message.event, "made": timestamp(message.made), "why": message.why}
