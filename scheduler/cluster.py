"""What the scheduler knows of the whole cluster, and the outbox for what it decides. Pure state.

``reports`` changes it, ``sourcing`` and ``parenting`` draw conclusions from it, ``state`` puts them together.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from scheduler.config import SchedulerConfig
from scheduler.deadlines import Deadlines
from scheduler.leases import Host, Leases
from scheduler.preheats import Jobs
from scheduler.strangers import Strangers
from scheduler.tasks import Peer, PeerState, Task
from shared.loudness import Loudness
from shared.protocol import (
    Assignment,
    Failure,
    Parent,
    PieceDigests,
    TaskDescribed,
    TaskFailed,
)
from shared.task.generation import in_generation
from shared.task.identity import TaskSpec

Decision = tuple[str, Assignment]


@dataclass(slots=True)
class Tally:
    """What happened so far, for the metrics."""

    grants: int = 0
    grants_adopted: int = 0
    taken_back: int = 0
    contradictions: int = 0
    invalid: int = 0
    failures: int = 0
    same_host: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    preheat_jobs: Counter[str] = field(default_factory=Counter)
    preheat_items: Counter[str] = field(default_factory=Counter)
    preheat_bytes: Counter[str] = field(default_factory=Counter)


class Cluster:
    """Hosts, tasks, and decisions not yet taken out. ``generations`` are the current ones, by logical id,
    where they are not the first; ``secret``, made at ``secret_since`` (Unix seconds), is what all hosts are to
    derive scopes from (b"": not known yet). ``strangers`` are the grants of other schedulers. ``loudness`` is asked
    before anything is logged that a host can bring about as often as it likes."""

    def __init__(self, config: SchedulerConfig, *, now: float, rng: random.Random, wall: float = 0.0) -> None:
        self.config = config
        self.rng = rng
        self.started = now
        self.secret = b""
        self.secret_since = 0.0
        self.generations: dict[str, str] = {}
        self.resumed = False
        self.leases = Leases(ttl=config.lease, stream_grace=config.stream_grace, max_hosts=config.max_hosts)
        self.tasks: dict[str, Task] = {}
        self.preheats = Jobs(history=config.preheat_history)
        self.deadlines: Deadlines[str] = Deadlines()
        self.children: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.unmet: set[str] = set()
        self.tally = Tally()
        self.loudness = Loudness()
        self.touched: dict[str, None] = {}
        self.revoked: set[str] = set()
        self.strangers = Strangers()
        self._outbox: list[Decision] = []
        self._tasks_of: dict[str, set[str]] = {}
        self._grant_prefix = f"{rng.getrandbits(48):012x}"
        self._grant_number = 0
        self._ahead = wall - now

    def wall(self, now: float) -> float:
        """Unix seconds."""
        return self._ahead + now

    # --- decisions -----------------------------------------------------------------------------------

    def send(self, host: str, assignment: Assignment) -> bool:
        """Decide something for a host; False when it has no stream and will be told all once it has."""
        present = self.leases.get(host)
        if present is None or present.stream is None:
            return False
        self._outbox.append((host, assignment))
        return True

    def send_to_waiting(self, task: Task, assignment: Assignment, *, but: str = "") -> None:
        """Decide the same for all who wait for the task."""
        for host in task.waiting:
            if host != but:
                self.send(host, assignment)

    def take_decisions(self) -> list[Decision]:
        """What was decided since the last call, in order."""
        decisions, self._outbox = self._outbox, []
        self.revoked.clear()
        return decisions

    # --- hosts ---------------------------------------------------------------------------------------

    def serving(self, host: str) -> bool:
        """Whether the host may get new children."""
        present = self.leases.get(host)
        return present is not None and present.serving

    def zone(self, host: str) -> str:
        """The zone of a host, "" where it is not known (see ``zones``)."""
        present = self.leases.get(host)
        return "" if present is None else present.zone

    def live(self, host: str) -> bool:
        """Whether the host is there, as far as is known."""
        present = self.leases.get(host)
        return present is not None and present.live

    def live_waiting(self, task: Task) -> list[Peer]:
        """Those who wait for the task and can be helped now."""
        return [peer for peer in task.waiting.values() if self.live(peer.host)]

    def settling(self, task: Task, now: float) -> float | None:
        """Until when hosts may still tell what they have of the task, before its origin is read or asked: after a
        restart, or when it was going on before this scheduler knew it. None when all have had the time."""
        times = [] if task.settles_at is None else [task.settles_at]
        if self.resumed:
            times.append(self.started + self.config.settle)
        return max((time for time in times if time > now), default=None)

    def goes_on(self, task: Task, now: float) -> None:
        """The task was going on before this scheduler knew it: others may read or hold it, and tell so soon."""
        if task.settles_at is None or task.settles_at <= now:
            task.settles_at = now + self.config.settle
            self.touch(task)

    # --- tasks ---------------------------------------------------------------------------------------

    def task(self, task_id: str, spec: TaskSpec) -> Task | None:
        """The task, begun if need be; None when there is no room for another."""
        task = self.tasks.get(task_id)
        if task is None:
            if len(self.tasks) >= self.config.max_tasks and not self._make_room():
                return None
            task = Task(task_id, spec, corrupt_ban=self.config.corrupt_ban)
            self.tasks[task_id] = task
        return task

    def superseded(self, task: Task) -> bool:
        """Whether the source has other content since: a task of a later generation."""
        return task.spec.generation < self.generations.get(task.logical, "")

    def touch(self, task: Task, *, review: bool = True) -> None:
        """Have conclusions drawn for the task at the end of this event; ``review``: of origin reads too."""
        task.review = task.review or review
        self.touched[task.id] = None

    def tasks_of(self, host: str) -> Iterator[tuple[Task, Peer]]:
        """All tasks of which the host is a peer."""
        for task_id in list(self._tasks_of.get(host, ())):
            task = self.tasks.get(task_id)
            if task is not None and (peer := task.peers.get(host)) is not None:
                yield task, peer

    def peer(self, task: Task, host: str) -> Peer:
        """The host's part in the task, begun if need be."""
        self.join(task, host)
        return task.peer(host)

    def join(self, task: Task, host: str) -> None:
        """The host has to do with the task, even where it is no peer: it asks something, or checks."""
        self._tasks_of.setdefault(host, set()).add(task.id)
        task.members.add(host)

    def joined(self, host: str) -> Iterator[Task]:
        """All tasks that the host ever had to do with."""
        for task_id in list(self._tasks_of.get(host, ())):
            if (task := self.tasks.get(task_id)) is not None:
                yield task

    def forget_host(self, host: str) -> None:
        """Nothing is known of the host any more: it is gone, or another process took its name."""
        for task, peer in self.tasks_of(host):
            self.set_parents(peer, None)
            task.remove_peer(host)
            self.lost_parent(task, host)
            self.touch(task)
        for task_id in self._tasks_of.pop(host, ()):
            task_of = self.tasks.get(task_id)
            if task_of is None:
                continue
            task_of.members.discard(host)
            if task_of.freshness.busy:
                task_of.freshness.forget(host)
                self.touch(task_of)
            task_of.accusations.forget(host)
            for child in task_of.waiting.values():
                child.blocks.pop(host, None)

    def forget_task(self, task: Task) -> None:
        """Drop a task."""
        for peer in task.peers.values():
            self.set_parents(peer, None)
        for grant in task.grants.values():
            self.reads[grant.host] -= 1
        for host in task.members:
            self._tasks_of.get(host, set()).discard(task.id)
        self.tasks.pop(task.id, None)
        current = self.generations.get(task.logical)
        if current is not None and in_generation(task.spec, current).task_id not in self.tasks:
            del self.generations[task.logical]
        self.deadlines.set(task.id, None)
        self.touched.pop(task.id, None)
        self.unmet.discard(task.id)

    def _make_room(self) -> bool:
        for task in self.tasks.values():
            if not (task.waiting or task.grants or task.freshness.busy):
                self.forget_task(task)
                return True
        return False

    # --- peers ---------------------------------------------------------------------------------------

    def set_parents(self, peer: Peer, parents: tuple[Parent, ...] | None) -> None:
        """Note the list that a peer has, and count the children of each parent."""
        for parent in peer.parents or ():
            self.children[parent.host] -= 1
            if self.children[parent.host] <= 0:
                del self.children[parent.host]
        for parent in parents or ():
            self.children[parent.host] += 1
        peer.parents = parents

    def lost_parent(self, task: Task, host: str) -> None:
        """Those who have the host as a parent are to get others."""
        for child in task.waiting.values():
            if any(parent.host == host for parent in child.parents or ()):
                task.dirty.add(child.host)

    def gained_parent(self, task: Task, host: str) -> None:
        """The host has become of use: those short of parents get it, and a few others, to spread load."""
        wanted = self.config.parents
        full = []
        for child in task.waiting.values():
            if child.host == host:
                continue
            if len(child.parents or ()) < wanted:
                task.dirty.add(child.host)
            else:
                full.append(child.host)
        task.dirty.update(self.rng.sample(full, min(wanted, len(full))))

    def describe_to(self, task: Task, host: str) -> None:
        """Tell a host all that is known of the content."""
        if task.meta is None:
            return
        self.send(host, TaskDescribed(task.id, task.meta))
        for digests in task.digests.batches():
            self.send(host, PieceDigests(task.id, task.meta.version, digests))

    def stop_waiting(self, task: Task, peer: Peer) -> None:
        """The peer wants nothing more of the task."""
        self.set_parents(peer, None)
        task.stop_waiting(peer)
        self.touch(task)

    def refuse(
        self, task: Task, peer: Peer, failure: Failure, places: Mapping[str, Failure] | None = None
    ) -> None:
        """Tell a waiting peer that it waits in vain; one that does not hear us is told when it does.

        ``places``: what became of those that it named, where that is not the same for all.
        """
        self.tally.failures += 1
        by_place = dict.fromkeys(peer.places, failure) | dict(places or {}) if task.places.several else {}
        told = self.send(peer.host, TaskFailed(task.id, failure, by_place))
        self.set_parents(peer, None)
        task.stop_waiting(peer, None if told else failure)
        self.touched[task.id] = None

    def tell_refused(self, task: Task, peer: Peer) -> None:
        """A refused peer hears us again."""
        if peer.state is PeerState.REFUSED and peer.failure is not None:
            self.send(peer.host, TaskFailed(task.id, peer.failure))
            task.stop_waiting(peer)

    # --- grants --------------------------------------------------------------------------------------

    def new_grant_id(self) -> str:
        """A grant id that no other scheduler, and no earlier run of this one, gives out."""
        self._grant_number += 1
        return f"{self._grant_prefix}-{self._grant_number}"

    def is_own_grant(self, grant_id: str) -> bool:
        """Whether this run of the scheduler gave the grant out."""
        return grant_id.startswith(self._grant_prefix)

    def present(self, host: str) -> Host | None:
        """The host, if it has a lease."""
        return self.leases.get(host)
