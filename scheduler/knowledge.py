"""What the cluster knows of a task's content, and who is told when it grows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from scheduler.cluster import Cluster
from scheduler.granting import take_back
from scheduler.tasks import Peer, Task
from shared.protocol import PeerHolding, PieceDigests, TaskDescribed, TaskMeta
from shared.task.bitmap import Bitmap

log = structlog.get_logger()


def describe(cluster: Cluster, task: Task, host: str, meta: TaskMeta) -> None:
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


def learn(cluster: Cluster, task: Task, host: str, digests: Mapping[int, bytes], now: float) -> list[int]:
    """Take digests over and tell those who wait; gives the numbers that contradict what was known."""
    known = {n: digests[n] for n in task.numbers(digests)}
    fresh, contradicted = task.digests.learn(known)
    if contradicted:
        cluster.tally.contradictions += len(contradicted)
        tell = log.warning if cluster.loudness.one_more(now) else log.debug
        tell("digests contradict known ones", host=host, task=task.id, pieces=len(contradicted))
    if fresh and task.meta is not None:
        cluster.send_to_waiting(task, PieceDigests(task.id, task.meta.version, fresh), but=host)
    return contradicted


def hold(cluster: Cluster, task: Task, peer: Peer, held: Bitmap) -> None:
    """The peer holds exactly these pieces; children gain or lose a parent by it."""
    before = peer.host in task.holders
    if task.hold(peer, held):
        cluster.gained_parent(task, peer.host)
    elif before and peer.host not in task.holders:
        cluster.lost_parent(task, peer.host)


def same_pieces(one: TaskMeta, other: TaskMeta) -> bool:
    """Whether two descriptions can be of the same pieces."""
    lengths = {one.length, other.length} - {None}
    return one.version == other.version and one.piece_length == other.piece_length and len(lengths) < 2


def stronger(cluster: Cluster, task: Task, host: str, report: PeerHolding) -> bool:
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
