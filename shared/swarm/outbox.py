"""Reports on their way to the scheduler: in order, batched, bounded. Pure but for the wake-up.

Consecutive reports of pieces are merged. Reports that others wait for go at once; mere progress waits
a moment for company. Pieces read at the origin, which others wait for and which come by the dozen, go at once
after a silence, and else a few times in a tenth of a second.
"""

from __future__ import annotations

from collections import deque
from math import inf

import trio

from shared.protocol import ParentsWanted, PiecesHeld, Report, SourcePieces, SourceProgress
from shared.swarm.pulse import Pulse

MAX_QUEUED = 20_000
"""Beyond this many the outbox overflows: everything is dropped and told anew (see ``overflowed``)."""
BATCH_WEIGHT = 4096
"""Digests and piece numbers in one batch; more wait for the next."""
RELAXED = 0.2
"""Seconds that progress reports wait for company."""
PACE = 0.08
"""Seconds between batches of nothing but progress and pieces read at the origin."""


class Outbox:
    """A queue of reports. One task takes batches, any task of the same thread adds."""

    def __init__(self) -> None:
        self._queue: deque[Report] = deque()
        self._filled = trio.Event()
        self._urgent = False
        self._paced = False
        self._more = Pulse()
        self._taken_at = -inf
        self._taken = Pulse()
        self.overflowed = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, report: Report) -> None:
        """Queue a report."""
        if len(self._queue) >= MAX_QUEUED:
            self._queue.clear()
            self._taken.beat()
            self.overflowed = True
        merged = _merge(self._queue[-1], report) if self._queue else None
        if merged is not None:
            self._queue[-1] = merged
        else:
            self._queue.append(report)
        self._filled.set()
        if isinstance(report, SourcePieces):
            self._paced = True
        elif not isinstance(report, PiecesHeld | SourceProgress | ParentsWanted):
            self._urgent = True
        else:
            return
        self._more.beat()

    def clear(self) -> None:
        """Forget everything queued: all of it is going to be told anew."""
        self._queue.clear()
        self._taken.beat()
        self.overflowed = False

    async def below(self, length: int) -> None:
        """Wait until fewer than ``length`` reports are queued."""
        while len(self._queue) >= length:
            await self._taken.wait()

    async def batch(self) -> list[Report]:
        """Wait for reports and take some; at least one. Cancellation takes none."""
        while not self._queue:
            self._filled = trio.Event()
            self._urgent = self._paced = False
            await self._filled.wait()
        await self._company()
        self._urgent = self._paced = False
        self._taken_at = trio.current_time()
        taken: list[Report] = []
        weight = 0
        while self._queue and (not taken or weight + _weight(self._queue[0]) <= BATCH_WEIGHT):
            report = self._queue.popleft()
            weight += _weight(report)
            taken.append(report)
        self._taken.beat()
        self._urgent = bool(self._queue)
        return taken

    async def _company(self) -> None:
        """Wait for more reports, as long as none of those that are there must go."""
        begun = trio.current_time()
        while not self._urgent:
            until = self._taken_at + PACE if self._paced else begun + RELAXED
            if trio.current_time() >= until:
                return
            with trio.move_on_at(until):
                await self._more.wait()

    def put_back(self, batch: list[Report]) -> None:
        """A batch that could not be delivered goes first next time."""
        self._queue.extendleft(reversed(batch))
        self._filled.set()


def _weight(report: Report) -> int:
    if isinstance(report, PiecesHeld):
        return 1 + len(report.pieces) // 8
    return 1 + len(getattr(report, "digests", ()))


def _merge(last: Report, report: Report) -> Report | None:
    if isinstance(last, PiecesHeld) and isinstance(report, PiecesHeld):
        if (last.task, last.version) == (report.task, report.version) and len(last.pieces) < BATCH_WEIGHT:
            return PiecesHeld(last.task, last.version, [*last.pieces, *report.pieces])
    elif isinstance(last, SourcePieces) and isinstance(report, SourcePieces):
        same = (last.task, last.grant, last.version) == (report.task, report.grant, report.version)
        if same and len(last.digests) < BATCH_WEIGHT // 4:
            return SourcePieces(last.task, last.grant, last.version, {**last.digests, **report.digests})
    elif (
        isinstance(last, SourceProgress)
        and isinstance(report, SourceProgress)
        and (last.task, last.grant) == (report.task, report.grant)
    ):
        return report
    return None
