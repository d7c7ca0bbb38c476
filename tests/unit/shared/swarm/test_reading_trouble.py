"""What becomes of a reader when content changes, is removed, or does not come."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import trio
import trio.testing

from shared.errors import (
    DeadlineExceeded,
    DragonetError,
    InvalidRequest,
    SourceError,
    StoreError,
    StoreFull,
    Unavailable,
)
from shared.protocol import Failure, PeerRegistered, TaskFailed, TaskFresh, TaskMoved
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.reading import ReadOrder, open_reading
from shared.task.generation import in_generation
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import (
    PIECE,
    SPEC,
    WALL,
    FakeParent,
)
from tests.unit.shared.swarm.readers import (
    KNOWN,
    LENGTH,
    OTHER,
    assign_soon,
    begin,
    collect,
    fails_after,
    first,
    read,
    reading_of,
    take,
)
from tests.unit.shared.swarm.worlds import OF, TASK, Clock, World, new_world

# --- removed, changed --------------------------------------------------------------------------------------


async def test_who_reads_what_is_all_there_keeps_it(autojump_clock: Clock, world: World) -> None:
    await read(world)
    body = (await begin(world)).body(0, LENGTH)
    data = bytearray(await anext(body))
    await world.host.remove(KNOWN.task_id)
    assert not world.store.contents
    await take(body, data)
    assert data == OF.data


async def test_what_is_removed_while_it_comes_breaks_off(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.nursery.start_soon(assign_soon, world)
    async with reading_of(world) as reading:
        body = reading.body(0, LENGTH)
        await anext(body)
        await world.host.remove(KNOWN.task_id)
        with pytest.raises((StoreError, InvalidRequest), match="removed"):
            await take(body, bytearray())


async def test_another_version_is_never_mixed_in(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.lan.add("q", FakeParent(OTHER))
    world.nursery.start_soon(assign_soon, world, SPEC)
    async with reading_of(world, SPEC) as reading:
        body = reading.body(0, LENGTH)
        await anext(body)
        await world.assign(OTHER, "q")
        with pytest.raises(SourceError, match="changed"):
            await take(body, bytearray())


async def test_the_newest_generation_is_read(autojump_clock: Clock) -> None:
    old, new = replace(OF, revalidate=60.0), replace(OTHER, revalidate=60.0)
    later = in_generation(SPEC, "0000000005dc")
    async with new_world(new) as world:
        world.linked()
        world.lan.add("q", FakeParent(new))
        await world.store.hold(old, validated=WALL - 1000)

        async def tell() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await world.host.assigned(TaskMoved(TASK, later.generation))
            await trio.testing.wait_all_tasks_blocked()
            await world.assign(new, "q", task=later.task_id)

        world.nursery.start_soon(tell)
        assert await read(world, SPEC) == new.data


async def test_what_is_held_is_checkedfirst(autojump_clock: Clock) -> None:
    old = replace(OF, revalidate=60.0)
    async with new_world(old) as world:
        world.linked()
        await world.store.hold(old, validated=WALL - 1000)

        async def tell() -> None:
            await trio.sleep(3)
            await world.host.assigned(TaskFresh(TASK, 60.0))

        world.nursery.start_soon(tell)
        assert await read(world, SPEC) == old.data
        assert trio.current_time() == 3
        assert await read(world, SPEC, cluster_only=True) == old.data


async def test_a_part_that_is_held_is_not_believed_to_be_still_current(autojump_clock: Clock) -> None:
    async with new_world(OTHER) as world:
        await world.store.hold(OF, 0, 1)
        assert await read(world, SPEC) == OTHER.data


# --- failures ----------------------------------------------------------------------------------------------


async def test_a_failure_before_the_first_byte_is_told_at_once(autojump_clock: Clock, world: World) -> None:
    fails_after(world, 0, error=SourceError("not there", origin_status=404))
    with pytest.raises(SourceError) as caught:
        await read(world)
    assert caught.value.origin_status == 404
    assert trio.current_time() < 1
    assert len(world.origin.jobs) == 1
    fails_after(world, 2)
    async with reading_of(world) as reading:
        with pytest.raises(SourceError, match="died"):
            await reading.ready(LENGTH - 1, LENGTH)


async def test_a_body_that_has_begun_is_completed_from_whatever_remains(
    autojump_clock: Clock, world: World
) -> None:
    fails_after(world, 3, 0, 0, 4)
    assert await collect(await begin(world)) == OF.data
    assert len(world.origin.jobs) == 5


async def test_a_source_that_stays_away_is_given_up(autojump_clock: Clock, world: World) -> None:
    fails_after(world, 3, *[0] * 1000)
    async with reading_of(world) as reading:
        given = bytearray()
        with pytest.raises(SourceError, match="died"):
            await take(reading.body(0, LENGTH), given)
    assert given == OF.data[: 3 * PIECE]
    assert 60 <= trio.current_time() <= 100
    assert 8 <= len(world.origin.jobs) <= 20, "not one after the other"


async def test_a_scheduler_that_fails_the_task_and_has_it_again(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.lan.add("q", FakeParent(OF))
    world.nursery.start_soon(assign_soon, world)
    body = (await begin(world)).body(0, LENGTH)
    data = bytearray(await anext(body))
    await trio.sleep(1)
    await world.host.assigned(TaskFailed(KNOWN.task_id, Failure("no source")))

    async def recover() -> None:
        await trio.sleep(1)
        assert len(world.link.of(PeerRegistered)) == 2
        await world.assign(OF, "q", task=KNOWN.task_id)

    world.nursery.start_soon(recover)
    await take(body, data)
    assert data == OF.data


async def test_a_parent_that_dies_and_nobody_else_ends_in_time(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.nursery.start_soon(assign_soon, world)
    async with reading_of(world) as reading:
        with pytest.raises(Unavailable, match="nothing more"):
            await collect(reading)
    assert 60 <= trio.current_time() < 100


async def test_each_reader_hears_of_its_own_place(autojump_clock: Clock, world: World) -> None:
    world.linked()
    mirror = msgspec.structs.replace(KNOWN, url="https://mirror.example/file")
    failures = {KNOWN.url: Failure("not here", 404), mirror.url: Failure("come later", 503)}
    statuses: dict[str, int | None] = {}

    async def one(spec: TaskSpec) -> None:
        with pytest.raises(SourceError) as caught:
            await begin(world, spec)
        statuses[spec.url] = caught.value.origin_status

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, KNOWN)
        nursery.start_soon(one, mirror)
        await trio.testing.wait_all_tasks_blocked()
        await world.host.assigned(TaskFailed(KNOWN.task_id, failures[KNOWN.url], failures))
    assert statuses == {KNOWN.url: 404, mirror.url: 503}


async def test_a_full_store_is_told(autojump_clock: Clock, world: World) -> None:
    async def full(number: int) -> None:
        if number == 3:
            raise StoreFull("full")

    world.store.before_put = full  # type: ignore[method-assign]
    async with reading_of(world) as reading:
        with pytest.raises(StoreFull):
            await collect(reading)


async def test_a_defect_is_an_error_of_this_reader_only(autojump_clock: Clock, world: World) -> None:
    async def defect(job: OriginJob, sink: OriginSink) -> None:
        raise ZeroDivisionError

    world.origin.script = defect
    with pytest.raises(DragonetError, match="defect"):
        await begin(world)
    world.origin.script = world.origin.give
    assert await read(world) == OF.data


async def test_a_forbidden_source(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(Unavailable, match="no-origin"):
        await begin(world, cluster_only=True)
    assert not world.origin.jobs
    await read(world)
    assert await read(world, cluster_only=True) == OF.data


async def test_private_headers_reach_the_origin_only(autojump_clock: Clock, world: World) -> None:
    order = ReadOrder(KNOWN, {"authorization": "secret"})
    await (await open_reading(world.host, order)).aclose()
    assert world.origin.jobs[0].private_headers == {"authorization": "secret"}
    assert "secret" not in repr(order)


# --- patience ----------------------------------------------------------------------------------------------


async def test_patience_ends_while_nothing_is_known(autojump_clock: Clock, world: World) -> None:
    world.linked()
    with pytest.raises(DeadlineExceeded, match="7 s"):
        await begin(world, patience=7.0)
    assert trio.current_time() == 7


async def test_patience_ends_while_the_first_byte_is_waited_for(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.nursery.start_soon(assign_soon, world)
    async with reading_of(world, patience=7.0) as reading:
        await reading.ready(0, LENGTH)
        with pytest.raises(DeadlineExceeded, match="7 s"):
            await reading.ready(LENGTH - 1, LENGTH)
    assert trio.current_time() == 7


async def test_a_client_that_takes_its_time_is_not_given_up(autojump_clock: Clock, world: World) -> None:
    data = bytearray()
    async for chunk in (await begin(world)).body(0, LENGTH):
        data += chunk
        await trio.sleep(500)
    assert data == OF.data
