"""Rows of the state file that all nodes have alike: device keys, tokens, who is revoked, people, grants.

Rule of this file: a row has a version, which counts its changes and is kept beside it; no clock says which of
two is newer. Of two versions of a row that stands there the removed one, then the one with more changes, then
any, the same at all nodes. Who is made again after he was removed begins another life, which is newer than
any version of the one before: so only who knew of the removal can undo it. What is somebody's has lives that
begin with ``OF`` times his, and goes with that one: of the one before him nothing comes back. Of a revocation
and a lift revoked wins, unless the lift has more changes. What a node had before it shared has version 0, and
gives way to what others have. A removal is kept until nobody can have what it removed: a token's until that
would have ended, any other for a year.

Who holds rows in memory takes those of others himself, with all that follows from them (ledger.takers). A row
whose owner is not known yet waits for him; where too many wait, all is read once more.

Source: issue "Many cores, many nodes" part 1; faults.md "Device identity" (revocation); ours.
"""

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from twisted.logger import Logger

from revtunnel.process.admin.refusals import OperatorError
from revtunnel.state.change_journal import Change, change_of, plain
from revtunnel.state.ledger import SqliteLedger
from revtunnel.state.state_file import TABLES
from revtunnel.trust.certificate_book import KEPT
from revtunnel.trust.people import GROUP_SIGN

__all__ = ["SHARED_TABLES", "SharedTables"]

log = Logger(namespace="revtunnel")

# owners before what is theirs; removed the other way round
SHARED_TABLES = (
    *("people_groups", "people", "user_tokens", "grants", "logins", "subjects"),
    *("keys", "edge_keys", "tokens", "muted", "host_keys", "barred"),
)
OWNERS = 2  # of these
_OWNED = {"user_tokens": 1, "grants": 1, "logins": 0, "subjects": 0}  # where each row says whose it is
_ENDS = {"tokens": 2, "user_tokens": 4}  # where each row says when it ends; these have bytes for keys
SLACK = 86400.0  # seconds that clocks of nodes may be apart
WAITING = 10_000  # rows that wait for their owners
ROOM = 1000
OF = 1 << 32  # lives of what is somebody's, in each of his


class _Version(NamedTuple):
    life: int
    version: int
    gone: int  # 1: it was removed
    until: float  # when it may be forgotten, seconds since 1970; 0.0: never
    mark: str  # hash of the row

    def order(self, id: str) -> tuple[int, int, int, str]:
        """Greater is newer; a revocation gives way to a lift that knew of it only."""
        if id.startswith("barred:"):
            return self.life, self.version, 1 - self.gone, self.mark
        return self.life, self.gone, self.version, self.mark


class _Record(NamedTuple):
    id: str
    version: _Version
    change: Change

    @property
    def life(self) -> int:
        """Which one of its owner it is of; 0: it has none, or its writer did not know him."""
        return self.version.life // OF

    @property
    def owner(self) -> str:
        """Whose it is; "": nobody's."""
        return _owner(self.change)

    @property
    def order(self) -> tuple[bool, int]:
        """What is taken first."""
        rank = min(SHARED_TABLES.index(self.change[0]), OWNERS)
        return (True, -rank) if self.version.gone and rank < OWNERS else (False, rank - 9 * self.version.gone)


