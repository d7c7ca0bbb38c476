"""Going back to source: when a host is told to read an origin, when it is stopped, when all is given up.

Decisions only (see ``grants`` for who is chosen, ``needs`` for what is missing, ``places`` for where it is read):

* Somebody waits for what no serving host holds: up to ``origin_readers`` hosts get a grant. Of a task that was
  going on before this scheduler knew it, only after a while: who reads or holds it already may tell so.
* A reader that is lost, draining, banned, or out of everybody's reach is taken back at once; one that makes
  no progress for ``grant_timeout`` when another can take over, or for four times that when none can.
* Each host is tried once in an episode; when all have failed, those who wait are told, and the failure
  is remembered, so that the next ones are told at once. One that only had no network (a laptop that changes its
  Wi-Fi) is tried again, if nobody else reads, for as long as ``shared.offline`` says.
* An origin's own failure ends the episode for everybody; of content that is known by its digest, only at the
  place that failed: the others that somebody who waits has named are tried before anybody is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

import msgspec

from scheduler.cluster import Cluster
from scheduler.granting import applicants_for, end, give, give_up_on, take_back
from scheduler.grants import Grant, choose_reader, split, ungranted
from scheduler.needs import Need, need_of
from scheduler.places import Place
from scheduler.tasks import Peer, Task
from shared.protocol import Failure, SourceRevoked
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec, redact_url

HOPELESS = 4
"""Grant timeouts after which even a reader that nobody can replace is given up."""

ANOTHER_PLACE = 3.0
"""Seconds in which a place must have answered a reader while somebody waits who named another one: who names a
registry that hangs must not make those wait who named one that works."""


def review(cluster: Cluster, task: Task, now: float) -> float | None:
    """Draw all conclusions about origin reads of the task; gives when to look again."""
    task.places.expire(now)
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
        task.places.begin_again()


def _meet(cluster: Cluster, task: Task, need: Need, now: float) -> float:
    """Have what is missing read, or refuse those who wait for it; gives when to look again."""
    settled = cluster.settling(task, now)
    if not task.grants and settled is not None:
        return settled
    open_places = task.open_places()
    if not open_places and not task.grants:
        left = _refuse_failed(cluster, task, need.children, now)
        if not left:
            return inf
        need = replace(need, children=left)
    for place in open_places:
        place.try_again(now)
    if any(not child.cluster_only for child in need.children):
        _grant(cluster, task, need, now)
    if task.grants:
        task.unmet_since = None
        later = (grant.progress + cluster.config.grant_timeout for grant in task.grants.values())
        return min((when for when in later if when > now), default=inf)
    return _despair(cluster, task, need, open_places, now)


def _despair(cluster: Cluster, task: Task, need: Need, open_places: list[Place], now: float) -> float:
    """Nobody reads and nobody can be told to: wait a little for a change, then say so."""
    if task.unmet_since is None:
        task.unmet_since = now
    patience = task.unmet_since + cluster.config.reader_patience
    tried = [place for place in open_places if place.tried]
    again = min((place.again_at() for place in tried), default=inf)
    if all(child.cluster_only for child in need.children):
        if now < patience and task.holders:
            return patience
        _refuse_all(cluster, task, need.children, _forbidden)
    elif again < inf:
        return again
    elif tried:
        for place in tried:
            words = f"every host that tried to read {redact_url(place.url)} failed"
            fail(cluster, task, place, place.last_failure or Failure(words, fault="reader"), now)
    elif now < patience:
        return patience
    else:
        left = _refuse_failed(cluster, task, need.children, now)
        _refuse_all(cluster, task, left, partial(_no_reader, cluster))
    return inf


def _forbidden(spec: TaskSpec) -> Failure:
    words = f"{redact_url(spec.url)} is not in the cluster and --no-origin forbids reading its origin"
    return Failure(words, fault="request")


def _no_reader(cluster: Cluster, spec: TaskSpec) -> Failure:
    return Failure(_why_no_reader(cluster, spec), fault="reader")


def _why_no_reader(cluster: Cluster, spec: TaskSpec) -> str:
    url, scheme = redact_url(spec.url), spec.scheme
    known = {name for host in cluster.leases.hosts() for name in host.lease.schemes}
    if known and scheme not in known:
        return (
            f"no host in the cluster reads {scheme}:// (they read: {', '.join(sorted(known))}): install a "
            "plugin for it on a seeder, or what it needs there (`dragonet plugin` there tells)"
        )
    if spec.scope:
        return (
            f"{url} was asked for with credentials, so only a host that was given them may read it, and "
            f"none of those reads {scheme}://: allow it there (source.schemes), or install the plugin there"
        )
    return f"no host may read the origin of {url}: start a seeder, or allow the peer to read it"


def fail(cluster: Cluster, task: Task, place: Place, failure: Failure, now: float) -> None:
    """The origin cannot be read at a place: end all reads there, remember why; when there is no other place to
    turn to, refuse who waits for what is missing."""
    place.failure, place.failure_until = failure, now + _remembered(cluster, task, failure)
    place.last_failure = None
    if not concerns_reader(task, failure):
        place.begin_again()
    for grant in list(task.grants.values()):
        if grant.place == place.url:
            end(cluster, task, grant)
            cluster.send(grant.host, SourceRevoked(task.id, grant.id))
    cluster.touch(task)
    if task.grants or task.open_places():
        return
    waiting = cluster.live_waiting(task)
    need = need_of(task, waiting, lambda host: _serves(cluster, task, host, now), now)
    if need is not None:
        _refuse_failed(cluster, task, need.children, now)


def concerns_reader(task: Task, failure: Failure) -> bool:
    """Whether a failure says nothing to other readers of the same place: a refusal of the credentials that one
    showed, where others show their own (who may see content is then not told by its scope alone)."""
    return bool(task.spec.digest and task.spec.scope) and failure.status in (401, 403)


def _remembered(cluster: Cluster, task: Task, failure: Failure) -> float:
    """For how many seconds."""
    if concerns_reader(task, failure):
        return 0.0
    ttl = cluster.config.failure_ttl
    if failure.status in (429, 503) or failure.retry_after is not None:
        ttl = min(cluster.config.failure_ttl_max, max(ttl, failure.retry_after or 0.0))
    return ttl


def _refuse_failed(cluster: Cluster, task: Task, children: list[Peer], now: float) -> list[Peer]:
    """Tell these children what became of the places that they named (of another one, where none of theirs is
    known); gives those for whom there is nothing to tell."""
    left = []
    for child in children:
        known = [place for url in child.places if (place := task.places.get(url)) is not None]
        failures = {place.url: _told(place, now) for place in known if place.failure is not None}
        failed = task.places.failed
        if failures:
            cluster.refuse(task, child, next(iter(failures.values())), failures)
        elif not known and failed is not None:
            cluster.refuse(task, child, _told(failed, now))
        else:
            left.append(child)
    task.unmet_since = None
    return left


def _told(place: Place, now: float) -> Failure:
    """The failure of a place; a remembered ``retry_after`` counts from when it was first heard."""
    failure = place.failure
    assert failure is not None, "the place has failed"
    if failure.retry_after is None:
        return failure
    left = max(0.0, min(failure.retry_after, place.failure_until - now))
    return msgspec.structs.replace(failure, retry_after=left)


def _refuse_all(
    cluster: Cluster, task: Task, children: list[Peer], failure: Callable[[TaskSpec], Failure]
) -> None:
    """Tell these children the failure that goes with the place that each named first."""
    failures: dict[str, Failure] = {}
    for child in children:
        place = next((place for url in child.places if (place := task.places.get(url))), None)
        spec = task.spec if place is None else place.spec
        cluster.refuse(task, child, failures.setdefault(spec.url, failure(spec)))
    task.unmet_since = None


def _grant(cluster: Cluster, task: Task, need: Need, now: float) -> None:
    """Have what nobody reads yet read by who is best for it."""
    free = cluster.config.origin_readers - len(task.grants)
    wanted = ungranted(need.pieces, list(task.grants.values()))
    if free <= 0 or (wanted is not None and not wanted):
        return
    applicants = applicants_for(cluster, task, need.unreachable, wanted, now)
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
        give(cluster, task, reader.host, reader.place, share, now)


# --- taking back -------------------------------------------------------------------------------------


def _end_bad_reads(cluster: Cluster, task: Task, need: Need | None, now: float) -> float:
    wake = inf
    for grant in list(task.grants.values()):
        reader = cluster.present(grant.host)
        if reader is None or not reader.serving:
            take_back(cluster, task, grant)
        elif task.accusations.banned(grant.host, now) or _out_of_reach(task, grant.host, need):
            give_up_on(cluster, task, grant, None)
            take_back(cluster, task, grant)
        else:
            wake = min(wake, _check_progress(cluster, task, grant, need, now))
    return wake


def _out_of_reach(task: Task, host: str, need: Need | None) -> bool:
    return need is not None and host in need.unreachable and host not in task.waiting


def _check_progress(cluster: Cluster, task: Task, grant: Grant, need: Need | None, now: float) -> float:
    timeout = cluster.config.grant_timeout
    patience = timeout if grant.opened or not _named_elsewhere(task, grant) else min(timeout, ANOTHER_PLACE)
    overdue, hopeless = grant.progress + patience, grant.progress + HOPELESS * timeout
    if now < overdue:
        return overdue
    unreachable = need.unreachable if need is not None else frozenset()
    if now < hopeless and not applicants_for(cluster, task, unreachable, grant.pieces, now, instead_of=grant):
        return min(hopeless, now + timeout / 4)
    url = redact_url(grant.place or task.spec.url)
    words = f"reading {url} made no progress for {now - grant.progress:.0f} s"
    give_up_on(cluster, task, grant, Failure(words, fault="origin"))
    take_back(cluster, task, grant)
    return inf


def _named_elsewhere(task: Task, grant: Grant) -> bool:
    """Whether the content could be read at another place than that of the grant, where nobody has tried yet."""
    return any(place.url != grant.place and not place.tried for place in task.open_places())


def _end_unwanted_reads(cluster: Cluster, task: Task, now: float) -> float:
    if not task.grants:
        task.unwanted_since = None
        task.places.begin_again()
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
