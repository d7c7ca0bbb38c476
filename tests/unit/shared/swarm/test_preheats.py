"""Preheats on a host: what is done, told and given up, whatever comes and goes meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from shared.errors import InvalidRequest, SourceError, StoreFull, Unavailable
from shared.protocol import (
    Failure,
    PeerRegistered,
    Preheated,
    PreheatItem,
    PreheatOver,
    PreheatWanted,
    Report,
    Resolved,
    ResolveWanted,
)
from shared.swarm import preheats as module
from shared.swarm.fetch import Fetched, FetchOrder
from shared.swarm.host import Host
from shared.swarm.preheats import LAST_WAIT, MAX_JOBS, TRIES, Preheats
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import SPEC
from tests.unit.shared.swarm.worlds import OF, new_world

ITEMS = [PreheatItem(TaskSpec(url=f"https://o.test/{n}"), f"file {n}") for n in range(6)]
LOGIN = {"authorization": "Basic x"}


def items(*numbers: int) -> list[PreheatItem]:
    return [ITEMS[number] for number in numbers]


class Bench:
    """A host whose fetches and resolver are the test's."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.reports: list[Report] = []
        self.orders: list[FetchOrder] = []
        self.running = 0
        self.most = 0
        self.go = trio.Event()
        self.script: Callable[[FetchOrder], Awaitable[None]] = self.pass_gate
        self.resolution: Callable[[], Awaitable[Resolved]] = self.resolved
        self.own: dict[str, str] | Exception = LOGIN
        self.logins: list[bool] = []
        self.preheats = Preheats(cast(Host, self), cast(Any, self), concurrent=4)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    async def pass_gate(self, order: FetchOrder) -> None:
        await self.go.wait()

    async def fetch(self, host: object, order: FetchOrder) -> Fetched:
        assert host is self
        self.orders.append(order)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.script(order)
        finally:
            self.running -= 1
        return Fetched(order.spec.task_id, 100, "", 1.0, {"peer": 60, "origin": 40})

    async def resolve(self, wanted: ResolveWanted, *, own_login: bool) -> Resolved:
        self.logins.append(own_login)
        return await self.resolution()

    async def resolved(self) -> Resolved:
        await self.go.wait()
        return Resolved(1, "name", items(0))

    async def own_headers(self, url: str) -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        if isinstance(self.own, Exception):
            raise self.own
        return self.own

    def fails(self, *errors: Exception) -> None:
        """The next fetches raise these; those after them succeed."""
        left = list(errors)

        async def script(_: FetchOrder) -> None:
            await trio.lowlevel.checkpoint()
            if left:
                raise left.pop(0)

        self.script = script

    def want(self, *numbers: int, job: int = 1, patience: float = 3600.0, **fields: Any) -> None:
        self.preheats.ordered(PreheatWanted(job, items(*numbers), patience, **fields))

    def told(self) -> list[tuple[int, str]]:
        """(item, outcome) as reported."""
        numbers = {item.spec.task_id: number for number, item in enumerate(ITEMS)}
        return [
            (numbers[report.task], "done" if report.failure is None else report.failure.words)
            for report in self.reports
            if isinstance(report, Preheated)
        ]