class SharedTables:
    """Those of one ledger. ``took``: table and key of a row that another node changed, and that counts."""

    def __init__(self, ledger: SqliteLedger, took: Callable[[str, Any], object] = lambda table, key: None):
        """Raises LedgerError: the file cannot be read."""
        self.changed: Callable[[dict[str, str]], object] = lambda told: None
        self.odd = 0  # records of nodes that nothing could be made of
        self._ledger = ledger
        self._took = took
        self._taking = ""
        self._missed = 0
        self._waiting: dict[str, _Record] = {}
        self._versions = {str(row[0]): _Version(*row[1:]) for row in ledger.rows("versions").values()}
        self._room = 0
        self._catch_up()
        ledger.beside = self._beside

    def to_share(self) -> Iterator[tuple[str, str]]:
        """All that others have to know, removals first. From now on it is newer than what others bring.

        What is changed meanwhile may be missing: that is told by itself.
        """
        self._forget()
        self._have_count()
        gone = [(id, each) for id, each in self._versions.items() if each.gone]
        yield from ((id, _text(each, _change(id, None))) for id, each in gone)
        for table in SHARED_TABLES:
            for key, row in self._ledger.rows(table).items():
                id = _id(table, key)
                version = self._versions.get(id)
                if version is not None and version.mark == _mark(row) and not self._over(version):
                    yield id, _text(version, (table, key, row))

    def missed(self) -> int:
        """How many rows found no room to wait for their owners, since this was asked last: tell all again."""
        missed, self._missed = self._missed, 0
        return missed

    def has(self, id: str) -> bool:
        """Whether a record is one of these."""
        return id.partition(":")[0] in SHARED_TABLES

    def learn(self, found: dict[str, str], waiting: Container[str] = ()) -> tuple[set[str], set[str]]:
        """Take what is newer, and tell ours where that is: which are as here, which nobody has to know."""
        records, over = list[_Record](), set[str]()
        for id, text in found.items():
            self._waiting.pop(id, None)
            record = _read(id, text)
            if record is None:
                self._puzzle(id)
            elif self._over(record.version):
                over.add(id)
            else:
                records.append(record)
        with self._ledger.together():
            taken, told = self._settle(records)
            due = [each for each in self._waiting.values() if each.life <= self._life(each.owner)]
            for each in due:
                del self._waiting[each.id]
            more, also = self._settle(due)
        for table, key, _ in (record.change for record in taken + more):
            self._took(table, key)
        if told or also:
            self.changed(self.now(told + also))
        if len(self._versions) > self._room:
            self._forget()
        return {each.id for each in records if self._versions.get(each.id) == each.version}, over

    def now(self, ids: Iterable[str]) -> dict[str, str]:
        """Records as they are here, of those that others have to know."""
        known = [(id, self._versions[id]) for id in ids if id in self._versions]
        changes = [(id, *_change(id, None)[:2]) for id, version in known if not self._over(version)]
        return {
            id: _text(self._versions[id], (table, key, self._ledger.row(table, key)))
            for id, table, key in changes
        }

    # -- inside

    def _have_count(self) -> None:
        """What was here before is as what others have from now on, and theirs who are here now."""
        fresh = {id: each for id, each in self._versions.items() if not each.version}
        for table in _OWNED if fresh else ():
            for key, row in self._ledger.rows(table).items():
                if (each := fresh.get(id := _id(table, key))) is not None:
                    least = OF * self._life(_owner((table, key, row)))
                    fresh[id] = each._replace(life=max(each.life, least))
        self._keep({id: each._replace(version=1) for id, each in fresh.items()})

    def _puzzle(self, id: str) -> None:
        self.odd += 1
        log.warn("record-odd", event="record-odd", detail=f"{id[:80]!a} of another node makes no sense here")

    def _settle(self, records: list[_Record]) -> tuple[list[_Record], list[str]]:
        """Take what is newer than ours: what was taken, and what is to be told as it is here."""
        taken, told = list[_Record](), list[str]()
        for record in sorted(records, key=lambda record: record.order):
            id, mine = record.id, self._versions.get(record.id)
            if mine is not None and mine.order(id) >= record.version.order(id):
                told += [id] if mine != record.version else []
            elif self._is_late(record):
                gone = record.version._replace(version=record.version.version + 1, gone=1, mark="")
                self._keep({id: gone._replace(until=gone.until or self._ledger.wall + KEPT)})
                told.append(id)
            elif self._take(record):
                taken.append(record)
        return taken, told

    def _life(self, owner: str) -> int:
        """Which one somebody is in; 0: he is not here."""
        version = self._versions.get(owner)
        return 0 if version is None or version.gone else version.life

    def _is_late(self, record: _Record) -> bool:
        """Whether it is of a life of its owner that is over."""
        owner = self._versions.get(record.owner)
        return bool(record.life) and owner is not None and record.life < owner.life + owner.gone

    def _take(self, record: _Record) -> bool:
        """Have a row count. False: it waits for its owner, who is not known yet, or makes no sense."""
        table, key, row = record.change
        self._taking = record.id
        taken: object = False
        try:
            if record.life <= self._life(record.owner) or not record.owner:
                if self._is_somebody_else(record):
                    self._ledger.take(table, key, None)  # with all that is his here
                taken = self._ledger.take(table, key, row)
            if taken is False:
                self._wait(record)
                return False
            self._ledger.change([(table, key, row)])
        except (OperatorError, ValueError, TypeError, AttributeError, LookupError):
            self._puzzle(record.id)
            return False
        finally:
            self._taking = ""
        self._keep({record.id: record.version})
        if isinstance(taken, tuple):  # what is here is newer in part: the next version has both
            self._ledger.change([(table, key, taken)])
        return True

    def _is_somebody_else(self, record: _Record) -> bool:
        """Whether the owner of that name who is here was removed, and this is the next one of that name."""
        table, _, row = record.change
        mine = self._versions.get(record.id)
        lives = mine is not None and bool(mine.version) and not mine.gone and mine.life < record.version.life
        return lives and row is not None and table in SHARED_TABLES[:OWNERS]

    def _wait(self, record: _Record) -> None:
        if len(self._waiting) < WAITING:
            self._waiting[record.id] = record
        else:
            self._missed += 1

    def _keep(self, versions: dict[str, _Version]) -> None:
        self._versions |= versions
        if versions:
            self._ledger.change([("versions", id, (id, *version)) for id, version in versions.items()])

    def _beside(self, changes: Sequence[Change]) -> list[Change]:
        """Each change has its next version, and is told; not what is just taken from another node."""
        told, kept = dict[str, str](), list[Change]()
        for table, key, row in changes:
            id = _id(table, key)
            version = self._next(id, table, row) if table in SHARED_TABLES and id != self._taking else None
            if version is not None:
                self._versions[id] = version
                told[id] = _text(version, (table, key, row))
                kept.append(("versions", id, (id, *version)))
        if told:
            self.changed(told)
        return kept

    def _next(self, id: str, table: str, row: tuple[Any, ...] | None, first: int = 1) -> _Version | None:
        """The version of a row that is changed; None: it is as it was."""
        before = self._versions.get(id)
        if row is None:
            if before is None or before.gone:
                return None
            until = before.until or self._ledger.wall + KEPT
            return _Version(before.life, before.version + 1, 1, until, "")
        until = row[_ENDS[table]] + SLACK if table in _ENDS else 0.0
        mark = _mark(row)
        least = OF * self._life(_owner((table, row[0], row)))
        if before is None:
            return _Version(max(1, least), first, 0, until, mark)
        if before.gone:
            return _Version(max(before.life + 1, least), 1, 0, until, mark)
        return None if before.mark == mark else _Version(before.life, before.version + 1, 0, until, mark)

    def _catch_up(self) -> None:
        """What was there before, and what was changed while it was not shared."""
        changes, there = list[Change](), set[str]()
        for table in SHARED_TABLES:
            for key, row in self._ledger.rows(table).items():
                there.add(_id(table, key))
                changes.append((table, key, row))
        gone = [id for id, version in self._versions.items() if not version.gone and id not in there]
        changes += [_change(id, None) for id in gone]
        kept = dict[str, _Version]()
        for table, key, now in changes:
            id = _id(table, key)
            if (version := self._next(id, table, now, 0)) is not None:
                self._versions[id] = kept[id] = version
        self._keep(kept)
        self._forget()

    def _over(self, version: _Version) -> bool:
        return 0.0 < version.until < self._ledger.wall

    def _forget(self) -> None:
        """Removals of long ago."""
        gone = [id for id, version in self._versions.items() if version.gone and self._over(version)]
        for id in gone:
            del self._versions[id]
        self._room = 2 * len(self._versions) + ROOM
        if gone:
            self._ledger.change([("versions", id, None) for id in gone])


