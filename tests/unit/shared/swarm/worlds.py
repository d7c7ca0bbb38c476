"""A host whose scheduler, origin and parents are the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import trio
import trio.testing

from shared.protocol import ParentsAssigned, PieceDigests, Report, Role, TaskDescribed
from shared.swarm.fetch import Fetched, FetchOrder, fetch
from shared.swarm.host import Host
from shared.swarm.links import Links
from shared.swarm.outbox import Outbox
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import (
    SPEC,
    FakeOrigin,
    Lan,
    MemoryStore,
    Sample,
    assigned,
    running_host,
    sample,
)

Clock = trio.testing.MockClock
OF = sample(10.5)
TASK = SPEC.task_id


class FakeLink:
    """The link of a host whose scheduler is the test. Lost when ``lost`` says for how many seconds."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.reports: list[Report] = []
        self.scheduler = "s"
        self.lost = 0.0
        self.trusted = True

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def lost_for(self, task_id: str) -> float:
        return self.lost

    def trusts_owner(self, task_id: str) -> bool:
        return self.trusted

    def of(self, kind: type) -> list[Report]:
        return [report for report in self.reports if isinstance(report, kind)]


class World:
    def __init__(
        self, nursery: trio.Nursery, host: Host, store: MemoryStore, origin: FakeOrigin, lan: Lan
    ) -> None:
        self.nursery = nursery
        self.host = host
        self.store = store
        self.origin = origin
        self.lan = lan
        self.link = FakeLink()

    def linked(self, role: Role = "peer") -> None:
        """There is a scheduler, to which the host is this; only a seeder does what nobody there waits for."""
        self.host.identity = replace(self.host.identity, role=role)
        self.host.link = cast(Links, self.link)

    async def tell_anew(self, full: bool) -> None:
        """As links do when a scheduler may not know how things stand."""
        told = set()
        for task_id in self.host.active():
            reports = self.host.told(task_id)
            for report in reports or ():
                self.link.report(report)
            if reports is not None:
                told.add(task_id)
        for report in self.host.preheated():
            self.link.report(report)
        for task_id in self.host.stored() if full else ():
            holding = await self.host.holding(task_id)
            if task_id not in told and holding is not None:
                self.link.report(holding)

    async def get(self, spec: TaskSpec = SPEC, **order: Any) -> Fetched:
        with trio.fail_after(1000):
            return await fetch(self.host, FetchOrder(spec, **order))

    async def assign(self, of: Sample, *names: str, task: str = TASK) -> None:
        """What a scheduler would send a peer that registered."""
        await self.host.assigned(TaskDescribed(task, of.meta))
        await self.host.assigned(PieceDigests(task, of.version, of.digests))
        await self.host.assigned(ParentsAssigned(task, list(assigned(*names).values())))

    def result(self, name: str) -> float:
        return self.host.metrics.downloads.labels(name)._value.get()


@asynccontextmanager
async def new_world(of: Sample = OF) -> AsyncIterator[World]:
    """A world in which the origin has ``of``; nobody may be left at its end."""
    store, origin = MemoryStore(), FakeOrigin(of)
    async with trio.open_nursery() as nursery:
        lan = Lan(nursery)
        async with running_host(store, origin, lan) as host:
            yield World(nursery, host, store, origin, lan)
            await trio.testing.wait_all_tasks_blocked()
            assert not len(host.sessions)
            assert all(not task.users and not task.fetches and not task.outputs for task in host.tasks)
            assert origin.running == 0
        assert store.opened == 0
        nursery.cancel_scope.cancel()
