"""Fetches, sessions and the host around them, without a scheduler or with assignments given by hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from shared.errors import (
    DeadlineExceeded,
    DigestMismatch,
    DragonetError,
    InvalidRequest,
    SourceError,
    StoreError,
    StoreFull,
    TaskNotFound,
    Unavailable,
)
from shared.offline import PATIENCE
from shared.protocol import (
    Failure,
    ParentsAssigned,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    PieceDigests,
    SourceGranted,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
    TaskMeta,
    TaskRemoved,
    Welcome,
)
from shared.store import Store, StoreConfig
from shared.swarm.fetch import Fetched, FetchOrder, FetchProgress, fetch
from shared.swarm.host import Host
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.outputs import OutputFile
from shared.task.bitmap import Bitmap
from tests.unit.shared.swarm.fakes import (
    PIECE,
    SPEC,
    FakeOrigin,
    FakeParent,
    MemoryStore,
    Sample,
    running_host,
    sample,
)
from tests.unit.shared.swarm.worlds import OF, TASK, Clock, World, new_world

SHA256 = hashlib.sha256(OF.data).hexdigest()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


# --- alone -------------------------------------------------------------------------------------------


async def test_without_a_scheduler_the_host_reads_alone(autojump_clock: Clock, world: World) -> None:
    fetched = await world.get(hash_content=True)
    assert world.store.held(OF)
    assert (fetched.length, fetched.sha256) == (len(OF.data), SHA256)
    assert fetched.bytes == {"store": 0, "peer": 0, "seeder": 0, "origin": len(OF.data)}
    assert world.result("done") == 1


async def test_a_second_fetch_reads_nothing(autojump_clock: Clock, world: World) -> None:
    await world.get()
    fetched = await world.get()
    assert fetched.bytes["store"] == len(OF.data)
    assert fetched.bytes["origin"] == 0
    assert len(world.origin.jobs) == 1


async def test_private_headers_reach_the_origin_only(autojump_clock: Clock, world: World) -> None:
    await world.get(private_headers={"authorization": "secret"})
    assert world.origin.jobs[0].private_headers == {"authorization": "secret"}
    assert "secret" not in repr(world.origin.jobs[0])


async def test_the_limit_of_a_fetch_holds_for_its_origin(autojump_clock: Clock, world: World) -> None:
    start = trio.current_time()
    await world.get(limit=PIECE / 10)
    assert 80 <= trio.current_time() - start <= 110


async def test_two_waiters_share_a_session(autojump_clock: Clock, world: World) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(world.get)
        await trio.testing.wait_all_tasks_blocked()
    assert len(world.origin.jobs) == 1


async def test_the_origins_words_reach_every_waiter(autojump_clock: Clock, world: World) -> None:
    async def fail(job: OriginJob, sink: OriginSink) -> None:
        await trio.sleep(1)
        raise SourceError("gone", origin_status=410)

    world.origin.script = fail
    caught: list[int | None] = []

    async def wait() -> None:
        try:
            await world.get(hash_content=True)
        except SourceError as error:
            caught.append(error.origin_status)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert caught == [410] * 3
    assert len(world.origin.jobs) == 1
    assert world.result("failed") == 3
    world.origin.script = world.origin.give
    await world.get()  # and nothing of the failure is left


async def test_a_failed_store_is_told(autojump_clock: Clock, world: World) -> None:
    async def full(number: int) -> None:
        raise StoreFull("full")

    world.store.before_put = full  # type: ignore[method-assign]
    with pytest.raises(StoreFull):
        await world.get()


async def test_an_origin_that_gives_too_little_is_told(autojump_clock: Clock, world: World) -> None:
    async def little(job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(OF.meta)
        await sink.finished(OF.meta)

    world.origin.script = little
    with pytest.raises(SourceError, match="pieces are missing"):
        await world.get()


async def test_a_defect_is_an_error_and_not_a_group(autojump_clock: Clock, world: World) -> None:
    async def defect(job: OriginJob, sink: OriginSink) -> None:
        raise ZeroDivisionError

    world.origin.script = defect
    with pytest.raises(DragonetError, match="defect"):
        await world.get()


async def test_forbidden_origin_without_a_cluster(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(Unavailable, match="no-origin"):
        await world.get(cluster_only=True)
    assert not world.origin.jobs


async def test_a_timeout_leaves_what_came(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(DeadlineExceeded):
        await world.get(limit=PIECE, timeout=5)
    await trio.testing.wait_all_tasks_blocked()
    came = len(world.store.contents[TASK].held)
    assert 0 < came < OF.count
    assert world.origin.running == 0
    fetched = await world.get()
    assert fetched.bytes["store"] == came * PIECE


async def test_cancelling_one_of_two_waiters_changes_nothing_for_the_other(
    autojump_clock: Clock, world: World
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.get(limit=PIECE))
        with trio.move_on_after(5):
            await world.get(limit=PIECE)
        assert world.result("cancelled") == 1
    assert world.store.held(OF)
    assert len(world.origin.jobs) == 1


async def test_progress_is_told(autojump_clock: Clock, world: World) -> None:
    told: list[FetchProgress] = []
    await fetch(world.host, FetchOrder(SPEC, limit=PIECE), told.append)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert len(set(done)) == OF.count + 1
    assert told[-1] == FetchProgress(
        len(OF.data), len(OF.data), {"store": 0, "peer": 0, "seeder": 0, "origin": len(OF.data)}, 0
    )


# --- digests -------------------------------------------------------------------------------------------


async def test_the_right_digest(autojump_clock: Clock, world: World) -> None:
    fetched = await world.get(digest=("sha512", hashlib.sha512(OF.data).hexdigest()), hash_content=True)
    assert fetched.sha256 == SHA256


async def test_a_wrong_digest_removes_what_was_brought(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(DigestMismatch):
        await world.get(digest=("sha256", "0" * 64))
    assert not world.store.contents
    await world.get(digest=("sha256", SHA256))


async def test_a_wrong_digest_leaves_what_was_there_before(autojump_clock: Clock, world: World) -> None:
    await world.get()
    with pytest.raises(DigestMismatch):
        await world.get(digest=("sha256", "0" * 64))
    assert world.store.held(OF)


async def test_a_wrong_digest_takes_nothing_from_another_waiter(autojump_clock: Clock, world: World) -> None:
    results: list[object] = []

    async def wait(digest: str) -> None:
        try:
            results.append((await world.get(digest=("sha256", digest))).sha256)
        except DigestMismatch:
            results.append("mismatch")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "0" * 64)
        nursery.start_soon(wait, SHA256)
    assert set(results) == {"mismatch", SHA256}


async def test_content_that_changes_while_it_is_hashed(autojump_clock: Clock, world: World) -> None:
    """The fetch goes on with the new version, for which a new session is needed."""
    world.linked()
    new = sample(7, version="v2", seed=2)
    world.lan.add("p", FakeParent(new))
    await world.store.hold(OF)
    content = world.store.contents[TASK]
    await content.complete()
    original, opened = content.open_piece, trio.Event()

    async def slow(number: int, since: float = 0.0) -> Any:
        opened.set()
        await trio.sleep(1)
        return await original(number)

    content.open_piece = slow  # type: ignore[method-assign]
    results: list[Fetched] = []

    async def get() -> None:
        results.append(await world.get(hash_content=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await opened.wait()
        await world.assign(new, "p")
    assert results[0].sha256 == hashlib.sha256(new.data).hexdigest()
    assert world.store.held(new)


async def test_a_piece_damaged_on_disk_is_fetched_again(autojump_clock: Clock, world: World) -> None:
    await world.get()
    world.store.damaged = {3}
    fetched = await world.get(digest=("sha256", SHA256))
    assert fetched.bytes["origin"] == PIECE
    assert world.store.held(OF)


async def test_a_piece_found_damaged_while_it_is_written_out(world: World, tmp_path: Path) -> None:
    await world.get()
    world.store.damaged = {3}
    with (tmp_path / "out").open("wb") as file:
        await world.get(output=file.fileno())
    assert (tmp_path / "out").read_bytes() == OF.data


# --- with a scheduler ------------------------------------------------------------------------------------


async def test_a_task_comes_from_assigned_parents(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF))
    world.nursery.start_soon(lambda: world.get())
    await trio.testing.wait_all_tasks_blocked()
    assert world.link.reports == [PeerRegistered(TASK, SPEC)]
    await world.assign(OF, "p", "me")
    await trio.sleep(1)
    assert world.store.held(OF)
    assert world.link.reports[-1] == PeerLeft(TASK)
    assert not world.origin.jobs


async def test_the_last_waiter_ends_the_download(autojump_clock: Clock, world: World) -> None:
    world.linked()
    for _ in range(2):
        with trio.move_on_after(5):
            await world.get()
        await trio.testing.wait_all_tasks_blocked()
    assert world.link.reports == [PeerRegistered(TASK, SPEC), PeerLeft(TASK)] * 2
    assert world.result("cancelled") == 2


async def test_who_comes_as_the_last_one_leaves_stays_registered(autojump_clock: Clock, world: World) -> None:
    world.linked()
    parent = world.lan.add("p", FakeParent(OF))

    async def slow(number: int) -> None:
        with trio.CancelScope(shield=True):  # a thread that writes cannot be stopped
            await trio.sleep(3)

    world.store.before_put = slow  # type: ignore[method-assign]
    with trio.CancelScope() as scope:

        async def leave() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await world.assign(OF, "p")
            await trio.sleep(1)
            scope.cancel()

        world.nursery.start_soon(leave)
        await world.get()
    assert parent.asked
    assert (await world.get()).length == len(OF.data)
    await trio.sleep(10)
    told = [type(r) for r in world.link.reports if isinstance(r, PeerRegistered | PeerLeft)]
    assert told[:3] == [PeerRegistered, PeerRegistered, PeerLeft]


async def test_what_is_held_is_told_with_the_registration(autojump_clock: Clock, world: World) -> None:
    world.linked()
    await world.store.hold(OF, 1, 2)
    with trio.move_on_after(1):
        await world.get()
    holding = world.link.of(PeerHolding)
    assert [cast(PeerHolding, h).held for h in holding] == [Bitmap([1, 2]).to_bytes()]


async def test_a_failure_from_the_scheduler(autojump_clock: Clock, world: World) -> None:
    world.linked()
    for failure, error in (
        (Failure("no", 404), SourceError),
        (Failure("forbidden here", fault="request"), InvalidRequest),
    ):

        async def fail(failure: Failure = failure) -> None:
            await trio.sleep(1)
            await world.host.assigned(TaskFailed(TASK, failure))
            await world.host.assigned(TaskDescribed(TASK, OF.meta))  # does not make it unsaid

        world.nursery.start_soon(fail)
        with pytest.raises(error):
            await world.get()
        await world.host.assigned(TaskFailed(TASK, failure))  # nobody waits: nothing happens


async def test_a_wish_for_the_origin_is_told_when_it_comes_later(autojump_clock: Clock, world: World) -> None:
    world.linked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.get(cluster_only=True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: world.get())
        await trio.testing.wait_all_tasks_blocked()
        assert world.link.reports == [
            PeerRegistered(TASK, SPEC, cluster_only=True),
            PeerRegistered(TASK, SPEC),
        ]
        nursery.cancel_scope.cancel()


async def test_a_grant_brings_what_is_waited_for(autojump_clock: Clock, world: World) -> None:
    world.linked()

    async def grant() -> None:
        await trio.sleep(1)
        await world.host.assigned(SourceGranted(TASK, "g", SPEC))

    world.nursery.start_soon(grant)
    fetched = await world.get(private_headers={"cookie": "c"})
    assert fetched.bytes["origin"] == len(OF.data)
    assert world.origin.jobs[0].private_headers == {"cookie": "c"}


async def test_a_revoked_grant_stops(autojump_clock: Clock, world: World) -> None:
    world.linked("seeder")

    async def hang(job: OriginJob, sink: OriginSink) -> None:
        await trio.sleep_forever()

    world.origin.script = hang
    await world.host.assigned(SourceGranted(TASK, "g", SPEC))
    await trio.testing.wait_all_tasks_blocked()
    assert world.origin.running == 1
    await world.host.assigned(SourceRevoked(TASK, "g"))
    await trio.testing.wait_all_tasks_blocked()
    assert world.origin.running == 0


async def test_a_scheduler_that_is_lost_is_waited_for_a_while(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.link.lost = 1000
    start = trio.current_time()
    await world.get()
    patience = world.host.engine.config.scheduler_patience
    assert patience <= trio.current_time() - start <= patience + 2


async def test_an_old_version_is_dropped_when_another_is_described(
    autojump_clock: Clock, world: World
) -> None:
    world.linked()
    await world.get() if world.host.link is None else await world.store.hold(OF)
    await world.host.assigned(TaskDescribed(TASK, OF.meta))
    assert world.store.held(OF)
    await world.host.assigned(TaskDescribed(TASK, sample(3, version="v2").meta))
    assert not world.store.contents
    assert world.link.reports == [TaskRemoved(TASK)]


async def test_everything_held_is_told_anew(autojump_clock: Clock, world: World) -> None:
    world.linked()
    await world.store.hold(OF)
    await world.tell_anew(full=False)
    assert not world.link.reports
    await world.tell_anew(full=True)
    holding = world.link.reports[0]
    assert isinstance(holding, PeerHolding)
    assert holding.digests == OF.digests
    assert holding.held == Bitmap.full(OF.count).to_bytes()


async def test_an_assignment_of_another_kind_is_ignored(autojump_clock: Clock, world: World) -> None:
    await world.host.assigned(Welcome("s"))
    await world.host.assigned(PieceDigests(TASK, "v", {}))
    await world.host.assigned(ParentsAssigned(TASK, []))


# --- removing and stopping ---------------------------------------------------------------------------------


async def test_removing(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(TaskNotFound):
        await world.host.remove(TASK)
    await world.get()
    await world.host.remove(TASK)
    assert not world.store.contents


async def test_removing_while_it_is_fetched(autojump_clock: Clock, world: World) -> None:
    async def remove() -> None:
        await trio.sleep(3)
        await world.host.remove(TASK)

    world.nursery.start_soon(remove)
    with pytest.raises((InvalidRequest, StoreError), match="removed"):
        await world.get(limit=PIECE, hash_content=True)
    await trio.testing.wait_all_tasks_blocked()
    await world.get()
    assert world.store.held(OF)


async def test_removing_while_it_is_hashed(autojump_clock: Clock, world: World) -> None:
    await world.get()
    content = world.store.contents[TASK]
    original = content.open_piece

    async def remove(number: int, since: float = 0.0) -> Any:
        content.open_piece = original  # type: ignore[method-assign]
        await world.host.remove(TASK)
        return await original(number)

    content.open_piece = remove  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="removed"):
        await world.get(hash_content=True)


async def test_a_host_that_stops_tells_who_waits(autojump_clock: Clock) -> None:
    async def hang(job: OriginJob, sink: OriginSink) -> None:
        await trio.sleep_forever()

    origin = FakeOrigin(OF)
    origin.script = hang
    caught: list[DragonetError] = []

    async def wait(host: Host) -> None:
        try:
            await fetch(host, FetchOrder(SPEC))
        except DragonetError as error:
            caught.append(error)

    async with trio.open_nursery() as nursery, running_host(MemoryStore(), origin) as host:
        nursery.start_soon(wait, host)
        await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in caught] == [Unavailable]


# --- output files, with a real store ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 60_000, 300_000])
async def test_the_output_is_written_as_pieces_arrive(tmp_path: Path, length: int) -> None:
    of = Sample(sample(100).data[:length], piece_length=65536)
    (tmp_path / "out").write_bytes(b"older and longer" * 100_000)
    async with (
        Store.open(tmp_path / "data", StoreConfig()) as store,
        running_host(store, FakeOrigin(of)) as host,
    ):
        for digest in (None, ("sha256", hashlib.sha256(of.data).hexdigest())):  # brought, then held
            fd = os.open(tmp_path / "out", os.O_RDWR)
            await fetch(host, FetchOrder(SPEC, digest=digest, output=fd))
            os.close(fd)
            assert (tmp_path / "out").read_bytes() == of.data


async def test_an_output_that_cannot_be_written_does_not_harm_the_download(tmp_path: Path) -> None:
    of = Sample(OF.data, piece_length=PIECE)
    (tmp_path / "out").write_bytes(b"")
    async with (
        Store.open(tmp_path / "data", StoreConfig()) as store,
        running_host(store, FakeOrigin(of)) as host,
    ):
        fd = os.open(tmp_path / "out", os.O_RDONLY)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await fetch(host, FetchOrder(SPEC, output=fd))
        os.close(fd)
        stored = store.get(TASK)
        assert stored is not None
        assert stored.complete


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_of_the_output_is_told() -> None:
    store = MemoryStore()
    async with running_host(store, FakeOrigin(OF)) as host:
        fd = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(StoreFull, match="output"):
            await fetch(host, FetchOrder(SPEC, output=fd))
        os.close(fd)


async def test_nothing_is_written_to_a_detached_output(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        output = OutputFile(file.fileno())
        await trio.to_thread.run_sync(output.write, "v1", 0, 0, b"first")
        await output.detach()
        await trio.to_thread.run_sync(output.write, "v1", 0, 0, b"later")
    assert (tmp_path / "out").read_bytes() == b"first"


async def test_a_late_write_of_an_older_version_changes_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    async with store.create(SPEC, TaskMeta("v2", PIECE, len(OF.data))) as content:
        for number in range(OF.count):
            await content.put(number, OF.piece(number), expected=None)
        with (tmp_path / "out").open("wb") as file:
            output = OutputFile(file.fileno())
            for version, number in (("v2", 0), ("v1", 0), ("v1", 1), ("v2", 2)):
                data = OF.piece(number) if version == "v2" else b"x" * 2 * len(OF.data)
                output.write(version, number * PIECE, number, data)
            layout = content.layout
            assert layout is not None
            await output.finish(cast(Any, content), layout)
    assert (tmp_path / "out").read_bytes() == OF.data


async def test_who_asks_while_the_version_changes_does_not_bring_the_old_one_back(
    autojump_clock: Clock, world: World
) -> None:
    new = sample(10.5, version="v2")
    await world.store.hold(OF)
    tasks = world.host.tasks
    async with tasks.wanted(SPEC, TASK) as task:
        replacing = trio.Event()

        async def slowly() -> None:
            replacing.set()
            await trio.sleep(1)

        world.store.before_create = slowly

        async def ask() -> None:
            await replacing.wait()
            tasks.release(await tasks.held(TASK))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await task.adopt(new.meta)
            task.learn(new.version, new.digests)
        assert task.meta == new.meta
        assert len(task.missing()) == new.count


def without_network() -> SourceError:
    return SourceError("the origin cannot be reached", fault="reader", offline=True)


async def test_without_network_it_is_tried_again_alone(autojump_clock: Clock, world: World) -> None:
    """A part has come, then there is no network for a while; the rest is read where it broke off."""
    tries = 0

    async def flap(job: OriginJob, sink: OriginSink) -> None:
        nonlocal tries
        tries += 1
        if tries == 4:
            assert len(sink.held()) == 2
            await world.origin.give(job, sink)
            return
        if tries == 1:
            await sink.opened(OF.meta)
            for number in range(2):
                await sink.piece(number, memoryview(OF.piece(number)))
        raise without_network()

    world.origin.script = flap
    await world.get()
    assert tries == 4
    assert world.store.held(OF)


async def test_without_network_for_long_it_fails(autojump_clock: Clock, world: World) -> None:
    async def unreachable(job: OriginJob, sink: OriginSink) -> None:
        raise without_network()

    world.origin.script = unreachable
    began = trio.current_time()
    with pytest.raises(SourceError, match="cannot be reached"):
        await world.get()
    assert PATIENCE <= trio.current_time() - began <= PATIENCE + 5
    assert 4 < len(world.origin.jobs) < 15
