"""Content that is given to a client while it arrives: what it gets, and what it does not."""

from __future__ import annotations

import hashlib
import random
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import (
    DigestMismatch,
    SourceError,
    StoreDamaged,
)
from shared.protocol import PeerRegistered
from shared.store import Store, StoreConfig
from shared.swarm import reading as module
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.reading import ReadOrder, open_reading, read_whole
from shared.task.digest import piece_digest
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import (
    PIECE,
    SPEC,
    FakeOrigin,
    FakeParent,
    Sample,
    answer,
    running_host,
    sample,
)
from tests.unit.shared.swarm.readers import (
    KNOWN,
    LENGTH,
    NONE,
    OTHER,
    RIGHT,
    assign_soon,
    begin,
    collect,
    lies,
    read,
    reading_of,
    take,
)
from tests.unit.shared.swarm.worlds import OF, Clock, World, new_world

# --- what is given -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, KNOWN])
async def test_all_of_it_while_it_comes_and_then_from_the_store(
    autojump_clock: Clock, world: World, spec: TaskSpec
) -> None:
    reading = await begin(world, spec)
    assert (reading.length, reading.hit, reading.stale) == (LENGTH, False, False)
    assert await collect(reading) == OF.data
    assert reading.bytes == {**NONE, "origin": LENGTH}
    again = await begin(world, spec)
    assert again.hit
    assert await collect(again) == OF.data
    assert again.bytes == {**NONE, "store": LENGTH}
    assert len(world.origin.jobs) == 1
    assert world.result("done") == 2


async def test_what_is_held_is_read_without_a_session_or_a_message(
    autojump_clock: Clock, world: World
) -> None:
    await read(world)
    world.linked()
    await read(world)
    assert not world.link.of(PeerRegistered)


