"""Which certificates were issued, which do not count any more, and the tokens that wait: kept in the ledger.

Rule of this file: what it says is true at once, also while the disk does not take it (see ledger.py). A
certificate that is not known here is judged by its serial alone: another authority may have issued it.

A renewed certificate is the child of the one that was shown for it, its parent. A parent is retired, which is
revoked, when a child of it is used; a parent with children of several keys is forked: two have its key.

Source: faults.md "Device identity" (revocation); ours.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from revtunnel.link.keys import DUMMY, Verifier
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.enrolment import TokenRow

__all__ = [
    "AUTHORITY",
    "DEVICE",
    "FOREIGN",
    "KEPT",
    "SERVER",
    "CertificateBook",
    "CertificateRow",
    "verifier_of",
]

AUTHORITY, DEVICE, SERVER = "authority", "device", "server"  # kinds
FOREIGN = "foreign"  # not made here, or forgotten: known because it was renewed here
FOREIGN_LIFE = (
    3650 * 86400.0
)  # seconds for which it is remembered beyond its child's end, for want of its own
KEPT = 366 * 86400.0  # seconds that a certificate is remembered after its end; more than any grace
DAY = 86400.0


class CertificateRow(NamedTuple):
    """One certificate. Times are seconds since 1970."""

    fingerprint: str  # SHA-256, hexadecimal
    name: str  # serial of the device; names of the server, with blanks between
    kind: str
    number: str  # the certificate's own serial number, hexadecimal
    until: float
    issued: float
    revoked: float | None = None
    parent: str = ""  # fingerprint of the one that was shown for it; none for the first of a device
    key: str = ""  # SHA-256 of its public key, hexadecimal


class CertificateBook:
    """Certificates and tokens (``core.enrolment.TokenStore``). One thread only."""

    def __init__(self, ledger: SqliteLedger) -> None:
        """Read what the ledger has.

        Raises:
            LedgerError: the file cannot be read.
        """
        # what counts no more and what revoked devices got since; who is barred now, or not any more
        self.shared: Callable[[list[CertificateRow], dict[str, bool]], object] = lambda rows, barred: None
        # a token that another node has given, or, with None, let go
        self.took_token: Callable[[bytes, TokenRow | None], object] = lambda mark, row: None
        ledger.takers["tokens"] = partial(_take_token, self, ledger)
        ledger.takers["barred"] = partial(_take_barred, self)
        self._ledger = ledger
        self._rows: dict[str, CertificateRow] = {}
        self._of: dict[str, set[str]] = {}  # serial -> fingerprints
        self._children: dict[str, set[str]] = {}  # parent -> fingerprints
        self._kinds: dict[str, dict[str, CertificateRow]] = {}  # kind -> fingerprint -> row
        fields = ", ".join(CertificateRow._fields)
        for values in ledger.select(f"SELECT {fields} FROM certificates"):
            self._hold(CertificateRow(*values))
        self._barred = {serial for (serial,) in ledger.select("SELECT serial FROM barred")}
        self._drop([row for row in self._rows.values() if self.forgotten(row)])

    def __len__(self) -> int:
        return len(self._rows)

    # -- certificates

    def revoked(self, serial: str, fingerprint: str) -> bool:
        """Whether a device's certificate, good otherwise, does not count. Asked at every handshake."""
        row = self._rows.get(fingerprint)
        if row is not None:
            return row.revoked is not None
        return serial in self._barred or self._ledger.doubtful is not None

    def knows(self, serial: str) -> bool:
        """Whether the device has, or had, a certificate: then it has to show one."""
        return serial in self._of or serial in self._barred

    def barred(self, serial: str) -> bool:
        """Whether certificates that are not known here count for nothing, if they name this device."""
        return serial in self._barred

    def good(self, serial: str) -> list[CertificateRow]:
        """The certificates of a device that count now."""
        now = self._ledger.wall
        return [row for row in self._of_serial(serial) if row.revoked is None and row.until > now]

    def row(self, fingerprint: str) -> CertificateRow | None:
        """One certificate, if it is known."""
        return self._rows.get(fingerprint)

    def holders(self) -> list[str]:
        """Devices that have a certificate which counts now."""
        return [serial for serial in self._of if self.good(serial)]

    def issued_today(self, serial: str) -> int:
        """How many certificates a device got in the last 24 hours."""
        since = self._ledger.wall - DAY
        return sum(row.issued > since for row in self._of_serial(serial))

    def rows(self, kind: str) -> list[CertificateRow]:
        """All of a kind, the newest last."""
        return sorted(self._kinds.get(kind, {}).values(), key=lambda row: row.issued)

    def count(self, kind: str) -> int:
        """How many of a kind are known."""
        return len(self._kinds.get(kind, ()))

    def children(self, fingerprint: str) -> list[CertificateRow]:
        """What one certificate was renewed to and counts now."""
        rows = (self._rows[each] for each in self._children.get(fingerprint, ()))
        return [row for row in rows if row.revoked is None]

    def retired(self, fingerprint: str) -> bool:
        """Whether one does not count any more because a child of it was used."""
        row = self._rows.get(fingerprint)
        return row is not None and row.revoked is not None and bool(self.children(fingerprint))

    def forked(self) -> list[str]:
        """Devices one of whose certificates has children of several keys, beside its own, that count."""
        parents = [each for each, children in self._children.items() if len(children) > 1]
        twice = (self.children(each) for each in parents if len(self._new_keys(each)) > 1)
        return sorted({rows[0].name for rows in twice})

    def _new_keys(self, parent: str) -> set[str]:
        row = self._rows.get(parent)
        return {child.key for child in self.children(parent)} - {row.key if row is not None else ""}

    def used(self, fingerprint: str) -> CertificateRow | None:
        """A certificate is used: the parent, if that is retired by it."""
        row = self._rows.get(fingerprint)
        if row is None or not row.parent:
            return None
        parent = self._rows.get(row.parent) or CertificateRow(
            row.parent, row.name, FOREIGN, "", row.until + FOREIGN_LIFE, 0.0
        )
        if parent.revoked is not None:
            return None
        retired = parent._replace(revoked=self._ledger.wall)
        self._hold(retired)
        self._ledger.change([("certificates", retired.fingerprint, tuple(retired))])
        self.shared([retired], {})
        return retired

    def put(self, row: CertificateRow) -> None:
        """Remember a certificate; what ended long ago of the same name is forgotten."""
        self._hold(row)
        self._ledger.change([("certificates", row.fingerprint, tuple(row))])
        self._drop([old for old in self._of_serial(row.name) if self.forgotten(old)])
        if row.name in self._barred:
            self.shared([row], {})

    def revoke(self, serial: str) -> int:
        """Let no certificate of a device count that was issued up to now, by whomever; how many were good."""
        good = len(self.good(serial))
        self.shared(self._revoke(serial), {serial: True})
        return good

    def _revoke(self, serial: str) -> list[CertificateRow]:
        now = self._ledger.wall
        rows = [row._replace(revoked=now) for row in self._of_serial(serial) if row.revoked is None]
        for row in rows:
            self._hold(row)
        self._barred.add(serial)
        changes = [("certificates", row.fingerprint, tuple(row)) for row in rows]
        self._ledger.change([*changes, ("barred", serial, (serial, now))])
        return self._of_serial(serial)

    def lift(self, serial: str) -> bool:
        """Let certificates of another authority count again; ours stay revoked. False: nothing to do."""
        if serial not in self._barred:
            return False
        self._lift(serial)
        self.shared([], {serial: False})
        return True

    def _lift(self, serial: str) -> None:
        self._barred.remove(serial)
        self._ledger.change([("barred", serial, None)])

    def to_share(self) -> tuple[list[CertificateRow], dict[str, bool]]:
        """All that others have to know: what counts no more, and all of devices that were revoked."""
        rows = self._rows.values()
        told = [row for row in rows if row.revoked is not None or row.name in self._barred]
        return told, dict.fromkeys(self._barred, True)

    def learn(self, rows: Iterable[CertificateRow], barred: Mapping[str, bool]) -> None:
        """What another book said by ``shared``; who is barred here already has only what came since."""
        for serial, is_barred in barred.items():
            if is_barred and serial not in self._barred:
                self._revoke(serial)
            elif not is_barred and serial in self._barred:
                self._lift(serial)
        self.merge(rows)

    def merge(self, rows: Iterable[CertificateRow]) -> None:
        """Learn what the authority's own list knows; revoked in either is revoked."""
        changed = []
        for row in rows:
            mine = self._rows.get(row.fingerprint)
            if self.forgotten(row) or (mine and (mine.revoked is not None or row.revoked is None)):
                continue
            self._hold(row)
            changed.append(("certificates", row.fingerprint, tuple(row)))
        if changed:
            self._ledger.change(changed)

    # -- tokens

    def tokens(self) -> list[TokenRow]:
        """All that were kept, with the seconds that are left by the wall clock."""
        now = self._ledger.wall
        stored = self._ledger.select("SELECT mark, serial, until FROM tokens")
        return [TokenRow(mark, serial, until - now) for mark, serial, until in stored]

    def save_tokens(self, rows: Iterable[TokenRow], gone: Iterable[bytes]) -> None:
        """Keep these, drop those marks."""
        now = self._ledger.wall
        kept = [("tokens", row.mark, (row.mark, row.serial, now + row.left)) for row in rows]
        self._ledger.change([*kept, *(("tokens", mark, None) for mark in gone)])

    # -- inside

    def _of_serial(self, serial: str) -> list[CertificateRow]:
        return [self._rows[fingerprint] for fingerprint in self._of.get(serial, ())]

    def _hold(self, row: CertificateRow) -> None:
        self._rows[row.fingerprint] = row
        self._kinds.setdefault(row.kind, {})[row.fingerprint] = row
        if row.kind == DEVICE:
            self._of.setdefault(row.name, set()).add(row.fingerprint)
        if row.parent:
            self._children.setdefault(row.parent, set()).add(row.fingerprint)

    def forgotten(self, row: CertificateRow) -> bool:
        """Whether it ended so long ago that nobody has to know of it."""
        return row.until + KEPT < self._ledger.wall

    def _drop(self, rows: list[CertificateRow]) -> None:
        for row in rows:
            del self._rows[row.fingerprint], self._kinds[row.kind][row.fingerprint]
            if row.parent:
                self._children[row.parent].discard(row.fingerprint)
                if not self._children[row.parent]:
                    del self._children[row.parent]
            if row.kind == DEVICE:
                self._of[row.name].discard(row.fingerprint)
                if not self._of[row.name]:
                    del self._of[row.name]
        if rows:
            self._ledger.change([("certificates", row.fingerprint, None) for row in rows])


def _take_token(
    book: CertificateBook, ledger: SqliteLedger, mark: bytes, row: tuple[Any, ...] | None
) -> None:
    book.took_token(mark, None if row is None else TokenRow(mark, row[1], row[2] - ledger.wall))
    ledger.change([("tokens", mark, row)])


def _take_barred(book: CertificateBook, serial: str, row: tuple[Any, ...] | None) -> None:
    """Another node has revoked a device, or lifted that; who is barred here already has what came since."""
    book.learn([], {serial: row is not None})


def verifier_of(ledger: SqliteLedger, book: CertificateBook, serial: str) -> Verifier | None:
    """By what a device proves its key; who has a certificate and no key can prove none."""
    key = ledger.key_of(serial)
    if key is not None:
        return Verifier(key.stored_key, key.server_key)
    return DUMMY if book.knows(serial) else None
