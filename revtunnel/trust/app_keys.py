"""The app keys of devices that speak a vendor's wire on WebSockets: what each proves itself with, each time.

A key is written once, for the device, and holds 256 random bits. ::

    rtapp1_ base64url( 32 random bytes )

Rule of this file: one key a serial, and the server keeps its SHA-256 and nothing else of it. All are held, so
that a disk that cannot be read never makes a device look as if it had none.

Source: next/remote-sessions.md section 4; ours.
"""

import base64
import hashlib
from collections.abc import Callable
from itertools import islice
from typing import Any

from sortedcontainers import SortedDict

from revtunnel.state.ledger import SqliteLedger

__all__ = ["AppKeys"]

SECRET_SIZE = 32  # bytes
PREFIX = "rtapp1_"
MOST = 127  # characters of a key that is looked at: SDK 1.3.1 writes longer strings wrongly


def _mark(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


class AppKeys:
    """All app keys of one server. One thread only."""

    def __init__(self, ledger: SqliteLedger, random_bytes: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._random_bytes = random_bytes
        self._marks = SortedDict()  # by serial
        self._serials: dict[bytes, str] = {}  # by mark
        for serial, mark in ledger.select("SELECT serial, mark FROM edge_keys"):
            self._marks[serial] = mark
            self._serials[mark] = serial
        ledger.takers["edge_keys"] = self._take

    def make(self, serial: str) -> str:
        """A key for a device, which is kept nowhere; one that it had does not count any more."""
        self.remove(serial)
        secret = base64.urlsafe_b64encode(self._random_bytes(SECRET_SIZE)).rstrip(b"=").decode("ascii")
        key = PREFIX + secret
        mark = _mark(key)
        self._marks[serial], self._serials[mark] = mark, serial
        self._ledger.change([("edge_keys", serial, (serial, mark, self._ledger.wall))])
        return key

    def remove(self, serial: str) -> bool:
        """Withdraw a device's key; False: it had none."""
        mark = self._marks.pop(serial, None)
        if mark is None:
            return False
        del self._serials[mark]
        self._ledger.change([("edge_keys", serial, None)])
        return True

    def _take(self, serial: str, row: tuple[Any, ...] | None) -> None:
        self._serials.pop(self._marks.pop(serial, b""), None)
        if row is not None:
            self._marks[serial], self._serials[row[1]] = row[1], serial
        self._ledger.change([("edge_keys", serial, row)])

    def has(self, serial: str) -> bool:
        """Whether a device has one."""
        return serial in self._marks

    def serial_of(self, key: str) -> str | None:
        """Whose key it is; None: nobody's. Looking up a hash says nothing of how much of a guess is right."""
        return self._serials.get(_mark(key)) if len(key) <= MOST else None

    def serials(self, after: str = "", limit: int = 100) -> list[str]:
        """A page of devices with a key in order, above ``after``."""
        return list(islice(self._marks.irange(after, inclusive=(False, True)), limit))
