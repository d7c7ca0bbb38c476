"""The scheduler's decisions, without any I/O: events with their time in, decisions for hosts out.

Every method takes ``now`` (seconds of any steady clock, never going back) and gives decisions as
``(host, assignment)`` pairs, to be delivered in order; a host without an assignment stream gets none, and
all that it missed once its stream is open. Between events, call :meth:`ClusterState.tick` when
:meth:`ClusterState.next_deadline` has come.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from scheduler import preheating, revalidation
from scheduler.cluster import Cluster, Decision, Tally
from scheduler.config import SchedulerConfig
from scheduler.errors import SameHost
from scheduler.granting import send_grant, take_back
from scheduler.parenting import assign
from scheduler.preheats import Job, PreheatOrder
from scheduler.reports import apply
from scheduler.sourcing import review
from scheduler.tasks import PeerState, Task
from shared.protocol import HostLease, LeaseGranted, Reports, ReportsTaken

FIRST_LEASE = 10.0
"""Seconds that a host's first lease is said to last at most: it renews soon, and hears what others told meanwhile."""

SHORTEST_WAIT = 0.001
"""Seconds that lie at least between two looks at a task without an event."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers for the metrics."""

    peers: int
    seeders: int
    tasks: int
    waiting: int
    grants: int
    tally: Tally


