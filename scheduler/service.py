"""The running scheduler: the pure state, the clock, the assignment streams, the routes.

It holds no files: its knowledge is rebuilt from what hosts report. The listener belongs to the role shell.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable
from math import inf
from time import perf_counter

import structlog
import trio
from prometheus_client import CollectorRegistry

from scheduler.api import SchedulerApi
from scheduler.beats import Beats
from scheduler.cluster import Decision
from scheduler.config import SchedulerConfig
from scheduler.errors import PreheatsRefused, SameHost
from scheduler.harbor_api import HarborApi
from scheduler.hub import Hub, Subscription, as_frame, as_line
from scheduler.metrics import SchedulerMetrics
from scheduler.preheat_api import Doorkeeper, PreheatApi
from scheduler.preheats import Job, PreheatOrder
from scheduler.standstill import AwakeClock
from scheduler.state import ClusterState, Statistics
from shared.http.router import Router
from shared.protocol import SECRET_SIZE, HostLease, LeaseGranted, Reports, ReportsTaken

log = structlog.get_logger()

MAX_TOLD = 256
"""Pairs of hosts with the same id that are remembered as told of."""


class SchedulerService:
    """One scheduler. Mount its routes, and run it in a nursery.

    ``name`` tells hosts that a scheduler is another one than before; by default it is new for each start.
    ``on_lease`` are called for each lease that is granted. ``refuse_preheats`` says in a sentence why preheats are
    not taken now, "" when they are.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        registry: CollectorRegistry,
        *,
        name: str = "",
        rng: random.Random | None = None,
        on_lease: Callable[[HostLease], None] | None = None,
    ) -> None:
        self.config = config
        self.rng = rng or random.SystemRandom()
        self.name = name or f"scheduler-{random.SystemRandom().getrandbits(64):016x}"
        self.beat = config.beat
        self.on_lease = [] if on_lease is None else [on_lease]
        self.refuse_preheats: Callable[[], str] = str
        self.quiet = False
        """Whether hosts that come and go are told at debug level only: somebody else tells of them."""
        self.metrics = SchedulerMetrics(registry)
        self.metrics.watch(self.statistics)
        self._hub = Hub(limit=config.stream_queue)
        self._beats = Beats(config.beat)
        self._clock = AwakeClock()
        self._state: ClusterState | None = None
        self._told_same: set[tuple[str, str]] = set()
        self._woken = trio.Event()
        self._sleeping_until = inf

    @property
    def state(self) -> ClusterState:
        """What is known and decided. Its time begins with the first use, inside trio."""
        if self._state is None:
            self._state = ClusterState(
                self.config,
                now=self._clock.now(),
                rng=self.rng,
                name=self.name,
                wall=time.time(),
                secret=secrets.token_bytes(SECRET_SIZE),
            )
        return self._state

    def routes(self, router: Router) -> None:
        """Mount the control protocol and the listings (see ``scheduler.api``), and the APIs for preheats."""
        SchedulerApi(self).add_routes(router)
        doorkeeper = Doorkeeper(self.config.preheat_token)
        PreheatApi(self, doorkeeper).add_routes(router)
        HarborApi(self, doorkeeper).add_routes(router)

    def control_routes(self, router: Router) -> None:
        """Mount the control protocol alone, for a listener that anybody of the network reaches."""
        SchedulerApi(self).add_control_routes(router)

    def statistics(self) -> Statistics:
        """Numbers of the state."""
        return self.state.statistics()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what time alone brings, until cancelled; then all assignment streams are ended."""
        state = self.state
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beats.run)
                nursery.start_soon(self._clock.run)
                task_status.started()
                while True:
                    self._woken = trio.Event()
                    due = state.next_deadline()
                    self._sleeping_until = inf if due is None else due
                    with trio.move_on_at(self._clock.at(self._sleeping_until)):
                        await self._woken.wait()
                    if self._sleeping_until <= self._clock.now():
                        self._tick()
        finally:
            self._sleeping_until = inf
            self._hub.close_all()

    # --- events --------------------------------------------------------------------------------------

    def renew(self, lease: HostLease, source: str = "") -> LeaseGranted:
        """A host announces itself, from an IP address. Raises TooManyHosts, SameHost."""
        began = perf_counter()
        try:
            granted, decisions = self.state.renew(lease, self._clock.now(), source)
        except SameHost as error:
            self._refused(lease, source, error)
            raise
        if not granted.known:
            tell = log.debug if self.quiet else log.info
            tell("host has come", host=lease.host, role=lease.role, address=lease.address)
            self._hub.close_host(lease.host)
        self._deliver(decisions, began)
        for told in self.on_lease:
            told(lease)
        return granted

    def leave(self, host: str) -> None:
        """A host gives up its lease, or is known to be gone; harmless when it has none.

        It is forgotten at once, with all that it held and read. When it is there after all, it gets another lease
        and tells everything anew.
        """
        if self.state.knows(host):
            began = perf_counter()
            (log.debug if self.quiet else log.info)("host has left", host=host)
            self._deliver(self.state.leave(host, self._clock.now()), began)
            self._hub.close_host(host)

    def report(self, host: str, reports: Reports) -> ReportsTaken:
        """A batch of reports."""
        began = perf_counter()
        taken, decisions = self.state.report(host, reports, self._clock.now())
        self._deliver(decisions, began)
        return taken

    def subscribe(self, host: str, *, json: bool) -> Subscription:
        """The host (which has a lease) opens its assignment stream; an older one is ended."""
        began = perf_counter()
        subscription = self._hub.open(host, as_line if json else as_frame)
        self._beats.add(subscription)
        self._deliver(self.state.stream_opened(host, subscription.number, self._clock.now()), began)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """An assignment stream has ended."""
        self._hub.close(subscription)
        self._closed(subscription)

    def preheat(self, order: PreheatOrder) -> Job:
        """Content is to be brought to hosts. Raises TooManyPreheats, PreheatsRefused."""
        refusal = self.refuse_preheats()
        if refusal:
            raise PreheatsRefused(refusal)
        began = perf_counter()
        job, decisions = self.state.preheat(order, self._clock.now())
        log.info("preheat ordered", preheat=job.id, what=job.shown, to=str(job.targets))
        self._deliver(decisions, began)
        return job

    def cancel_preheat(self, job: Job) -> None:
        """Nothing more is done for a preheat; harmless when it is over."""
        began = perf_counter()
        self._deliver(self.state.cancel_preheat(job, self._clock.now()), began)

    # --- inside --------------------------------------------------------------------------------------

    def _refused(self, lease: HostLease, source: str, error: SameHost) -> None:
        """Say that two hosts have the same id: once for each pair, it goes on for as long as nobody does anything."""
        pair = (lease.host, source)
        if pair in self._told_same:
            log.debug("a lease was refused", host=lease.host, source=source)
            return
        if len(self._told_same) >= MAX_TOLD:
            self._told_same.clear()
        self._told_same.add(pair)
        log.warning("a lease was refused", host=lease.host, source=source, cause=str(error))

    def _tick(self) -> None:
        began = perf_counter()
        decisions, expired = self.state.tick(self._clock.now())
        for host in expired:
            log.warning("host is gone: its lease has run out", host=host)
            self._hub.close_host(host)
        self._deliver(decisions, began)

    def _closed(self, subscription: Subscription) -> None:
        began = perf_counter()
        decisions = self.state.stream_closed(subscription.host, subscription.number, self._clock.now())
        self._deliver(decisions, began)

    def _deliver(self, decisions: Iterable[Decision], began: float) -> None:
        """Queue decisions for their hosts, and have the ticking task look at its clock."""
        for overflowed in self._hub.send(decisions):
            log.warning("an assignment stream is too slow and was closed", host=overflowed.host)
            self.metrics.stream_overflows.inc()
            self._closed(overflowed)
        self.metrics.decision_seconds.observe(perf_counter() - began)
        due = self.state.next_deadline()
        if due is not None and due < self._sleeping_until:
            self._woken.set()

    def __repr__(self) -> str:
        return f"<SchedulerService {self.name}, {len(self._hub)} streams>"