def _id(table: str, key: Any) -> str:
    return f"{table}:{key.hex() if isinstance(key, bytes) else key}"


def _change(id: str, row: tuple[Any, ...] | None) -> Change:
    table, _, key = id.partition(":")
    return table, bytes.fromhex(key) if table in _ENDS else key, row


def _mark(row: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(plain(("", "", tuple(row)))).encode()).hexdigest()[:16]


def _text(version: _Version, change: Change) -> str:
    return json.dumps([version.life, version.version, version.until, plain(change)])


def _owner(change: Change) -> str:
    """ID of whose a row is; "": nobody's. AttributeError, LookupError: it makes no sense."""
    table, _, row = change
    if row is None or table not in _OWNED:
        return ""
    holder = row[_OWNED[table]]
    group = holder.removeprefix(GROUP_SIGN)
    return _id("people" if group == holder else "people_groups", group)


def _read(id: str, text: str) -> _Record | None:
    """What was told of a record; None: nothing that can be read."""
    try:
        life, number, until, change = json.loads(text)
        table, key, row = change_of(change)
        if row is not None:  # a program of another version may have other columns
            row = (row + ("",) * len(TABLES[table]))[: len(TABLES[table])]
        sound = _id(table, key) == id and table in SHARED_TABLES and (row is None or row[0] == key)
        version = _Version(
            int(life), int(number), int(row is None), float(until), "" if row is None else _mark(row)
        )
        record = _Record(id, version, (table, key, row))
        return record if sound and record.owner is not None else None
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
