"""A swarm in zones, simulated: the scheduler's state and the children's choice of pieces are the real ones, links
are queues. Counts how often each piece is sent over the border of each zone."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from scheduler.zones import near
from shared.protocol import (
    Parent,
    ParentsAssigned,
    ParentsWanted,
    PieceDigests,
    SourceFinished,
    SourceGranted,
)
from shared.swarm.asking import Asking, Wish
from shared.swarm.config import SwarmConfig
from shared.swarm.picker import Holder
from shared.task.bitmap import Bitmap
from tests.unit.scheduler.driver import SPEC, Driver, meta

NEWS = 0.02
"""Seconds until anybody hears of anything."""
LOOK = 0.5


@dataclass(eq=False)
class Worker:
    """A child's dealings with one parent."""

    parent: Parent
    held: Bitmap = field(default_factory=Bitmap)
    asked: list[int] = field(default_factory=list)

    @property
    def offer(self) -> Holder:
        return Holder(self.held, self.parent.stripe, self.parent.far, self.parent.carries)


@dataclass(eq=False)
class Node:
    name: str
    zone: str
    asking: Asking
    held: Bitmap = field(default_factory=Bitmap)
    known: Bitmap = field(default_factory=Bitmap)
    workers: dict[str, Worker] = field(default_factory=dict)
    read: int = 0
    wants: bool = False
    dead: bool = False
    stuck: bool = False
    done_at: float | None = None


