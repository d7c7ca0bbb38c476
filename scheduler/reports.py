"""What hosts report, taken into account one by one. Pure; conclusions are drawn after the whole batch.

Here is what peers want, hold, and say of their parents; reports of origin reads are in ``readings``. Reports
of another version than the current one change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from scheduler import preheating, readings, revalidation
from scheduler.blocks import complain
from scheduler.checks import check_report
from scheduler.cluster import Cluster
from scheduler.granting import take_back
from scheduler.knowledge import describe, hold, learn, same_pieces, stronger
from shared.errors import InvalidRequest
from shared.protocol import (
    Failure,
    FreshWanted,
    ParentFailed,
    ParentsWanted,
    PeerFinished,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    PiecesHeld,
    Preheated,
    Report,
    Resolved,
    SourceChecked,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    TaskDescribed,
    TaskFailed,
    TaskFresh,
    TaskRemoved,
)
from shared.task.bitmap import Bitmap

log = structlog.get_logger()


def apply(cluster: Cluster, host: str, report: Report, now: float) -> None:
    """Take one report of a present host into account. An invalid one is counted and left out."""
    name = str(type(report).__struct_config__.tag)
    cluster.tally.reports[name] += 1
    try:
        check_report(report)
    except InvalidRequest as error:
        cluster.tally.invalid += 1
        tell = log.warning if cluster.loudness.one_more(now) else log.debug
        tell("an invalid report was left out", host=host, report=name, reason=str(error))
        return
    _HANDLERS[type(report)](cluster, host, report, now)


# --- wanting and holding -----------------------------------------------------------------------------


def _registered(cluster: Cluster, host: str, report: PeerRegistered, now: float) -> None:
    task = cluster.task(report.task, report.spec)
    if task is None:
        words = f"the scheduler follows {len(cluster.tasks)} tasks already: raise scheduler.max_tasks"
        cluster.send(host, TaskFailed(report.task, Failure(words, fault="reader")))
        return
    if (report.begun or report.taken_over) and not task.waiting and not task.grants:
        cluster.goes_on(task, now)
    revalidation.registered(cluster, task, host, report, now)


def _fresh_wanted(cluster: Cluster, host: str, report: FreshWanted, now: float) -> None:
    task = cluster.task(report.task, report.spec)
    if task is None:
        cluster.send(host, TaskFresh(report.task, 0.0, stale=True))  # what is there is better than nothing
        return
    revalidation.asked(cluster, task, host, report, now)


def _holding(cluster: Cluster, host: str, report: PeerHolding, now: float) -> None:
    task = cluster.task(report.task, report.spec)
    if task is None:
        return
    current = task.meta
    if current is not None and not same_pieces(current, report.meta):
        if report.meta.version == current.version or not stronger(cluster, task, host, report):
            peer = task.peers.get(host)
            if peer is not None:
                hold(cluster, task, peer, Bitmap())
            cluster.send(host, TaskDescribed(task.id, current))
            cluster.touch(task)
            return
        describe(cluster, task, host, report.meta)
    elif current is None or (current.length is None and report.meta.length is not None):
        describe(cluster, task, host, report.meta)
    held = Bitmap.from_bytes(report.held)
    count = task.count
    if count is not None:
        held = Bitmap.full(count) if report.complete else held & Bitmap.full(count)
    if held and not report.complete and not task.peers and _was_here(cluster, host, now):
        cluster.goes_on(task, now)
    revalidation.holding(cluster, task, host, report, now)
    contradicted = learn(cluster, task, host, report.digests, now)
    hold(cluster, task, cluster.peer(task, host), held - Bitmap(contradicted))
    cluster.touch(task)


def _was_here(cluster: Cluster, host: str, now: float) -> bool:
    """Whether the host is not one that has just come, and tells what it kept of earlier downloads."""
    present = cluster.present(host)
    return present is not None and (present.lease.resuming or now - present.since >= cluster.config.settle)


def _pieces_held(cluster: Cluster, host: str, report: PiecesHeld, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is None or task.version != report.version:
        return
    peer = cluster.peer(task, host)
    hold(cluster, task, peer, peer.held | Bitmap(task.numbers(report.pieces)))
    cluster.touch(task, review=False)


def _finished(cluster: Cluster, host: str, report: PeerFinished, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is None:
        return
    if task.version == report.version and task.count is not None:
        hold(cluster, task, cluster.peer(task, host), Bitmap.full(task.count))
    peer = task.peers.get(host)
    if peer is not None and host in task.waiting:
        cluster.stop_waiting(task, peer)
    cluster.touch(task)


def _left(cluster: Cluster, host: str, report: PeerLeft, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is not None and isinstance(task.freshness.asking.get(host), PeerRegistered):
        del task.freshness.asking[host]
        cluster.touch(task)
    peer = task.peers.get(host) if task is not None else None
    if task is None or peer is None:
        return
    cluster.stop_waiting(task, peer)
    present = cluster.present(host)
    if present is not None and present.lease.role == "peer":
        for grant in [g for g in task.grants.values() if g.host == host]:
            take_back(cluster, task, grant)


def _removed(cluster: Cluster, host: str, report: TaskRemoved, now: float) -> None:
    task = cluster.tasks.get(report.task)
    peer = task.peers.get(host) if task is not None else None
    if task is not None and peer is not None:
        hold(cluster, task, peer, Bitmap())
        cluster.touch(task)


# --- parents -----------------------------------------------------------------------------------------


def _parent_failed(cluster: Cluster, host: str, report: ParentFailed, now: float) -> None:
    task = cluster.tasks.get(report.task)
    child = task.peers.get(host) if task is not None else None
    if task is None or child is None:
        return
    parent, ban = report.parent, cluster.config.corrupt_ban
    child.block(parent, complain(child.blocks.get(parent), report.reason, now, corrupt_for=ban), now)
    if report.reason == "corrupt":
        accused = cluster.present(parent)
        if accused is not None:
            accused.corrupt_reports += 1
        only = not any(other != host and other != parent for other in task.waiting)
        if task.accusations.accuse(parent, host, now, only_child=only):
            tell = log.warning if cluster.loudness.one_more(now) else log.debug
            tell("a host gives wrong bytes", host=parent, task=task.id)
            cluster.lost_parent(task, parent)
    task.dirty.add(host)
    cluster.touch(task)


def _parents_wanted(cluster: Cluster, host: str, report: ParentsWanted, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is not None and host in task.waiting:
        task.dirty.add(host)
        cluster.touch(task)


_HANDLERS: dict[type[Any], Callable[[Cluster, str, Any, float], None]] = {
    PeerRegistered: _registered,
    PeerHolding: _holding,
    FreshWanted: _fresh_wanted,
    SourceChecked: revalidation.checked,
    PiecesHeld: _pieces_held,
    PeerFinished: _finished,
    PeerLeft: _left,
    TaskRemoved: _removed,
    ParentFailed: _parent_failed,
    ParentsWanted: _parents_wanted,
    SourceOpened: readings.opened,
    SourcePieces: readings.pieces_read,
    SourceProgress: readings.progressed,
    SourceFinished: readings.finished,
    SourceFailed: readings.failed,
    Resolved: preheating.resolved,
    Preheated: preheating.preheated,
}
