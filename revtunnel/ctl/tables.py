"""Values as people read them on a terminal: aligned tables, sizes, ages.

Rule of this file: text in, text out; nothing that came from elsewhere reaches a terminal as a control
character, so a device cannot colour, move or forge lines.

Source: ours.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from revtunnel.process.admin.operation_form import Column, Kind, Row

__all__ = ["age", "cell", "clean", "few", "listed", "size", "table", "trip", "wall_seconds"]

GAP = "  "


def clean(text: object) -> str:
    """One line of printable characters; what is not is shown in Python's notation, as is a backslash."""
    return "".join(
        each if each.isprintable() and each != "\\" else each.encode("unicode_escape").decode("ascii")
        for each in str(text)
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> list[str]:
    """Lines of aligned columns, the head first.

    Args:
        rows: cells of the same number as ``heads``; they are cleaned here. Nothing, and None, shows as ``-``.
        right: heads of the columns that are aligned to the right, with spaces between.
    """
    lines = [list(heads), *([clean("" if cell is None else cell) or "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    to_right = [head in right.split() for head in heads]
    return [
        GAP.join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, to_right, strict=True)
        ).rstrip()
        for line in lines
    ]


def few(cells: Sequence[object], most: int = 4) -> str:
    """Some entries of a list in one cell, and how many more there are."""
    more = [f"+{len(cells) - most}"] if len(cells) > most else []
    return ", ".join([*(str(cell) for cell in cells[:most]), *more])


def size(count: float) -> str:
    """A number of bytes: ``812 B``, ``1.5 KiB``, ``3.0 GiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1023.95 or unit == "TiB":
            break
    return f"{count:.1f} {unit}"


def age(seconds: float | None) -> str:
    """A length of time in its two largest units: ``8s``, ``4m09s``, ``3h07m``, ``12d02h``; None is ``-``."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def trip(seconds: float | None) -> str:
    """A round trip: ``0.42 ms``, ``18 ms``, ``1.3 s``; None is ``-``."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def wall_seconds(text: str) -> float | None:
    """Seconds since 1970 of a time such as 2026-01-31T12:00:00Z; None if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _since(text: str) -> str:
    """How long a time is ago that the server wrote; its clock is ours."""
    then = wall_seconds(text)
    return age(None if then is None else time.time() - then)


def _plain(value: object) -> str:
    """Anything else; what is not there is nothing, which a table shows as ``-``."""
    return "" if value is None else str(value)


_SHOWN: dict[Kind, Callable[[Any], str]] = {
    Kind.BYTES: size,
    Kind.SECONDS: age,
    Kind.TRIP: trip,
    Kind.LIST: few,
    Kind.YES_NO: lambda value: "yes" if value else "no",
}
_TO_RIGHT = {Kind.NUMBER, Kind.BYTES, Kind.SECONDS, Kind.TRIP, Kind.TIME}


def cell(column: Column, row: Row) -> str:
    """The value of a row as people read it; not cleaned."""
    value = row[column.name] if column.cell is None else column.cell(row)
    if column.kind is Kind.TIME and column.cell is None:
        return _since(value or "")
    return value if isinstance(value, str) else _SHOWN.get(column.kind, _plain)(value)


def listed(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """The lines of a listing."""
    shown = [column for column in columns if column.head]
    right = " ".join(column.head for column in shown if column.kind in _TO_RIGHT)
    return table(
        [column.head for column in shown], [[cell(column, row) for column in shown] for row in rows], right
    )
