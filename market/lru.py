"""A mapping bounded by count and by weight that forgets what was asked for longest ago."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRU(Generic[K, V]):
    """At most *max_count* entries that together weigh at most *max_weight*.

    The unit of weight is the caller's. An entry heavier than all the room there is is not kept.
    """

    def __init__(self, *, max_count: int, max_weight: int = 2**62) -> None:
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._max_count = max_count
        self._max_weight = max_weight
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return what *key* holds and count that as a use of it."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def pop(self, key: K) -> V | None:
        """Forget *key* and return what it held."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.weight -= entry[1]
        return entry[0]

    def put(self, key: K, value: V, *, weight: int = 1) -> None:
        """Keep *value* under *key*, at the cost of the least recently used entries."""
        self.pop(key)
        if weight > self._max_weight:
            return
        self._entries[key] = (value, weight)
        self.weight += weight
        while len(self._entries) > self._max_count or self.weight > self._max_weight:
            _, (_, freed) = self._entries.popitem(last=False)
            self.weight -= freed
