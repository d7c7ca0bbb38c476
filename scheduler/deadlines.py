"""What is due when: one time per key, the earliest first. Pure."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Deadlines(Generic[Key]):
    """A time for each key; setting it again moves it.

    Outdated heap entries are skipped when they come up and swept out when they outnumber the live ones.
    """

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: Key, when: float | None) -> None:
        """Make ``key`` due at ``when``; None: never."""
        if when is None:
            self._times.pop(key, None)
            return
        if self._times.get(key) == when:
            return
        self._times[key] = when
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, key))
        if len(self._heap) > 64 + 4 * len(self._times):
            self._heap = [entry for entry in self._heap if self._times.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest time, or None when nothing is due ever."""
        while self._heap:
            when, _, key = self._heap[0]
            if self._times.get(key) == when:
                return when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> list[Key]:
        """The keys due at ``now`` or before, earliest first; they are no longer due afterwards."""
        due: list[Key] = []
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._times[key]
            due.append(key)
        return due
