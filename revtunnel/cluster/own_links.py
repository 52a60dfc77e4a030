"""The links of this node as its directory was told of them, and what it is still to be told.

Rule of this file: one serial has one word that waits, the latest; nothing waits twice, and what was not
heard waits again. What is new goes before what is only said again.

Source: next/cluster.md section 6, "engine back"; ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

__all__ = ["BATCH", "OwnLink", "OwnLinks"]

BATCH = 100  # serials a call
LEAVES = 100_000  # of serials that have gone, and are waited for


@dataclass(slots=True)
class OwnLink:
    """A link that is up here. ``since`` is in monotonic seconds; ``fence`` 0: none was given yet."""

    link: int
    wire: str
    since: float
    fence: int = 0


class OwnLinks:
    """Of one node."""

    def __init__(self) -> None:
        self.floor = 0  # the greatest fence that was ever seen
        self._links: dict[str, OwnLink] = {}
        self._new: dict[str, None] = {}
        self._again: dict[str, None] = {}
        self._gone: dict[str, int] = {}
        self._round: list[str] = []

    def __len__(self) -> int:
        return len(self._links)

    def arrived(self, serial: str, own: OwnLink) -> None:
        """A link is up; an older one of the serial is forgotten."""
        old = self._links.get(serial)
        if old is None or old.link < own.link:
            self._links[serial] = own
            self._gone.pop(serial, None)
            self._again.pop(serial, None)
            self._new[serial] = None

    def left(self, serial: str, link: int) -> bool:
        """That link is gone: whether it was the latest of its serial."""
        own = self._links.get(serial)
        if own is None or own.link != link:
            return False
        del self._links[serial]
        self._new.pop(serial, None)
        self._again.pop(serial, None)
        self._gone[serial] = link
        if len(self._gone) > LEAVES:
            del self._gone[next(iter(self._gone))]
        return True

    def moved(self, serial: str, link: int) -> bool:
        """A newer one is elsewhere: whether that link was here."""
        was = self.left(serial, link)
        self._gone.pop(serial, None)
        return was

    def assert_all(self) -> None:
        """The directory may have lost any of it."""
        self._again.update(dict.fromkeys(each for each in self._links if each not in self._new))

    def look_again(self) -> None:
        """Say some of it once more, all of it in so many turns."""
        self._round = self._round or [*self._links]
        for serial in self._round[-BATCH:]:
            if serial in self._links and serial not in self._new:
                self._again[serial] = None
        del self._round[-BATCH:]

    def take_gone(self) -> dict[str, int]:
        """Some that are gone: serial and link."""
        return {serial: self._gone.pop(serial) for serial in [*islice(self._gone, BATCH)]}

    def take(self) -> tuple[dict[str, OwnLink], bool]:
        """Some that are here, and whether one of them is news."""
        chosen = [*islice(self._new, BATCH)]
        news = bool(chosen)
        chosen += islice(self._again, BATCH - len(chosen))
        for serial in chosen:
            self._new.pop(serial, None)
            self._again.pop(serial, None)
        return {serial: self._links[serial] for serial in chosen}, news

    def not_heard(self, links: Iterable[str], gone: dict[str, int]) -> None:
        """These wait again."""
        self._new.update(dict.fromkeys(each for each in links if each in self._links))
        self._gone.update((serial, link) for serial, link in gone.items() if serial not in self._links)

    def heard(self, own: OwnLink, fence: int) -> None:
        """It has this fence from now on."""
        own.fence = fence
        self.floor = max(self.floor, fence)
