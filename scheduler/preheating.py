"""Preheats and the cluster: who finds out what an image is made of, who brings it, and what is told to them.

Decisions only. A preheat is not moved by what is under way in the swarm: its hosts want its contents like
anybody else does, and the scheduler has them read once and passed on as always.

* An image is resolved by one seeder (any host that reads registries, where no credentials are needed and no
  seeder is there); by another one when that is lost, is too slow, or cannot.
* Hosts that are live at that moment are chosen, and told all at once. One whose stream breaks is told again
  what it has yet to bring; what a host has yet to bring when its lease ends, or that has left for as long, has failed.
* Credentials are told to seeders only; other hosts get the contents from them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import structlog

from scheduler.cluster import Cluster
from scheduler.leases import Host
from scheduler.preheats import Job, PreheatOrder, Result
from shared.protocol import (
    Failure,
    Preheated,
    PreheatItem,
    PreheatOver,
    PreheatWanted,
    Resolved,
    ResolveWanted,
)
from shared.task.identity import redact_url
from shared.units import format_duration

log = structlog.get_logger()

RESOLVE_PATIENCE = 120.0
"""Seconds that one host may take to find out what an image is made of."""
RESOLVE_GRACE = 5.0
"""Seconds that its answer may take to come."""
SCHEME = "oci"


# --- what people want --------------------------------------------------------------------------------


def begin(cluster: Cluster, order: PreheatOrder, now: float) -> Job:
    """A new job. Raises TooManyPreheats."""
    timeout = min(order.timeout or cluster.config.preheat_timeout, cluster.config.preheat_timeout)
    job = cluster.preheats.add(order, now=now, wall=cluster.wall(now), timeout=timeout)
    review_all(cluster, now)
    return job


def cancel(cluster: Cluster, job: Job, now: float) -> None:
    """Do no more for it; what was brought stays where it is."""
    if not job.over:
        _end(cluster, job, "cancelled", None, now)
        review_all(cluster, now)


# --- what hosts say, and what becomes of them --------------------------------------------------------


def resolved(cluster: Cluster, host: str, report: Resolved, now: float) -> None:
    """A host has found out what an image is made of, or could not."""
    job = cluster.preheats.get(report.job)
    if job is None or job.state != "resolving" or job.resolver != host:
        return
    job.resolver = ""
    if report.failure is not None or not report.items:
        failure = report.failure or Failure(f"{job.shown} is made of nothing", fault="origin")
        if failure.fault == "reader":
            _tried(job, host, failure)
            review(cluster, job, now)
        else:
            _end(cluster, job, "failed", failure, now)
    else:
        job.notes = list(report.notes)
        job.shown = report.image or job.shown
        job.private, job.own_login = report.private, report.own_login
        if not (job.private and not job.own_login):
            job.headers = {}
        _run(cluster, job, report.items, now)
    review_all(cluster, now)


def preheated(cluster: Cluster, host: str, report: Preheated, now: float) -> None:
    """A host holds a content, or could not bring it."""
    job = cluster.preheats.get(report.job)
    if job is None or job.state != "running":
        return
    if report.failure is not None:
        count = job.missed(host, report.task, report.failure, now)
        cluster.tally.preheat_items["failed"] += count
    elif job.brought(host, report.task, report.length, report.bytes, now):
        cluster.tally.preheat_items["succeeded"] += 1
        cluster.tally.preheat_bytes.update(report.bytes)
    if job.over:
        _over(cluster, job)
        review_all(cluster, now)


def heard(cluster: Cluster, host: str, now: float) -> None:
    """The host's stream is open (again): it is told what it has yet to do."""
    for job in cluster.preheats.active():
        job.away.pop(host, None)
        if job.state == "resolving" and job.resolver == host:
            _send_resolve(cluster, job, host, now)
        elif job.left.get(host):
            _send_wanted(cluster, job, [host], now)
    review_all(cluster, now)


def gone(cluster: Cluster, host: str, words: str, now: float, *, for_good: bool) -> None:
    """The host has no lease any more; one that has left by itself may come back (not ``for_good``)."""
    for job in cluster.preheats.active():
        if job.resolver == host:
            _tried(job, host, Failure(f"{host} {words} while it looked at {job.shown}", fault="reader"))
        if not job.left.get(host):
            continue
        if for_good:
            _give_up(cluster, job, [host], words, now)
        else:
            job.away.setdefault(host, now)
    review_all(cluster, now)


