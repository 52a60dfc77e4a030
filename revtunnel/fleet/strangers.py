"""Places for connections of which nobody knows yet whose they are, at listeners of every kind.

The rules: a source has a share of the places, an IPv4 address or an IPv6 /64 one, a /56 two and a /48 four.
Where places are short somebody goes who has said nothing, and not who comes: who came first of them, with a
chance that rises from half of the places on, and for certain when there is none left. If everybody has said
something, it is the first one of the source that has most, for one whose source has less, or whoever has let
us wait longest, three seconds at least. The last quarter is for sources that are known
(fleet/known_sources.py). Who goes so owes a little, as for a hang-up.

Who owes too much (fleet/penalties.py) is not let in but for his tries, of which few are under way at once.

Source: issue "Under attack", 1; faults.md "Pre-auth limits"; OpenSSH's MaxStartups for the chance.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol as Typing

from revtunnel.fleet.access_control import AccessControl
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.networks import Network, address_of, block_of

__all__ = ["NotLetIn", "Places", "Stranger", "Strangers"]

RESERVE = 4  # see Strangers
SHARES = ((64, 1), (56, 2), (48, 4))  # of an IPv6 address: bits, and shares that all within have together
TRIES = 16  # connections at once of a source that owes too much
SLOW = 3.0  # seconds for which somebody who has said something may let us wait where places are short
SHY = 1.0  # seconds that somebody may be silent where places are left


class NotLetIn(RemoteError):
    """No place. ``reason`` is a word: "penalty", "overloaded"; ``of_source``: its source has its share.

    ``seconds``: when to come again; 0.0: nobody knows.
    """

    def __init__(self, reason: str, detail: str, of_source: bool = False, seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.of_source = of_source
        self.seconds = seconds


class Places(Typing):
    """How many there are; asked whenever somebody comes."""

    @property
    def pending(self) -> int:
        """In all."""

    @property
    def pending_per_source(self) -> int:
        """For one source."""


class _State(Enum):
    SILENT = auto()
    HEARD = auto()
    STAYS = auto()  # known to whoever let it in, and counted on
    GONE = auto()


class Stranger:
    """One place. ``give_way`` may be replaced: it is called once at most, with a sentence, and ends it."""

    __slots__ = ("_table", "blocks", "give_way", "heard_at", "is_known", "peer", "since", "speaks", "state")

    def __init__(
        self,
        table: "Strangers",
        peer: str,
        is_known: bool,
        give_way: Callable[[str], None],
        speaks: Callable[[], bool],
    ) -> None:
        self.peer = peer
        self.is_known = is_known
        self.give_way = give_way
        self.speaks = speaks
        self.state = _State.SILENT
        self.blocks: tuple[Network, ...] = ()
        self.since = self.heard_at = 0.0
        self._table = table

    def heard(self, waits: bool = False) -> None:
        """It said something; ``waits``: for us, until it is heard again."""
        self._table.becomes(self, _State.HEARD)
        self._table.listens(self, waits)

    def stays(self) -> None:
        """It goes for nobody any more, but has its place until ``leave``."""
        self._table.becomes(self, _State.STAYS)

    def leave(self) -> None:
        """It is known, or gone; later calls do nothing."""
        self._table.becomes(self, _State.GONE)


def _blocks_of(peer: str) -> tuple[tuple[Network, int], ...]:
    """The blocks that a peer is counted in, its source first, and the shares of each."""
    address = address_of(peer)
    if address is None:
        return ()
    source = block_of(address)
    if source.version == 4:
        return ((source, 1),)
    return tuple((source.supernet(new_prefix=bits), shares) for bits, shares in SHARES)


class Strangers:
    """All of them at one kind of listener. ``access`` None: nobody owes anything or is known by itself.

    ``reserve``: one place of so many is kept for known sources; 0: none is.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        places: Callable[[], Places],
        access: AccessControl | None = None,
        chance: Callable[[], float] = random.random,
        reserve: int = RESERVE,
    ) -> None:
        self._reserve = reserve
        self._seconds = seconds
        self._places = places
        self._access = access
        self._chance = chance
        self._count = Counter({False: 0, True: 0})  # those of known sources are True
        # likewise, who came first first
        self._silent: dict[bool, dict[Stranger, None]] = {False: {}, True: {}}
        self._heard: dict[Stranger, None] = {}  # who lets us wait and is not known, longest first
        self._inside: dict[Network, dict[Stranger, None]] = {}
        self._sizes = _Sizes()

    def __len__(self) -> int:
        return self._count.total()

    def enter(
        self,
        peer: str,
        give_way: Callable[[str], None],
        speaks: Callable[[], bool] = lambda: False,
        *,
        expected: int = 0,
        known: bool | None = None,
        counts: bool = True,
        judged: bool = False,
    ) -> Stranger:
        """Somebody came from ``HOST:PORT``, and has a place from now on.

        Args:
            give_way: ends the connection, because another needs its place.
            speaks: whether something has come of it that was not read yet.
            expected: connections from its address that were asked for: so many more may come.
            known: whether a device proved itself from there; None: as is remembered.
            counts: whether its source has a share, and may owe; a balancer's has and does not.
            judged: what it owes was asked already, which took a try.

        Raises:
            NotLetIn: there is no place for it.
        """
        now, access = self._seconds(), self._access
        share, owes = self._places().pending_per_source, False
        if access is not None and counts and not expected:
            refused = "" if judged else access.stranger(peer, now)
            if refused:
                raise NotLetIn("penalty", refused, seconds=access.next_try(peer, now))
            if access.penalties.refused_for(peer, now):
                share, owes = min(share, TRIES), True
        if known is None:
            known = bool(expected) or (access is not None and access.knows(peer, now))
        blocks = _blocks_of(peer) if counts else ()
        for block, shares in blocks:
            self._room_within(block, share * shares + expected, owes, now)
        stranger = Stranger(self, peer, known, give_way, speaks)
        stranger.since = now
        stranger.blocks = tuple(block for block, _ in blocks)
        self._room(stranger, expected, now)
        self._add(stranger)
        return stranger

    def make_room(self) -> bool:
        """Have one who says nothing go, for want of something else than places; False: there is none."""
        now = self._seconds()
        return self._silent_one_goes(False, now) or self._silent_one_goes(True, now)

    # -- for a Stranger

    def listens(self, stranger: Stranger, waits: bool) -> None:
        """It was heard, and has to say more, or waits for us."""
        self._heard.pop(stranger, None)
        stranger.heard_at = self._seconds()
        if stranger.state is _State.HEARD and not waits and not stranger.is_known:
            self._heard[stranger] = None

    def becomes(self, stranger: Stranger, state: _State) -> None:
        """It never becomes what it was before."""
        if state.value <= stranger.state.value:
            return
        stranger.state = state
        self._silent[stranger.is_known].pop(stranger, None)
        self._heard.pop(stranger, None)
        if state is not _State.GONE:
            return
        self._count[stranger.is_known] -= 1
        for block in stranger.blocks:
            del self._inside[block][stranger]
            if not self._inside[block]:
                del self._inside[block]
        if stranger.blocks and not stranger.is_known:
            self._sizes.change(stranger.blocks[0], -1)

    # -- inside

    def _add(self, stranger: Stranger) -> None:
        self._count[stranger.is_known] += 1
        self._silent[stranger.is_known][stranger] = None
        for block in stranger.blocks:
            self._inside.setdefault(block, {})[stranger] = None
        if stranger.blocks and not stranger.is_known:
            self._sizes.change(stranger.blocks[0], 1)

    def _room_within(self, block: Network, most: int, owes: bool, now: float) -> None:
        """See to a place within a block. NotLetIn: there is none."""
        inside = self._inside.get(block, {})
        if len(inside) < most:
            return
        for each in [*inside]:
            slow = owes and each.state is _State.HEARD and now - each.heard_at >= SLOW
            if (each.state is _State.SILENT or slow) and self._goes(each, now):
                return
        raise NotLetIn("overloaded", f"{len(inside)} from {block} are not known yet", of_source=True)

    def _room(self, newcomer: Stranger, expected: int, now: float) -> None:
        """See to a place among all. NotLetIn: there is none."""
        most = self._places().pending + expected
        count = len(self)
        is_full = count >= most
        if not newcomer.is_known:
            most -= most // self._reserve if self._reserve else 0
            count = self._count[False]
            is_full = is_full or count >= most
        if not is_full:
            self._perhaps_one_goes(2 * count / most - 1, now)
        elif not (
            self._silent_one_goes(False, now)
            or (newcomer.is_known and self._silent_one_goes(True, now))
            or self._greedy_one_goes(newcomer, now)
            or self._slow_one_goes(now)
        ):
            raise NotLetIn("overloaded", f"{len(self)} are not known yet")

    def _perhaps_one_goes(self, chance: float, now: float) -> None:
        first = next(iter(self._silent[False]), None)
        if first is not None and now - first.since >= SHY and self._chance() < chance:
            self._goes(first, now)

    def _silent_one_goes(self, known: bool, now: float) -> bool:
        """The first of them; False: all say something."""
        silent = self._silent[known]
        while silent:
            if self._goes(next(iter(silent)), now):
                return True
        return False

    def _greedy_one_goes(self, newcomer: Stranger, now: float) -> bool:
        block, size = self._sizes.greediest()
        if block is None:
            return False
        own = len(self._inside.get(newcomer.blocks[0], ())) if newcomer.blocks else 0
        if size < own + 2:
            return False
        inside = self._inside[block]
        first = next((each for each in inside if each.state is _State.HEARD and not each.is_known), None)
        return first is not None and self._goes(first, now)

    def _slow_one_goes(self, now: float) -> bool:
        first = next(iter(self._heard), None)
        return first is not None and now - first.heard_at >= SLOW and self._goes(first, now)

    def _goes(self, stranger: Stranger, now: float) -> bool:
        """Have it go, unless it has said something of late that nobody read."""
        if stranger.state is _State.SILENT and stranger.speaks():
            stranger.heard()
            return False
        what = "silent" if stranger.state is _State.SILENT else "not known"
        stranger.leave()
        if self._access is not None and stranger.blocks and not stranger.is_known:
            self._access.failed(stranger.peer, "lost", "", False, now)
        stranger.give_way(f"{what} for {now - stranger.since:.1f} s, and its place was needed")
        return True


class _Sizes:
    """Which source has most, of those that are not known."""

    def __init__(self) -> None:
        self._most = 0
        self._of: Counter[Network] = Counter()
        self._with: defaultdict[int, dict[Network, None]] = defaultdict(dict)

    def change(self, source: Network, by: int) -> None:
        """One more, or less."""
        size = self._of[source]
        self._with[size].pop(source, None)
        self._of[source] = size = size + by
        if size:
            self._with[size][source] = None
        else:
            del self._of[source]
        self._most = max(self._most, size)
        while self._most and not self._with[self._most]:
            self._most -= 1

    def greediest(self) -> tuple[Network | None, int]:
        """A source that no other has more than, and its connections."""
        return next(iter(self._with[self._most]), None), self._most
