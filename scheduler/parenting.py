"""Parent lists: who is to get a new one, and when. Decisions only (see ``placement`` for who is chosen).

A child gets a list when it registers, when a parent of its list is lost or fails, when it asks, and when a
host becomes of use and it is short of parents. Lists that change nothing are not sent; a child that has
parents gets at most one list in ``reassign`` seconds (less in a small swarm, where a list is cheap and the
first moments count). Parents that read the origin, and complete seeders, come with a stripe for the child.
"""

from __future__ import annotations

from math import inf

from scheduler.cluster import Cluster
from scheduler.placement import Candidate, place, stripe_count, stripe_of
from scheduler.tasks import Peer, Task
from shared.protocol import Parent, ParentsAssigned

SAMPLE = 64
"""Holders compared for one list; more would only cost time."""
SECONDS_PER_CHILD = 0.005
"""In a small swarm lists may follow each other in this time for each waiting child."""


def assign(cluster: Cluster, task: Task, now: float) -> float | None:
    """Send the parent lists that are due; gives when the next one is."""
    for host, when in list(task.later.items()):
        if when <= now:
            del task.later[host]
            task.dirty.add(host)
    readers = {grant.host for grant in task.grants.values() if grant.opened}
    stripes = stripe_count(len(task.waiting) - len(readers & task.waiting.keys()))
    if stripes != task.stripes:
        task.stripes = stripes
        task.dirty.update(p.host for p in task.waiting.values() if _striped(p))
    wake = min(task.later.values(), default=inf)
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
        ranks = {host: rank for rank, host in enumerate(h for h in task.waiting if h not in readers)}
        for peer in sorted(due, key=lambda p: p.order):
            _assign(cluster, task, peer, ranks.get(peer.host, 0), now)
        wake = min(wake, min(task.later.values(), default=inf))
    return None if wake == inf else wake


def _assign(cluster: Cluster, task: Task, peer: Peer, rank: int, now: float) -> None:
    task.dirty.discard(peer.host)
    host = cluster.present(peer.host)
    if host is None or host.stream is None:
        return  # it gets its list when it hears us
    candidates, retry = _candidates(cluster, task, peer, now)
    if retry < inf:
        task.later[peer.host] = retry
    else:
        task.later.pop(peer.host, None)
    stripe = stripe_of(rank, task.stripes)
    chosen = tuple(
        Parent(
            host=c.host,
            address=c.address,
            role=c.role,
            complete=c.complete,
            stripe=stripe if c.reading or (c.role == "seeder" and c.complete) else None,
        )
        for c in place(candidates, host.lease.location, cluster.config.parents, cluster.rng)
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
    holders = task.holder_list()
    if len(holders) > SAMPLE:
        sample = cluster.rng.sample(holders, SAMPLE)
        known = {peer.host for peer in sample}
        more = [*current, *(grant.host for grant in task.grants.values()), *cluster.leases.seeders]
        sample += [task.holders[h] for h in dict.fromkeys(more) if h in task.holders and h not in known]
        holders = sample
    candidates, retry = [], inf
    for peer in holders:
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
        reading = task.reading(name)
        candidates.append(
            Candidate(
                host=name,
                address=host.lease.address,
                role=host.lease.role,
                location=host.lease.location,
                slots=host.lease.upload_slots,
                children=max(cluster.children[name], host.lease.uploads),
                useful=reading or bool(peer.held - child.held),
                complete=task.complete(peer),
                reading=reading,
                current=name in current,
                avoided=block is not None and block.avoids(now),
            )
        )
    return candidates, retry


def _striped(peer: Peer) -> bool:
    return any(parent.role == "seeder" or parent.stripe is not None for parent in peer.parents or ())


def _essence(parents: tuple[Parent, ...]) -> set[tuple[str, str, tuple[int, int] | None]]:
    """What makes two lists different for a child; their order alone does not."""
    return {(parent.host, parent.address, parent.stripe) for parent in parents}