class Swarm:
    """``pieces`` take ``uplink`` seconds to leave a host, ``border`` to pass between two zones."""

    def __init__(
        self,
        pieces: int = 70,
        *,
        uplink: float = 0.02,
        border: float = 0.02,
        origin: float = 0.01,
        depth: int = 3,
        seed: int = 1,
    ) -> None:
        self.d = Driver(seed)
        self.rng = random.Random(seed)
        self.pieces, self.uplink, self.border, self.origin, self.depth = pieces, uplink, border, origin, depth
        self.meta = meta(pieces=pieces)
        self.nodes: dict[str, Node] = {}
        self.crossed: dict[str, Counter[int]] = {}
        self.crossed_by: dict[str, Bitmap] = {}
        self._free: Counter[str] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._told: Counter[str] = Counter()
        self._at(3.0, self._renew)
        self._at(LOOK, self._look)

    @property
    def now(self) -> float:
        return self.d.now

    # --- what happens

    def host(self, name: str, zone: str) -> Node:
        asking = Asking(SwarmConfig(), random.Random(self.rng.random()))
        node = self.nodes[name] = Node(name, zone, asking)
        self.d.join(name, network=zone)
        return node

    def start(self, *names: str, every: float = 0.0) -> None:
        """These hosts want the content, one after the other."""
        for i, name in enumerate(names):
            self.nodes[name].wants = True
            self._at(i * every, lambda name=name: self.d.want(name))  # type: ignore[misc]

    def die(self, name: str) -> None:
        """A host vanishes: its stream breaks, what was asked of it never comes."""
        node = self.nodes[name]
        node.dead = True
        self.d.instances.pop(name)
        self.d.close(name)
        for child in self.nodes.values():
            if name in child.workers and not child.dead:
                self._at(1.0, lambda child=child: self._failed(child, name))  # type: ignore[misc]

    def run(self, until: Callable[[], bool], limit: float = 200.0) -> None:
        end = self.now + limit
        while not until():
            assert self.now < end, [(n.name, len(n.held), n.workers) for n in self.nodes.values()]
            when, _, event = heapq.heappop(self._events)
            self.d.wait(max(when - self.now, 0.0), renewing=False)
            event()
            self._listen()

    def finished(self) -> bool:
        return all(n.done_at is not None for n in self.nodes.values() if n.wants and not (n.dead or n.stuck))

    def sent_to(self, zone: str) -> Counter[int]:
        """How often each piece was sent over the border to a zone."""
        return self.crossed.get(zone, Counter())

    # --- inside

    def _at(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), event))

    def _renew(self) -> None:
        for name in list(self.d.instances):
            present = self.d.state.cluster.present(name)
            if present is not None:
                self.d.take(self.d.state.renew(present.lease, self.now)[1])
        self._at(3.0, self._renew)

    def _look(self) -> None:
        for node in self.nodes.values():
            self._fill(node)
            missing = node.known - node.held - Bitmap(node.asking.requested)
            if missing and not any(worker.held & missing for worker in node.workers.values()):
                self.d.say(node.name, ParentsWanted(SPEC.task_id))
        self._at(LOOK, self._look)

    def _listen(self) -> None:
        for name, node in self.nodes.items():
            told = self.d.told.get(name, [])
            for assignment in told[self._told[name] :]:
                self._at(NEWS, lambda node=node, a=assignment: self._hear(node, a))  # type: ignore[misc]
            self._told[name] = len(told)

    def _hear(self, node: Node, assignment: Any) -> None:
        if node.dead:
            return
        if isinstance(assignment, PieceDigests):
            for number in assignment.digests:
                node.known.add(number)
        elif isinstance(assignment, SourceGranted):
            self.d.opened(node.name, self.meta, grant=assignment.grant)
            self._at(self.origin, lambda: self._read(node, assignment.grant, 0))
        elif isinstance(assignment, ParentsAssigned) and node.wants:
            self._assigned(node, {parent.host: parent for parent in assignment.parents})
        self._fill(node)

    def _assigned(self, node: Node, parents: dict[str, Parent]) -> None:
        for host in [h for h in node.workers if h not in parents]:
            for number in node.workers.pop(host).asked:
                node.asking.settled(number)
        for host, parent in parents.items():
            if host in node.workers:
                node.workers[host].parent = parent
            else:
                worker = node.workers[host] = Worker(parent)
                self._at(NEWS, lambda worker=worker, host=host: self._see(node, worker, host))  # type: ignore[misc]

    def _see(self, node: Node, worker: Worker, host: str) -> None:
        worker.held = self.nodes[host].held.copy()
        self._fill(node)

    def _read(self, node: Node, grant: str, number: int) -> None:
        if node.dead:
            return
        if number == self.pieces:
            self.d.say(node.name, SourceFinished(SPEC.task_id, grant, self.meta))
            return
        node.known.add(number)
        self._gain(node, number)
        self.d.read(node.name, number, grant=grant)
        self._at(self.origin, lambda: self._read(node, grant, number + 1))

    def _gain(self, node: Node, number: int) -> None:
        node.held.add(number)
        for child in self.nodes.values():
            if node.name in child.workers and not child.dead:
                self._at(NEWS, lambda child=child: self._seen(child, node.name, number))  # type: ignore[misc]
        if len(node.held) == self.pieces and node.wants:
            node.done_at = self.now

    def _seen(self, child: Node, host: str, number: int) -> None:
        if host in child.workers:
            child.workers[host].held.add(number)
            self._fill(child)

    def _fill(self, node: Node) -> None:
        if node.dead or node.stuck or not node.wants:
            return
        missing = node.known - node.held
        for host, worker in node.workers.items():
            others = [w for w in node.workers.values() if w is not worker]
            wish = Wish(missing, Bitmap(), node.known, node.held)
            while len(worker.asked) < self.depth:
                number = node.asking.pick(worker, others, wish, self.now, 0.75)
                if number is None:
                    break
                worker.asked.append(number)
                self._send(self.nodes[host], node, worker, number)

    def _send(self, parent: Node, child: Node, worker: Worker, number: int) -> None:
        there = max(self.now + NEWS, self._free[parent.name]) + self.uplink
        self._free[parent.name] = there
        assert worker.parent.far != near(parent.zone, child.zone)
        if worker.parent.far:
            self.crossed.setdefault(child.zone, Counter())[number] += 1
            self.crossed_by.setdefault(child.name, Bitmap()).add(number)
            there = self._free["border"] = max(there, self._free["border"]) + self.border
        self._at(there - self.now, lambda: self._arrive(parent, child, worker, number))

    def _arrive(self, parent: Node, child: Node, worker: Worker, number: int) -> None:
        if child.dead or parent.dead or child.workers.get(parent.name) is not worker:
            return
        worker.asked.remove(number)
        if number not in child.held:
            self._gain(child, number)
            self.d.got(child.name, number)
        child.asking.settled(number)
        if child.done_at is not None:
            self.d.finish(child.name)
        self._fill(child)

    def _failed(self, child: Node, parent: str) -> None:
        worker = child.workers.pop(parent, None)
        if worker is not None:
            for number in worker.asked:
                child.asking.settled(number)
            self.d.complain(child.name, parent)
            self._fill(child)
