from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import cast

import trio
import trio.testing

from shared.errors import SourceError, StoreFull
from shared.protocol import (
    Failure,
    Report,
    SourceFailed,
    SourceFinished,
    SourceGranted,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    TaskMeta,
)
from shared.store import Store
from shared.swarm.limits import TokenBucket
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.source import SourceReads
from shared.swarm.tasks import HostTasks
from tests.unit.shared.swarm.fakes import PIECE, SPEC, FakeOrigin, MemoryStore, Reported, metrics, sample

Clock = trio.testing.MockClock
OF = sample(3.5)
TASK = SPEC.task_id


class Reader:
    def __init__(self, nursery: trio.Nursery, rate: float = 0) -> None:
        self.nursery = nursery
        self.store = MemoryStore()
        self.reporter = Reported()
        self.origin = FakeOrigin(OF)
        self.tasks = HostTasks(cast(Store, self.store), self.reporter, metrics(), linger=5)
        self.reads = SourceReads(self.tasks, self.origin, self.reporter, metrics(), TokenBucket(rate))

    async def read(self, granted: SourceGranted) -> list[Report]:
        """What is reported of a granted read."""
        async with trio.open_nursery() as nursery:
            self.reads.start(nursery, granted)
            self.reads.start(nursery, granted)
        assert self.reads.running == 0
        return self.reporter.reports


@asynccontextmanager
async def new_reader(rate: float = 0) -> AsyncIterator[Reader]:
    async with trio.open_nursery() as nursery:
        reader = Reader(nursery, rate)
        async with aclosing(reader.tasks):
            yield reader
        assert reader.store.opened == 0
        assert reader.origin.running == 0


async def test_a_granted_read_tells_the_scheduler_as_it_goes(autojump_clock: Clock) -> None:
    async with new_reader() as reader:
        reports = await reader.read(SourceGranted(TASK, "g", SPEC))
        assert len(reader.origin.jobs) == 1
        opened = [r for r in reports if isinstance(r, SourceOpened)]
        assert opened == [SourceOpened(TASK, "g", OF.meta)]
        pieces = {n: d for r in reports if isinstance(r, SourcePieces) for n, d in r.digests.items()}
        assert pieces == OF.digests
        finished = reports[-1]
        assert isinstance(finished, SourceFinished)
        assert (finished.grant, finished.meta.length) == ("g", len(OF.data))
        assert any(isinstance(r, SourceProgress) for r in reports)
        assert reader.store.held(OF)


async def test_what_the_cluster_knows_is_taken_over(autojump_clock: Clock) -> None:
    async with new_reader() as reader:
        seen: list[object] = []

        async def look(job: OriginJob, sink: OriginSink) -> None:
            seen.extend([job.meta, job.pieces, sink.digest(1), sink.digest(9), list(sink.held())])
            await sink.finished(OF.meta)

        reader.origin.script = look
        await reader.read(SourceGranted(TASK, "g", SPEC, OF.meta, [(1, 2)], OF.digests))
        assert seen == [OF.meta, ((1, 2),), OF.digests[1], None, []]


async def test_a_failed_read_is_reported_with_its_cause(autojump_clock: Clock) -> None:
    async with new_reader() as reader:

        async def fail(job: OriginJob, sink: OriginSink) -> None:
            raise SourceError("no such file", origin_status=404, retry_after=3, fault="origin")

        reader.origin.script = fail
        reports = await reader.read(SourceGranted(TASK, "g", SPEC))
        assert reports == [SourceFailed(TASK, "g", Failure("no such file", 404, 3, "origin"))]


async def test_a_full_store_is_the_readers_fault(autojump_clock: Clock) -> None:
    async with new_reader() as reader:

        async def full(number: int) -> None:
            raise StoreFull("full")

        reader.store.before_put = full  # type: ignore[method-assign]
        reports = await reader.read(SourceGranted(TASK, "g", SPEC))
        assert reports[-1] == SourceFailed(TASK, "g", Failure("full", None, None, "reader"))


