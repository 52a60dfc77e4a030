"""Host keys of the ssh services of devices, as they were seen and said yes to first; kept in the state file.

Rule of this file: a service has one key, whoever comes; another counts only after the first was forgotten.

Source: RFC 4251 section 4.1; ours.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from sortedcontainers import SortedDict

from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import page
from revtunnel.process.admin.refusals import Conflict, NotFound
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.issuer import written

__all__ = ["HostKeys", "fingerprint_of", "kind_of"]

MOST = 100_000  # services


def kind_of(blob: bytes) -> str:
    """The type of a public key, as it says itself, of letters that a screen shows; "": it is none."""
    size = int.from_bytes(blob[:4], "big")
    kind = blob[4 : 4 + size].decode("latin-1")
    return kind if len(kind) == size <= 64 and kind.isascii() and kind.isprintable() else ""


def fingerprint_of(blob: bytes) -> str:
    """As ``ssh-keygen -l`` shows it."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b'=').decode('ascii')}"


class _Kept(NamedTuple):
    blob: bytes
    by: str
    since: float  # seconds since 1970


def _kept(row: tuple[Any, ...]) -> _Kept:
    return _Kept(base64.b64decode(row[1]), row[2], row[3])


class HostKeys:
    """All of them, by ``serial/service``. ``tell`` hears of all that was done, and must not raise."""

    def __init__(
        self, ledger: SqliteLedger, wall: Callable[[], float], tell: Callable[[RightsChanged], None]
    ) -> None:
        """Raises LedgerError: the file cannot be read."""
        self._ledger = ledger
        self._wall = wall
        self._tell = tell
        rows = ledger.select("SELECT service, key, made_by, since FROM host_keys")
        self._kept = SortedDict((str(row[0]), _kept(row)) for row in rows)
        ledger.takers["host_keys"] = self._take

    def of(self, serial: str, service: str) -> bytes:
        """The public key, as on the wire; b"": none is known."""
        kept = self._kept.get(f"{serial}/{service}")
        return kept.blob if kept is not None else b""

    def keep(self, serial: str, service: str, blob: bytes, by: str) -> None:
        """Somebody said yes to it.

        Raises:
            Conflict: too many are known.
        """
        name = f"{serial}/{service}"
        if len(self._kept) >= MOST and name not in self._kept:
            raise Conflict(f"{len(self._kept)} host keys are known, {MOST} at most")
        self._take(name, (name, base64.b64encode(blob).decode("ascii"), by, self._wall()))
        self._tell(RightsChanged("host-key-kept", name, by, fingerprint_of(blob)))

    def forget(self, serial: str, service: str, by: str) -> None:
        """Let the next one count that somebody says yes to.

        Raises:
            NotFound: none is known.
        """
        name = f"{serial}/{service}"
        if name not in self._kept:
            raise NotFound(f"no host key of {name[:120]} is known")
        self._take(name, None)
        self._tell(RightsChanged("host-key-forgotten", name, by))

    def _take(self, name: str, row: tuple[Any, ...] | None) -> None:
        kept = None if row is None else _kept(row)
        self._kept.pop(name, None)
        if kept is not None:
            self._kept[name] = kept
        self._ledger.change([("host_keys", name, row)])

    def listed(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """All that are known, by ``SERIAL/SERVICE``."""
        return page(self._kept.irange(after, inclusive=(False, True)), limit, self._row)

    def _row(self, name: str) -> Row:
        kept = self._kept[name]
        serial, _, service = name.partition("/")
        return {
            "serial": serial,
            "service": service,
            "kind": kind_of(kept.blob),
            "fingerprint": fingerprint_of(kept.blob),
            "by": kept.by,
            "since": written(kept.since),
        }