def lost(cluster: Cluster, host: str, now: float) -> None:
    """The host has been without its stream for too long: another one resolves what it was to resolve."""
    for job in cluster.preheats.active():
        if job.resolver == host:
            _tried(job, host, Failure(f"{host} was lost while it looked at {job.shown}", fault="reader"))
    review_all(cluster, now)


# --- what time brings --------------------------------------------------------------------------------


def review_all(cluster: Cluster, now: float) -> None:
    """Draw all conclusions for the jobs that are not over; those that wait get their turn, the oldest first."""
    queued = []
    for job in cluster.preheats.active():
        if job.state == "queued" and now < job.deadline:
            queued.append(job)
        else:
            review(cluster, job, now)
    free = cluster.config.preheat_jobs
    free -= sum(job.state in ("resolving", "running") for job in cluster.preheats.active())
    for job in queued:
        if free > 0:
            review(cluster, job, now)
            free -= job.state in ("resolving", "running")
        else:
            job.unmet_since, job.wake = None, job.deadline


def review(cluster: Cluster, job: Job, now: float) -> None:
    """Draw all conclusions for one job."""
    if job.state == "queued" and now < job.deadline:
        _take_turn(cluster, job, now)
    if job.state == "resolving" and now < job.deadline:
        _resolve(cluster, job, now)
    if job.state == "running":
        late = [host for host, since in job.away.items() if now >= since + cluster.config.lease]
        _give_up(cluster, job, late, "has left the cluster", now)
    if not job.over and now >= job.deadline:
        _expire(cluster, job, now)
    if not job.over:
        times = [job.deadline]
        if job.resolver:
            times.append(job.resolve_by)
        if job.unmet_since is not None:
            times.append(job.unmet_since + cluster.config.reader_patience)
        times += [since + cluster.config.lease for since in job.away.values()]
        job.wake = min(times)


def _take_turn(cluster: Cluster, job: Job, now: float) -> None:
    if job.image:
        job.begin_resolving(now)
    elif _choose(cluster, job) or _patience_over(cluster, job, now):
        job.private = bool(job.headers)
        _run(cluster, job, [PreheatItem(spec, redact_url(spec.url)) for spec in job.specs], now)


def _expire(cluster: Cluster, job: Job, now: float) -> None:
    cure = "allow more time with --timeout"
    if job.timeout >= cluster.config.preheat_timeout:
        cure = "raise scheduler.preheat_timeout at the scheduler"
    words = f"it was not there within {format_duration(job.timeout)}: {cure}"
    if job.state == "running":
        count = job.give_up(job.hosts, Failure(words, fault="request"), now)
        cluster.tally.preheat_items["failed"] += count
        _over(cluster, job)
    else:
        _end(cluster, job, "failed", Failure(words, fault="request"), now)


def _patience_over(cluster: Cluster, job: Job, now: float) -> bool:
    """Whether nobody who could do it has been there for long enough."""
    if job.unmet_since is None:
        job.unmet_since = now
    return now >= job.unmet_since + cluster.config.reader_patience


# --- resolving ---------------------------------------------------------------------------------------


def _resolve(cluster: Cluster, job: Job, now: float) -> None:
    """See that somebody looks at the image."""
    if job.resolver:
        if now < job.resolve_by:
            return
        words = f"{job.resolver} did not find out in time what {job.shown} is made of"
        _tried(job, job.resolver, Failure(words, fault="reader"))
    resolver = _choose_resolver(cluster, job)
    if resolver is not None:
        job.unmet_since = None
        job.resolver = resolver
        job.resolve_by = now + RESOLVE_PATIENCE + RESOLVE_GRACE
        _send_resolve(cluster, job, resolver, now)
        return
    if job.tried:
        assert job.failure is not None
        _end(cluster, job, "failed", job.failure, now)
        return
    if _patience_over(cluster, job, now):
        _end(cluster, job, "failed", Failure(_nobody_resolves(job), fault="reader"), now)


def _choose_resolver(cluster: Cluster, job: Job) -> str | None:
    able = [host for host in _able(cluster) if host.stream is not None and host.reads(SCHEME)]
    able = [host for host in able if host.lease.host not in job.tried]
    seeders = [host for host in able if host.lease.role == "seeder"]
    names = sorted(host.lease.host for host in (seeders or ([] if job.headers else able)))
    return random.Random(f"resolver {job.id} {len(job.tried)}").choice(names) if names else None