async def test_a_defect_of_a_source_is_reported_too(autojump_clock: Clock) -> None:
    async with new_reader() as reader:

        async def defect(job: OriginJob, sink: OriginSink) -> None:
            raise ZeroDivisionError

        reader.origin.script = defect
        failed = (await reader.read(SourceGranted(TASK, "g", SPEC)))[-1]
        assert isinstance(failed, SourceFailed)
        assert failed.failure.fault == "reader"


async def test_a_revoked_read_stops_and_keeps_what_it_brought(autojump_clock: Clock) -> None:
    async with new_reader(rate=PIECE / 10) as reader:
        reader.reads.start(reader.nursery, SourceGranted(TASK, "g", SPEC))
        await trio.sleep(15)
        reader.reads.revoke("g")
        reader.reads.revoke("unknown")
        await trio.testing.wait_all_tasks_blocked()
        assert reader.reads.running == 0
        assert not reader.reporter.of(SourceFailed)
        content = reader.store.contents[TASK]
        assert 0 < len(content.held) < OF.count


async def test_a_version_that_changes_elsewhere_ends_the_read(autojump_clock: Clock) -> None:
    """Pieces of the old version must not get into the new one, nor their digests."""
    new = sample(4, version="v2", seed=2)
    async with new_reader() as reader:

        async def overtaken(number: int) -> None:
            await trio.lowlevel.checkpoint()
            task = reader.tasks.active(TASK)
            assert task is not None
            if number == 1:
                await task.adopt(new.meta)

        reader.store.before_put = overtaken  # type: ignore[method-assign]
        failed = (await reader.read(SourceGranted(TASK, "g", SPEC)))[-1]
        assert isinstance(failed, SourceFailed)
        assert failed.failure.fault == "reader"
        assert "defect" not in failed.failure.words
        async with reader.tasks.wanted(SPEC, TASK) as task:
            assert task.meta == new.meta
            assert not task.digests


async def test_a_read_that_finishes_late_does_not_bring_its_version_back(autojump_clock: Clock) -> None:
    new = sample(4, version="v2", seed=2)
    async with new_reader() as reader:

        async def late(job: OriginJob, sink: OriginSink) -> None:
            await sink.opened(OF.meta)
            task = reader.tasks.active(TASK)
            assert task is not None
            await task.adopt(new.meta)
            await sink.finished(OF.meta)

        reader.origin.script = late
        failed = (await reader.read(SourceGranted(TASK, "g", SPEC)))[-1]
        assert isinstance(failed, SourceFailed)
        async with reader.tasks.wanted(SPEC, TASK) as task:
            assert task.meta == new.meta


async def test_a_task_removed_during_a_read_stays_removed(autojump_clock: Clock) -> None:
    async with new_reader() as reader:

        async def removed(job: OriginJob, sink: OriginSink) -> None:
            await sink.opened(OF.meta)
            await sink.piece(0, memoryview(OF.piece(0)))
            await reader.tasks.forget(TASK)
            await reader.store.remove(TASK)
            await sink.opened(OF.meta)

        reader.origin.script = removed
        failed = (await reader.read(SourceGranted(TASK, "g", SPEC)))[-1]
        assert isinstance(failed, SourceFailed)
        assert not reader.store.contents


async def test_a_slow_read_shows_signs_of_life(autojump_clock: Clock) -> None:
    async with new_reader() as reader:

        async def slow(job: OriginJob, sink: OriginSink) -> None:
            await sink.opened(TaskMeta("v1", PIECE))
            for _ in range(100):
                sink.received(10)
                await trio.sleep(0.1)
            await sink.finished(TaskMeta("v1", PIECE, 0))

        reader.origin.script = slow
        reports = await reader.read(SourceGranted(TASK, "g", SPEC))
        progress = [r.received for r in reports if isinstance(r, SourceProgress)]
        assert progress == sorted(progress)
        assert 9 <= len(progress) <= 11


async def test_a_reader_without_network_says_so(autojump_clock: Clock) -> None:
    async with new_reader() as reader:

        async def unreachable(job: OriginJob, sink: OriginSink) -> None:
            try:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")
            except OSError as error:
                raise SourceError("the answer broke off") from error

        reader.origin.script = unreachable
        [failed] = await reader.read(SourceGranted(TASK, "g", SPEC))
        assert failed == SourceFailed(
            TASK, "g", Failure("the answer broke off", fault="reader"), offline=True
        )
