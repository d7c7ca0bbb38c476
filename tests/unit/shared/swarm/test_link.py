"""The link to a scheduler that restarts, forgets, breaks off or talks nonsense. The HTTP client is a fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Self, cast

import pytest
import trio
import trio.testing

from shared.http.client import ClientResponse, HttpClient, HttpConnectError, HttpTimeout
from shared.http.fields import Headers
from shared.http.frames import frame
from shared.protocol import (
    Assignment,
    Beat,
    HostLease,
    LeaseGranted,
    ParentsWanted,
    PeerLeft,
    PieceDigests,
    Report,
    ReportsTaken,
    SourceRevoked,
    Welcome,
    decode_lease,
    decode_reports,
    encode,
)
from shared.swarm.identity import HostIdentity
from shared.swarm.link import LAST_RETRY, RING_RETRY, SILENCE, SchedulerLink
from shared.swarm.outbox import MAX_QUEUED

Clock = trio.testing.MockClock


class FakeStream:
    def __init__(self, scheduler: FakeScheduler, status: int, read_timeout: float) -> None:
        self.status = status
        self.headers = Headers([])
        self._scheduler = scheduler
        self._timeout = read_timeout

    def chunks(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with trio.move_on_after(self._timeout) as scope:
            data = await self._scheduler.frames.receive()
        if scope.cancelled_caught:
            raise HttpTimeout("silent")
        if data is None:
            raise HttpConnectError("cut")
        return data


class FakeScheduler:
    """An HttpClient that is a scheduler itself."""

    def __init__(self) -> None:
        self.id = "s1"
        self.ttl = 9.0
        self.down = False
        self.status = 200
        self.leases: list[HostLease] = []
        self.lease_times: list[float] = []
        self.stream_times: list[float] = []
        self.known: set[str] = set()
        self.reports: list[Report] = []
        self.deleted = 0
        self.stream_status = 200
        self.welcomes = True
        self.garbage = b""
        self.forgets_at_once = False
        self.beat = 5.0
        self.urls: list[str] = []
        self.on_report: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._send, self.frames = trio.open_memory_channel[bytes | None](1000)

    def restart(self, name: str) -> None:
        self.id = name
        self.known.clear()
        self._send.send_nowait(None)

    def assign(self, assignment: Assignment) -> None:
        self._send.send_nowait(frame(encode(assignment)))

    def send(self, data: bytes | None) -> None:
        self._send.send_nowait(data)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: object = (),
        content: bytes = b"",
        timeout: float | None = None,
    ) -> ClientResponse:
        await trio.lowlevel.checkpoint()
        self.urls.append(url)
        if method == "PUT":
            self.lease_times.append(trio.current_time())
        if self.down:
            raise HttpConnectError("refused")
        if self.garbage or self.status != 200:
            return ClientResponse(self.status, Headers([]), self.garbage)
        if method == "DELETE":
            self.deleted += 1
            return ClientResponse(200, Headers([]), b"")
        if method == "PUT":
            lease = decode_lease(content)
            self.leases.append(lease)
            known = lease.instance in self.known
            if not self.forgets_at_once:
                self.known.add(lease.instance)
            return ClientResponse(
                200, Headers([]), encode(LeaseGranted(self.id, self.ttl, known, beat=self.beat))
            )
        await self.on_report()
        reports = decode_reports(content)
        known = reports.instance in self.known
        if known:
            self.reports += reports.items
        return ClientResponse(200, Headers([]), encode(ReportsTaken(known)))

    @asynccontextmanager
    async def feed(
        self,
        url: str,
        *,
        headers: object = (),
        timeout: float | None = None,
        read_timeout: float = 1e9,
        quiet: bytes = b"",
        feeds: object = None,
    ) -> AsyncIterator[FakeStream]:
        await trio.lowlevel.checkpoint()
        self.stream_times.append(trio.current_time())
        if self.down:
            raise HttpConnectError("refused")
        if self.welcomes:
            self.assign(Welcome(self.id))
        yield FakeStream(self, self.stream_status, read_timeout)


class Owner:
    """The host behind the link."""

    def __init__(self) -> None:
        self.identity = HostIdentity("host", "peer", "h:1", instance="instance")
        self.link: SchedulerLink | None = None
        self.told: list[bool] = []
        self.granted: list[LeaseGranted] = []
        self.heard: list[Assignment] = []
        self.holds = 0
        self.caught_up = 0

    def lease(self, link: SchedulerLink) -> HostLease:
        return HostLease("host", "instance", "peer", "h:1")

    async def leased(self, granted: LeaseGranted, link: SchedulerLink) -> None:
        self.granted.append(granted)

    async def tell_anew(self, full: bool, link: SchedulerLink) -> None:
        self.told.append(full)
        assert self.link is not None
        for number in range(self.holds if full else 0):
            await self.link.outbox.below(3)
            self.link.report(PeerLeft(f"anew {number}"))

    async def catch_up(self, link: SchedulerLink) -> None:
        self.caught_up += 1

    async def assigned(self, assignment: Assignment, link: SchedulerLink) -> None:
        self.heard.append(assignment)


class World:
    def __init__(self, *, ring: bool = False) -> None:
        self.scheduler = FakeScheduler()
        self.owner = Owner()
        self.changes: list[str | None] = []
        self.link = self.owner.link = SchedulerLink(
            "http://scheduler/", cast(HttpClient, self.scheduler), self.owner, self.changes.append, ring=ring
        )


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = World()
    nursery.start_soon(world.link.run)
    return world


async def test_a_host_is_leased_told_and_listens(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    assert world.link.connected
    assert world.link.lost_for() == 0
    assert world.owner.told == [True, False]
    assert world.changes[-1] is None
    world.scheduler.assign(SourceRevoked("1" * 64, "g"))
    world.scheduler.assign(PieceDigests("1" * 64, "v", {1 << 62: bytes(32)}))
    world.scheduler.assign(Beat())
    await trio.sleep(1)
    assert world.owner.heard == [SourceRevoked("1" * 64, "g")]
    assert world.link.connected


async def test_the_lease_is_renewed_in_time(autojump_clock: Clock, world: World) -> None:
    for _ in range(10):
        await trio.sleep(5)
        world.scheduler.assign(Beat())
    gaps = [b - a for a, b in zip(world.scheduler.lease_times, world.scheduler.lease_times[1:], strict=False)]
    assert max(gaps) <= world.scheduler.ttl / 3
    assert len(gaps) < 50
    assert world.owner.told == [True, False]


async def test_a_changed_lease_is_told_at_once(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1.5)
    before = len(world.scheduler.leases)
    world.link.renew()
    await trio.testing.wait_all_tasks_blocked()
    assert len(world.scheduler.leases) == before + 1


@pytest.mark.parametrize("ttl", [0.0, -5.0, float("nan"), float("inf"), 1e-9])
async def test_an_absurd_lease_makes_no_storm(autojump_clock: Clock, world: World, ttl: float) -> None:
    world.scheduler.ttl = ttl
    await trio.sleep(10)
    assert len(world.scheduler.leases) <= 120
    assert world.link.connected


async def test_a_scheduler_that_restarts_is_told_everything(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.owner.told.clear()
    world.scheduler.restart("s2")
    await trio.sleep(1)
    assert True in world.owner.told
    assert False in world.owner.told
    assert world.link.connected
    assert world.link.scheduler == "s2"


async def test_a_lease_that_ended_is_told_everything(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.owner.told.clear()
    world.scheduler.known.clear()
    await trio.sleep(4)
    assert world.owner.told == [True]


async def test_reports_are_kept_while_the_scheduler_is_away(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.scheduler.down = True
    world.scheduler.send(None)
    for number in range(5):
        world.link.report(PeerLeft(str(number)))
        await trio.sleep(7)
    assert not world.link.connected
    assert world.link.lost_for() > 30
    assert world.changes[-1] is not None
    world.scheduler.down = False
    await trio.sleep(2 * LAST_RETRY)
    assert world.scheduler.reports == [PeerLeft(str(number)) for number in range(5)]
    assert world.link.connected


async def test_reports_of_an_unknown_host_wait_for_its_lease(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.scheduler.known.clear()
    world.link.report(PeerLeft("t"))
    await trio.sleep(2)
    assert world.scheduler.reports == [PeerLeft("t")]
    assert world.owner.told == [True, False, True]


async def test_refused_reports_are_dropped_and_the_next_go_on(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.scheduler.status = 400
    world.link.report(PeerLeft("bad"))
    await trio.sleep(1)
    world.scheduler.status = 200
    world.link.report(PeerLeft("good"))
    await trio.sleep(10)
    assert world.scheduler.reports == [PeerLeft("good")]


async def test_an_overflow_leads_to_telling_anew(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.owner.told.clear()
    for number in range(MAX_QUEUED + 5):
        world.link.report(PeerLeft(str(number)))
    await trio.sleep(1)
    assert world.owner.told == [True]
    assert not world.link.outbox.overflowed
    world.link.report(ParentsWanted("t"))
    await trio.sleep(1)
    assert world.scheduler.reports == [ParentsWanted("t")]


async def test_telling_much_does_not_end_the_lease(autojump_clock: Clock, world: World) -> None:
    """A scheduler that forgets while it is told everything must be told again, not waited for."""

    async def slow() -> None:
        await trio.sleep(2)

    world.scheduler.on_report = slow
    world.owner.holds = 30
    await trio.sleep(10)
    assert len(world.scheduler.leases) > 2
    world.scheduler.known.clear()
    await trio.sleep(200)
    assert world.owner.told.count(True) == 2
    assert world.scheduler.reports[-1] == PeerLeft("anew 29")
    assert not len(world.link.outbox)


async def test_a_broken_stream_is_opened_again_soon_however_often(
    autojump_clock: Clock, world: World
) -> None:
    await trio.sleep(1)
    for _ in range(10):
        world.scheduler.send(None)
        at = trio.current_time()
        await trio.sleep(5)
        assert world.scheduler.stream_times[-1] - at < 0.5
        assert world.link.connected


async def test_a_silent_stream_is_opened_again(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    await trio.sleep(SILENCE + 1)
    assert len(world.scheduler.stream_times) == 2


@pytest.mark.parametrize(
    ("beat", "silence"),
    [(5.0, 12.5), (1.0, 2.5), (0.01, 1.0), (-1.0, 1.0), (1e9, 15.0), (float("nan"), 15.0)],
)
async def test_silence_is_two_and_a_half_beats(autojump_clock: Clock, beat: float, silence: float) -> None:
    world = World()
    world.scheduler.beat = beat
    with trio.move_on_after(silence + 0.05):
        await world.link.run()
    assert len(world.scheduler.stream_times) == 1
    assert not world.link.connected
    assert world.link.was_connected


async def test_what_a_scheduler_has_not_heard_of_can_be_caught_up_with(
    autojump_clock: Clock, world: World
) -> None:
    await trio.sleep(1)
    assert world.owner.caught_up == 1, "after everything"
    world.link.catch_up()
    await trio.sleep(1)
    assert world.owner.caught_up == 2
    assert world.owner.told == [True, False]


async def test_a_link_speaks_for_the_host_that_it_was_made_for(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.owner.identity = HostIdentity("renamed", "peer", "h:1", instance="another")
    await trio.sleep(10)
    await world.link.leave()
    assert {url.partition("/hosts/")[2] for url in world.scheduler.urls} == {"host?instance=instance"}


async def test_in_a_ring_nobody_is_waited_for_for_long(autojump_clock: Clock) -> None:
    world = World(ring=True)
    world.scheduler.down = True
    with trio.move_on_after(20):
        await world.link.run()
    times = world.scheduler.lease_times
    assert max(b - a for a, b in pairwise(times)) <= RING_RETRY
    assert 15 < len(times) < 40


async def test_what_only_newer_schedulers_say_is_left_out(autojump_clock: Clock, world: World) -> None:
    await trio.sleep(1)
    world.scheduler.send(frame(b"\x81\xa4type\xa7unknown"))
    await trio.sleep(5)
    assert len(world.scheduler.stream_times) == 1
    assert world.link.connected


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        frame(b"\xc1garbage"),
        frame(b"\x82\xa4type\xa4beat\xa1x" + b"\x91" * 200_000),
        frame(encode(Welcome("s1", version=99))),
    ],
)
async def test_nonsense_on_the_stream_breaks_it_only(
    autojump_clock: Clock, world: World, data: bytes
) -> None:
    await trio.sleep(1)
    world.scheduler.send(data)
    await trio.sleep(5)
    assert len(world.scheduler.stream_times) == 2
    assert world.link.connected


@pytest.mark.parametrize(
    "garbage", [b"<html>", b"\x91" * 200_000, encode(LeaseGranted("s", 9, True, version=2))]
)
async def test_what_is_no_scheduler_is_said_so(autojump_clock: Clock, garbage: bytes) -> None:
    world = World()
    world.scheduler.garbage = garbage
    with trio.move_on_after(30):
        await world.link.run()
    assert not world.link.connected
    assert world.changes[-1]
    assert 5 < len(world.scheduler.lease_times) < 40


async def test_a_stream_that_is_refused_is_tried_with_patience(autojump_clock: Clock) -> None:
    world = World()
    world.scheduler.stream_status = 503
    with trio.move_on_after(60):
        await world.link.run()
    assert not world.link.connected
    assert 10 < len(world.scheduler.stream_times) < 40


async def test_leaving_gives_the_lease_up(autojump_clock: Clock) -> None:
    world = World()
    await world.link.leave()
    assert world.scheduler.deleted == 1
    world.scheduler.down = True
    await world.link.leave()


async def test_leaving_works_in_a_cancelled_scope(autojump_clock: Clock) -> None:
    world = World()
    with trio.CancelScope() as scope:
        scope.cancel()
        await world.link.leave()
    assert world.scheduler.deleted == 1


async def test_who_forgets_all_the_time_is_told_ever_more_seldom(autojump_clock: Clock, world: World) -> None:
    """It may want no good: telling all that is held costs much."""
    world.scheduler.forgets_at_once = True
    world.scheduler.ttl = 0.01
    await trio.sleep(300)
    assert 8 < world.owner.told.count(True) < 20
    assert world.link.connected
