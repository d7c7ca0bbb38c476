"""A host of the swarm: what it holds, what it fetches, what it serves, and its links to schedulers.

Peers and seeders are the same thing here; they differ in their role, and in who asks them for what.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from typing import Protocol

import msgspec
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
    Parent,
    ParentsAssigned,
    PeerHolding,
    PeerLeft,
    PieceDigests,
    Report,
    SourceChecked,
    SourceFailed,
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
from shared.swarm.links import Links
from shared.swarm.links_owner import PreheatOrder
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.origin import Origin
from shared.swarm.session import Sessions
from shared.swarm.source import SourceReads
from shared.swarm.task import fresh_for
from shared.swarm.tasks import HostTasks
from shared.swarm.transfer import Connect, connect_tcp
from shared.swarm.uploads import Uploads
from shared.task.identity import TaskSpec

log = structlog.get_logger()


class PreheatTaker(Protocol):
    """Carries preheats out; see ``shared.swarm.preheats``."""

    def ordered(self, order: PreheatOrder, *, own_login: bool = False) -> None:
        """The scheduler wants something, or nothing more. Returns at once. ``own_login``: this host may show its own
        login to a registry for it."""

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
        secret_since: float = 0.0,
        keep_secret: Callable[[bytes, float], None] | None = None,
    ) -> None:
        """``clock`` gives Unix seconds. ``scope_secret``, made at ``secret_since``, is a new one where none is given;
        ``keep_secret`` keeps another one for the next start (it runs in a thread, and raises ConfigError)."""
        self.identity = identity
        """Who this host is: see :meth:`rename` and :meth:`readdress`."""
        self.scope_secret = scope_secret or secrets.token_bytes(SECRET_SIZE)
        """What scopes are derived from that nobody outside the cluster can guess: the cluster's, as soon as a
        scheduler has told it. Never shown."""
        self.secret_since = secret_since if scope_secret else clock()
        """When it was made, in Unix seconds: of two, the older one is the cluster's."""
        self.address_of: Callable[[str], str | None] = _nowhere
        """Where another host is reached from here, by its id; None: where its scheduler says."""
        self.is_near: Callable[[str], bool] = _anywhere
        """Whether HOST:PORT may be that of a parent whom ``address_of`` does not know."""
        self.own_address: Callable[[], str] = str
        """Where others reach this host, for the scheduler inside this process, which would not see it; "" as told."""
        self._keep_secret = keep_secret
        self.store = store
        self.origin = origin
        self.metrics = metrics
        self.link: Links | None = None
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
        self, link: Links | None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled; then the leases are given up and all tasks are closed."""
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

    def rename(self, new_id: str) -> None:
        """Be another host from now on, towards all schedulers."""
        self.identity = replace(self.identity, id=new_id)
        if self.link is not None:
            self.link.reopen()

    def readdress(self, *, address: str | None = None, network: str | None = None) -> None:
        """The host is reached elsewhere from now on, or stands in another subnet."""
        identity = self.identity
        address = identity.address if address is None else address
        network = identity.network if network is None else network
        if (address, network) != (identity.address, identity.network):
            self.identity = replace(identity, address=address, network=network)
            if self.link is not None:
                self.link.renew()

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

    # --- LinksOwner ------------------------------------------------------------------------------------

    def lease(self, member: str = "") -> HostLease:
        """What is announced now to the scheduler of that name."""
        own = self.own_address() if member == self.identity.id else ""
        return HostLease(
            host=self.identity.id,
            instance=self.identity.instance,
            role=self.identity.role,
            address=own or self.identity.address,
            location=self.identity.location,
            upload_slots=self._slots.slots,
            uploads=self._slots.used,
            draining=self.draining,
            schemes=self.origin.schemes(),
            preheats=self.preheats is not None,
            secret=self.scope_secret,
            secret_since=self.secret_since,
            network=self.identity.network,
        )

    async def leased(self, granted: LeaseGranted) -> None:
        """Take over the cluster's secret, if it is older than the own one, and keep it."""
        since, secret = granted.secret_since, granted.secret
        if len(secret) != SECRET_SIZE or secret == self.scope_secret or not 0 <= since < inf:
            return
        if (since, secret) >= (self.secret_since, self.scope_secret):
            return
        self.scope_secret, self.secret_since = secret, since
        if self._keep_secret is not None:
            try:
                await trio.to_thread.run_sync(self._keep_secret, secret, since)
            except ConfigError as error:
                log.warning("the cluster's secret is not kept for the next start", cause=str(error))

    async def ordered(self, order: PreheatOrder, *, own_login: bool) -> None:
        """A preheat's order."""
        if self.preheats is not None:
            self.preheats.ordered(order, own_login=own_login)

    def preheated(self) -> list[Report]:
        """All that is to be told of preheats."""
        return [] if self.preheats is None else self.preheats.reports()

    def active(self) -> Iterable[str]:
        """The tasks that are open here, or that somebody waits for."""
        return dict.fromkeys((*self.sessions, *(task.id for task in self.tasks)))

    def told(self, task_id: str) -> list[Report] | None:
        """All that is to be told of a task that is open: who waits for it, what is asked, held, and read."""
        reports = [*self.sessions.registrations(task_id), *self.freshness.questions(task_id)]
        task = self.tasks.active(task_id)
        holding = task.holding() if task is not None else None
        if holding is not None:
            return [*reports, holding, *self.reads.progress(task_id)]
        stored = self.store.get(task_id) is not None  # and about to be opened, which may take a moment
        return reports if reports or (task is not None and not stored) else None

    def stored(self) -> Iterable[str]:
        """The tasks of which something lies in the store."""
        return self.store.ids()

    async def holding(self, task_id: str) -> PeerHolding | None:
        """What lies in the store of a task; None when that is nothing."""
        digests = await self.store.digests(task_id)
        stored = self.store.get(task_id)
        if digests is None or stored is None:
            return None
        return PeerHolding(
            task=task_id,
            spec=stored.spec,
            meta=stored.meta,
            held=stored.held.to_bytes(),
            digests=digests,
            complete=stored.complete,
            fresh=self._fresh_for(stored),
            stale=stored.stale,
        )

    def spec_of(self, task_id: str) -> TaskSpec | None:
        """The spec of a task that is open or stored here."""
        task = self.tasks.active(task_id)
        if task is not None:
            return task.spec
        stored = self.store.get(task_id)
        return None if stored is None else stored.spec

    async def assigned(self, assignment: Assignment) -> None:
        """Carry out a decision of the scheduler."""
        match assignment:
            case SourceGranted():
                self._granted(assignment)
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
                    others = (p for p in assignment.parents if p.host != self.identity.id)
                    task.parents = {p.host: p for p in map(self._reached, others) if self.is_near(p.address)}
                    task.pulse.beat()
            case CheckGranted():
                self._check(assignment)
            case TaskFresh():
                self.freshness.told_fresh(assignment)
            case TaskMoved():
                self.freshness.told_moved(assignment)
            case TaskFailed():
                self.sessions.fail(assignment.task, assignment.failure, assignment.places)
            case _:
                log.debug("assignment of an unknown kind", kind=type(assignment).__name__)

    def _granted(self, granted: SourceGranted) -> None:
        """Read. A seeder does so for others; a peer only what somebody here waits for, where he wants it to be read,
        whatever a scheduler says that anybody may be."""
        if self.identity.role == "peer":
            place = self.sessions.place(granted.spec, granted.task)
            if granted.task not in self.sessions:
                self.report(PeerLeft(granted.task))
                return
            if place is None:
                failure = Failure("nobody here wants it to be read there", fault="reader")
                self.report(SourceFailed(granted.task, granted.grant, failure))
                return
            granted = msgspec.structs.replace(granted, spec=place)
        self.sessions.admitted(granted.task)
        self.reads.start(self.nursery, granted)

    def _check(self, granted: CheckGranted) -> None:
        """Ask the source; a peer only for what somebody here asks of it, as with reading."""
        if self.identity.role == "peer":
            task = self.tasks.active(granted.task)
            place = task.places.own(granted.spec) if task is not None else None
            if place is None:
                self.report(SourceChecked(granted.task, granted.grant, None))
                return
            granted = msgspec.structs.replace(granted, spec=place)
        self.freshness.check(self.nursery, granted)

    def _reached(self, parent: Parent) -> Parent:
        address = self.address_of(parent.host)
        return msgspec.structs.replace(parent, address=address) if address else parent

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


def _nowhere(host: str) -> str | None:
    return None


def _anywhere(address: str) -> bool:
    return True
