"""Grants given and taken back: what it means for the books, and who could be given one. Decisions only (see
``grants`` for who is chosen, ``sourcing`` for when)."""

from __future__ import annotations

from scheduler.cluster import Cluster
from scheduler.digests import BATCH
from scheduler.grants import Applicant, Grant, choose_reader, runs, split
from scheduler.leases import Host
from scheduler.places import Place
from scheduler.tasks import Task
from shared.protocol import Failure, PieceDigests, SourceGranted, SourceRevoked
from shared.task.bitmap import Bitmap

# --- giving ------------------------------------------------------------------------------------------


def give(cluster: Cluster, task: Task, host: str, place: str, pieces: Bitmap | None, now: float) -> None:
    """Grant a read at a place, and tell the reader, with all that is known of the content."""
    grant = Grant(cluster.new_grant_id(), host, pieces, now, place)
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
    place = task.places.get(grant.place)
    cluster.send(
        grant.host,
        SourceGranted(
            task=task.id,
            grant=grant.id,
            spec=task.spec if place is None else place.spec,
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
    applicants = applicants_for(cluster, task, frozenset(), wanted, now)
    shares = split(wanted, min(readers, 1 + len(applicants)))
    if len(shares) < 2:
        return
    end(cluster, task, grant)
    cluster.send(grant.host, SourceRevoked(task.id, grant.id))
    give(cluster, task, grant.host, grant.place, shares[0], now)
    for share in shares[1:]:
        reader = choose_reader(applicants, cluster.rng)
        if reader is not None:
            applicants.remove(reader)
            give(cluster, task, reader.host, reader.place, share, now)


# --- who could ---------------------------------------------------------------------------------------


def applicants_for(
    cluster: Cluster,
    task: Task,
    unreachable: frozenset[str],
    wanted: Bitmap | None,
    now: float,
    *,
    instead_of: Grant | None = None,
) -> list[Applicant]:
    """Hosts that may read the task now, each with the place where. ``instead_of``: who could take over a grant,
    which its own host can at another place."""
    open_places = task.open_places()
    busy = {grant.host for grant in task.grants.values() if grant is not instead_of}
    applicants = []
    for name in _names(cluster, task):
        host = cluster.present(name)
        if host is None or not host.reachable or name in busy or task.accusations.banned(name, now):
            continue
        if name in unreachable and name not in task.waiting:
            continue
        places = _places_for(cluster, task, host, open_places)
        if instead_of is not None and instead_of.host == name:
            places = [place for place in places if place.url != instead_of.place]
        if not places:
            continue
        peer = task.peers.get(name)
        held = peer.held if peer is not None else Bitmap()
        if wanted is not None and not wanted - held:
            continue
        load = host.lease.uploads / max(host.lease.upload_slots, 1)
        reads = cluster.reads[name]
        applicants.append(Applicant(name, host.lease.role, len(held), reads, load, places[0].url))
    return applicants


def _names(cluster: Cluster, task: Task) -> list[str]:
    """Seeders, and who asked and may read. Who may see private content is only who asked for it."""
    seeders = {} if task.spec.scope else cluster.leases.seeders
    asked = (peer for peer in task.waiting.values() if not peer.cluster_only)
    return [
        *seeders,
        *(peer.host for peer in asked if peer.host not in seeders and any(peer.places.values())),
    ]


def _places_for(cluster: Cluster, task: Task, host: Host, open_places: list[Place]) -> list[Place]:
    """Where a host may read: at the places that it named, since what it knows of them goes with them; a seeder
    that named none which is open, at any that is public."""
    name = host.lease.host
    peer = task.waiting.get(name)
    named = {} if peer is None or peer.cluster_only else peer.places
    places = [place for place in open_places if named.get(place.url)]
    if not places and not task.spec.scope and name in cluster.leases.seeders:
        places = [place for place in open_places if peer is not None or host.reads(place.spec.scheme)]
    return [place for place in places if place.tried.get(name) != host.lease.instance]


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


def give_up_on(
    cluster: Cluster, task: Task, grant: Grant, failure: Failure | None, *, offline_at: float | None = None
) -> None:
    """The reader is not asked again in this episode, for the place of its grant; one that only had no network at
    ``offline_at``, in a while."""
    place, present = task.places.get(grant.place), cluster.present(grant.host)
    if place is None:
        return
    if offline_at is None:
        place.offline.pop(grant.host, None)
    else:
        place.found_offline(grant.host, offline_at)
    if present is not None:
        place.tried[grant.host] = present.lease.instance
    if failure is not None:
        place.last_failure = failure
