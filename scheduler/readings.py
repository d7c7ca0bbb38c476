"""What readers of an origin report. Pure; conclusions are drawn after the whole batch.

Pieces read under a grant that has ended count all the same when their version is current: the bytes are
there and cannot be others. The host is told that its grant has ended, unless another scheduler gave it (or this
one, before it was restarted) and nobody else reads: then the read is adopted, so that a scheduler less costs no
second one. It is preferred to a grant of this scheduler that was not answered yet.
"""

from __future__ import annotations

import hashlib

import msgspec
import structlog

from scheduler.cluster import Cluster
from scheduler.granting import begin, end, give_up_on, share_out, take_back
from scheduler.grants import Grant
from scheduler.knowledge import describe, hold, learn, same_pieces
from scheduler.revalidation import opened as source_opened
from scheduler.sourcing import concerns_reader, fail
from scheduler.tasks import Task
from shared.protocol import (
    Failure,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    SourceRevoked,
    TaskMeta,
)
from shared.task.bitmap import Bitmap

log = structlog.get_logger()


def opened(cluster: Cluster, host: str, report: SourceOpened, now: float) -> None:
    """The origin answered the reader: its metadata is the content's."""
    task = cluster.tasks.get(report.task)
    grant = _grant(cluster, task, host, report, report.meta, now)
    if task is None or grant is None:
        return
    grant.progress = now
    place = task.places.get(grant.place)
    if place is not None:
        place.answered(host)
    first = not grant.opened
    if not _open(cluster, task, grant, report.meta, now):
        return
    if first:
        source_opened(cluster, task, host, now)
    share_out(cluster, task, grant, now)
    cluster.touch(task)


def pieces_read(cluster: Cluster, host: str, report: SourcePieces, now: float) -> None:
    """Pieces read at the origin, with their digests."""
    task = cluster.tasks.get(report.task)
    of_version = task.meta if task is not None and task.version == report.version else None
    grant = _grant(cluster, task, host, report, of_version, now)
    if task is None or task.meta is None or task.version != report.version:
        return
    digests = {n: report.digests[n] for n in task.numbers(report.digests)}
    contradicted = set(learn(cluster, task, host, digests, now))
    peer = cluster.peer(task, host)
    read = Bitmap(n for n in digests if n not in contradicted)
    if grant is not None:
        if read - peer.held:
            grant.progress = now
        if not grant.opened:
            _open(cluster, task, grant, task.meta, now)
    hold(cluster, task, peer, peer.held | read)
    cluster.touch(task, review=grant is None)


def progressed(cluster: Cluster, host: str, report: SourceProgress, now: float) -> None:
    """Bytes came; the read is alive."""
    task = cluster.tasks.get(report.task)
    meta = task.meta if task is not None else None
    grant = _grant(cluster, task, host, report, meta, now)
    if task is None or grant is None:
        return
    if report.received > grant.received:
        grant.received, grant.progress = report.received, now
    if not grant.opened and meta is not None and not cluster.is_own_grant(grant.id):
        _open(cluster, task, grant, meta, now)  # it was answered before this scheduler heard of it


def finished(cluster: Cluster, host: str, report: SourceFinished, now: float) -> None:
    """The read has ended well; what it left out is not asked of this reader again."""
    task = cluster.tasks.get(report.task)
    if task is None:
        return
    if task.version == report.meta.version:
        describe(cluster, task, host, report.meta)
    grant = task.grants.get(report.grant)
    cluster.touch(task)
    if grant is None or grant.host != host:
        return
    if task.meta is None:
        describe(cluster, task, host, report.meta)
    left = Bitmap.full(task.count) if task.count is not None else None
    if left is not None and grant.pieces is not None:
        left = left & grant.pieces
    for holder in task.holder_list():
        left = left - holder.held if left is not None else None
    end(cluster, task, grant)
    if (left is None or left) and cluster.is_own_grant(grant.id):  # what others granted is not known
        words = f"host {host} finished reading the origin but left pieces out"
        give_up_on(cluster, task, grant, Failure(words, fault="reader"))
        log.warning("a finished origin read left pieces out", host=host, task=task.id)


def failed(cluster: Cluster, host: str, report: SourceFailed, now: float) -> None:
    """The read has failed: another reader is tried, or all who wait are told."""
    task = cluster.tasks.get(report.task)
    grant = task.grants.get(report.grant) if task is not None else None
    if task is None or grant is None or grant.host != host:
        return
    read_at = task.read_at | {grant.place}
    end(cluster, task, grant)
    cluster.touch(task)
    if report.wrong and task.spec.digest:
        _forget_wrong(cluster, task)
        if len(read_at) > 1:
            return  # nobody knows which of the places is to blame: each is read alone now
    place = task.places.get(grant.place)
    offline = report.offline and not report.wrong
    if place is None or offline or report.failure.fault == "reader" or concerns_reader(task, report.failure):
        give_up_on(cluster, task, grant, report.failure, offline_at=now if offline else None)
    else:
        fail(cluster, task, place, report.failure, now)


