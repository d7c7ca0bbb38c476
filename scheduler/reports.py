"""What hosts report, taken into account one by one. Pure; conclusions are drawn after the whole batch.

Reports of another version than the current one change nothing. Pieces read under a grant that has ended
count all the same when their version is current: the bytes are there and cannot be others. The host is
told that its grant has ended, unless this scheduler was restarted and nobody else reads: then the read is
adopted, so that a restart costs no second one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from scheduler.blocks import complain
from scheduler.checks import check_report
from scheduler.cluster import Cluster
from scheduler.grants import Grant
from scheduler.sourcing import begin, end, fail, give_up_on, share_out, take_back
from scheduler.tasks import Peer, Task
from shared.errors import InvalidRequest
from shared.protocol import (
    Failure,
    ParentFailed,
    ParentsWanted,
    PeerFinished,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    PieceDigests,
    PiecesHeld,
    Report,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
    TaskMeta,
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
        log.warning("an invalid report was left out", host=host, report=name, reason=str(error))
        return
    _HANDLERS[type(report)](cluster, host, report, now)


# --- wanting and holding -----------------------------------------------------------------------------


def _registered(cluster: Cluster, host: str, report: PeerRegistered, now: float) -> None:
    task = cluster.task(report.task, report.spec)
    if task is None:
        words = f"the scheduler follows {len(cluster.tasks)} tasks already: raise scheduler.max_tasks"
        cluster.send(host, TaskFailed(report.task, Failure(words, fault="reader")))
        return
    peer = cluster.peer(task, host)
    task.register(host, may_read=report.may_read, cluster_only=report.cluster_only)
    cluster.describe_to(task, host)
    cluster.set_parents(peer, None)
    task.dirty.add(host)
    cluster.touch(task)


def _holding(cluster: Cluster, host: str, report: PeerHolding, now: float) -> None:
    task = cluster.task(report.task, report.spec)
    if task is None:
        return
    current = task.meta
    if current is not None and not _same(current, report.meta):
        if report.meta.version == current.version or not _stronger(cluster, task, host, report):
            peer = task.peers.get(host)
            if peer is not None:
                _hold(cluster, task, peer, Bitmap())
            cluster.send(host, TaskDescribed(task.id, current))
            cluster.touch(task)
            return
        _describe(cluster, task, host, report.meta)
    elif current is None or (current.length is None and report.meta.length is not None):
        _describe(cluster, task, host, report.meta)
    held = Bitmap.from_bytes(report.held)
    count = task.count
    if count is not None:
        held = Bitmap.full(count) if report.complete else held & Bitmap.full(count)
    contradicted = _learn(cluster, task, host, report.digests)
    _hold(cluster, task, cluster.peer(task, host), held - Bitmap(contradicted))
    cluster.touch(task)


def _pieces_held(cluster: Cluster, host: str, report: PiecesHeld, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is None or task.version != report.version:
        return
    peer = cluster.peer(task, host)
    _hold(cluster, task, peer, peer.held | Bitmap(task.numbers(report.pieces)))
    cluster.touch(task, review=False)


def _finished(cluster: Cluster, host: str, report: PeerFinished, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is None:
        return
    if task.version == report.version and task.count is not None:
        _hold(cluster, task, cluster.peer(task, host), Bitmap.full(task.count))
    peer = task.peers.get(host)
    if peer is not None and host in task.waiting:
        cluster.stop_waiting(task, peer)
    cluster.touch(task)


def _left(cluster: Cluster, host: str, report: PeerLeft, now: float) -> None:
    task = cluster.tasks.get(report.task)
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
        _hold(cluster, task, peer, Bitmap())
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
            log.warning("a host gives wrong bytes", host=parent, task=task.id)
            cluster.lost_parent(task, parent)
    task.dirty.add(host)
    cluster.touch(task)


def _parents_wanted(cluster: Cluster, host: str, report: ParentsWanted, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is not None and host in task.waiting:
        task.dirty.add(host)
        cluster.touch(task)


# --- reading the origin ------------------------------------------------------------------------------


def _opened(cluster: Cluster, host: str, report: SourceOpened, now: float) -> None:
    task = cluster.tasks.get(report.task)
    grant = _grant(cluster, task, host, report.task, report.grant, report.meta, now)
    if task is None or grant is None:
        return
    grant.progress = now
    task.failure = None
    if not _open(cluster, task, grant, report.meta, now):
        return
    share_out(cluster, task, grant, now)
    cluster.touch(task)


def _source_pieces(cluster: Cluster, host: str, report: SourcePieces, now: float) -> None:
    task = cluster.tasks.get(report.task)
    grant = _grant(cluster, task, host, report.task, report.grant, None, now)
    if task is None or task.meta is None or task.version != report.version:
        return
    digests = {n: report.digests[n] for n in task.numbers(report.digests)}
    contradicted = set(_learn(cluster, task, host, digests))
    peer = cluster.peer(task, host)
    read = Bitmap(n for n in digests if n not in contradicted)
    if grant is not None:
        if read - peer.held:
            grant.progress = now
        if not grant.opened:
            _open(cluster, task, grant, task.meta, now)
    _hold(cluster, task, peer, peer.held | read)
    cluster.touch(task, review=grant is None)


def _progress(cluster: Cluster, host: str, report: SourceProgress, now: float) -> None:
    task = cluster.tasks.get(report.task)
    grant = _grant(cluster, task, host, report.task, report.grant, None, now)
    if grant is not None and report.received > grant.received:
        grant.received, grant.progress = report.received, now


def _source_finished(cluster: Cluster, host: str, report: SourceFinished, now: float) -> None:
    task = cluster.tasks.get(report.task)
    if task is None:
        return
    if task.version == report.meta.version:
        _describe(cluster, task, host, report.meta)
    grant = task.grants.get(report.grant)
    cluster.touch(task)
    if grant is None or grant.host != host:
        return
    if task.meta is None:
        _describe(cluster, task, host, report.meta)
    left = Bitmap.full(task.count) if task.count is not None else None
    if left is not None and grant.pieces is not None:
        left = left & grant.pieces
    for holder in task.holder_list():
        left = left - holder.held if left is not None else None
    end(cluster, task, grant)
    if left is None or left:
        words = f"host {host} finished reading the origin but left pieces out"
        give_up_on(cluster, task, host, Failure(words, fault="reader"))
        log.warning("a finished origin read left pieces out", host=host, task=task.id)


def _source_failed(cluster: Cluster, host: str, report: SourceFailed, now: float) -> None:
    task = cluster.tasks.get(report.task)
    grant = task.grants.get(report.grant) if task is not None else None
    if task is None or grant is None or grant.host != host:
        return
    end(cluster, task, grant)
    if report.failure.fault == "reader":
        give_up_on(cluster, task, host, report.failure)
    else:
        fail(cluster, task, report.failure, now)
    cluster.touch(task)


# --- shared by the above -----------------------------------------------------------------------------


def _grant(
    cluster: Cluster,
    task: Task | None,
    host: str,
    task_id: str,
    grant_id: str,
    meta: TaskMeta | None,
    now: float,
) -> Grant | None:
    """The host's active grant. One that is unknown is adopted after a restart, or else revoked."""
    grant = task.grants.get(grant_id) if task is not None else None
    if grant is not None and grant.host == host:
        return grant
    present = cluster.present(host)
    adoptable = (
        task is not None
        and grant is None
        and not cluster.is_own_grant(grant_id)
        and now < cluster.started + cluster.config.lease
        and len(task.grants) < cluster.config.origin_readers
        and (task.meta is not None or meta is not None)
        and task.failure is None
        and present is not None
        and present.reachable
    )
    if adoptable and task is not None:
        grant = Grant(grant_id, host, None, now)
        begin(cluster, task, grant)
        cluster.tally.grants_adopted += 1
        cluster.touch(task)
        return grant
    if grant_id not in cluster.revoked:
        cluster.revoked.add(grant_id)
        cluster.send(host, SourceRevoked(task_id, grant_id))
    return None


