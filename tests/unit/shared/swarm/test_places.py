"""Several callers of one host name several places for the same content: none of them spoils it for another."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from shared.errors import SourceError
from shared.protocol import (
    MAX_PLACES,
    Failure,
    PeerLeft,
    PeerRegistered,
    SourceFailed,
    SourceGranted,
    SourceOpened,
    TaskFailed,
)
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.places import Places
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import SPEC, FakeParent
from tests.unit.shared.swarm.worlds import OF, Clock, World, new_world

DIGEST = "sha256:" + hashlib.sha256(OF.data).hexdigest()
SCOPE = "cd" * 16


def at(place: str, scope: str = "") -> TaskSpec:
    """The content at one of its places."""
    return TaskSpec(url=f"https://{place}.example/blob", digest=DIGEST, scope=scope)


A, B = at("a"), at("b")
TASK = A.task_id
MISSING, DOWN = Failure("not found", 404), Failure("down", 503)


class Caller:
    """Gets the content in the background. ``status`` is that of the failure, None where it got it."""

    def __init__(self, world: World, spec: TaskSpec, **order: Any) -> None:
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.status: int | None = None
        self._world, self._spec, self._order = world, spec, order
        world.nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                await self._world.get(self._spec, **self._order)
            except SourceError as error:
                self.status = error.origin_status
            self.done.set()


async def calling(world: World, spec: TaskSpec, **order: Any) -> Caller:
    """A caller that waits for the scheduler by now."""
    caller = Caller(world, spec, **order)
    await trio.testing.wait_all_tasks_blocked()
    return caller


def named(world: World) -> list[str]:
    """The places that the scheduler was told of, in order."""
    return [report.spec.url for report in world.link.of(PeerRegistered) if isinstance(report, PeerRegistered)]


async def refuse(world: World, **places: Failure) -> None:
    """The scheduler says what became of the places."""
    by_url = {at(name).url: failure for name, failure in places.items()}
    await world.host.assigned(TaskFailed(TASK, next(iter(places.values())), by_url))
    await trio.testing.wait_all_tasks_blocked()


# --- with a scheduler ----------------------------------------------------------------------------------


async def test_each_place_is_told_once(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        world.lan.add("p", FakeParent(OF))
        first = await calling(world, A)
        callers = [first, await calling(world, B), await calling(world, A), await calling(world, B)]
        assert named(world) == [A.url, B.url]
        await world.tell_anew(full=False)
        assert named(world)[2:] == [A.url, B.url]
        await world.assign(OF, "p", task=TASK)
        for caller in callers:
            await caller.done.wait()
            assert caller.status is None
        assert world.link.of(PeerLeft) == [PeerLeft(TASK)]


async def test_each_caller_hears_what_became_of_its_own_place(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        one, other = await calling(world, A), await calling(world, B)
        await refuse(world, a=MISSING, b=DOWN)
        assert (one.status, other.status) == (404, 503)


async def test_a_place_that_was_named_while_another_one_failed_still_counts(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        one, other = await calling(world, A), await calling(world, B)
        await refuse(world, a=MISSING)
        assert not one.done.is_set(), "it may still come from the other place"
        assert not other.done.is_set()
        await trio.sleep(6)
        assert named(world) == [A.url, B.url, B.url], "only that one is told again"
        world.lan.add("p", FakeParent(OF))
        await world.assign(OF, "p", task=TASK)
        await one.done.wait()
        await other.done.wait()
        assert one.status is other.status is None


async def test_when_the_other_place_fails_too_all_are_refused(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        one, other = await calling(world, A), await calling(world, B)
        await refuse(world, a=MISSING)
        await refuse(world, b=DOWN)
        assert (one.status, other.status) == (404, 503)


async def test_who_comes_after_a_failure_names_its_own_place(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        one = await calling(world, A)
        await refuse(world, a=MISSING)
        assert one.status == 404
        other = await calling(world, B)
        assert named(world) == [A.url, B.url]
        await refuse(world, b=DOWN)
        assert other.status == 503


async def test_the_place_of_a_caller_that_has_gone_is_not_told_again(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        one, other = await calling(world, A), await calling(world, B)
        one.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await world.tell_anew(full=False)
        assert named(world) == [A.url, B.url, B.url]
        await refuse(world, b=DOWN)
        assert other.status == 503


async def test_a_refusal_without_places_is_for_all(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        one, other = await calling(world, A), await calling(world, B)
        await world.host.assigned(TaskFailed(TASK, Failure("no room", 507)))
        await trio.testing.wait_all_tasks_blocked()
        assert one.status == other.status == 507


# --- what is shown where -------------------------------------------------------------------------------


async def test_headers_go_to_the_place_that_they_came_with(autojump_clock: Clock) -> None:
    one, other = at("a", SCOPE), at("b", SCOPE)
    async with new_world() as world:
        world.linked()
        seen: list[tuple[str, dict[str, str]]] = []

        async def refusing(job: OriginJob, sink: OriginSink) -> None:
            await trio.lowlevel.checkpoint()
            seen.append((job.spec.url, dict(job.private_headers)))
            raise SourceError("no", origin_status=401)

        world.origin.script = refusing
        first = await calling(world, one, private_headers={"authorization": "for a"})
        second = await calling(world, other, private_headers={"authorization": "for b"})
        for number, spec in enumerate((one, other)):
            await world.host.assigned(SourceGranted(one.task_id, str(number), spec))
            await trio.testing.wait_all_tasks_blocked()
        assert seen == [(one.url, {"authorization": "for a"}), (other.url, {"authorization": "for b"})]
        for caller in (first, second):
            caller.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        world.linked("seeder")
        await world.host.assigned(SourceGranted(one.task_id, "late", one))
        await trio.testing.wait_all_tasks_blocked()
        assert len(seen) == 2, "whose headers would it be read with?"
        failed = world.link.of(SourceFailed)[-1]
        assert isinstance(failed, SourceFailed)
        assert failed.failure.fault == "reader"


async def test_the_latest_headers_for_a_place_count(autojump_clock: Clock) -> None:
    spec = at("a", SCOPE)
    async with new_world() as world:
        world.linked()
        for token in ("old", "new"):
            await calling(world, spec, private_headers={"authorization": token})
        await world.host.assigned(SourceGranted(spec.task_id, "g", spec))
        await trio.testing.wait_all_tasks_blocked()
        assert [job.private_headers for job in world.origin.jobs] == [{"authorization": "new"}]
        assert world.link.of(SourceOpened)


async def test_private_content_is_not_read_with_nothing_to_show(autojump_clock: Clock) -> None:
    spec = at("a", SCOPE)
    async with new_world() as world:
        world.linked()
        caller = await calling(world, spec)
        assert world.link.of(PeerRegistered) == [PeerRegistered(spec.task_id, spec, may_read=False)]
        caller.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()


def test_places_last_as_long_as_their_callers() -> None:
    places = Places(A)
    assert places.specs() == [A]
    with places.named(B, {"x": "1"}):
        with places.named(B, {}), places.named(A, {}):
            assert places.specs() == [B, A]
            assert (places.headers(A), places.headers(B)) == ({}, {"x": "1"})
        assert places.specs() == [B]
    assert (places.specs(), places.headers(B)) == ([A], {})


def test_places_are_bounded() -> None:
    places = Places(A)
    with ExitStack() as stack:
        for number in range(MAX_PLACES + 1):
            stack.enter_context(places.named(at(str(number)), {"x": str(number)}))
        assert places.specs() == [at(str(number)) for number in range(MAX_PLACES)]
        assert places.headers(at("0")) == {"x": "0"}
        assert places.headers(at(str(MAX_PLACES))) == {}, "it was not noted"
    assert places.specs() == [A]


def test_a_task_without_a_digest_has_one_place() -> None:
    places = Places(SPEC)
    other = TaskSpec(url=f"{SPEC.url}?again")
    with places.named(other, {"x": "1"}):
        assert places.specs() == [SPEC]
    assert places.headers(SPEC) == places.headers(other) == {"x": "1"}
    assert places.readable(TaskSpec(url=SPEC.url, scope=SCOPE))


# --- alone ---------------------------------------------------------------------------------------------


async def test_alone_one_place_after_the_other_is_read(autojump_clock: Clock) -> None:
    async with new_world() as world:
        gate = trio.Event()

        async def dying(job: OriginJob, sink: OriginSink) -> None:
            if job.spec.url == B.url:
                await world.origin.give(job, sink)
                return
            await sink.opened(OF.meta)
            for number in range(3):
                await sink.piece(number, memoryview(OF.piece(number)))
            await gate.wait()
            raise SourceError("the registry has died", origin_status=502)

        world.origin.script = dying
        one, other = await calling(world, A), await calling(world, B)
        gate.set()
        await one.done.wait()
        await other.done.wait()
        assert one.status is other.status is None
        assert [job.spec.url for job in world.origin.jobs] == [A.url, B.url]
        assert world.origin.jobs[1].meta == OF.meta
        assert world.store.held(OF, A)


async def test_alone_each_hears_of_its_own_place(autojump_clock: Clock) -> None:
    async with new_world() as world:

        async def failing(job: OriginJob, sink: OriginSink) -> None:
            await trio.sleep(1)
            raise SourceError("no", origin_status=404 if job.spec.url == A.url else 503)

        world.origin.script = failing
        callers = [await calling(world, spec) for spec in (A, B)]
        for caller in callers:
            await caller.done.wait()
        assert [caller.status for caller in callers] == [404, 503]


@pytest.mark.parametrize("linked", [True, False])
async def test_content_at_hand_needs_no_place(autojump_clock: Clock, linked: bool) -> None:
    async with new_world() as world:
        if linked:
            world.linked()
        await world.store.hold(OF, spec=A)
        assert (await world.get(B)).bytes["store"] == len(OF.data)
        assert named(world) == []
        assert not world.origin.jobs
