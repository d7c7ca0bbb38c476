"""Signs of life on the assignment streams, so that hosts tell a quiet scheduler from a dead one.

Streams whose time comes at about the same moment get theirs together: in a ring of hosts each has a stream from every
other one, and a wake-up for each would cost more than all the rest that an idle host does.
"""

from __future__ import annotations

from collections import deque

import trio

from scheduler.hub import Subscription

TOGETHER = 8
"""A stream gets its sign of life earlier by this part of the time between two, if others get theirs then."""
STRIDE = 64
"""Streams that are served without letting others run."""


class Beats:
    """Gives each stream a sign of life at least every ``beat`` seconds. Run it in a nursery."""

    def __init__(self, beat: float) -> None:
        self.beat = beat
        self._due: deque[tuple[float, Subscription]] = deque()
        self._stirred = trio.Event()

    def add(self, subscription: Subscription) -> None:
        """A stream has been opened. Once it is closed it is left out by itself."""
        self._due.append((trio.current_time() + self.beat, subscription))
        self._stirred.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while not self._due:
                self._stirred = trio.Event()
                await self._stirred.wait()
            await trio.sleep_until(self._due[0][0])
            await self._give(trio.current_time())

    async def _give(self, now: float) -> None:
        count = 0
        while self._due and self._due[0][0] <= now + self.beat / TOGETHER:
            _, subscription = self._due.popleft()
            if not subscription.closed:
                subscription.beat()
                self._due.append((max(now + self.beat, self._due[-1][0] if self._due else 0.0), subscription))
            count += 1
            if count % STRIDE == 0:
                await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<Beats of {len(self._due)} streams, every {self.beat:g} s>"
