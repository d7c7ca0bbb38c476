"""Held content is checked before it is given out again: by the scheduler's leave, or alone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from shared.errors import SourceError
from shared.protocol import (
    CheckGranted,
    FreshWanted,
    PeerFinished,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    SourceChecked,
    SourceGranted,
    TaskFresh,
    TaskMeta,
    TaskMoved,
)
from shared.swarm.fetch import Fetched, FetchOrder, fetch
from shared.swarm.origin import OriginJob, OriginSink
from shared.task.generation import in_generation, is_generation
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import PIECE, SPEC, WALL, FakeParent, sample
from tests.unit.shared.swarm.worlds import OF, TASK, Clock, World, new_world

OLD = replace(OF, revalidate=60.0)
NEW = replace(sample(7, version="v2", seed=2), revalidate=60.0)
LATER = in_generation(SPEC, "0000000005dc")
WANTED = FreshWanted(TASK, SPEC, OLD.meta)


@asynccontextmanager
async def holding(*, old: float = 100.0, linked: bool = True) -> AsyncIterator[World]:
    """A host that holds all of OLD, which was valid ``old`` seconds ago; with a scheduler."""
    async with new_world(OLD) as world:
        if linked:
            world.linked()
        await world.store.hold(OLD, validated=WALL + trio.current_time() - old)
        yield world


async def say_when_asked(world: World, *answers: TaskFresh | TaskMoved) -> None:
    await trio.testing.wait_all_tasks_blocked()
    for answer in answers:
        await world.host.assigned(answer)


# --- with a scheduler ----------------------------------------------------------------------------------


async def test_fresh_content_is_given_out_without_a_message(autojump_clock: Clock) -> None:
    async with holding(old=59) as world:
        began = trio.current_time()
        assert (await world.get()).bytes["store"] == len(OLD.data)
        assert world.link.reports == [PeerFinished(TASK, "v1")], "which is nothing new"
        assert trio.current_time() == began


async def test_content_without_an_age_is_never_asked_about(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        await world.store.hold(OF)
        await world.get()
        assert world.link.reports == [PeerFinished(TASK, "v1")], "which is nothing new"


async def test_content_whose_time_is_over_is_asked_about_once(autojump_clock: Clock) -> None:
    async with holding() as world:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.get)
            await say_when_asked(world)
            assert world.link.of(FreshWanted) == [WANTED]
            assert world.result("done") == 0
            await world.host.assigned(TaskFresh(TASK, 30.0))
        assert world.result("done") == 3
        await world.get()
        await trio.sleep(29)
        await world.get()
        assert world.link.of(FreshWanted) == [WANTED]
        await trio.sleep(2)
        world.nursery.start_soon(say_when_asked, world, TaskFresh(TASK, 30.0))
        await world.get()
        assert world.link.of(FreshWanted) == [WANTED] * 2
        assert world.origin.asked == []


async def test_content_that_is_fresh_for_this_once(autojump_clock: Clock) -> None:
    async with holding() as world:
        for count in (1, 2):
            world.nursery.start_soon(say_when_asked, world, TaskFresh(TASK, 0.0))
            await world.get()
            assert world.link.of(FreshWanted) == [WANTED] * count


async def test_changed_content_comes_instead(autojump_clock: Clock) -> None:
    async with holding() as world:
        world.lan.add("p", FakeParent(NEW))

        async def moved() -> None:
            await say_when_asked(world, TaskMoved(TASK, LATER.generation))
            await trio.testing.wait_all_tasks_blocked()
            assert world.link.reports[-1] == PeerRegistered(LATER.task_id, LATER)
            await world.assign(NEW, "p", task=LATER.task_id)
            await world.host.assigned(TaskFresh(LATER.task_id, 60.0))

        world.nursery.start_soon(moved)
        fetched = await world.get()
        assert (fetched.task_id, fetched.length) == (LATER.task_id, len(NEW.data))
        assert fetched.bytes["peer"] == len(NEW.data)
        assert world.store.held(NEW, LATER)
        assert world.store.held(OLD), "whoever reads it finishes"
        assert world.store.contents[TASK].record.superseded
        reports = len(world.link.reports)
        again = await world.get()
        assert again.task_id == LATER.task_id
        assert len(world.link.reports) == reports, "the newest is known, and fresh"


async def test_a_cold_host_is_sent_on(autojump_clock: Clock) -> None:
    """Nothing is asked of the scheduler but what is asked anyway."""
    async with new_world(NEW) as world:
        world.linked()
        world.lan.add("p", FakeParent(NEW))

        async def moved() -> None:
            await trio.testing.wait_all_tasks_blocked()
            assert world.link.reports == [PeerRegistered(TASK, SPEC)]
            await world.host.assigned(TaskMoved(TASK, LATER.generation))
            await trio.testing.wait_all_tasks_blocked()
            await world.assign(NEW, "p", task=LATER.task_id)

        world.nursery.start_soon(moved)
        assert (await world.get()).task_id == LATER.task_id
        await trio.testing.wait_all_tasks_blocked()
        told = [report for report in world.link.reports if isinstance(report, PeerRegistered | PeerLeft)]
        assert told[0] == PeerRegistered(TASK, SPEC)
        assert PeerLeft(TASK) in told[1:3]
        assert PeerRegistered(LATER.task_id, LATER) in told[1:3]


async def test_a_download_that_has_begun_is_not_moved(autojump_clock: Clock) -> None:
    async with new_world(OLD) as world:
        world.linked()
        parent = world.lan.add("p", FakeParent(OLD))
        gate = trio.Event()

        async def slow(number: int) -> bytes | None:
            if number > 2:
                await gate.wait()
            return await parent.give(number)

        parent.answer = slow
        results: list[Fetched] = []

        async def get() -> None:
            results.append(await world.get(hash_content=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            await trio.testing.wait_all_tasks_blocked()
            await world.assign(OLD, "p")
            await trio.sleep(1)
            await world.host.assigned(TaskMoved(TASK, LATER.generation))
            await world.tell_anew(full=False)
            again = [r for r in world.link.reports if isinstance(r, PeerRegistered)][-1]
            assert again == PeerRegistered(TASK, SPEC, begun=True)
            gate.set()
        assert results[0].task_id == TASK
        assert world.store.held(OLD)


async def test_who_joins_a_long_download_asks(autojump_clock: Clock) -> None:
    async with new_world(OLD) as world:
        world.linked()
        world.nursery.start_soon(world.get)
        await trio.testing.wait_all_tasks_blocked()
        await world.assign(OLD)
        await world.host.assigned(TaskFresh(TASK, 60.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.get)
            await trio.testing.wait_all_tasks_blocked()
            assert not world.link.of(FreshWanted)
            await trio.sleep(61)
            nursery.start_soon(world.get)
            await trio.testing.wait_all_tasks_blocked()
            assert world.link.of(FreshWanted) == [WANTED]
            await world.host.assigned(TaskFresh(TASK, 0.0))
            world.lan.add("p", FakeParent(OLD))
            await world.assign(OLD, "p")
        assert world.store.held(OLD)


async def test_the_cluster_alone_is_not_asked(autojump_clock: Clock) -> None:
    async with holding() as world:
        await world.get(cluster_only=True)
        assert world.link.reports == [PeerFinished(TASK, "v1")], "which is nothing new"


async def test_a_question_that_was_lost_is_asked_again(autojump_clock: Clock) -> None:
    async with holding() as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.get)
            await trio.sleep(6)
            assert world.link.of(FreshWanted) == [WANTED] * 2
            await world.tell_anew(full=False)
            assert world.link.of(FreshWanted) == [WANTED] * 3
            await world.host.assigned(TaskFresh(TASK, 60.0))
        await world.tell_anew(full=False)
        assert len(world.link.of(FreshWanted)) == 3


async def test_who_waits_goes_on_asking_when_the_first_one_leaves(autojump_clock: Clock) -> None:
    async with holding() as world:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                nursery.start_soon(world.get)
                await world.get()
            await trio.sleep(10)
            assert len(world.link.of(FreshWanted)) >= 2
            await world.host.assigned(TaskFresh(TASK, 60.0))
        assert world.result("done") == 1


async def test_a_scheduler_that_does_not_answer_keeps_nobody_waiting(autojump_clock: Clock) -> None:
    async with holding() as world:
        began = trio.current_time()
        await world.get()
        assert 30 < trio.current_time() - began < 60
        await world.get()
        assert world.origin.asked == []


async def test_what_is_held_is_told_with_its_age(autojump_clock: Clock) -> None:
    async with holding(old=20) as world:
        await world.tell_anew(full=True)
        (told,) = world.link.of(PeerHolding)
        assert cast(PeerHolding, told).fresh == pytest.approx(40)
        await world.get()
        await world.tell_anew(full=True)
        assert cast(PeerHolding, world.link.reports[-1]).fresh == pytest.approx(40)
        await trio.sleep(50)
        await world.tell_anew(full=True)
        assert cast(PeerHolding, world.link.reports[-1]).fresh == 0


async def test_a_clock_that_was_set_back_proves_nothing(autojump_clock: Clock) -> None:
    async with holding(old=-100) as world:
        world.nursery.start_soon(say_when_asked, world, TaskFresh(TASK, 60.0))
        await world.get()
        assert world.link.of(FreshWanted) == [WANTED]


async def test_news_of_tasks_that_are_not_here(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        await world.host.assigned(TaskFresh("ab" * 32, 60.0))
        await world.host.assigned(TaskMoved("ab" * 32, LATER.generation))
        await world.store.hold(OLD)
        await world.host.assigned(TaskMoved(TASK, LATER.generation))
        assert world.host.generations.newest(SPEC) == LATER


# --- checks for the cluster ----------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [False, True])
async def test_a_granted_check_is_made_and_told(autojump_clock: Clock, changed: bool) -> None:
    async with new_world(NEW if changed else OLD) as world:
        world.linked("seeder")
        granted = CheckGranted(TASK, "g", SPEC, OLD.meta, 8.0)
        await world.host.assigned(granted)
        await world.host.assigned(granted)
        await trio.testing.wait_all_tasks_blocked()
        assert world.link.reports == [SourceChecked(TASK, "g", changed)]
        assert world.origin.asked == [(SPEC, {}, OLD.meta)]


async def test_a_check_that_fails_says_so(autojump_clock: Clock) -> None:
    async def unknown(meta: TaskMeta) -> None:
        await trio.lowlevel.checkpoint()

    async def never(meta: TaskMeta) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async def defect(meta: TaskMeta) -> bool:
        raise ZeroDivisionError

    async with new_world() as world:
        world.linked("seeder")
        for script in (unknown, never, defect):
            world.origin.expired = script
            began = trio.current_time()
            await world.host.assigned(CheckGranted(TASK, "g", SPEC, OLD.meta, 8.0))
            await trio.sleep(9)
            assert trio.current_time() - began == 9
        assert world.link.reports == [SourceChecked(TASK, "g", False, failed=True)] * 3


async def test_what_this_host_cannot_check_is_said(autojump_clock: Clock) -> None:
    other, private = TaskSpec("s3://bucket/key"), TaskSpec("https://origin.example/file", scope="ab" * 16)
    async with new_world() as world:
        world.linked("seeder")
        for grant, spec in enumerate((other, private)):
            await world.host.assigned(CheckGranted(spec.task_id, str(grant), spec, OLD.meta, 8.0))
            await trio.testing.wait_all_tasks_blocked()
        assert world.link.reports == [
            SourceChecked(other.task_id, "0", None),
            SourceChecked(private.task_id, "1", None),
        ]
        assert world.origin.asked == []


async def test_private_content_is_checked_with_the_headers_of_who_asks(autojump_clock: Clock) -> None:
    private = TaskSpec("https://origin.example/file", scope="ab" * 16)
    async with new_world(OLD) as world:
        world.linked()
        await world.store.hold(OLD, spec=private)

        async def check() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await world.host.assigned(CheckGranted(private.task_id, "g", private, OLD.meta, 8.0))
            await trio.testing.wait_all_tasks_blocked()
            assert world.link.reports[-1] == SourceChecked(private.task_id, "g", False)
            await world.host.assigned(TaskFresh(private.task_id, 60.0))

        world.nursery.start_soon(check)
        await world.get(private, private_headers={"cookie": "c"})
        assert world.origin.asked == [(private, {"cookie": "c"}, OLD.meta)]


# --- alone ---------------------------------------------------------------------------------------------


async def test_without_a_scheduler_the_host_asks_once_in_a_while(autojump_clock: Clock) -> None:
    async with holding(linked=False) as world:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.get)
        assert len(world.origin.asked) == 1
        await trio.sleep(59)
        await world.get()
        assert len(world.origin.asked) == 1
        await trio.sleep(2)
        await world.get()
        assert len(world.origin.asked) == 2
        assert not world.origin.jobs


async def test_what_was_just_read_is_fresh(autojump_clock: Clock) -> None:
    async with new_world(OLD) as world:
        await world.get()
        await trio.sleep(59)
        await world.get()
        assert world.origin.asked == []


async def test_without_a_scheduler_changed_content_is_read_anew(autojump_clock: Clock) -> None:
    async with holding(linked=False) as world:
        world.origin.sample = NEW
        fetched = await world.get()
        newest = world.host.generations.newest(SPEC)
        assert is_generation(newest.generation)
        assert fetched.task_id == newest.task_id != TASK
        assert world.store.held(NEW, newest)
        assert world.store.held(OLD)
        assert len(world.origin.jobs) == len(world.origin.asked) == 1
        assert (await world.get()).task_id == newest.task_id
        assert len(world.origin.asked) == 1
        assert [s.task_id for s in world.host.generations.stored(SPEC)] == [newest.task_id, TASK]


async def test_what_the_scheduler_says_of_staleness_is_kept(autojump_clock: Clock) -> None:
    async with holding() as world:
        for stale in (True, False):
            world.nursery.start_soon(say_when_asked, world, TaskFresh(TASK, 30.0, stale))
            await world.get()
            async with world.host.tasks.wanted(SPEC, TASK) as task:
                assert task.stale is stale
            stored = world.host.store.get(TASK)
            assert stored is not None
            assert stored.stale is stale
            await world.tell_anew(full=False)
            told = cast(PeerHolding, world.link.of(PeerHolding)[-1])
            assert (told.fresh, told.stale) == (30.0, stale)
            await world.host.tasks.close_idle(0)
            async with world.host.tasks.wanted(SPEC, TASK) as task:
                assert task.stale is stale, "also when it was closed meanwhile"
            await trio.sleep(31)


async def test_a_scheduler_that_never_says_leaves_it_stale(autojump_clock: Clock) -> None:
    async with holding() as world:
        await world.get()
        async with world.host.tasks.wanted(SPEC, TASK) as task:
            assert task.stale


async def test_alone_content_is_stale_until_the_source_answers_again(autojump_clock: Clock) -> None:
    async def trouble(meta: TaskMeta) -> None:
        await trio.lowlevel.checkpoint()

    async with holding(linked=False) as world:
        compare = world.origin.expired
        for script, stale in ((trouble, True), (compare, False), (trouble, True)):
            world.origin.expired = script
            await world.get()
            async with world.host.tasks.wanted(SPEC, TASK) as task:
                assert task.stale is stale
            await trio.sleep(61)
        await world.host.remove(TASK)
        await world.get()
        async with world.host.tasks.wanted(SPEC, TASK) as task:
            assert not task.stale, "it has just been read"


async def test_without_a_scheduler_trouble_changes_nothing(autojump_clock: Clock) -> None:
    async def never(meta: TaskMeta) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async with holding(linked=False) as world:
        world.origin.expired = never
        assert (await world.get()).bytes["store"] == len(OLD.data)
        await world.get()
        assert len(world.origin.asked) == 1
    async with new_world() as world:
        spec = TaskSpec("s3://bucket/key")
        await world.store.hold(OLD, spec=spec)
        assert (await world.get(spec)).bytes["store"] == len(OLD.data)
        assert world.origin.asked == []


async def test_a_scheduler_that_is_lost_is_waited_for(autojump_clock: Clock) -> None:
    async with holding() as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.get)
            await trio.sleep(3)
            assert world.origin.asked == []
            world.link.lost = 1000
        assert len(world.origin.asked) == 1
        assert world.store.held(OLD)


async def test_source_that_changes_all_the_time_is_given_up(autojump_clock: Clock) -> None:
    async def always(meta: TaskMeta) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def lose(job: OriginJob, sink: OriginSink) -> None:
        await world.origin.give(job, sink)
        world.store.contents[job.spec.task_id].validated(0.0)

    async with holding(linked=False) as world:
        world.origin.expired, world.origin.script = always, lose
        first = (await world.get()).task_id
        second = (await world.get()).task_id
        assert len({TASK, first, second}) == 3, "each is served once"


# --- readers -------------------------------------------------------------------------------------------


async def test_a_slow_reader_of_the_old_content_gets_all_of_it(autojump_clock: Clock, tmp_path: Path) -> None:
    """While one copies the old content out, another gets the new one, on the same host."""
    async with holding(old=0) as world:
        world.linked("seeder")
        content = world.store.contents[TASK]
        original, reading, go_on = content.open_piece, trio.Event(), trio.Event()

        async def slow(number: int) -> object:
            if number == 5:
                reading.set()
                await go_on.wait()
            return await original(number)

        content.open_piece = slow  # type: ignore[assignment,method-assign]
        old, new = tmp_path / "old", tmp_path / "new"

        async def read_old() -> None:
            with old.open("wb") as file:
                fetched = await fetch(world.host, FetchOrder(SPEC, output=file.fileno()))
            assert fetched.task_id == TASK

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_old)
            await reading.wait()
            await world.host.assigned(TaskMoved(TASK, LATER.generation))
            await world.host.assigned(SourceGranted(LATER.task_id, "g", LATER))
            world.origin.sample = NEW
            with new.open("wb") as file:
                fetched = await fetch(world.host, FetchOrder(SPEC, output=file.fileno()))
            assert fetched.task_id == LATER.task_id
            assert new.read_bytes() == NEW.data
            go_on.set()
        assert old.read_bytes() == OLD.data


async def test_an_output_begun_with_old_content_ends_with_the_new(
    autojump_clock: Clock, tmp_path: Path
) -> None:
    async with new_world(NEW) as world:
        world.linked()
        world.lan.add("p", FakeParent(NEW))
        await world.store.hold(OLD, 1, 2)

        async def moved() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await world.host.assigned(TaskMoved(TASK, LATER.generation))
            await trio.testing.wait_all_tasks_blocked()
            await world.assign(NEW, "p", task=LATER.task_id)

        world.nursery.start_soon(moved)
        (tmp_path / "out").write_bytes(b"x" * 20 * PIECE)
        with (tmp_path / "out").open("r+b") as file:
            await world.get(output=file.fileno(), digest=("sha256", hashlib.sha256(NEW.data).hexdigest()))
        assert (tmp_path / "out").read_bytes() == NEW.data


async def test_new_content_that_cannot_be_read_is_an_error(autojump_clock: Clock) -> None:
    async def fail(job: OriginJob, sink: OriginSink) -> None:
        raise SourceError("no", origin_status=500)

    async with holding(linked=False) as world:
        world.origin.sample, world.origin.script = NEW, fail
        with pytest.raises(SourceError):
            await world.get()
        assert world.store.held(OLD)
