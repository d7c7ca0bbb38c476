"""A task is brought here from its parents: which piece is asked of whom is decided on this page.

One :class:`ParentWorker` per assigned parent keeps a pipelined connection busy; received pieces are
verified and stored by tasks of their own, so a connection never waits for the disk until the memory
for pieces runs out. The rules are pure and lie in ``picker`` and ``pace``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import trio

from shared.errors import StoreError
from shared.protocol import ParentsWanted
from shared.swarm.asking import Asking, Wish
from shared.swarm.config import SwarmConfig
from shared.swarm.limits import BufferPool, TokenBucket
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.parent import ParentWorker
from shared.swarm.task import HostTask, Reporter
from shared.swarm.transfer import Connect
from shared.task.bitmap import Bitmap

ENDGAME_PATIENCE = 0.75
"""Seconds after which an answer still owed may be asked of a second parent, when nothing else is left."""
SLOW_BORDER = 512 * 1024
"""Bytes per second that come from another zone, as long as nothing has been measured."""
HUNGER = 2.0
"""Seconds without any useful parent after which the scheduler is asked for others."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What all downloads of a host share."""

    config: SwarmConfig
    buffers: BufferPool
    download_bucket: TokenBucket
    metrics: SwarmMetrics
    reporter: Reporter
    connect: Connect
    rng: random.Random


class Download:
    """Fetches one task from its parents until it is complete, has failed, or nobody wants it.

    ``limits`` are the per-task rate limits of those who wait; the fastest of them counts.
    """

    def __init__(self, task: HostTask, engine: Engine) -> None:
        self.task = task
        self.engine = engine
        self.limit = TokenBucket(0)
        self.error: StoreError | None = None
        self.banned: set[str] = set()
        self._workers: dict[str, ParentWorker] = {}
        self._asking = Asking(engine.config, engine.rng)
        self._version = ""
        self._missing = Bitmap()
        self._nursery: trio.Nursery | None = None

    @property
    def parents(self) -> int:
        """Parents that can give something now."""
        return sum(1 for worker in self._workers.values() if worker.held)

    async def run(self) -> None:
        """Until the task is complete or failed, or storing failed (``error``). Cancel it when unwanted."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._ask_for_parents)
            while not (self.task.complete or self.task.failure or self.error):
                self._follow_assignment(nursery)
                self._tell_workers()
                await self.task.pulse.wait()
            nursery.cancel_scope.cancel()

    # --- for the workers ---------------------------------------------------------------------------

    def pick(self, worker: ParentWorker) -> int | None:
        """The piece to request from this worker's parent now, marked as requested; None: nothing."""
        now = trio.current_time()
        task = self.task
        wish = Wish(task.missing(), task.cursors.urgent(now), task.digested, task.held)
        others = [w for w in self._workers.values() if w is not worker]
        return self._asking.pick(worker, others, wish, now, self._endgame_patience(worker))

    def settled(self, number: int) -> None:
        """A request ended: the piece is stored, or must be asked for again."""
        self._asking.settled(number)
        stored = number in self.task.held
        for worker in self._workers.values():
            if stored:
                worker.supersede(number)
            else:
                worker.look()

    def store_failed(self, error: StoreError) -> None:
        """Pieces cannot be stored: the download ends with this error."""
        self.error = error
        self.task.pulse.beat()

    async def throttle(self, size: int) -> None:
        """Wait until ``size`` bytes may be received."""
        await self.engine.download_bucket.take(size)
        await self.limit.take(size)

    # --- inside --------------------------------------------------------------------------------------

    def _follow_assignment(self, nursery: trio.Nursery) -> None:
        meta = self.task.meta
        if meta is None:
            return
        if meta.version != self._version:
            self._version = meta.version
            for outdated in self._workers.values():
                outdated.cancel()
            self.banned.clear()
            self._asking.begin_again()
        for host, parent in self.task.parents.items():
            worker = self._workers.get(host)
            if worker is not None and worker.parent.address == parent.address and not worker.cancelled:
                worker.update(parent)
            elif host not in self.banned:
                if worker is not None:
                    worker.cancel()
                fresh = self._workers[host] = ParentWorker(self, parent, meta.version)
                nursery.start_soon(self._run_worker, fresh, nursery)
        for host, running in self._workers.items():
            if host not in self.task.parents:
                running.cancel()

    def _tell_workers(self) -> None:
        missing, before = self.task.missing(), self._missing
        self._missing = missing
        if missing - before:
            for worker in self._workers.values():
                worker.look()

    async def _run_worker(self, worker: ParentWorker, nursery: trio.Nursery) -> None:
        try:
            await worker.run(nursery)
        finally:
            if self._workers.get(worker.parent.host) is worker:
                del self._workers[worker.parent.host]
            self.task.pulse.beat()

    async def _ask_for_parents(self) -> None:
        while True:
            await trio.sleep(HUNGER)
            missing = self.task.missing() - Bitmap(self._asking.requested)
            if missing and not any(w.held & missing for w in self._workers.values()):
                self.engine.reporter.report(ParentsWanted(self.task.id))
            self.task.pulse.beat()  # a worker that ended on its own is started again if still assigned

    def _endgame_patience(self, worker: ParentWorker) -> float:
        meta = self.task.meta
        typical = worker.pace.seconds_per_byte
        if meta is None:
            return ENDGAME_PATIENCE
        if typical is None:
            return meta.piece_length / SLOW_BORDER if worker.parent.far else ENDGAME_PATIENCE
        return max(ENDGAME_PATIENCE, 3 * typical * meta.piece_length)

    def __repr__(self) -> str:
        requested = len(self._asking.requested)
        return f"<Download {self.task!r} from {len(self._workers)} parents, {requested} requested>"
