"""Going back to source: when a host is told to read an origin, when it is stopped, when all is given up.

Decisions only (see ``grants`` for who is chosen, ``needs`` for what is missing):

* Somebody waits for what no serving host holds: up to ``origin_readers`` hosts get a grant.
* A reader that is lost, draining, banned, or out of everybody's reach is taken back at once; one that makes
  no progress for ``grant_timeout`` when another can take over, or for four times that when none can.
* Each host is tried once in an episode; when all have failed, those who wait are told, and the failure
  is remembered, so that the next ones are told at once.
* An origin's own failure ends the episode for everybody.
"""

from __future__ import annotations

from math import inf

import msgspec

from scheduler.cluster import Cluster
from scheduler.digests import BATCH
from scheduler.grants import Applicant, Grant, choose_reader, runs, split, ungranted
from scheduler.needs import Need, need_of
from scheduler.tasks import Peer, Task
from shared.protocol import Failure, PieceDigests, SourceGranted, SourceRevoked
from shared.task.bitmap import Bitmap
from shared.task.identity import redact_url

HOPELESS = 4
"""Grant timeouts after which even a reader that nobody can replace is given up."""


def review(cluster: Cluster, task: Task, now: float) -> float | None:
    """Draw all conclusions about origin reads of the task; gives when to look again."""
    if task.failure is not None and now >= task.failure_until:
        task.failure = None
    for host in task.accusations.expire(now):
        cluster.gained_parent(task, host)
    wake = task.accusations.next_expiry() or inf
    waiting = cluster.live_waiting(task)
    need = need_of(task, waiting, lambda host: _serves(cluster, task, host, now), now)
    wake = min(wake, _end_bad_reads(cluster, task, need, now))
    if not waiting:
        task.unmet_since = None
        wake = min(wake, _end_unwanted_reads(cluster, task, now))
    else:
        task.unwanted_since = None
        if need is None:
            _content(task)
        else:
            wake = min(wake, _meet(cluster, task, need, now))
    return None if wake == inf else wake


def _content(task: Task) -> None:
    """Everybody has what they need, or somebody to get it from."""
    task.unmet_since = None
    if not task.grants:
        task.tried.clear()


def _meet(cluster: Cluster, task: Task, need: Need, now: float) -> float:
    """Have what is missing read, or refuse those who wait for it; gives when to look again."""
    settled = cluster.settling()
    if not task.grants and settled is not None and now < settled:
        return settled
    if task.failure is not None:
        refuse_all(cluster, task, need.children, task.failure, now)
        return inf
    if any(not child.cluster_only for child in need.children):
        _grant(cluster, task, need, now)
    if task.grants:
        task.unmet_since = None
        later = (grant.progress + cluster.config.grant_timeout for grant in task.grants.values())
        return min((when for when in later if when > now), default=inf)
    return _despair(cluster, task, need, now)


def _despair(cluster: Cluster, task: Task, need: Need, now: float) -> float:
    """Nobody reads and nobody can be told to: wait a little for a change, then say so."""
    if task.unmet_since is None:
        task.unmet_since = now
    patience = task.unmet_since + cluster.config.reader_patience
    url = redact_url(task.spec.url)
    if all(child.cluster_only for child in need.children):
        if now < patience and task.holders:
            return patience
        words = f"{url} is not in the cluster and --no-origin forbids reading its origin"
        refuse_all(cluster, task, need.children, Failure(words, fault="request"), now)
    elif task.tried:
        failure = task.last_failure or Failure(f"every host that tried to read {url} failed", fault="reader")
        fail(cluster, task, failure, now)
    elif now < patience:
        return patience
    else:
        refuse_all(cluster, task, need.children, Failure(_no_reader(cluster, task), fault="reader"), now)
    return inf


def _no_reader(cluster: Cluster, task: Task) -> str:
    """Why nobody reads the origin, in words."""
    url, scheme = redact_url(task.spec.url), task.spec.scheme
    known = {name for host in cluster.leases.hosts() for name in host.lease.schemes}
    if known and scheme not in known:
        return (
            f"no host in the cluster reads {scheme}:// (they read: {', '.join(sorted(known))}): install a "
            "plugin for it on a seeder, or what it needs there (`dragonet plugin` there tells)"
        )
    if task.spec.scope:
        return (
            f"{url} was asked for with credentials, so only a host that was given them may read it, and "
            f"none of those reads {scheme}://: allow it there (source.schemes), or install the plugin there"
        )
    return f"no host may read the origin of {url}: start a seeder, or allow the peer to read it"


