"""A watcher that keeps what it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from peer.lan.sightings import Sighting
from shared.swarm.pulse import Pulse


class Watching:
    """``here``: who is there now, by key. ``told``: everything, in order."""

    def __init__(self) -> None:
        self.here: dict[str, Sighting] = {}
        self.told: list[tuple[str, str]] = []
        self.left_out: Counter[str] = Counter()
        self._pulse = Pulse()

    def seen(self, sighting: Sighting) -> None:
        self.here[sighting.key] = sighting
        self.told.append(("seen", sighting.key))
        self._pulse.beat()

    def gone(self, source: str, key: str) -> None:
        del self.here[key]
        self.told.append(("gone", key))
        self._pulse.beat()

    def ignored(self, reason: str) -> None:
        self.left_out[reason] += 1
        self._pulse.beat()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on what was told holds. No deadline: a clock that jumps would jump to it."""
        while not condition():
            await self._pulse.wait()
