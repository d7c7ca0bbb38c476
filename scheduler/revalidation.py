"""Whether what the cluster holds is still what the source has: asked once for all, however many want it. Pure.

Rules:

* Content counts as fresh for ``TaskMeta.revalidate`` seconds after its source was read or asked. While it is
  fresh, or being read, everybody is served at once; content without that number is never checked.
* Later the first who wants it makes a check begin, and all who want it wait for the outcome. Seeders do it
  first, then who asked; of content with a scope only who asked for it. One that is lost, cannot ask or does
  not answer is replaced once; then, or when the source is in trouble, the content counts as fresh again: the
  source is protected, and content that is there stays served. Who gets it is told that it is stale, until a
  check or a read has gone well.
* Changed content gets a new generation, a task of its own: who asked is sent there, and who reads or holds
  the old one is left alone.
* After a restart hosts tell what is fresh, and of which generation; the greatest one counts.
"""

from __future__ import annotations

import structlog

from scheduler.cluster import Cluster
from scheduler.freshness import Asking, Check
from scheduler.grants import Applicant, choose_reader
from scheduler.knowledge import describe
from scheduler.tasks import Task
from shared.protocol import (
    CheckGranted,
    FreshWanted,
    PeerHolding,
    PeerRegistered,
    SourceChecked,
    TaskDescribed,
    TaskFresh,
    TaskMoved,
)
from shared.task.generation import in_generation, next_generation
from shared.task.identity import redact_url

log = structlog.get_logger()

CHECKERS = 2
"""Hosts that are told to ask the source, one after the other, before the content counts as fresh unasked."""
TREE = 6
"""Times as long as a file that a folder may take, all of which is listed anew."""
PATIENCE = 0.8
"""Part of the time for a check within which the host that makes it is to answer."""


# --- who wants it --------------------------------------------------------------------------------------


def registered(cluster: Cluster, task: Task, host: str, report: PeerRegistered, now: float) -> None:
    """The host wants the task: now, or after its content has been checked."""
    note_generation(cluster, task)
    if not _outdated(cluster, task, host, report, now):
        admit(cluster, task, host, report, now)
    elif cluster.superseded(task):
        cluster.send(host, TaskMoved(task.id, cluster.generations[task.logical]))
        cluster.touch(task)
    else:
        _wait(cluster, task, host, report)


def asked(cluster: Cluster, task: Task, host: str, report: FreshWanted, now: float) -> None:
    """The host holds the task and is to give it out."""
    note_generation(cluster, task)
    if cluster.superseded(task):
        cluster.send(host, TaskMoved(task.id, cluster.generations[task.logical]))
        cluster.touch(task)
        return
    if task.meta is None:
        describe(cluster, task, host, report.meta)
    elif task.meta.version != report.meta.version:
        cluster.send(host, TaskDescribed(task.id, task.meta))
    if _fresh(task, now):
        cluster.send(host, _told(task, now))
        cluster.touch(task)
    else:
        _wait(cluster, task, host, report)


def admit(cluster: Cluster, task: Task, host: str, report: PeerRegistered, now: float) -> None:
    """The host waits for the task from now on, and hears all that is known of it."""
    peer = cluster.peer(task, host)
    task.register(host, report.spec, may_read=report.may_read, cluster_only=report.cluster_only)
    cluster.describe_to(task, host)
    told = _told(task, now)
    if told.seconds > 0 or told.stale:
        cluster.send(host, told)
    cluster.set_parents(peer, None)
    task.dirty.add(host)
    cluster.touch(task)


def _outdated(cluster: Cluster, task: Task, host: str, report: PeerRegistered, now: float) -> bool:
    """Whether the host must not have the content unseen."""
    if report.begun or host in task.waiting:
        return False
    if cluster.superseded(task):
        return True
    if report.cluster_only or not task.holders:
        return False
    return not _fresh(task, now)


def _fresh(task: Task, now: float) -> bool:
    if task.meta is None or task.meta.revalidate is None:
        return True
    return now < task.freshness.until or any(grant.opened for grant in task.grants.values())


def _seconds(task: Task, now: float) -> float:
    """For how long the content need not be checked, as far as it is ever."""
    if task.meta is None or task.meta.revalidate is None or not task.freshness.known:
        return 0.0
    return max(0.0, task.freshness.until - now)


def _told(task: Task, now: float) -> TaskFresh:
    return TaskFresh(task.id, _seconds(task, now), task.freshness.stale)


def _wait(cluster: Cluster, task: Task, host: str, report: Asking) -> None:
    cluster.join(task, host)
    task.freshness.asking[host] = report
    cluster.touch(task)


# --- what is heard -------------------------------------------------------------------------------------


def opened(cluster: Cluster, task: Task, reader: str, now: float) -> None:
    """The source has just been read: nobody needs to ask it for a while."""
    if task.meta is None or task.meta.revalidate is None:
        return
    was_stale = task.freshness.stale
    task.freshness.valid(now + task.meta.revalidate)
    if task.meta.revalidate > 0 or was_stale:
        cluster.send_to_waiting(task, TaskFresh(task.id, task.meta.revalidate), but=reader)


def holding(cluster: Cluster, task: Task, host: str, report: PeerHolding, now: float) -> None:
    """A host tells what it holds, of which generation, and how long it was told that this is fresh."""
    note_generation(cluster, task)
    if cluster.superseded(task):
        cluster.send(host, TaskMoved(task.id, cluster.generations[task.logical]))
    if task.meta is not None and task.meta.revalidate is not None and report.fresh > 0:
        until = now + min(report.fresh, task.meta.revalidate)
        if not report.stale:
            task.freshness.valid(until)
        elif not task.freshness.known:
            task.freshness.unchecked(until)