async def test_the_first_bytes_are_given_before_the_last_ones_are_there(
    autojump_clock: Clock, world: World
) -> None:
    go_on = trio.Event()

    async def halting(job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(OF.meta)
        for number in range(OF.count):
            if number == 3:
                await go_on.wait()
            await sink.piece(number, memoryview(OF.piece(number)))
        await sink.finished(OF.meta)

    world.origin.script = halting
    body = (await begin(world)).body(0, LENGTH)
    data = bytearray()
    for _ in range(3):
        data += await anext(body)
    assert data == OF.data[: 3 * PIECE]
    go_on.set()
    await take(body, data)
    assert data == OF.data


async def test_no_chunk_is_long(autojump_clock: Clock, world: World, small_chunks: int) -> None:
    sizes = [len(chunk) async for chunk in (await begin(world)).body(100, LENGTH - 100)]
    assert max(sizes) == small_chunks
    assert sum(sizes) == LENGTH - 200


async def test_a_chunk_is_gone_when_the_next_one_is_asked_for(autojump_clock: Clock, world: World) -> None:
    body = (await begin(world)).body(0, LENGTH)
    first = await anext(body)
    await anext(body)
    with pytest.raises(ValueError, match="released"):
        bytes(first)
    await body.aclose()


async def test_content_of_unknown_length_is_waited_for(autojump_clock: Clock, world: World) -> None:
    async def chunked(job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(msgspec.structs.replace(OF.meta, length=None))
        for number in range(OF.count):
            await trio.sleep(1)
            await sink.piece(number, memoryview(OF.piece(number)))
        await sink.finished(OF.meta)

    world.origin.script = chunked
    assert await read(world) == OF.data
    assert trio.current_time() >= OF.count


@pytest.mark.parametrize("digest", [True, False])
async def test_empty_content(autojump_clock: Clock, digest: bool) -> None:
    empty = sample(0)
    spec = (
        SPEC if not digest else msgspec.structs.replace(SPEC, digest="sha256:" + hashlib.sha256().hexdigest())
    )
    async with new_world(empty) as world:
        assert await read(world, spec) == b""
        assert (await read_whole(world.host, ReadOrder(spec), 0)).data == b""


async def test_empty_content_that_should_not_be(autojump_clock: Clock) -> None:
    async with new_world(sample(0)) as world, reading_of(world) as reading:
        with pytest.raises(DigestMismatch):
            await reading.ready(0, 0)


async def test_spans_that_are_none(autojump_clock: Clock, world: World) -> None:
    async with reading_of(world) as reading:
        for start, stop in ((-1, 5), (5, 4), (0, LENGTH + 1)):
            with pytest.raises(ValueError, match="no span"):
                reading.body(start, stop)
            with pytest.raises(ValueError, match="no span"):
                await reading.ready(start, stop)
        await reading.ready(7, 7)
        assert await collect(reading, 7, 7) == b""


spans = st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted)


@settings(max_examples=60)
@given(spans, st.integers(0, 1 << 30), st.sampled_from([700, PIECE, 1 << 20]), st.sampled_from([SPEC, KNOWN]))
def test_any_span_of_what_arrives_in_any_order(
    span: list[int], seed: int, chunk: int, spec: TaskSpec
) -> None:
    start, stop = span
    rng = random.Random(seed)

    async def slowly(number: int) -> bytes:
        await trio.sleep(rng.random() * 3)
        return answer(200, OF.piece(number), f"Dragonet-Version: {OF.version}")

    async def main() -> None:
        async with new_world() as world:
            world.linked()
            for name in "pq":
                world.lan.add(name, FakeParent(OF)).answer = slowly

            async def assign() -> None:
                await trio.testing.wait_all_tasks_blocked()
                await world.assign(OF, "p", "q", task=spec.task_id)

            world.nursery.start_soon(assign)
            reading = await begin(world, spec)
            await reading.ready(start, stop)
            assert await collect(reading, start, stop) == OF.data[start:stop]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- small contents ----------------------------------------------------------------------------------------


async def test_a_small_content_as_a_whole(autojump_clock: Clock, world: World) -> None:
    whole = await read_whole(world.host, ReadOrder(KNOWN), LENGTH)
    assert (whole.data, whole.hit, whole.stale, whole.meta) == (OF.data, False, False, OF.meta)
    assert whole.bytes == {**NONE, "origin": LENGTH}
    assert (await read_whole(world.host, ReadOrder(KNOWN), LENGTH)).hit


async def test_a_content_that_is_not_small(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(SourceError, match=str(LENGTH)) as caught:
        await read_whole(world.host, ReadOrder(KNOWN), LENGTH - 1)
    assert caught.value.fault == "request"


# --- digests -----------------------------------------------------------------------------------------------


async def test_the_end_is_withheld_until_the_digest_is_known(
    autojump_clock: Clock, world: World, small_chunks: int
) -> None:
    await world.store.hold(OF, spec=KNOWN)
    hashed = trio.Event()
    async with reading_of(world) as reading:
        task = world.host.tasks.active(KNOWN.task_id)
        assert task is not None

        async def of(algorithm: str) -> str:
            await hashed.wait()
            return RIGHT.partition(":")[2]

        task.hashes.of = of  # type: ignore[method-assign]
        data = bytearray()
        body = reading.body(0, LENGTH)
        with trio.move_on_after(50):
            await take(body, data)
        assert data == OF.data[: len(data)]
        assert 0 < LENGTH - len(data) <= small_chunks
        hashed.set()
        await take(body, data)
        assert data == OF.data


async def test_a_span_before_the_end_is_not_withheld(autojump_clock: Clock, world: World) -> None:
    await world.store.hold(OF, spec=KNOWN)
    async with reading_of(world) as reading:
        task = world.host.tasks.active(KNOWN.task_id)
        assert task is not None

        async def never(algorithm: str) -> str:
            await trio.sleep_forever()
            raise AssertionError

        task.hashes.of = never  # type: ignore[method-assign]
        assert await collect(reading, 0, LENGTH - 1) == OF.data[:-1]


async def test_wrong_content_never_comes_to_its_end(autojump_clock: Clock, world: World) -> None:
    lies(world)
    reading = await begin(world)
    given = bytearray()
    with pytest.raises(DigestMismatch):
        await take(reading.body(0, LENGTH), given)
    await reading.aclose()
    assert len(given) < LENGTH
    assert not world.store.contents
    assert world.host.metrics.verify_failures._value.get() == 1
    assert world.result("failed") == 1
    world.origin.sample = OF
    assert await read(world) == OF.data


async def test_wrong_content_that_is_small_is_told_before_its_first_byte(autojump_clock: Clock) -> None:
    async with new_world(sample(0.5)) as world, reading_of(world) as reading:
        with pytest.raises(DigestMismatch):
            await reading.ready(0, reading.length)


async def test_wrong_content_is_told_to_all_who_read_it(autojump_clock: Clock, world: World) -> None:
    lies(world)
    caught: list[str] = []

    async def one() -> None:
        reading = await begin(world)
        try:
            await collect(reading)
        except (DigestMismatch, SourceError) as error:
            caught.append(str(error))
        finally:
            await reading.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    assert len(caught) == 4
    assert all(RIGHT in words for words in caught)
    assert world.host.metrics.verify_failures._value.get() == 1
    assert not world.store.contents


async def test_held_content_that_is_found_wrong(autojump_clock: Clock, world: World) -> None:
    """All is held, from before it was known that it must have a digest."""
    await world.store.hold(OTHER, spec=KNOWN)
    reading = await begin(world)
    assert reading.hit
    with pytest.raises(DigestMismatch):
        await collect(reading)
    await reading.aclose()
    assert not world.store.contents


async def test_a_piece_damaged_on_disk_is_had_again(autojump_clock: Clock, world: World) -> None:
    await read(world)
    world.store.damaged = {0, 5, OF.count - 1}
    reading = await begin(world)
    assert reading.hit
    assert await collect(reading) == OF.data
    assert world.store.held(OF, KNOWN)
    assert world.store.contents[KNOWN.task_id].record.verified == RIGHT


async def test_a_disk_that_damages_everything(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF))
    world.nursery.start_soon(assign_soon, world)
    async with reading_of(world) as reading:
        content = world.store.contents[KNOWN.task_id]
        original = content.open_piece

        async def damage(number: int, since: float = 0.0) -> Any:
            if number == 3:
                world.store.damaged.add(number)
            return await original(number)

        content.open_piece = damage  # type: ignore[method-assign]
        with pytest.raises(StoreDamaged):
            await collect(reading)


# --- from a real store ----------------------------------------------------------------------------------------


async def test_a_piece_is_verified_ahead_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = Sample(random.Random(3).randbytes(9 * 65536), piece_length=65536)
    verified: list[bytes] = []

    def digest(data: memoryview) -> bytes:
        verified.append(bytes(data[:16]))
        return piece_digest(data)

    async with Store.open(tmp_path, StoreConfig()) as store, running_host(store, FakeOrigin(of)) as host:
        assert (await read_whole(host, ReadOrder(SPEC), len(of.data))).data == of.data
    monkeypatch.setattr("shared.store.task.piece_digest", digest)
    async with Store.open(tmp_path, StoreConfig()) as store, running_host(store, FakeOrigin(of)) as host:
        body = (await open_reading(host, ReadOrder(SPEC))).body(0, len(of.data))
        async with aclosing(body):
            data = bytearray(await anext(body))
            with trio.fail_after(10):
                while len(verified) < 2:
                    await trio.lowlevel.checkpoint()
            await take(body, data)
    assert data == of.data
    assert verified == [of.piece(number)[:16] for number in range(of.count)]


async def test_bytes_that_change_on_the_disk_are_not_given_out(tmp_path: Path) -> None:
    """Also while the content is open, when they have been read and found right before."""
    of = Sample(random.Random(3).randbytes(9 * 65536), piece_length=65536)
    spec = msgspec.structs.replace(SPEC, digest="sha256:" + hashlib.sha256(of.data).hexdigest())
    async with Store.open(tmp_path, StoreConfig()) as store, running_host(store, FakeOrigin(of)) as host:
        assert (await read_whole(host, ReadOrder(spec), len(of.data))).data == of.data
        path = tmp_path / "content" / f"{spec.task_id}.mdb"
        for number in (0, 1, 7):
            at = path.read_bytes().find(of.piece(number)[:64])
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([of.piece(number)[0] ^ 1]))
        whole = await read_whole(host, ReadOrder(spec), len(of.data))
        assert whole.data == of.data
        assert whole.bytes["origin"] == 3 * 65536
        assert (await read_whole(host, ReadOrder(spec), len(of.data))).bytes["origin"] == 0


async def test_from_disk(tmp_path: Path) -> None:
    """Verified ahead, removed meanwhile, and read to its end all the same."""
    of = Sample(random.Random(3).randbytes(40 * 65536 + 7), piece_length=65536)
    spec = msgspec.structs.replace(SPEC, digest="sha256:" + hashlib.sha256(of.data).hexdigest())
    for removed in (False, True):
        async with Store.open(tmp_path, StoreConfig()) as store, running_host(store, FakeOrigin(of)) as host:
            data = bytearray()
            reading = await open_reading(host, ReadOrder(spec))
            assert reading.hit is removed, "the second time it is there"
            async for chunk in reading.body(0, reading.length):
                data += chunk
                if removed and host.store.get(spec.task_id) is not None:
                    await host.remove(spec.task_id)
            assert data == of.data
            whole = await read_whole(host, ReadOrder(spec), reading.length)
            assert (whole.data, whole.hit) == (of.data, not removed)
