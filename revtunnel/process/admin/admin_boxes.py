"""Operations as AMP has them on the wire: boxes of named values, and rows as JSON text in one value.

Rule of this file: the form only, and the standard library only: both ends use it, and the command
``revtunnelctl`` has no time for more. A value stays below ``MAX_VALUE``, because AMP drops a connection at
65,535; so a listing is asked page by page: ``after`` is the cursor of the answer before, absent at first and
in the answer that has the last page.

Source: twisted.md 2.5; twisted.protocols.amp; faults.md C1 to C3, "Mechanisms, exact" (Admin).
"""

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from revtunnel.process.admin.operation_form import Argument, Kind, Operation
from revtunnel.process.admin.refusals import REFUSALS, Conflict, Invalid

__all__ = ["MAX_VALUE", "check", "in_json", "packed", "paged", "read", "refusal_of", "unpacked", "written"]

MAX_VALUE = 60_000  # bytes of one value that we send
MAX_NAME = 255  # bytes
_SIZE = struct.Struct(">H")
_READ: dict[Kind, Callable[[bytes], Any]] = {
    Kind.TEXT: bytes.decode,
    Kind.NUMBER: int,
    Kind.YES_NO: {b"True": True, b"False": False}.__getitem__,
    Kind.RAW: bytes,
    Kind.LIST: lambda raw: [each for each in raw.decode().split(",") if each],
}


def read(fields: Sequence[Argument], box: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The values of a box; None in place of one that may be missing and is.

    Raises:
        Invalid: one is missing, not of its kind or beyond its limits.
    """
    found: dict[str, Any] = {}
    for field in fields:
        raw = box.get(field.name.encode())
        if raw is None and not field.optional:
            raise Invalid(f"{field.name} is missing")
        try:
            found[field.name] = value = None if raw is None else _READ[field.kind](raw)
        except (ValueError, KeyError):
            raise Invalid(f"{field.name} {(raw or b'')[:80]!a}: {field.kind.words} wanted") from None
        check(field, value)
    return found


def check(field: Argument, value: Any) -> None:
    """Hold a value against the limits of its argument.

    Raises:
        Invalid: it is beyond them.
    """
    if isinstance(value, int) and not field.low <= value <= field.high:
        raise Invalid(f"{field.name} {value}: {field.low} to {field.high} wanted")
    if isinstance(value, str) and field.form and not re.fullmatch(field.form, value, re.ASCII):
        raise Invalid(f"{field.name} {value[:80]!a}: no {field.name} is so written")


def written(values: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Values as a box has them; None is not there."""
    return {
        name.encode(): value
        if isinstance(value, bytes)
        else (",".join(value) if isinstance(value, list) else str(value)).encode()
        for name, value in values.items()
        if value is not None
    }


def refusal_of(operation: Operation, box: Mapping[bytes, bytes]) -> Exception:
    """What a box with ``_error`` says, as one of refusals.py."""
    code, text = (
        box.get(name, b"").decode("utf-8", "replace") for name in (b"_error_code", b"_error_description")
    )
    if code == "UNHANDLED":
        return Invalid(f"this daemon has no {operation.name.lower()}")
    return REFUSALS[code](text) if code in REFUSALS else Conflict("the server failed; its log says why")


def packed(box: Mapping[bytes, bytes]) -> bytes:
    """A box as its bytes.

    Raises:
        Invalid: a value is longer than 65,535 bytes.
    """
    parts = [part for pair in box.items() for part in pair]
    if any(len(part) > 0xFFFF for part in parts):
        raise Invalid("an argument is too long")
    return b"".join(_SIZE.pack(len(part)) + part for part in parts) + b"\0\0"


def unpacked(data: bytearray, most: int | None = None) -> dict[bytes, bytes] | None:
    """Take the first box off what was received; None: it is not whole yet.

    Raises:
        ValueError: a name is longer than 255 bytes, or names and values together than ``most``.
    """
    parts: list[bytes] = []
    at = total = 0
    while len(data) >= at + 2:
        (size,) = _SIZE.unpack_from(data, at)
        at, total, is_name = at + 2 + size, total + size, len(parts) % 2 == 0
        if (is_name and size > MAX_NAME) or total > (most or total):
            raise ValueError("the box is too long")
        if len(data) < at:
            return None
        if not size and is_name:
            del data[:at]
            return dict(zip(parts[::2], parts[1::2], strict=True))
        parts.append(bytes(data[at - size : at]))
    return None


def in_json(row: Any) -> str:
    """One line of ASCII JSON of at most ``MAX_VALUE`` bytes.

    Where a row is too large its largest lists and texts are cut; of a list ``<name>_left_out`` says how much.
    """
    text = _written(row)
    while len(text) > MAX_VALUE and isinstance(row, dict):
        sizes = {
            name: len(_written(value)) for name, value in row.items() if isinstance(value, list | tuple | str)
        }
        if not sizes or max(sizes.values()) < 100:
            break
        row = _halved(row, max(sizes, key=lambda name: sizes[name]))
        text = _written(row)
    return text


def _halved(row: dict[str, Any], name: str) -> dict[str, Any]:
    value = row[name]
    kept = value[: len(value) // 2]
    if isinstance(value, str):
        return {**row, name: kept}
    count = f"{name}_left_out"
    return {**row, name: kept, count: row.get(count, 0) + len(value) - len(kept)}


def paged(rows: Sequence[Any], more: bool, cursor_of: Callable[[Any], str]) -> dict[str, Any]:
    """The answer of a listing: as many rows as one value holds, at least one if there are any."""
    texts: list[str] = []
    size = len("[]")
    for row in rows:
        text = in_json(row)
        size += len(text) + len(",")
        if texts and size > MAX_VALUE:
            more = True
            break
        texts.append(text)
    after = cursor_of(rows[len(texts) - 1]) if more and texts else None
    return {"rows": f"[{','.join(texts)}]", "after": after}


def _written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str).replace("\x7f", "\\u007f")
