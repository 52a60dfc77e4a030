"""What operators have laid down for single devices, over the records of the settings, until it is reset.

Rule of this file: it goes key by key: what was laid down here counts, all else is as [device SERIAL] or
[device *] has it, whatever a reload changes there. Values are kept as a settings file has them and read in
the same way; one that cannot be read any more, by another version, does not count and is told at the start.

Source: issue 13, "edit record and labels"; ours.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.declared import keys_of
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound, valid
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.issuer import written

__all__ = ["KeptRecords"]

MOST = 20_000  # devices
_KEYS = keys_of(DeviceRecord)


class _Kept(NamedTuple):
    values: dict[str, str]  # by key, as in a file
    by: str
    since: float  # seconds since 1970


class KeptRecords:
    """All of them. ``applies`` is called with a serial whose record is another now."""

    def __init__(self, ledger: SqliteLedger, wall: Callable[[], float]) -> None:
        self.tell: Callable[[RightsChanged], None] = lambda change: None
        self.applies: Callable[[str], None] = lambda serial: None
        self._ledger = ledger
        self._wall = wall
        self._written = DeviceRecords()  # those of the settings
        rows = ledger.select("SELECT serial, keys, made_by, since FROM device_records")
        self._kept = {str(serial): self._loaded(serial, *values) for serial, *values in rows}

    def _loaded(self, serial: str, keys: str, by: str, since: float) -> _Kept:
        values: dict[str, str] = {}
        for name, text in json.loads(keys).items():
            try:
                _read(name, text)
                values[name] = text
            except Invalid as error:
                self._ledger.warnings.append(f"the record of {serial} that was laid down: {error}")
        return _Kept(values, by, since)

    def over(self, written: DeviceRecords) -> DeviceRecords:
        """The records of the settings, with what is kept over them."""
        self._written = written
        return replace(
            written, over={serial: self._over(serial, kept) for serial, kept in self._kept.items()}
        )

    def keys_of(self, serial: str) -> list[str]:
        """What is laid down for a device."""
        kept = self._kept.get(serial)
        return sorted(kept.values) if kept is not None else []

    def row(self, serial: str) -> Row:
        """The record of a device as it counts, and what of it was laid down here.

        Raises:
            Invalid: not a serial.
        """
        valid(parse_serial, serial)
        kept = self._kept.get(serial, _Kept({}, "", 0.0))
        return {
            "serial": serial,
            "record": self._written.source(serial),
            **self._over(serial, kept).row(),
            "kept": kept.values,
            "by": kept.by,
            "since": written(kept.since) if kept.by else None,
        }

    def edit(self, serial: str, by: str, **said: Any) -> None:
        """Lay down what is said, by key; None leaves one as it is. Lists are of texts, as a file has them.

        Raises:
            Invalid: not a serial, nothing is said, a name is no key, or a value cannot be read.
            Conflict: too many devices have such a record.
        """
        valid(parse_serial, serial)
        values = {name: _text(name, value) for name, value in said.items() if value is not None}
        if not values:
            raise Invalid("nothing is said that the record should have")
        for name, text in values.items():
            _read(name, text)
        before = self._kept.get(serial)
        if before is None and len(self._kept) >= MOST:
            raise Conflict(f"{len(self._kept)} devices have a record that was laid down so, {MOST} at most")
        self._keep(serial, {**(before.values if before is not None else {}), **values}, by)
        shown = ", ".join(f"{name} = {text}" for name, text in values.items())
        self.tell(RightsChanged("record-changed", serial, by, shown[:1000]))

    def reset(self, serial: str, by: str, keys: Sequence[str] = ()) -> None:
        """Have a record as the settings have it again; ``keys``: only these of it.

        Raises:
            NotFound: nothing of that was laid down.
        """
        kept = self._kept.get(serial)
        named = [*keys] or [*_KEYS]
        if kept is None or not kept.values.keys() & {*named}:
            raise NotFound(f"nothing of that was laid down for {serial[:80]}")
        self._keep(serial, {name: text for name, text in kept.values.items() if name not in named}, by)
        self.tell(RightsChanged("record-reset", serial, by, " ".join(keys)))

    def _keep(self, serial: str, values: dict[str, str], by: str) -> None:
        if values:
            kept = self._kept[serial] = _Kept(values, by, self._wall())
            row = serial, json.dumps(values), by, kept.since
            self._ledger.change([("device_records", serial, row)])
        else:
            del self._kept[serial]
            self._ledger.change([("device_records", serial, None)])
        self.applies(serial)

    def _over(self, serial: str, kept: _Kept) -> DeviceRecord:
        own = self._written.of(serial)
        found = {name: getattr(own, name) for name in _KEYS}
        return DeviceRecord(**{**found, **{name: _read(name, text) for name, text in kept.values.items()}})


def _text(name: str, value: Any) -> str:
    """As a settings file has it."""
    if name == "at_once" and value == 0:
        return "any"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    none = "none" if name in ("clients", "targets", "ports") else ""
    return ", ".join(value) or none


def _read(name: str, text: str) -> Any:
    try:
        return _KEYS[name].kind.read(text)
    except KeyError:
        raise Invalid(f"{name[:80]!a} is no key of a record") from None
    except (ValueError, RemoteError) as error:
        raise Invalid(f"{name}: {error}") from None
