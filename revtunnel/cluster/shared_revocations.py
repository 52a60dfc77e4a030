"""Certificates that were revoked at one node count at no other.

Rule of this file: every node keeps all of it in its own ledger, so that neither a restart nor an engine
that was emptied brings anybody back; the engine carries it from one to the others. What is shared is what
has to be known for a refusal: who is revoked, which certificates of his do not count, which he got since,
and which were retired by a renewal. All others count at every node whose authority they are of, known there
or not. While the engine is away a revocation is at its own node; the others learn of it when it is back.

Source: issue "Many cores, many nodes" part 1; faults.md "Device identity" (revocation); ours.
"""

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_scripts import FORGET, SHARE, SHARED
from revtunnel.trust.certificate_book import DEVICE, FOREIGN, CertificateBook, CertificateRow

__all__ = ["SharedRevocations"]

log = Logger(namespace="revtunnel")

BATCH = 100  # a call
KINDS = DEVICE, FOREIGN
LEAST = len(CertificateRow._fields) - len(CertificateRow._field_defaults)
BARRED = "barred:"  # before a serial; other IDs are fingerprints


class SharedRevocations:
    """Joins a node's book with those of the others. ``learnt``: something of these serials counts no more."""

    def __init__(
        self, directory: RedisDirectory, book: CertificateBook, learnt: Callable[[set[str]], object]
    ) -> None:
        self._call = directory.call
        self._book = book
        self._learnt = learnt
        self._waiting: dict[str, str] = {}  # what was changed here and is not told yet
        self._era = ""
        self._seen = "0"
        self._newest = "0"
        self._running = False
        directory.shared = self._renewed
        book.shared = self._changed

    def _changed(self, rows: list[CertificateRow], barred: dict[str, bool]) -> None:
        self._waiting.update(_written(rows, barred))
        self._go()

    def _renewed(self, number: str, era: str) -> None:
        """After each renewal: what the engine has, and since when."""
        if era != self._era:  # it was emptied, or we begin: what it lacks is told once we know what it has
            self._seen = "0"
        self._newest = number
        if era != self._era or number != self._seen or self._waiting:
            self._go(era)

    def _go(self, era: str = "") -> None:
        if not self._running and (era or self._era):
            self._running = True
            running = Deferred.fromCoroutine(self._run(era))
            running.addErrback(lambda bug: log.failure("sharing revocations failed", bug))

    async def _run(self, era: str) -> None:
        try:
            await self._learn()
            if era not in ("", self._era):
                await self._tell(_written(*self._book.to_share()), missing=True)
                self._era = era
            while self._waiting:
                told = dict(self._waiting)
                await self._tell(told)
                for each, value in told.items():
                    if self._waiting.get(each) == value:
                        del self._waiting[each]
        except DirectoryAway:
            pass  # the next renewal begins anew
        finally:
            self._running = False

    async def _tell(self, told: dict[str, str], missing: bool = False) -> None:
        flat = [each for pair in told.items() for each in pair]
        for at in range(0, len(flat), 2 * BATCH):
            await self._call(SHARE, int(missing), *flat[at : at + 2 * BATCH])

    async def _learn(self) -> None:
        while True:
            self._seen, found = await self._call(SHARED, self._seen, BATCH)
            if not found:
                return
            rows, barred, over = list[CertificateRow](), dict[str, bool](), list[str]()
            for name, text in found:
                value = _read(text)
                if name in self._waiting:  # ours is newer
                    continue
                row = None if name.startswith(BARRED) else _row(name, value)
                if name.startswith(BARRED):
                    barred[name.removeprefix(BARRED)] = bool(value)
                elif row is not None and self._book.forgotten(row):
                    over.append(name)
                elif row is not None:
                    rows.append(row)
            self._book.learn(rows, barred)
            self._learnt({*barred, *(row.name for row in rows)})
            if over:
                await self._call(FORGET, *over)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # from nobody of us
        return None


def _row(name: str, value: Any) -> CertificateRow | None:
    """What was written for a fingerprint; None: nothing that can be read."""
    if not isinstance(value, list) or len(value) < LEAST or value[0] != name:
        return None
    row = CertificateRow(*value[: len(CertificateRow._fields)])  # one of another version may have more
    numbers = row.until, row.issued, row.revoked or 0.0
    words = row.name, row.kind, row.number, row.parent, row.key
    sound = all(isinstance(each, int | float) for each in numbers)
    sound = sound and all(isinstance(each, str) for each in words)
    return row if sound and row.kind in KINDS else None


def _written(rows: list[CertificateRow], barred: dict[str, bool]) -> dict[str, str]:
    """As it is kept; who is revoked goes before what he has got since."""
    told = {BARRED + serial: json.dumps(value) for serial, value in barred.items()}
    return told | {row.fingerprint: json.dumps(row) for row in rows}