def _forget_wrong(cluster: Cluster, task: Task) -> None:
    """What was read of content known by its digest is not that content: nobody goes on with any of it, nor counts
    on its length. A version of another name sees to that, since this one is named by the digest wherever it is
    read."""
    if task.meta is not None:
        log.warning("content does not have the digest that it is known by", task=task.id)
        version = hashlib.sha256(f"not {task.meta.version}".encode()).hexdigest()[:16]
        meta = msgspec.structs.replace(task.meta, version=version, length=None, sha256="")
        describe(cluster, task, "", meta)


def _grant(
    cluster: Cluster,
    task: Task | None,
    host: str,
    report: SourceOpened | SourcePieces | SourceProgress,
    meta: TaskMeta | None,
    now: float,
) -> Grant | None:
    """The host's active grant, of content that ``meta`` describes as far as that is known.

    One that another scheduler gave is adopted if it can be; who may still tell what that takes is let be for a
    while. All others are revoked.
    """
    grant = task.grants.get(report.grant) if task is not None else None
    if grant is not None and grant.host == host:
        return grant
    if grant is None and not cluster.is_own_grant(report.grant):
        if task is not None and meta is not None and _adoptable(cluster, task, host, report.grant, now):
            return _adopt(cluster, task, host, report.grant, now)
        if _is_early(cluster, task, host, report, now):
            return None
    if report.grant not in cluster.revoked:
        cluster.revoked.add(report.grant)
        cluster.send(host, SourceRevoked(report.task, report.grant))
    return None


def _adoptable(cluster: Cluster, task: Task, host: str, grant_id: str, now: float) -> bool:
    present = cluster.present(host)
    if present is None or not present.reachable or task.failure is not None:
        return False
    if cluster.strangers.was_adopted(grant_id) or task.accusations.banned(host, now):
        return False
    others = [grant for grant in task.grants.values() if not _yields(cluster, grant, now)]
    return len(others) < cluster.config.origin_readers and all(grant.host != host for grant in others)


def _yields(cluster: Cluster, grant: Grant, now: float) -> bool:
    """Whether a read was granted just now, and nothing has come of it yet."""
    fresh = now - grant.progress < cluster.config.settle
    return fresh and not grant.opened and not grant.received and cluster.is_own_grant(grant.id)


def _adopt(cluster: Cluster, task: Task, host: str, grant_id: str, now: float) -> Grant:
    for grant in [grant for grant in task.grants.values() if _yields(cluster, grant, now)]:
        if grant.host == host or len(task.grants) >= cluster.config.origin_readers:
            take_back(cluster, task, grant)
    child = task.waiting.get(host)
    named = {url for url, may_read in child.places.items() if may_read} if child is not None else set()
    places = named or {place.url for place in task.places}
    adopted = Grant(grant_id, host, None, now, places.pop() if len(places) == 1 else "")
    begin(cluster, task, adopted)
    cluster.strangers.adopt(grant_id)
    cluster.tally.grants_adopted += 1
    tell = log.info if cluster.loudness.one_more(now) else log.debug
    tell("an origin read of another scheduler is taken over", host=host, task=task.id)
    cluster.touch(task)
    return adopted


def _is_early(
    cluster: Cluster,
    task: Task | None,
    host: str,
    report: SourceOpened | SourcePieces | SourceProgress,
    now: float,
) -> bool:
    """Whether what it takes to adopt a read may still be told: the task and its metadata, the host's stream."""
    present = cluster.present(host)
    complete = (
        task is not None and task.meta is not None and present is not None and present.stream is not None
    )
    if complete or cluster.strangers.known_for(report.grant, now) >= cluster.config.settle:
        return False
    if task is not None and not task.grants:
        cluster.goes_on(task, now)
    return True


def _open(cluster: Cluster, task: Task, grant: Grant, meta: TaskMeta, now: float) -> bool:
    """The reader was answered; False when what it says contradicts what is known."""
    if task.meta is not None and task.meta.version == meta.version and not same_pieces(task.meta, meta):
        words = f"host {grant.host} cuts the content into other pieces than the cluster"
        give_up_on(cluster, task, grant, Failure(words, fault="reader"))
        take_back(cluster, task, grant)
        cluster.touch(task)
        return False
    describe(cluster, task, grant.host, meta)
    task.read_at.add(grant.place)
    grant.opened = True
    cluster.peer(task, grant.host)
    if task.note_reading(grant.host):
        cluster.gained_parent(task, grant.host)
    return True
