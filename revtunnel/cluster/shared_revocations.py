"""Certificates that were revoked at one node count at no other.

Rule of this file: what is shared is what has to be known for a refusal: who is revoked, which certificates of
his do not count, which he got since, and which were retired by a renewal. All others count at every node
whose authority they are of, known there or not. Where two differ, revoked wins, and is told again.

Source: issue "Many cores, many nodes" part 1; faults.md "Device identity" (revocation); ours.
"""

import json
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

from revtunnel.trust.certificate_book import DEVICE, FOREIGN, CertificateBook, CertificateRow

__all__ = ["SharedRevocations"]

KINDS = DEVICE, FOREIGN
LEAST = len(CertificateRow._fields) - len(CertificateRow._field_defaults)
BARRED = "barred:"  # before a serial; other IDs are fingerprints


class SharedRevocations:
    """A node's book for shared_records.py. ``learnt``: something of these serials counts no more.

    ``serials``: whether it tells who is revoked; shared_tables.py does where nodes have a secret.
    """

    def __init__(
        self, book: CertificateBook, learnt: Callable[[set[str]], object], serials: bool = True
    ) -> None:
        self._serials = serials
        self.changed: Callable[[dict[str, str]], object] = lambda told: None
        self._book = book
        self._learnt = learnt
        book.shared = lambda rows, barred: self.changed(self._written(rows, barred))

    def to_share(self) -> Iterator[tuple[str, str]]:
        yield from self._written(*self._book.to_share()).items()

    def has(self, id: str) -> bool:
        return True

    def now(self, ids: Iterable[str]) -> dict[str, str]:
        serials = [id.removeprefix(BARRED) for id in ids if id.startswith(BARRED)]
        rows = [row for id in ids if (row := self._book.row(id)) is not None]
        told = [row for row in rows if row.revoked is not None or self._book.barred(row.name)]
        return self._written(told, dict.fromkeys(filter(self._book.barred, serials), True))

    def missed(self) -> int:
        return 0

    def learn(self, found: dict[str, str], waiting: Container[str]) -> tuple[set[str], set[str]]:
        rows, barred, over = list[CertificateRow](), dict[str, bool](), set[str]()
        for name, text in found.items():
            if name in waiting:  # ours is newer
                continue
            value = _read(text)
            row = None if name.startswith(BARRED) else _row(name, value)
            mine = self._book.row(name)
            if name.startswith(BARRED) and self._serials:
                barred[name.removeprefix(BARRED)] = bool(value)
            elif row is not None and self._book.forgotten(row):
                over.add(name)
            elif row is not None and row.revoked is None and mine is not None and mine.revoked is not None:
                self.changed(self._written([mine], {}))
            elif row is not None:
                rows.append(row)
        self._book.learn(rows, barred)
        self._learnt({*barred, *(row.name for row in rows)})
        return set(), over

    def _written(self, rows: list[CertificateRow], barred: dict[str, bool]) -> dict[str, str]:
        """As it is kept; who is revoked goes before what he has got since."""
        told = {BARRED + serial: json.dumps(value) for serial, value in barred.items() if self._serials}
        return told | {row.fingerprint: json.dumps(row) for row in rows}


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