def _nobody_resolves(job: Job) -> str:
    if job.headers:
        return (
            f"{job.shown} was given with credentials, which only seeders are told, and no seeder that reads "
            "registries is there: start one"
        )
    return f"no host that reads registries is there to look at {job.shown}: start a seeder"


def _tried(job: Job, host: str, failure: Failure) -> None:
    job.tried.add(host)
    job.resolver, job.failure = "", failure


def _send_resolve(cluster: Cluster, job: Job, host: str, now: float) -> None:
    patience = min(RESOLVE_PATIENCE, max(job.deadline - now, 0.0))
    cluster.send(host, ResolveWanted(job.id, job.image, patience, job.platforms, job.headers))


# --- bringing ----------------------------------------------------------------------------------------


def _run(cluster: Cluster, job: Job, items: Iterable[PreheatItem], now: float) -> None:
    """Choose the hosts and tell them."""
    hosts = _choose(cluster, job)
    job.unmet_since = None
    if not hosts:
        if job.targets.among == "all":
            words = (
                f"no host that takes preheats is there to bring {job.shown} to: start a seeder, or name this "
            )
            words += "scheduler to the peers (host.scheduler), which take none of one that they merely found"
        else:
            words = f"no seeder is there to bring {job.shown} to: start one, or choose other hosts (--to all)"
        _end(cluster, job, "failed", Failure(words, fault="reader"), now)
        return
    if job.private and not any(_is_seeder(cluster, host) for host in hosts):
        words = (
            f"{job.shown} needs credentials, which only seeders are told, and no seeder is there: start one"
        )
        _end(cluster, job, "failed", Failure(words, fault="reader"), now)
        return
    job.failure = None
    job.begin_running(
        items, hosts, now, [name for name in hosts if job.private and _is_seeder(cluster, name)]
    )
    _send_wanted(cluster, job, hosts, now)


def _send_wanted(cluster: Cluster, job: Job, hosts: Iterable[str], now: float) -> None:
    """Tell hosts what they have yet to bring; those that are to bring all of it get the same message."""
    patience = max(job.deadline - now, 0.0)
    shared: dict[bool, PreheatWanted] = {}
    for host in hosts:
        present = cluster.present(host)
        items = job.wants(host)
        if present is None or not items:
            continue
        may_read = not job.private or _is_seeder(cluster, host)
        own_login, headers = job.own_login and may_read, job.headers if may_read else {}
        wanted = PreheatWanted(job.id, items, patience, may_read, own_login, headers)
        cluster.send(host, shared.setdefault(may_read, wanted) if len(items) == len(job.items) else wanted)


def _give_up(cluster: Cluster, job: Job, hosts: list[str], words: str, now: float) -> None:
    for host in hosts:
        failure = Failure(f"{host} {words} before it had all of it", fault="reader")
        cluster.tally.preheat_items["failed"] += job.give_up([host], failure, now)
    if hosts and job.over:
        _over(cluster, job)


def _choose(cluster: Cluster, job: Job) -> list[str]:
    """The hosts that are to hold it."""
    names = [host.lease.host for host in _able(cluster)]
    seeders = [name for name in names if _is_seeder(cluster, name)]
    others = [name for name in names if not _is_seeder(cluster, name)]
    return job.targets.choose(seeders, others, job.id)


def _is_seeder(cluster: Cluster, host: str) -> bool:
    return host in cluster.leases.seeders


def _able(cluster: Cluster) -> list[Host]:
    return [host for host in cluster.leases.hosts() if host.serving and host.lease.preheats]


# --- ends --------------------------------------------------------------------------------------------


def _end(cluster: Cluster, job: Job, result: Result, failure: Failure | None, now: float) -> None:
    busy = {job.resolver} if job.resolver else {host for host, left in job.left.items() if left}
    job.end(result, failure, now)
    for host in busy:
        cluster.send(host, PreheatOver(job.id))
    _note(cluster, job)


def _over(cluster: Cluster, job: Job) -> None:
    """The last item has come, or failed: hosts forget what they were told."""
    for host in job.hosts:
        cluster.send(host, PreheatOver(job.id))
    _note(cluster, job)


def _note(cluster: Cluster, job: Job) -> None:
    cluster.tally.preheat_jobs[job.state] += 1
    log.info(
        "preheat is over",
        preheat=job.id,
        what=job.shown,
        state=job.state,
        done=job.done.total(),
        failed=job.failed.total(),
        cause=job.failure.words if job.failure is not None else "",
    )
