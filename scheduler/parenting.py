"""Parent lists: who is to get a new one, and when. Decisions only (see ``placement`` for who is chosen).

A child gets a list when it registers, when a parent of its list is lost or fails, when it asks, and when a
host becomes of use and it is short of parents. Lists that change nothing are not sent; a child that has
parents gets at most one list in ``reassign`` seconds (less in a small swarm, where a list is cheap and the
first moments count). Parents that read the origin, and complete seeders, come with a stripe for the child;
parents in other zones with the classes of pieces that the child carries over the border (see ``zones``).
"""

from __future__ import annotations

from functools import partial
from math import inf

from scheduler.cluster import Cluster
from scheduler.placement import Candidate, choose, stripe_of
from scheduler.tasks import Peer, Task
from scheduler.zones import Crew, near
from shared.protocol import Parent, ParentsAssigned
from shared.task.bitmap import Bitmap

SAMPLE = 64
"""Holders compared for one list; more would only cost time."""
FAR_SAMPLE = 16
"""Of other zones there need not be so many."""
SECONDS_PER_CHILD = 0.005
"""In a small swarm lists may follow each other in this time for each waiting child."""


def assign(cluster: Cluster, task: Task, now: float) -> float | None:
    """Send the parent lists that are due; gives when the next one is."""
    for host, when in list(task.later.items()):
        if when <= now:
            del task.later[host]
            task.dirty.add(host)
    if task.crews_changed:
        _muster(cluster, task, now)
    wake = min(min(task.later.values(), default=inf), _relieve(cluster, task, now))
    due = []
    for host in list(task.dirty):
        peer = task.waiting.get(host)
        if peer is None:
            task.dirty.discard(host)
        elif peer.parents and peer.assign_after > now:
            wake = min(wake, peer.assign_after)
        else:
            due.append(peer)
    if due:
        for peer in sorted(due, key=lambda p: p.order):
            _assign(cluster, task, peer, now)
        wake = min(wake, min(task.later.values(), default=inf))
    return None if wake == inf else wake


# --- who divides the pieces among themselves --------------------------------------------------------


def _muster(cluster: Cluster, task: Task, now: float) -> None:
    """Others wait than before: divide anew what a seeder gives first, and what comes from other zones."""
    task.crews_changed = False
    readers = {grant.host for grant in task.grants.values() if grant.opened}
    crews: dict[str, list[str]] = {}
    for host in task.waiting:
        if host not in readers:
            crews.setdefault(cluster.zone(host), []).append(host)
    task.crews = {zone: task.crews.get(zone) or Crew() for zone in crews}
    for zone, hosts in crews.items():
        crew = task.crews[zone]
        if crew.muster(hosts):
            striped = (task.waiting[host] for host in hosts)
            task.dirty.update(p.host for p in striped if _striped(p))
        if zone:
            live = [host for host in hosts if cluster.live(host)]
            held = partial(_held_in, cluster, task, zone)
            _tell(task, crew.carriers.follow(live, now, held=held, fresh=not len(task.digests)))


def _relieve(cluster: Cluster, task: Task, now: float) -> float:
    """Level what is carried over the borders, where it is time; gives when it is again."""
    wake = inf
    for zone, crew in task.crews.items():
        carriers = crew.carriers
        if carriers.next_look() <= now:
            _tell(task, carriers.hand_over(now))
            if task.count is not None:
                held = _held_in(cluster, task, zone)
                _tell(task, carriers.level(now, held=held, lacking=task.count - held))
            else:
                carriers.postpone(now)
        wake = min(wake, carriers.next_look())
    return wake


def _held_in(cluster: Cluster, task: Task, zone: str) -> int:
    """How many pieces are in the zone."""
    held = Bitmap()
    for peer in task.holders_by_zone(cluster.zone).get(zone, ()):
        held = held | peer.held
    return len(held)


def _tell(task: Task, changed: set[str]) -> None:
    """Those whose classes are others now are to hear of it, if they have to do with other zones."""
    for host in changed:
        peer = task.waiting.get(host)
        if peer is not None and any(parent.far for parent in peer.parents or ()):
            task.dirty.add(host)


# --- one list ---------------------------------------------------------------------------------------


