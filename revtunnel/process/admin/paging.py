"""A page of a listing: so many rows of what comes in order, and where the next page begins.

Source: ours.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from revtunnel.process.admin.operation_form import PAGE

__all__ = ["most", "page"]

T = TypeVar("T")


def most(limit: int) -> int:
    """The rows of a page of which ``limit`` were asked for: 1 to ``PAGE``."""
    return max(1, min(limit, PAGE))


def page(
    found: Iterable[T], limit: int, row: Callable[[T], Any], place: Callable[[T], Any] = lambda each: each
) -> tuple[list[Any], Any]:
    """Rows of what was found behind the cursor, and the next cursor; None: that was all.

    Args:
        found: in order, one more than a page where there is more.
        row: makes one; only of what is on the page.
        place: the cursor behind which one more is found.
    """
    size = most(limit)
    ahead = [*islice(found, size + 1)]
    return [row(each) for each in ahead[:size]], place(ahead[size - 1]) if len(ahead) > size else None