@pytest.fixture
async def bench(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    made = Bench(nursery)
    monkeypatch.setattr(module, "fetch", made.fetch)
    yield made
    nursery.cancel_scope.cancel()


# --- contents ----------------------------------------------------------------------------------------


async def test_all_is_brought_few_at_a_time(bench: Bench) -> None:
    bench.want(0, 1, 2, 3, 4, 5)
    await wait_all_tasks_blocked()
    assert bench.running == 4
    bench.go.set()
    await wait_all_tasks_blocked()
    assert sorted(bench.told()) == [(n, "done") for n in range(6)]
    assert bench.most == 4
    first = bench.reports[0]
    assert isinstance(first, Preheated)
    assert (first.job, first.length, first.bytes) == (1, 100, {"peer": 60, "origin": 40})


async def test_several_preheats_share_the_places(bench: Bench) -> None:
    for job in (1, 2, 3):
        bench.want(0, 1, 2, job=job)
    await wait_all_tasks_blocked()
    assert bench.running == 4
    bench.go.set()
    await wait_all_tasks_blocked()
    assert len(bench.told()) == 9


async def test_an_order_that_comes_again_begins_nothing_twice(bench: Bench) -> None:
    bench.want(0, 1)
    bench.want(0, 1, 2)
    await wait_all_tasks_blocked()
    assert bench.running == 3
    bench.go.set()
    await wait_all_tasks_blocked()
    assert sorted(bench.told()) == [(0, "done"), (1, "done"), (2, "done")]
    bench.want(1)
    assert bench.told()[-1] == (1, "done"), "told again, since it was not heard"
    assert len(bench.orders) == 3


async def test_what_was_told_is_told_anew_until_it_is_over(bench: Bench) -> None:
    bench.go.set()
    bench.want(0, 1)
    await wait_all_tasks_blocked()
    assert bench.preheats.reports() == bench.reports
    bench.preheats.ordered(PreheatOver(1))
    assert bench.preheats.reports() == []


async def test_one_that_is_over_is_ended_and_tells_nothing(bench: Bench) -> None:
    bench.want(0, 1, 2, 3, 4)
    bench.want(5, job=2)
    await wait_all_tasks_blocked()
    bench.preheats.ordered(PreheatOver(1))
    bench.preheats.ordered(PreheatOver(7))
    await wait_all_tasks_blocked()
    assert bench.running == 1, "the places are free for the other one"
    bench.go.set()
    await wait_all_tasks_blocked()
    assert bench.told() == [(5, "done")]


async def test_one_that_is_over_before_it_began(bench: Bench) -> None:
    bench.want(0)
    bench.preheats.ordered(PreheatOver(1))
    await wait_all_tasks_blocked()
    assert (bench.orders, bench.running, len(bench.preheats)) == ([], 0, 0)


async def test_its_time_is_over(autojump_clock: MockClock, bench: Bench) -> None:
    bench.want(0, 1, 2, 3, 4, patience=30.0)
    await trio.sleep(31)
    assert bench.running == 0
    bench.want(5, job=2)
    bench.go.set()
    await wait_all_tasks_blocked()
    assert bench.told() == [(5, "done")]


async def test_what_fails_is_told_and_the_rest_is_brought(bench: Bench) -> None:
    bench.fails(SourceError("it is not there", origin_status=404))
    bench.want(0, 1)
    await wait_all_tasks_blocked()
    assert sorted(bench.told()) == [(0, "it is not there"), (1, "done")]
    [failed] = [r for r in bench.reports if isinstance(r, Preheated) and r.failure is not None]
    assert failed.failure == Failure("it is not there", 404)


@pytest.mark.parametrize(
    "error",
    [
        SourceError("x"),
        SourceError("x", origin_status=503, retry_after=20.0),
        SourceError("x", origin_status=429, retry_after=1e9),
        SourceError("x", fault="reader"),
        Unavailable("x"),
    ],
)
async def test_trouble_that_passes(autojump_clock: MockClock, bench: Bench, error: Exception) -> None:
    bench.fails(*[error] * (TRIES - 1))
    begun = trio.current_time()
    bench.want(0)
    await trio.sleep(2 * LAST_WAIT + 1)
    assert bench.told() == [(0, "done")]
    assert trio.current_time() - begun >= 3.0


async def test_trouble_that_lasts(autojump_clock: MockClock, bench: Bench) -> None:
    bench.fails(*[SourceError("trouble", origin_status=503)] * 10)
    bench.want(0)
    await trio.sleep(100)
    assert bench.told() == [(0, "trouble")]
    assert len(bench.orders) == TRIES


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("x"),
        StoreFull("x"),
        SourceError("x", origin_status=403),
        SourceError("x", fault="request"),
    ],
)
async def test_what_would_be_the_same_again_is_not_tried_again(bench: Bench, error: Exception) -> None:
    bench.fails(error)
    bench.want(0)
    await wait_all_tasks_blocked()
    assert (bench.told(), len(bench.orders)) == ([(0, "x")], 1)


async def test_a_defect_is_told_without_its_words(bench: Bench) -> None:
    bench.fails(ValueError("secret"))
    bench.want(0)
    await wait_all_tasks_blocked()
    assert bench.told() == [(0, "a defect in dragonet: ValueError")]


# --- credentials -------------------------------------------------------------------------------------


async def test_who_may_read_has_the_credentials(bench: Bench) -> None:
    bench.want(0, headers=LOGIN)
    bench.want(1, job=2, may_read=False)
    await wait_all_tasks_blocked()
    told = {order.spec.url: (order.private_headers, order.may_read) for order in bench.orders}
    assert [told[item.spec.url] for item in items(0, 1)] == [(LOGIN, True), ({}, False)]


async def test_who_may_not_read_waits_for_who_may(autojump_clock: MockClock, bench: Bench) -> None:
    bench.fails(*[SourceError("nobody reads it yet", fault="reader")] * 20)
    bench.want(0, may_read=False)
    await trio.sleep(300)
    assert bench.told() == [(0, "done")]


async def test_own_credentials(bench: Bench) -> None:
    bench.want(0, own_login=True)
    await wait_all_tasks_blocked()
    assert [(o.private_headers, o.may_read) for o in bench.orders] == [(LOGIN, True)]


@pytest.mark.parametrize("own", [{}, SourceError("docker's file is damaged")])
async def test_without_own_credentials_it_waits_for_others(bench: Bench, own: Any) -> None:
    bench.own = own
    bench.want(0, own_login=True)
    await wait_all_tasks_blocked()
    assert [(o.private_headers, o.may_read) for o in bench.orders] == [({}, False)]


