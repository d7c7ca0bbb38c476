"""Reports on their way to the scheduler: in order, batched, bounded. Pure but for the wake-up.

Consecutive reports of pieces are merged. Reports that others wait for go at once; mere progress waits
a moment for company.
"""

from __future__ import annotations

from collections import deque

import trio

from shared.protocol import ParentsWanted, PiecesHeld, Report, SourcePieces, SourceProgress
from shared.swarm.pulse import Pulse

MAX_QUEUED = 20_000
"""Beyond this many the outbox overflows: everything is dropped and told anew (see ``overflowed``)."""
BATCH_WEIGHT = 4096
"""Digests and piece numbers in one batch; more wait for the next."""
RELAXED = 0.2
"""Seconds that progress reports wait for company."""


class Outbox:
    """A queue of reports. One task takes batches, any task of the same thread adds."""

    def __init__(self) -> None:
        self._queue: deque[Report] = deque()
        self._filled = trio.Event()
        self._urgent = trio.Event()
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
        if not isinstance(report, PiecesHeld | SourceProgress | ParentsWanted):
            self._urgent.set()

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
            self._urgent = trio.Event()
            await self._filled.wait()
        if not self._urgent.is_set():
            with trio.move_on_after(RELAXED):
                await self._urgent.wait()
        self._urgent = trio.Event()
        taken: list[Report] = []
        weight = 0
        while self._queue and (not taken or weight + _weight(self._queue[0]) <= BATCH_WEIGHT):
            report = self._queue.popleft()
            weight += _weight(report)
            taken.append(report)
        self._taken.beat()
        if self._queue:
            self._urgent.set()
        return taken

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