class ClusterState:
    """All that one scheduler knows and decides."""

    def __init__(
        self,
        config: SchedulerConfig,
        *,
        now: float,
        rng: random.Random,
        name: str = "scheduler",
        wall: float = 0.0,
        secret: bytes = b"",
    ) -> None:
        """``wall`` is what ``now`` is in Unix seconds; ``secret`` becomes the cluster's where no host has one."""
        self.config = config
        self.name = name
        self.cluster = Cluster(config, now=now, rng=rng, wall=wall)
        self._new_secret = secret

    # --- hosts ---------------------------------------------------------------------------------------

    def renew(self, lease: HostLease, now: float, source: str = "") -> tuple[LeaseGranted, list[Decision]]:
        """A host announces itself, from the IP address ``source`` where that is known.

        ``known`` is False when nothing is known of what this process holds. Raises TooManyHosts, SameHost.
        """
        cluster = self.cluster
        other = cluster.leases.other(lease, source, now)
        if other is not None:
            cluster.tally.same_host += 1
            raise SameHost(
                f"the host id {lease.host} is that of another process too, which is here at {other.source}: two "
                "hosts have copies of one data folder; remove the file host-id from the folder of one of them, and "
                "start that one again"
            )
        present = cluster.present(lease.host)
        if present is not None and present.lease.instance != lease.instance:
            self._forget(lease.host)
        before = cluster.leases.renew(lease, now, source)
        self._learn_secret(lease, now)
        if before is None:
            if lease.resuming and now < cluster.started + self.config.settle:
                cluster.resumed = True
        elif before.draining != lease.draining or before.address != lease.address or _moved(before, lease):
            for task, peer in cluster.tasks_of(lease.host):
                if _moved(before, lease):
                    task.zones_changed()
                    task.dirty.update(task.waiting)
                if peer.host in task.holders:
                    cluster.lost_parent(task, lease.host)
                    if before.draining and not lease.draining:
                        cluster.gained_parent(task, lease.host)
                cluster.touch(task)
            self._look_for_readers()
        granted = LeaseGranted(
            self.name,
            self.config.lease if before is not None else min(self.config.lease, FIRST_LEASE),
            known=before is not None,
            secret=cluster.secret,
            secret_since=cluster.secret_since,
            beat=self.config.beat,
        )
        return granted, self._conclude(now)

    def _learn_secret(self, lease: HostLease, now: float) -> None:
        """The oldest secret that a host tells is the cluster's, so that schedulers need not agree on one; where
        the first host has none, this scheduler's own."""
        cluster = self.cluster
        known = [(cluster.secret_since, cluster.secret)] if cluster.secret else []
        told = [(lease.secret_since, lease.secret)] if lease.secret else []
        own = [(cluster.wall(now), self._new_secret)] if self._new_secret else []
        if known or told or own:
            cluster.secret_since, cluster.secret = min(known + told or own)

    def leave(self, host: str, now: float) -> list[Decision]:
        """A host gives its lease up."""
        self._forget(host)
        preheating.gone(self.cluster, host, "has left the cluster", now, for_good=False)
        return self._conclude(now)

    def knows(self, host: str, instance: str | None = None) -> bool:
        """Whether the host (of this instance) has a lease."""
        present = self.cluster.present(host)
        return present is not None and (instance is None or present.lease.instance == instance)

    def stream_opened(self, host: str, stream: int, now: float) -> list[Decision]:
        """The host's assignment stream number ``stream`` is open, and replaces an older one.

        All that the host is to know is decided anew. Raises KeyError for a host without a lease.
        """
        cluster = self.cluster
        present = cluster.present(host)
        if present is None:
            raise KeyError(host)
        was_lost = cluster.leases.stream_opened(present, stream)
        for task, peer in list(cluster.tasks_of(host)):
            cluster.tell_refused(task, peer)
            if peer.state is PeerState.WAITING:
                cluster.describe_to(task, host)
                cluster.set_parents(peer, None)
                task.dirty.add(host)
            for grant in task.grants.values():
                if grant.host == host and cluster.is_own_grant(grant.id):
                    send_grant(cluster, task, grant)
            if was_lost:
                task.zones_changed()
                if host in task.holders:
                    cluster.gained_parent(task, host)
            if task.waiting or task.grants or not task.peers:
                cluster.touch(task)
        revalidation.grant_again(cluster, host)
        preheating.heard(cluster, host, now)
        self._look_for_readers()
        return self._conclude(now)

    def stream_closed(self, host: str, stream: int, now: float) -> list[Decision]:
        """An assignment stream ended. The host is lost in a while unless it opens another."""
        present = self.cluster.present(host)
        if present is not None:
            self.cluster.leases.stream_closed(present, stream, now)
        return self._conclude(now)

    # --- reports -------------------------------------------------------------------------------------

    def report(self, host: str, reports: Reports, now: float) -> tuple[ReportsTaken, list[Decision]]:
        """A batch of reports. Nothing is taken from a host or instance without a lease."""
        if not self.knows(host, reports.instance):
            return ReportsTaken(known=False), []
        for item in reports.items:
            apply(self.cluster, host, item, now)
        return ReportsTaken(known=True), self._conclude(now)

    # --- preheats ------------------------------------------------------------------------------------

    def preheat(self, order: PreheatOrder, now: float) -> tuple[Job, list[Decision]]:
        """Content is to be brought to hosts. Raises TooManyPreheats."""
        job = preheating.begin(self.cluster, order, now)
        return job, self._conclude(now)

    def cancel_preheat(self, job: Job, now: float) -> list[Decision]:
        """Nothing more is done for a preheat; harmless when it is over."""
        preheating.cancel(self.cluster, job, now)
        return self._conclude(now)

    # --- time ----------------------------------------------------------------------------------------

    def tick(self, now: float) -> tuple[list[Decision], list[str]]:
        """What time alone brings: (decisions, hosts whose lease has run out)."""
        cluster = self.cluster
        expired = []
        for host, change in cluster.leases.due(now):
            if change == "expired":
                expired.append(host)
                self._forget(host)
                preheating.gone(cluster, host, "was lost", now, for_good=True)
            else:
                preheating.lost(cluster, host, now)
                for task, _ in cluster.tasks_of(host):
                    task.zones_changed()
                    cluster.lost_parent(task, host)
                    if task.waiting or task.grants:
                        cluster.touch(task)
        for task_id in cluster.deadlines.pop_due(now):
            task_due = cluster.tasks.get(task_id)
            if task_due is not None:
                cluster.touch(task_due, review=task_due.review_at is not None and task_due.review_at <= now)
        due = cluster.preheats.next_deadline()
        if due is not None and due <= now:
            preheating.review_all(cluster, now)
        return self._conclude(now), expired

    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do next; None: not before another event."""
        cluster = self.cluster
        times = (cluster.leases.next_deadline(), cluster.deadlines.next(), cluster.preheats.next_deadline())
        return min((time for time in times if time is not None), default=None)

    # --- looking -------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Numbers for the metrics; goes through all tasks."""
        cluster = self.cluster
        seeders = sum(host.lease.role == "seeder" for host in cluster.leases.hosts())
        return Statistics(
            peers=len(cluster.leases) - seeders,
            seeders=seeders,
            tasks=len(cluster.tasks),
            waiting=sum(len(task.waiting) for task in cluster.tasks.values()),
            grants=sum(len(task.grants) for task in cluster.tasks.values()),
            tally=cluster.tally,
        )

    # --- inside --------------------------------------------------------------------------------------

    def _forget(self, host: str) -> None:
        cluster = self.cluster
        for task, _ in list(cluster.tasks_of(host)):
            for grant in [g for g in task.grants.values() if g.host == host]:
                take_back(cluster, task, grant)
        cluster.leases.remove(host)
        cluster.forget_host(host)

    def _look_for_readers(self) -> None:
        """A host that may read has come: tasks that wait for one are looked at."""
        for task_id in self.cluster.unmet:
            self.cluster.touch(self.cluster.tasks[task_id])

    def _conclude(self, now: float) -> list[Decision]:
        cluster = self.cluster
        while cluster.touched:
            task_id = next(iter(cluster.touched))
            del cluster.touched[task_id]
            task = cluster.tasks.get(task_id)
            if task is not None:
                self._conclude_task(task, now)
        return cluster.take_decisions()

    def _conclude_task(self, task: Task, now: float) -> None:
        cluster = self.cluster
        check_at = revalidation.review(cluster, task, now)
        if task.review:
            task.review = False
            task.review_at = review(cluster, task, now)
            if task.unmet_since is None:
                cluster.unmet.discard(task.id)
            else:
                cluster.unmet.add(task.id)
        assign_at = assign(cluster, task, now)
        forget_at = self._idle(task, now)
        if forget_at is not None and forget_at <= now:
            cluster.forget_task(task)
            return
        if task.id in cluster.tasks:  # the one looked at last is forgotten last
            cluster.tasks[task.id] = cluster.tasks.pop(task.id)
        times = [t for t in (check_at, task.review_at, assign_at, forget_at) if t is not None]
        when = max(min(times), now + SHORTEST_WAIT) if times else None
        cluster.deadlines.set(task.id, when)

    def _idle(self, task: Task, now: float) -> float | None:
        """When the task may be forgotten; None while somebody holds, wants or reads it."""
        if task.peers or task.grants or task.freshness.busy:
            task.idle_since = None
            return None
        if task.idle_since is None:
            task.idle_since = now
        return max(task.idle_since + self.config.idle_task, task.places.failure_until)


def _moved(before: HostLease, lease: HostLease) -> bool:
    """Whether the host stands somewhere else than before."""
    return (before.location, before.network) != (lease.location, lease.network)
