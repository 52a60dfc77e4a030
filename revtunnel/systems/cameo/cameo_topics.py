"""Who gets a publication: subscriptions as prefixes of its topic, one set for each subscriber.

Rule of this file: a subscription is there or not, it is not counted; the subscriber counts. The publishers
hear of a prefix when its first subscriber comes and when its last one goes. Looking a topic up costs one
dictionary access for each length that prefixes have, and one in all when the topic came before.

Source: wire/cameo.md section 5 (XPUB/XSUB); faults.md Z6, Z7.
"""

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from revtunnel.ground.errors import RemoteError

__all__ = ["Topics"]

REMEMBERED = 4096  # topics whose subscribers are remembered, until a subscription changes
LONGEST_REMEMBERED = 1024  # bytes of such a topic

Subscriber = TypeVar("Subscriber", bound=Hashable)


class Topics(Generic[Subscriber]):
    """All subscriptions of a relay.

    Args:
        most: prefixes that one subscriber may have.
        longest: bytes of a prefix.
    """

    def __init__(self, most: int, longest: int) -> None:
        self.most = most
        self.longest = longest
        self._subscribers: dict[bytes, dict[Subscriber, None]] = {}
        self._prefixes: dict[Subscriber, dict[bytes, None]] = {}
        self._lengths: Counter[int] = Counter()
        self._sorted: list[int] = []
        self._remembered: dict[bytes, tuple[Subscriber, ...]] = {}

    def __iter__(self) -> Iterator[bytes]:
        """Every prefix that somebody wants, in the order in which they came."""
        return iter(self._subscribers)

    def __len__(self) -> int:
        return len(self._subscribers)

    def of(self, subscriber: Subscriber) -> list[bytes]:
        """What one subscriber wants."""
        return list(self._prefixes.get(subscriber, ()))

    def count(self, subscriber: Subscriber) -> int:
        """How many one subscriber wants."""
        return len(self._prefixes.get(subscriber, ()))

    def has(self, subscriber: Subscriber, prefix: bytes) -> bool:
        """Whether one subscriber wants this prefix, as such."""
        return prefix in self._prefixes.get(subscriber, ())

    def subscribe(self, subscriber: Subscriber, prefix: bytes) -> bool:
        """Add a subscription; whether it is the first one of this prefix.

        Raises:
            RemoteError: the prefix is too long, or the subscriber has as many as it may have.
        """
        own = self._prefixes.setdefault(subscriber, {})
        if prefix in own:
            return False
        if len(prefix) > self.longest:
            raise RemoteError(f"topic of {len(prefix)} bytes, limit {self.longest}")
        if len(own) >= self.most:
            raise RemoteError(f"more than {self.most} topics")
        own[prefix] = None
        self._remembered.clear()
        others = self._subscribers.setdefault(prefix, {})
        others[subscriber] = None
        if len(others) > 1:
            return False
        self._lengths[len(prefix)] += 1
        self._sort()
        return True

    def cancel(self, subscriber: Subscriber, prefix: bytes) -> bool:
        """Take a subscription away, if it is there; whether it was the last one of this prefix."""
        own = self._prefixes.get(subscriber, {})
        if prefix not in own:
            return False
        del own[prefix]
        return self._remove(subscriber, prefix)

    def leave(self, subscriber: Subscriber) -> list[bytes]:
        """The subscriber is gone; the prefixes that nobody wants any more."""
        return [prefix for prefix in self._prefixes.pop(subscriber, ()) if self._remove(subscriber, prefix)]

    def match(self, topic: bytes) -> tuple[Subscriber, ...]:
        """Everybody who wants this topic, each once."""
        found = self._remembered.get(topic)
        if found is None:
            found = self._look_up(topic)
            if len(topic) <= LONGEST_REMEMBERED:
                if len(self._remembered) >= REMEMBERED:
                    self._remembered.clear()
                self._remembered[topic] = found
        return found

    def _look_up(self, topic: bytes) -> tuple[Subscriber, ...]:
        found: dict[Subscriber, None] = {}
        for length in self._sorted:
            if length > len(topic):
                break
            found |= self._subscribers.get(topic[:length], {})
        return tuple(found)

    def _remove(self, subscriber: Subscriber, prefix: bytes) -> bool:
        self._remembered.clear()
        others = self._subscribers[prefix]
        del others[subscriber]
        if others:
            return False
        del self._subscribers[prefix]
        self._lengths[len(prefix)] -= 1
        if not self._lengths[len(prefix)]:
            del self._lengths[len(prefix)]
            self._sort()
        return True

    def _sort(self) -> None:
        if len(self._sorted) != len(self._lengths):
            self._sorted = sorted(self._lengths)
