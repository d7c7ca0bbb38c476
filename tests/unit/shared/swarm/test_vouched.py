"""Content that does not have the digest its source vouches for is given to nobody."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import msgspec
import pytest
import trio
import trio.testing

from shared.errors import DigestMismatch, SourceError
from shared.protocol import (
    Failure,
    Report,
    SourceFailed,
    SourceFinished,
    SourceGranted,
    SourceOpened,
    TaskFailed,
    TaskRemoved,
)
from shared.swarm.fetch import Fetched
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.vouched import Unvouched
from tests.unit.shared.swarm.fakes import SPEC, FakeParent, Sample, sample
from tests.unit.shared.swarm.worlds import OF, TASK, Clock, World, new_world

RIGHT = {name: f"{name}:{hashlib.new(name, OF.data).hexdigest()}" for name in ("sha256", "sha512")}
WRONG = {name: f"{name}:{hashlib.new(name, b'else').hexdigest()}" for name in ("sha256", "sha512")}
HONEST = replace(OF, digest=RIGHT["sha256"])
LYING = replace(OF, digest=WRONG["sha256"])
algorithms = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


async def grant(world: World) -> list[Report]:
    """What is told of a granted read."""
    world.linked("seeder")
    await world.host.assigned(SourceGranted(TASK, "g", SPEC))
    await trio.testing.wait_all_tasks_blocked()
    return world.link.reports


def told_wrong(error: Exception) -> bool:
    words = str(error)
    return all(word in words for word in (SPEC.url, RIGHT["sha256"], WRONG["sha256"], "vouches"))


# --- who reads the origin ------------------------------------------------------------------------------


@algorithms
async def test_content_with_its_digest_is_told(autojump_clock: Clock, algorithm: str) -> None:
    async with new_world(replace(OF, digest=RIGHT[algorithm])) as world:
        world.linked()
        reports = await grant(world)
        finished = reports[-1]
        assert isinstance(finished, SourceFinished)
        assert f"sha256:{finished.meta.sha256}" == RIGHT["sha256"]
        assert world.store.contents[TASK].record.verified == RIGHT[algorithm]


@algorithms
async def test_a_lie_ends_the_read_for_all_and_leaves_nothing(autojump_clock: Clock, algorithm: str) -> None:
    async with new_world(replace(OF, digest=WRONG[algorithm])) as world:
        world.linked()
        reports = await grant(world)
        failed = reports[-1]
        assert isinstance(failed, SourceFailed)
        assert failed.failure.fault == "origin", "another reader would only hear the same"
        assert SPEC.url in failed.failure.words
        assert RIGHT[algorithm] in failed.failure.words
        assert TaskRemoved(TASK) in reports
        assert not world.store.contents
        assert not any(isinstance(report, SourceFinished) for report in reports)


async def test_who_waits_at_the_reader_is_told(autojump_clock: Clock) -> None:
    async with new_world(LYING) as world:
        world.linked()
        caught: list[Exception] = []

        async def get(**order: object) -> None:
            try:
                await world.get(**order)
            except (DigestMismatch, SourceError) as error:
                caught.append(error)

        async with trio.open_nursery() as nursery:
            for order in ({}, {"hash_content": True}, {"digest": ("sha256", RIGHT["sha256"][7:])}):
                nursery.start_soon(lambda order=order: get(**order))  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()
            await grant(world)
        assert len(caught) == 3
        assert all(told_wrong(error) for error in caught)
        (failed,) = world.link.of(SourceFailed)
        assert isinstance(failed, SourceFailed)
        assert failed.failure.fault == "origin"
        assert not world.store.contents


async def test_a_digest_that_cannot_be_verified_is_refused_at_once(autojump_clock: Clock) -> None:
    async with new_world(replace(OF, digest="md5:" + "0" * 32)) as world:
        world.linked()
        reports = await grant(world)
        assert [type(report) for report in reports] == [SourceFailed]
        assert "'md5' is not known" in reports[0].failure.words  # type: ignore[union-attr]
        assert not world.store.contents


async def test_a_reader_of_a_part_leaves_it_to_others(autojump_clock: Clock) -> None:
    async with new_world(LYING) as world:
        world.linked()

        async def part(job: OriginJob, sink: OriginSink) -> None:
            await sink.opened(LYING.meta)
            await sink.piece(3, memoryview(LYING.piece(3)))
            await sink.finished(LYING.meta)

        world.origin.script = part
        reports = await grant(world)
        assert isinstance(reports[-1], SourceFinished)
        assert world.store.contents[TASK].held


# --- who gets it from others ---------------------------------------------------------------------------


async def from_parent(world: World, of: Sample, told: Sample) -> Fetched:
    """The content of a parent, of which the scheduler tells ``told``."""
    world.linked()
    world.lan.add("p", FakeParent(of))

    async def assign() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await world.assign(told, "p")

    world.nursery.start_soon(assign)
    return await world.get()


async def test_each_host_finds_out_for_itself(autojump_clock: Clock) -> None:
    async with new_world() as world:
        await from_parent(world, OF, HONEST)
        assert world.store.contents[TASK].record.verified == HONEST.digest
    async with new_world() as world:
        with pytest.raises(Unvouched) as caught:
            await from_parent(world, OF, LYING)
        assert told_wrong(caught.value)
        assert not world.store.contents
        assert world.host.metrics.verify_failures._value.get() == 1


async def test_what_another_host_says_of_content_is_not_believed(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        await world.store.hold(LYING)
        content = world.store.contents[TASK]
        told = msgspec.structs.replace(LYING.meta, sha256=WRONG["sha256"][7:])
        await content.set_meta(told)
        with pytest.raises(Unvouched):
            await world.get(hash_content=True)


async def test_it_is_found_out_once(autojump_clock: Clock) -> None:
    async with new_world(HONEST) as world:
        await world.get()
        content = world.store.contents[TASK]

        async def no(number: int) -> None:
            raise AssertionError("it is not to be read again")

        content.open_piece = no  # type: ignore[assignment,method-assign]
        for _ in range(2):
            await world.get()


async def test_a_piece_that_was_damaged_on_disk_is_a_reason_to_look_again(autojump_clock: Clock) -> None:
    async with new_world(HONEST) as world:
        await world.get()
        content = world.store.contents[TASK]
        assert content.record.verified
        world.store.damaged = {3}
        await world.get(digest=("sha512", RIGHT["sha512"][7:]))
        assert content.record.verified == HONEST.digest
        assert len(world.origin.jobs) == 2


async def test_a_failure_that_comes_before_the_last_piece(autojump_clock: Clock) -> None:
    """All is held then, and nobody has looked at it: the next one does."""
    async with new_world() as world:
        world.linked()
        parent = world.lan.add("p", FakeParent(OF))

        async def fail(number: int) -> None:
            with trio.CancelScope(shield=True):  # a thread that writes cannot be stopped
                await trio.sleep(1)

        world.store.before_put = fail  # type: ignore[method-assign]

        async def tell() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await world.assign(LYING, "p")
            await trio.sleep(0.5)
            await world.host.assigned(TaskFailed(TASK, Failure("a lie")))

        world.nursery.start_soon(tell)
        with pytest.raises(SourceError, match="a lie"):
            await world.get()
        await trio.sleep(5)
        assert len(parent.asked) == OF.count
        stored = world.store.get(TASK)
        assert stored is not None
        assert stored.complete
        assert not stored.vouched
        with pytest.raises(Unvouched):
            await world.get()
        assert not world.store.contents


async def test_alone(autojump_clock: Clock) -> None:
    async with new_world(LYING) as world:
        with pytest.raises(Unvouched):
            await world.get()
        assert not world.store.contents
        world.origin.sample = HONEST
        await world.get()
        assert world.store.held(HONEST)


async def test_a_promise_that_comes_with_another_version(autojump_clock: Clock) -> None:
    """The content changes while it is hashed: the digest that counts is that of what is given out."""
    new = sample(7, version="v2", seed=2)
    new = replace(new, digest="sha256:" + hashlib.sha256(new.data).hexdigest())
    async with new_world() as world:
        world.linked()
        world.lan.add("p", FakeParent(new))
        await world.store.hold(LYING)
        content = world.store.contents[TASK]
        original, opened = content.open_piece, trio.Event()

        async def slow(number: int, since: float = 0.0) -> object:
            opened.set()
            await trio.sleep(1)
            return await original(number)

        content.open_piece = slow  # type: ignore[assignment,method-assign]
        results: list[Fetched] = []

        async def get() -> None:
            results.append(await world.get(hash_content=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            await opened.wait()
            await world.assign(new, "p")
        assert "sha256:" + results[0].sha256 == new.digest
        assert world.store.contents[TASK].record.verified == new.digest


async def test_the_promise_is_kept_when_later_word_leaves_it_out(autojump_clock: Clock) -> None:
    async with new_world(LYING) as world:
        world.linked()

        async def forgetful(job: OriginJob, sink: OriginSink) -> None:
            await sink.opened(LYING.meta)
            for number in range(OF.count):
                await sink.piece(number, memoryview(OF.piece(number)))
            await sink.finished(OF.meta)

        world.origin.script = forgetful
        reports = await grant(world)
        assert isinstance(reports[0], SourceOpened)
        assert isinstance(reports[-1], SourceFailed)
        assert not world.store.contents