def fail(cluster: Cluster, task: Task, failure: Failure, now: float) -> None:
    """The origin cannot be read: end all reads, remember why, refuse who waits for what is missing."""
    config = cluster.config
    ttl = config.failure_ttl
    if failure.status in (429, 503) or failure.retry_after is not None:
        ttl = min(config.failure_ttl_max, max(ttl, failure.retry_after or 0.0))
    task.failure, task.failure_until = failure, now + ttl
    task.tried.clear()
    task.last_failure = None
    for grant in list(task.grants.values()):
        end(cluster, task, grant)
        cluster.send(grant.host, SourceRevoked(task.id, grant.id))
    waiting = cluster.live_waiting(task)
    need = need_of(task, waiting, lambda host: _serves(cluster, task, host, now), now)
    if need is not None:
        refuse_all(cluster, task, need.children, failure, now)


def refuse_all(cluster: Cluster, task: Task, children: list[Peer], failure: Failure, now: float) -> None:
    """Tell these children; a remembered ``retry_after`` counts from when it was first heard."""
    if failure is task.failure and failure.retry_after is not None:
        left = max(0.0, min(failure.retry_after, task.failure_until - now))
        failure = msgspec.structs.replace(failure, retry_after=left)
    for child in children:
        cluster.refuse(task, child, failure)
    task.unmet_since = None


# --- giving ------------------------------------------------------------------------------------------


def _grant(cluster: Cluster, task: Task, need: Need, now: float) -> None:
    free = cluster.config.origin_readers - len(task.grants)
    wanted = ungranted(need.pieces, list(task.grants.values()))
    if free <= 0 or (wanted is not None and not wanted):
        return
    applicants = _applicants(cluster, task, need.unreachable, wanted, now)
    everything = task.count is not None and wanted == Bitmap.full(task.count)
    shares: list[Bitmap | None] = [wanted]
    if wanted is not None:
        shares = [*split(wanted, min(free, max(len(applicants), 1)))]
        if everything and len(shares) == 1:
            shares = [None]
    for share in shares:
        reader = choose_reader(applicants, cluster.rng)
        if reader is None:
            return
        applicants.remove(reader)
        give(cluster, task, reader.host, share, now)


def give(cluster: Cluster, task: Task, host: str, pieces: Bitmap | None, now: float) -> None:
    """Grant a read and tell the reader, with all that is known of the content."""
    grant = Grant(cluster.new_grant_id(), host, pieces, now)
    begin(cluster, task, grant)
    cluster.tally.grants += 1
    send_grant(cluster, task, grant)


def begin(cluster: Cluster, task: Task, grant: Grant) -> None:
    """Count a grant as active."""
    cluster.peer(task, grant.host)
    task.grants[grant.id] = grant
    cluster.reads[grant.host] += 1


def send_grant(cluster: Cluster, task: Task, grant: Grant) -> None:
    """Tell the reader of its grant (again, after its stream broke)."""
    batches = list(task.digests.batches())
    first = batches[0] if batches else {}
    if len(task.digests) > BATCH and task.meta is not None:
        for digests in batches[1:]:
            cluster.send(grant.host, PieceDigests(task.id, task.meta.version, digests))
    cluster.send(
        grant.host,
        SourceGranted(
            task=task.id,
            grant=grant.id,
            spec=task.spec,
            meta=task.meta,
            pieces=runs(grant.pieces),
            digests=first,
        ),
    )


def share_out(cluster: Cluster, task: Task, grant: Grant, now: float) -> None:
    """The length has become known under a grant for everything: let others read a part of it too."""
    readers, count = cluster.config.origin_readers, task.count
    if readers < 2 or len(task.grants) != 1 or grant.pieces is not None or count is None:
        return
    wanted = Bitmap.full(count)
    for holder in task.holder_list():
        wanted = wanted - holder.held
    applicants = _applicants(cluster, task, frozenset(), wanted, now)
    shares = split(wanted, min(readers, 1 + len(applicants)))
    if len(shares) < 2:
        return
    end(cluster, task, grant)
    cluster.send(grant.host, SourceRevoked(task.id, grant.id))
    give(cluster, task, grant.host, shares[0], now)
    for share in shares[1:]:
        reader = choose_reader(applicants, cluster.rng)
        if reader is not None:
            applicants.remove(reader)
            give(cluster, task, reader.host, share, now)