def _open(cluster: Cluster, task: Task, grant: Grant, meta: TaskMeta, now: float) -> bool:
    """The reader was answered; False when what it says contradicts what is known."""
    if task.meta is not None and task.meta.version == meta.version and not _same(task.meta, meta):
        words = f"host {grant.host} cuts the content into other pieces than the cluster"
        give_up_on(cluster, task, grant.host, Failure(words, fault="reader"))
        take_back(cluster, task, grant)
        cluster.touch(task)
        return False
    _describe(cluster, task, grant.host, meta)
    grant.opened = True
    cluster.peer(task, grant.host)
    if task.note_reading(grant.host):
        cluster.gained_parent(task, grant.host)
    return True


def _describe(cluster: Cluster, task: Task, host: str, meta: TaskMeta) -> None:
    """Take metadata over from a host and tell the others; a new version ends the reads of other hosts."""
    current = task.meta
    if current is not None and current.version == meta.version and meta.length is None:
        return  # nothing to learn from one that knows less
    told = list(task.peers)
    change = task.describe(meta)
    if change == "same":
        return
    if change == "new version":
        for grant in list(task.grants.values()):
            if grant.host == host:
                grant.pieces = None
            else:
                take_back(cluster, task, grant)
        for child in task.waiting.values():
            child.blocks.clear()
            task.dirty.add(child.host)
    for other in told if change == "new version" else list(task.waiting):
        if other != host:
            cluster.send(other, TaskDescribed(task.id, meta))
    cluster.touch(task)