def _assign(cluster: Cluster, task: Task, peer: Peer, now: float) -> None:
    task.dirty.discard(peer.host)
    host = cluster.present(peer.host)
    if host is None or host.stream is None:
        return  # it gets its list when it hears us
    candidates, retry = _candidates(cluster, task, peer, now)
    if retry < inf:
        task.later[peer.host] = retry
    else:
        task.later.pop(peer.host, None)
    crew = task.crews.get(host.zone) or Crew()
    stripe = stripe_of(crew.ranks.get(peer.host, 0), crew.stripes)
    carries = crew.carriers.of(peer.host)
    lacks = None if task.count is None else Bitmap.full(task.count) - peer.held
    chosen = tuple(
        Parent(
            host=c.host,
            address=c.address,
            role=c.role,
            complete=c.complete,
            stripe=stripe if not c.far and (c.reading or (c.role == "seeder" and c.complete)) else None,
            far=c.far,
            carries=carries if c.far else 0,
        )
        for c in choose(
            candidates,
            host.lease.location,
            cluster.config.parents,
            cluster.rng,
            lacks=lacks,
            carries=carries,
        )
    )
    if _essence(chosen) == _essence(peer.parents or ()):
        return
    interval = min(cluster.config.reassign, SECONDS_PER_CHILD * len(task.waiting))
    peer.assign_after = now + interval
    cluster.set_parents(peer, chosen)
    cluster.send(peer.host, ParentsAssigned(task.id, list(chosen)))


def _candidates(cluster: Cluster, task: Task, child: Peer, now: float) -> tuple[list[Candidate], float]:
    """The hosts that could be parents of the child, and when one that it complained about is another."""
    current = {parent.host for parent in child.parents or ()}
    zone = cluster.zone(child.host)
    candidates, retry = [], inf
    for peer in _sampled(cluster, task, zone, current):
        name = peer.host
        host = cluster.present(name)
        if name == child.host or host is None or not host.live or task.accusations.banned(name, now):
            continue
        if host.lease.draining and name not in current:
            continue
        block = child.blocks.get(name)
        if block is not None and block.avoids(now):
            retry = min(retry, block.until)
            if block.shuns(now):
                continue
        grants = [grant for grant in task.grants.values() if grant.host == name and grant.opened]
        offers = peer.held - child.held
        useful = bool(grants) or bool(offers)
        for grant in grants:
            offers = offers if grant.pieces is None else offers | (grant.pieces - child.held)
        candidates.append(
            Candidate(
                host=name,
                address=host.lease.address,
                role=host.lease.role,
                location=host.lease.location,
                slots=host.lease.upload_slots,
                children=max(cluster.children[name], host.lease.uploads),
                useful=useful,
                complete=task.complete(peer),
                reading=bool(grants),
                current=name in current,
                avoided=block is not None and block.avoids(now),
                far=not near(zone, host.zone),
                offers=offers,
                offers_all=any(grant.pieces is None for grant in grants),
            )
        )
    return candidates, retry


def _sampled(cluster: Cluster, task: Task, zone: str, current: set[str]) -> list[Peer]:
    """The holders to compare: not all, where there are very many."""
    zones = task.holders_by_zone(cluster.zone)
    far = [peer for other, peers in zones.items() if not near(zone, other) for peer in peers]
    if not far:
        return _some(cluster, task, task.holder_list(), SAMPLE, current)
    close = [peer for other, peers in zones.items() if near(zone, other) for peer in peers]
    return [
        *_some(cluster, task, close, SAMPLE, current),
        *_some(cluster, task, far, FAR_SAMPLE, current),
    ]


def _some(cluster: Cluster, task: Task, holders: list[Peer], number: int, current: set[str]) -> list[Peer]:
    if len(holders) <= number:
        return holders
    sample = cluster.rng.sample(holders, number)
    known = {peer.host for peer in sample}
    more = [*current, *(grant.host for grant in task.grants.values()), *cluster.leases.seeders]
    among = {peer.host: peer for peer in holders} if len(holders) < len(task.holders) else task.holders
    sample += [among[h] for h in dict.fromkeys(more) if h in among and h not in known]
    return sample


def _striped(peer: Peer) -> bool:
    return any(
        not parent.far and (parent.role == "seeder" or parent.stripe is not None)
        for parent in peer.parents or ()
    )


def _essence(parents: tuple[Parent, ...]) -> set[tuple[str, str, tuple[int, int] | None, bool, int]]:
    """What makes two lists different for a child; their order alone does not."""
    return {(parent.host, parent.address, parent.stripe, parent.far, parent.carries) for parent in parents}
