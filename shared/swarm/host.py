"""A host of the swarm: what it holds, what it fetches, what it serves, and its link to the scheduler.

Peers and seeders are the same thing here; they differ in their role, and in who asks them for what.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from shared.errors import ConfigError, StoreError, TaskNotFound
from shared.http.router import Router
from shared.protocol import (
    SECRET_SIZE,
    Assignment,
    CheckGranted,
    Failure,
    HostLease,
    LeaseGranted,
    ParentsAssigned,
    PeerHolding,
    PieceDigests,
    PreheatOver,
    PreheatWanted,
    Report,
    ResolveWanted,
    SourceGranted,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
    TaskFresh,
    TaskMoved,
    TaskRemoved,
)
from shared.store import Store, StoredTask
from shared.swarm.config import SwarmConfig
from shared.swarm.download import Engine
from shared.swarm.freshness import Freshness
from shared.swarm.generations import Generations
from shared.swarm.identity import HostIdentity
from shared.swarm.limits import BufferPool, TokenBucket, UploadSlots
from shared.swarm.link import SchedulerLink
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.origin import Origin
from shared.swarm.session import Sessions
from shared.swarm.source import SourceReads
from shared.swarm.task import fresh_for
from shared.swarm.tasks import HostTasks
from shared.swarm.transfer import Connect, connect_tcp
from shared.swarm.uploads import Uploads

log = structlog.get_logger()

MAX_UNTOLD = 1000
"""Reports queued at most while everything held is told anew."""


class PreheatTaker(Protocol):
    """Carries preheats out; see ``shared.swarm.preheats``."""

    def ordered(self, order: ResolveWanted | PreheatWanted | PreheatOver) -> None:
        """The scheduler wants something, or nothing more. Returns at once."""

    def reports(self) -> list[Report]:
        """All that the scheduler has to know, if it was not heard."""


class Host:
    """Everything of one host but its listeners. Run it in a nursery of its caller's."""

    def __init__(
        self,
        identity: HostIdentity,
        store: Store,
        origin: Origin,
        config: SwarmConfig,
        metrics: SwarmMetrics,
        *,
        connect: Connect = connect_tcp,
        clock: Callable[[], float] = time.time,
        scope_secret: bytes = b"",
        keep_secret: Callable[[bytes], None] | None = None,
    ) -> None:
        """``clock`` gives Unix seconds. ``scope_secret`` is a new one where none is given; ``keep_secret`` keeps
        another one for the next start (it runs in a thread, and raises ConfigError)."""
        self.identity = identity
        self.scope_secret = scope_secret or secrets.token_bytes(SECRET_SIZE)
        """What scopes are derived from that nobody outside the cluster can guess: the cluster's, as soon as the
        scheduler has told it. Never shown."""
        self._keep_secret = keep_secret
        self.store = store
        self.origin = origin
        self.metrics = metrics
        self.link: SchedulerLink | None = None
        self.preheats: PreheatTaker | None = None
        """Who carries preheats out, if this host does; to be set before the host runs."""
        self.draining = False
        self._clock = clock
        self._slots = UploadSlots(config.upload_slots)
        self._nursery: trio.Nursery | None = None
        download_bucket = TokenBucket(config.download_rate)
        buffers = BufferPool(config.buffer_memory)
        self.tasks = HostTasks(store, self, metrics, linger=config.linger, clock=clock)
        self.engine = Engine(
            config, buffers, download_bucket, metrics, self, connect, random.Random(identity.id)
        )
        self.reads = SourceReads(self.tasks, origin, self, metrics, download_bucket)
        self.sessions = Sessions(self, origin)
        self.generations = Generations(store)
        self.freshness = Freshness(self, origin, clock=clock)
        self._uploads = Uploads(self.tasks, self._slots, TokenBucket(config.upload_rate), metrics)
        store.on_removed.append(lambda task_id: self.report(TaskRemoved(task_id)))
        store.on_pressure.append(lambda: self.tasks.close_idle(0))
        metrics.gauge("dragonet_upload_slots_used", "Upload slots in use.", lambda: self._slots.used)
        metrics.gauge("dragonet_source_reads_running", "Origin reads under way.", lambda: self.reads.running)
        metrics.gauge("dragonet_downloads_running", "Tasks being downloaded.", lambda: len(self.sessions))
        metrics.gauge("dragonet_store_bytes", "Bytes held in the store.", lambda: store.statistics().used)
        metrics.gauge("dragonet_store_tasks", "Tasks in the store.", lambda: store.statistics().tasks)

    def add_routes(self, router: Router) -> None:
        """Mount the data protocol, which serves other hosts."""
        self._uploads.add_routes(router)

    async def run(
        self, link: SchedulerLink | None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled; then the lease is given up and all tasks are closed."""
        self.link = link
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._close_idle)
                if link is not None:
                    nursery.start_soon(link.run)
                task_status.started()
        finally:
            self._nursery = None
            if link is not None:
                await link.leave()
            with trio.CancelScope(shield=True):
                await self.tasks.aclose()

    @property
    def nursery(self) -> trio.Nursery:
        """Where the host's tasks live. Raises RuntimeError when the host does not run."""
        if self._nursery is None:
            raise RuntimeError("the host does not run")
        return self._nursery

    async def remove(self, task_id: str) -> None:
        """Remove a task's content; downloads of it fail. Raises TaskNotFound."""
        active = self.tasks.active(task_id)
        if active is None and self.store.get(task_id) is None:
            raise TaskNotFound("this host holds nothing of the task")
        self.sessions.fail(task_id, Failure("the task was removed on this host", fault="request"))
        await self.tasks.forget(task_id)
        if self.store.get(task_id) is not None:
            await self.store.remove(task_id)

    # --- Reporter --------------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """Tell the scheduler, if there is one."""
        if self.link is not None:
            self.link.report(report)

    # --- LinkOwner -------------------------------------------------------------------------------------

    def lease(self) -> HostLease:
        """What is announced to the scheduler now."""
        return HostLease(
            host=self.identity.id,
            instance=self.identity.instance,
            role=self.identity.role,
            address=self.identity.address,
            location=self.identity.location,
            upload_slots=self._slots.slots,
            uploads=self._slots.used,
            draining=self.draining,
            resuming=self.link is not None and bool(self.link.scheduler),
            schemes=self.origin.schemes(),
            preheats=self.preheats is not None,
            secret=self.scope_secret,
        )

    async def leased(self, granted: LeaseGranted) -> None:
        """Take over the cluster's secret, and keep it."""
        if len(granted.secret) != SECRET_SIZE or granted.secret == self.scope_secret:
            return
        self.scope_secret = granted.secret
        if self._keep_secret is not None:
            try:
                await trio.to_thread.run_sync(self._keep_secret, granted.secret)
            except ConfigError as error:
                log.warning("the cluster's secret is not kept for the next start", cause=str(error))

    async def tell_anew(self, full: bool) -> None:
        """Queue the reports that rebuild the scheduler's knowledge of this host."""
        for report in self.sessions.registrations() + self.freshness.questions():
            self.report(report)
        for report in self.preheats.reports() if self.preheats is not None else ():
            self.report(report)
        told = set()
        for task in self.tasks:
            holding = task.holding()
            if holding is not None:
                told.add(task.id)
                self.report(holding)
        if not full:
            return
        for stored in self.store.tasks():
            if stored.task_id in told:
                continue
            if self.link is not None:
                await self.link.outbox.below(MAX_UNTOLD)
            digests = await self.store.digests(stored.task_id)
            if digests is not None:
                self.report(
                    PeerHolding(
                        task=stored.task_id,
                        spec=stored.spec,
                        meta=stored.meta,
                        held=stored.held.to_bytes(),
                        digests=digests,
                        complete=stored.complete,
                        fresh=self._fresh_for(stored),
                        stale=stored.stale,
                    )
                )

    async def assigned(self, assignment: Assignment) -> None:
        """Carry out a decision of the scheduler."""
        match assignment:
            case SourceGranted():
                self.sessions.admitted(assignment.task)
                self.reads.start(self.nursery, assignment)
            case SourceRevoked():
                self.reads.revoke(assignment.grant)
            case TaskDescribed():
                self.sessions.admitted(assignment.task)
                await self._described(assignment)
            case PieceDigests():
                task = self.tasks.active(assignment.task)
                if task is not None:
                    task.learn(assignment.version, assignment.digests)
            case ParentsAssigned():
                self.sessions.admitted(assignment.task)
                task = self.tasks.active(assignment.task)
                if task is not None:
                    task.parents = {p.host: p for p in assignment.parents if p.host != self.identity.id}
                    task.pulse.beat()
            case CheckGranted():
                self.freshness.check(self.nursery, assignment)
            case TaskFresh():
                self.freshness.told_fresh(assignment)
            case TaskMoved():
                self.freshness.told_moved(assignment)
            case TaskFailed():
                self.sessions.fail(assignment.task, assignment.failure, assignment.places)
            case ResolveWanted() | PreheatWanted() | PreheatOver():
                if self.preheats is not None:
                    self.preheats.ordered(assignment)
            case _:
                log.debug("assignment of an unknown kind", kind=type(assignment).__name__)

    async def _described(self, described: TaskDescribed) -> None:
        task = self.tasks.active(described.task)
        if task is not None and (task.users or task.outputs):
            try:
                await task.adopt(described.meta)
            except StoreError as error:
                self.sessions.store_failed(described.task, error)
            return
        stored = self.store.get(described.task)
        if stored is not None and stored.meta.version != described.meta.version:
            log.info("dropping an old version", task=described.task)
            await self.tasks.forget(described.task)
            await self.store.remove(described.task)

    def _fresh_for(self, stored: StoredTask) -> float:
        if stored.meta.revalidate is None:
            return 0.0
        return fresh_for(stored.meta, stored.validated, self._clock())

    async def _close_idle(self) -> None:
        while True:
            await trio.sleep(self.engine.config.linger / 2 + 0.5)
            await self.tasks.close_idle()
            if not len(self.sessions):
                self.engine.buffers.trim()

    def __repr__(self) -> str:
        return f"<Host {self.identity.id} {self.identity.role} at {self.identity.address}>"