def _learn(cluster: Cluster, task: Task, host: str, digests: Mapping[int, bytes]) -> list[int]:
    """Take digests over and tell those who wait; gives the numbers that contradict what was known."""
    known = {n: digests[n] for n in task.numbers(digests)}
    fresh, contradicted = task.digests.learn(known)
    if contradicted:
        cluster.tally.contradictions += len(contradicted)
        log.warning("digests contradict known ones", host=host, task=task.id, pieces=len(contradicted))
    if fresh and task.meta is not None:
        cluster.send_to_waiting(task, PieceDigests(task.id, task.meta.version, fresh), but=host)
    return contradicted


def _hold(cluster: Cluster, task: Task, peer: Peer, held: Bitmap) -> None:
    before = peer.host in task.holders
    if task.hold(peer, held):
        cluster.gained_parent(task, peer.host)
    elif before and peer.host not in task.holders:
        cluster.lost_parent(task, peer.host)


def _same(one: TaskMeta, other: TaskMeta) -> bool:
    """Whether two descriptions can be of the same pieces."""
    lengths = {one.length, other.length} - {None}
    return one.version == other.version and one.piece_length == other.piece_length and len(lengths) < 2


def _stronger(cluster: Cluster, task: Task, host: str, report: PeerHolding) -> bool:
    """Whether a holding of another version is to replace the current one (after a restart, mostly).

    Never while a read of the current version goes on; else what nobody in service holds yields, and what
    is held in part only yields to a complete copy (of a seeder, where there is one).
    """
    if any(grant.opened for grant in task.grants.values()):
        return False
    best = (False, False)
    nobody = True
    for peer in task.holder_list():
        present = cluster.present(peer.host)
        if peer.host != host and peer.held and present is not None and present.live:
            nobody = False
            complete = task.complete(peer)
            best = max(best, (complete, complete and present.lease.role == "seeder"))
    present = cluster.present(host)
    seeder = present is not None and present.lease.role == "seeder"
    return nobody or (report.complete, report.complete and seeder) > best


_HANDLERS: dict[type[Any], Callable[[Cluster, str, Any, float], None]] = {
    PeerRegistered: _registered,
    PeerHolding: _holding,
    PiecesHeld: _pieces_held,
    PeerFinished: _finished,
    PeerLeft: _left,
    TaskRemoved: _removed,
    ParentFailed: _parent_failed,
    ParentsWanted: _parents_wanted,
    SourceOpened: _opened,
    SourcePieces: _source_pieces,
    SourceProgress: _progress,
    SourceFinished: _source_finished,
    SourceFailed: _source_failed,
}
