"""What all nodes have to know, by the engine: who is revoked, and with a secret of theirs also who may what.

Rule of this file: every node keeps all of it in its own state file, so that neither a restart nor an engine
that was emptied brings anybody back, or forgets him; the engine carries it from one to the others, and
numbers what is written. Which of two records counts is said by what they are of (shared_revocations.py,
shared_tables.py). While the engine is away a change counts at its own node; the others learn of it when it is
back. What is not sealed with the nodes' secret, where they have one, counts for nothing.

Source: issue "Many cores, many nodes" part 1; faults.md "Device identity" (revocation); ours.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import islice
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.record_seal import OpenRecords
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_scripts import FORGET, SHARE, SHARED, SPEND

__all__ = ["SharedBook", "SharedRecords"]

log = Logger(namespace="revtunnel")

BATCH = 100  # a call
DOUBTED = 10_000  # names of what was not ours that are kept; with more all that is ours is told again


class SharedBook(Protocol):
    """Records of some kind, as a node keeps them: an ID and a text each."""

    changed: Callable[[dict[str, str]], object]  # called with what was changed here

    def to_share(self) -> Iterator[tuple[str, str]]:
        """All that others have to know; it may take turns of the reactor to be told."""

    def has(self, id: str) -> bool:
        """Whether a record is of this kind."""

    def now(self, ids: Iterable[str]) -> dict[str, str]:
        """Records as they are here, of those that others have to know."""

    def learn(self, found: dict[str, str], waiting: Container[str]) -> tuple[set[str], set[str]]:
        """What others wrote: IDs of those that are as here now, and of those that nobody has to know.

        ``waiting``: IDs of what was changed here, and is not told yet.
        """

    def missed(self) -> int:
        """How many of those found no room to wait for others, since this was asked last."""


class SharedRecords:
    """Joins a node's books with those of the others. The first book that has a record gets it.

    ``refused``: how many records in the engine were not sealed by our secret.
    """

    def __init__(
        self, directory: RedisDirectory, books: tuple[SharedBook, ...], seal: OpenRecords | None = None
    ) -> None:
        self.problems: dict[str, str] = {}  # for status
        self.refused = 0
        self._directory = directory
        self._call = directory.call
        self._books = books
        self._seal = seal or OpenRecords()
        directory.me = directory.me._replace(seal=self._seal.mark)
        self._doubted = set[str]()  # what somebody else wrote or altered, and is not written over yet
        self._names: dict[int, str] = {}  # IDs of what is in the engine, by their sealed names' hashes
        self._said = 0  # how many were refused when that was logged last
        self._waiting: dict[str, str] = {}  # what was changed here and is not told yet
        self._era = ""
        self._seen = "0"
        self._missed = 0  # what found no room to wait
        self._running = False
        directory.shared, directory.replaced = self._renewed, self._replaced
        for book in books:
            book.changed = self._changed

    @property
    def is_joined(self) -> bool:
        """Whether it was learnt what the others know."""
        return bool(self._era)

    async def first(self, id: str, seconds: float) -> bool:
        """Whether no other node has used something that is good once, for so long; then none can.

        Raises:
            DirectoryAway: nobody knows.
        """
        return bool(await self._call(SPEND, self._seal.name(id), max(1, round(seconds * 1000))))

    def _changed(self, told: dict[str, str]) -> None:
        for id in told:
            self._waiting.pop(id, None)  # in the order in which it was changed last
        self._waiting.update(told)
        self._go()

    def _replaced(self) -> None:
        """It may be a replica that had not heard of all: told again, as one that was emptied."""
        self._era = ""

    def _renewed(self, number: str, era: str) -> None:
        """After each renewal: what the engine has, and since when."""
        if era != self._era:  # it was emptied, or we begin: what it lacks is told once we know what it has
            self._seen = "0"
        self._compare()
        if era != self._era or number != self._seen or self._waiting:
            self._go(era)

    def _compare(self) -> None:
        """Say which nodes share nothing with this one: they have another secret, or one of both has none."""
        me = self._directory.me
        others = [each for each in self._directory.nodes() if each.name != me.name and each.state != "away"]
        text = _apart(me.seal, {each.name: each.seal for each in others})
        if text and self.problems.get("secret_file") != text:
            log.warn("records-apart", event="records-apart", detail=text)
        self.problems["secret_file"] = text
        if not text:
            del self.problems["secret_file"]

    def _go(self, era: str = "") -> None:
        if not self._running and (era or self._era):
            self._running = True
            running = Deferred.fromCoroutine(self._run(era))
            running.addErrback(lambda bug: log.failure("sharing records failed", bug))

    async def _run(self, era: str) -> None:
        try:
            await self._learn()
            if era not in ("", self._era):
                for book in self._books:
                    await self._tell(book.to_share(), missing=True)
                self._era = era
            if self.refused > self._said:
                self._said = self.refused
                log.warn("records-refused", event="records-refused", detail=self.problems["records"])
            if self._doubted:
                await self._write_over()
            while self._waiting:
                told = dict(self._waiting)
                await self._tell(iter(told.items()))
                for each, value in told.items():
                    if self._waiting.get(each) == value:
                        del self._waiting[each]
        except DirectoryAway:
            pass  # the next renewal begins anew
        finally:
            self._running = False

    async def _tell(self, told: Iterator[tuple[str, str]], missing: bool = False) -> None:
        while pairs := [*islice(told, BATCH)]:
            names = {self._seal.name(id): id for id, _ in pairs}
            self._know(names)
            closed = (
                (name, self._seal.close(id, text)) for name, (id, text) in zip(names, pairs, strict=True)
            )
            await self._call(SHARE, int(missing), *(each for pair in closed for each in pair))

    async def _learn(self) -> None:
        whole, read = self._seen == "0", False
        while True:
            self._seen, found = await self._call(SHARED, self._seen, BATCH)
            if not found:
                if not read or self._has_all(whole):
                    return
                self._seen, whole = "0", True  # what they waited for may be known by now
                continue
            read = True
            opened = [self._seal.open(name, text) for name, text in found]
            known = dict(each for each in opened if each is not None)
            self._know({name: each[0] for (name, _), each in zip(found, opened, strict=True) if each})
            self._doubt([name for (name, _), each in zip(found, opened, strict=True) if each is None])
            over = set[str]()
            for book in self._books:
                mine = {id: known.pop(id) for id in [*known] if book.has(id)}
                taken, late = book.learn(mine, self._waiting) if mine else (set(), set())
                over |= late
                for id in taken:
                    self._waiting.pop(id, None)
            if over:
                await self._call(FORGET, *map(self._seal.name, over))

    def _know(self, names: Mapping[str, str]) -> None:
        """What is whose in the engine; without a secret nothing is ever doubted."""
        if self._seal.mark != OpenRecords.mark:
            self._names |= {hash(name): id for name, id in names.items()}

    def _has_all(self, whole: bool) -> bool:
        """Whether nothing found no room, also earlier; or reading all once more was of no use."""
        missed, before = sum(book.missed() for book in self._books), self._missed
        self._missed = missed if whole else before or missed
        if self._missed and not (whole and 0 < before <= missed):
            return False
        text = f"{missed} of other nodes wait for whose they are, and found no room: they count for nothing"
        if missed and self.problems.get("records-waiting") != text:
            log.warn("records-waiting", event="records-waiting", detail=text)
        self.problems |= {"records-waiting": text}
        if not missed:
            del self.problems["records-waiting"]
        return True

    def _doubt(self, names: list[str]) -> None:
        """Somebody else wrote or altered these; once ours were told, what is none of them costs no more."""
        if not names:
            return
        self.refused += len(names)
        text = f"{self.refused} records in the engine were not sealed by our secret, and count for nothing"
        self.problems["records"] = text
        ours = [each for each in names if not self._era or hash(each) in self._names]
        self._doubted.update(ours[: DOUBTED - len(self._doubted)])

    async def _write_over(self) -> None:
        """Tell ours in their place, once it was learnt what the others know."""
        doubted = {*self._doubted}
        ids = {self._names[hash(name)] for name in doubted if hash(name) in self._names}
        if len(doubted) >= DOUBTED:
            ids |= {*self._names.values()}
        for book in self._books:
            mine = {id for id in ids if book.has(id)}
            ids -= mine
            await self._tell(iter(book.now(mine).items()))
        self._doubted -= doubted


def _apart(mine: str, seals: Mapping[str, str]) -> str:
    """Which nodes have not the secret of this one, in words; "": all have it that say so."""
    none = " ".join(name for name, seal in seals.items() if seal == OpenRecords.mark != mine)
    other = " ".join(name for name, seal in seals.items() if seal not in ("", OpenRecords.mark, mine))
    if mine == OpenRecords.mark:
        said = [f"{other} with a secret_file, this node without"] if other else []
    else:
        said = [f"{other} with another secret_file"] if other else []
        said += [f"{none} without one"] if none else []
    return f"{', '.join(said)}: no people, grants, keys or tokens are shared" if said else ""