# --- images ------------------------------------------------------------------------------------------


def order(patience: float = 60.0) -> ResolveWanted:
    return ResolveWanted(1, "name", patience)


async def test_an_image_is_looked_at_once(bench: Bench) -> None:
    bench.preheats.ordered(order(), own_login=True)
    bench.preheats.ordered(order())
    bench.go.set()
    await wait_all_tasks_blocked()
    assert bench.reports == [Resolved(1, "name", items(0))]
    bench.preheats.ordered(order())
    assert bench.reports == [Resolved(1, "name", items(0))] * 2
    assert bench.logins == [True]


async def test_an_image_that_is_wrong(bench: Bench) -> None:
    async def fail() -> Resolved:
        await trio.lowlevel.checkpoint()
        raise SourceError("there is none", origin_status=404)

    bench.resolution = fail
    bench.preheats.ordered(order())
    await wait_all_tasks_blocked()
    assert bench.reports == [Resolved(1, failure=Failure("there is none", 404))]


async def test_trouble_of_a_registry_that_passes(autojump_clock: MockClock, bench: Bench) -> None:
    tries = 0

    async def troubled() -> Resolved:
        nonlocal tries
        await trio.lowlevel.checkpoint()
        tries += 1
        if tries < TRIES:
            raise SourceError("too many requests", origin_status=429, retry_after=5.0)
        return Resolved(1, "name", items(0))

    bench.resolution = troubled
    bench.preheats.ordered(order())
    await trio.sleep(30)
    assert bench.reports == [Resolved(1, "name", items(0))]


async def test_a_name_that_is_wrong_is_wrong_everywhere(bench: Bench) -> None:
    async def fail() -> Resolved:
        await trio.lowlevel.checkpoint()
        raise InvalidRequest("no name")

    bench.resolution = fail
    bench.preheats.ordered(order())
    await wait_all_tasks_blocked()
    assert bench.reports == [Resolved(1, failure=Failure("no name", fault="request"))]


async def test_an_image_that_takes_too_long(autojump_clock: MockClock, bench: Bench) -> None:
    bench.preheats.ordered(order(patience=5.0))
    await trio.sleep(6)
    [told] = bench.reports
    assert isinstance(told, Resolved)
    assert told.failure is not None
    assert (told.failure.fault, "within 5 s" in told.failure.words) == ("reader", True)


async def test_an_image_nobody_wants_any_more(bench: Bench) -> None:
    bench.preheats.ordered(order())
    await wait_all_tasks_blocked()
    bench.preheats.ordered(PreheatOver(1))
    await wait_all_tasks_blocked()
    assert bench.reports == []


# --- bounds, and a real host -------------------------------------------------------------------------


async def test_not_more_than_so_many_are_remembered(bench: Bench) -> None:
    for job in range(MAX_JOBS + 10):
        bench.want(0, job=job)
    await wait_all_tasks_blocked()
    assert len(bench.preheats) == MAX_JOBS
    bench.go.set()
    await wait_all_tasks_blocked()
    assert len(bench.told()) == MAX_JOBS


@asynccontextmanager
async def _real() -> AsyncIterator[tuple[Any, Preheats]]:
    async with new_world() as world:
        preheats = Preheats(world.host, cast(Any, SimpleNamespace()))
        world.host.preheats = preheats
        yield world, preheats


async def test_a_host_carries_it_out_and_tells_its_scheduler(autojump_clock: MockClock) -> None:
    async with _real() as (world, preheats):
        world.linked()
        world.link.lost = 1e9  # nobody answers, so that the host reads alone
        assert world.host.lease().preheats
        await world.host.ordered(PreheatWanted(4, [PreheatItem(SPEC, "file")], 60.0), own_login=False)
        await trio.sleep(30)
        [told] = world.link.of(Preheated)
        assert (told.job, told.length, told.bytes["origin"]) == (4, len(OF.data), len(OF.data))
        await world.tell_anew(full=False)
        assert len(world.link.of(Preheated)) == 2
        await world.host.ordered(PreheatOver(4), own_login=False)
        assert len(preheats) == 0


async def test_who_may_not_read_does_not_read_alone_either(autojump_clock: MockClock) -> None:
    async with _real() as (world, _):
        world.linked()
        world.link.lost = 1e9
        with pytest.raises(Unavailable, match="was not given what it takes"):
            await world.get(may_read=False)
        assert world.origin.jobs == []


async def test_one_who_may_read_lifts_the_ban(autojump_clock: MockClock) -> None:
    async with _real() as (world, _):
        world.linked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: world.get(may_read=False))
            await wait_all_tasks_blocked()
            [first] = world.link.of(PeerRegistered)
            assert not first.may_read
            nursery.start_soon(world.get)
            await wait_all_tasks_blocked()
            assert world.link.of(PeerRegistered)[-1].may_read
            world.link.lost = 1e9
        assert world.origin.jobs