def _applicants(
    cluster: Cluster, task: Task, unreachable: frozenset[str], wanted: Bitmap | None, now: float
) -> list[Applicant]:
    """Hosts that may read the task now. Who may see private content is only who asked for it."""
    if task.spec.scope:
        names = [peer.host for peer in task.waiting.values() if peer.may_read and not peer.cluster_only]
    else:
        names = list(cluster.leases.seeders)
        names += [
            peer.host
            for peer in task.waiting.values()
            if peer.may_read and not peer.cluster_only and peer.host not in cluster.leases.seeders
        ]
    busy = {grant.host for grant in task.grants.values()}
    applicants = []
    for name in names:
        host = cluster.present(name)
        if host is None or not host.reachable or name in busy or task.accusations.banned(name, now):
            continue
        if name in unreachable and name not in task.waiting:
            continue
        if name not in task.waiting and not host.reads(task.spec.scheme):
            continue
        if task.tried.get(name) == host.lease.instance:
            continue
        peer = task.peers.get(name)
        held = peer.held if peer is not None else Bitmap()
        if wanted is not None and not wanted - held:
            continue
        load = host.lease.uploads / max(host.lease.upload_slots, 1)
        applicants.append(Applicant(name, host.lease.role, len(held), cluster.reads[name], load))
    return applicants


# --- taking back -------------------------------------------------------------------------------------


def end(cluster: Cluster, task: Task, grant: Grant) -> None:
    """The grant is over, however it went. The reader keeps counting as a holder of what it read."""
    if task.grants.pop(grant.id, None) is None:
        return
    cluster.reads[grant.host] -= 1
    if not cluster.reads[grant.host]:
        del cluster.reads[grant.host]
    if grant.host in task.peers:
        task.note_reading(grant.host)
    cluster.lost_parent(task, grant.host)  # it has no stripes any more, or is no parent at all


def take_back(cluster: Cluster, task: Task, grant: Grant) -> None:
    """Stop a reader; another one gets what is still missing."""
    end(cluster, task, grant)
    cluster.tally.taken_back += 1
    cluster.touch(task)
    cluster.send(grant.host, SourceRevoked(task.id, grant.id))


def give_up_on(cluster: Cluster, task: Task, host: str, failure: Failure | None) -> None:
    """The host is not asked again in this episode."""
    present = cluster.present(host)
    if present is not None:
        task.tried[host] = present.lease.instance
    if failure is not None:
        task.last_failure = failure


def _end_bad_reads(cluster: Cluster, task: Task, need: Need | None, now: float) -> float:
    wake = inf
    for grant in list(task.grants.values()):
        reader = cluster.present(grant.host)
        if reader is None or not reader.serving:
            take_back(cluster, task, grant)
        elif task.accusations.banned(grant.host, now) or _out_of_reach(task, grant.host, need):
            give_up_on(cluster, task, grant.host, None)
            take_back(cluster, task, grant)
        else:
            wake = min(wake, _check_progress(cluster, task, grant, need, now))
    return wake


def _out_of_reach(task: Task, host: str, need: Need | None) -> bool:
    return need is not None and host in need.unreachable and host not in task.waiting


def _check_progress(cluster: Cluster, task: Task, grant: Grant, need: Need | None, now: float) -> float:
    timeout = cluster.config.grant_timeout
    overdue, hopeless = grant.progress + timeout, grant.progress + HOPELESS * timeout
    if now < overdue:
        return overdue
    unreachable = need.unreachable if need is not None else frozenset()
    if now < hopeless and not _applicants(cluster, task, unreachable, grant.pieces, now):
        return min(hopeless, now + timeout / 4)
    words = f"reading {redact_url(task.spec.url)} made no progress for {now - grant.progress:.0f} s"
    give_up_on(cluster, task, grant.host, Failure(words, fault="origin"))
    take_back(cluster, task, grant)
    return inf


def _end_unwanted_reads(cluster: Cluster, task: Task, now: float) -> float:
    if not task.grants:
        task.unwanted_since = None
        task.tried.clear()
        return inf
    if task.unwanted_since is None:
        task.unwanted_since = now
    over = task.unwanted_since + cluster.config.idle_read
    if now < over:
        return over
    for grant in list(task.grants.values()):
        take_back(cluster, task, grant)
    return inf


def _serves(cluster: Cluster, task: Task, host: str, now: float) -> bool:
    return cluster.serving(host) and not task.accusations.banned(host, now)