def checked(cluster: Cluster, host: str, report: SourceChecked, now: float) -> None:
    """The outcome of a check."""
    task = cluster.tasks.get(report.task)
    check = task.freshness.check if task is not None else None
    if task is None or check is None or (check.id, check.host) != (report.grant, host):
        return
    cluster.touch(task)
    if report.expired is None:
        cluster.tally.checks["unanswered"] += 1
        task.freshness.give_up()
        return
    task.freshness.check = None
    if report.failed:
        cluster.tally.checks["failed"] += 1
        _keep_serving(cluster, task, now)
    elif report.expired:
        cluster.tally.checks["expired"] += 1
        _supersede(cluster, task, now)
    else:
        cluster.tally.checks["valid"] += 1
        _found_valid(cluster, task, now)


def note_generation(cluster: Cluster, task: Task) -> None:
    """A host has this generation: when it is the greatest one heard of, it is the current one."""
    generation, known = task.spec.generation, cluster.generations.get(task.logical, "")
    if generation <= known:
        return
    cluster.generations[task.logical] = generation
    before = cluster.tasks.get(in_generation(task.spec, known).task_id)
    if before is not None and before.freshness.busy:
        cluster.touch(before)


# --- checking ------------------------------------------------------------------------------------------


def review(cluster: Cluster, task: Task, now: float) -> float | None:
    """Have the content checked if somebody waits for that; gives when to look again."""
    freshness = task.freshness
    if not freshness.busy:
        return None
    if cluster.superseded(task):
        freshness.check = None
        _move(cluster, task)
        return None
    check = freshness.check
    if check is not None:
        present = cluster.present(check.host)
        if present is not None and present.live and now < check.deadline:
            return check.deadline
        cluster.tally.checks["unanswered"] += 1
        freshness.give_up()
    if _fresh(task, now):
        _answer(cluster, task, now)
    if not freshness.asking:
        return None
    settled = cluster.settling(task, now)
    if settled is not None and not freshness.known:
        return settled
    return _begin(cluster, task, now)


def grant_again(cluster: Cluster, host: str) -> None:
    """The host's stream was broken: tell it once more what it is to check."""
    for task in cluster.joined(host):
        if task.freshness.check is not None and task.freshness.check.host == host:
            _tell(cluster, task, task.freshness.check)


def _begin(cluster: Cluster, task: Task, now: float) -> float | None:
    checker = None
    if len(task.freshness.tried) < CHECKERS:
        checker = choose_reader(_applicants(cluster, task, now), cluster.rng)
    if checker is None:
        _keep_serving(cluster, task, now)
        return None
    deadline = now + _timeout(cluster, task)
    check = task.freshness.check = Check(cluster.new_grant_id(), checker.host, deadline)
    cluster.join(task, checker.host)
    _tell(cluster, task, check)
    return deadline


def _applicants(cluster: Cluster, task: Task, now: float) -> list[Applicant]:
    """Hosts that may ask the source now. Who may see private content is only who asked for it."""
    askers = [host for host, report in task.freshness.asking.items() if report.may_read]
    names = askers
    if not task.spec.scope:
        names = [*cluster.leases.seeders, *(host for host in askers if host not in cluster.leases.seeders)]
    applicants = []
    for name in names:
        host = cluster.present(name)
        if host is None or not host.reachable or name in task.freshness.tried:
            continue
        if task.accusations.banned(name, now) or not (name in askers or host.reads(task.spec.scheme)):
            continue
        peer = task.peers.get(name)
        held = len(peer.held) if peer is not None else 0
        load = host.lease.uploads / max(host.lease.upload_slots, 1)
        applicants.append(Applicant(name, host.lease.role, held, cluster.reads[name], load))
    return applicants


def _tell(cluster: Cluster, task: Task, check: Check) -> None:
    if task.meta is not None:
        patience = _timeout(cluster, task) * PATIENCE
        cluster.send(check.host, CheckGranted(task.id, check.id, task.spec, task.meta, patience))


def _timeout(cluster: Cluster, task: Task) -> float:
    return cluster.config.check_timeout * (TREE if task.spec.tree else 1)


# --- outcomes ------------------------------------------------------------------------------------------


def _found_valid(cluster: Cluster, task: Task, now: float) -> None:
    if task.meta is not None and task.meta.revalidate is not None:
        task.freshness.valid(now + task.meta.revalidate)
    _answer(cluster, task, now)


def _keep_serving(cluster: Cluster, task: Task, now: float) -> None:
    log.info("content cannot be checked and stays served", task=task.id, url=redact_url(task.spec.url))
    if task.meta is not None and task.meta.revalidate is not None:
        task.freshness.unchecked(now + task.meta.revalidate)
    _answer(cluster, task, now)


def _answer(cluster: Cluster, task: Task, now: float) -> None:
    """All who wait for the outcome get what the cluster has."""
    asking, task.freshness.asking = task.freshness.asking, {}
    for host, report in asking.items():
        if isinstance(report, PeerRegistered):
            admit(cluster, task, host, report, now)
        else:
            cluster.send(host, _told(task, now))


def _supersede(cluster: Cluster, task: Task, now: float) -> None:
    generation = next_generation(task.spec.generation, cluster.wall(now))
    log.info("content has changed at its source", task=task.id, url=redact_url(task.spec.url))
    cluster.generations[task.logical] = generation
    _move(cluster, task)


def _move(cluster: Cluster, task: Task) -> None:
    """All who wait for the outcome are sent to the current generation."""
    asking, task.freshness.asking = task.freshness.asking, {}
    for host in asking:
        cluster.send(host, TaskMoved(task.id, cluster.generations[task.logical]))
