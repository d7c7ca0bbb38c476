"""Several at once, and cancelled at every moment: the books stay right and nothing stays open."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from shared.errors import PieceMissing, StoreError, TaskNotFound
from shared.store import Store, TaskContent
from shared.store.content import ContentFile
from shared.task.digest import piece_digest
from tests.unit.shared.store.stored import (
    PIECE,
    body,
    check_books,
    contents,
    durable,
    fill,
    keep,
    meta,
    opened,
    piece,
    read_back,
    spec,
)

TASK = spec().task_id


async def test_one_piece_put_by_many_at_once_is_fresh_once(tmp_path: Path) -> None:
    data, fresh = body(2 * PIECE), []
    async with opened(tmp_path) as store, store.create(spec(), meta(len(data))) as content:

        async def put() -> None:
            fresh.append((await content.put(0, piece(data, 0), expected=None))[1])

        async with trio.open_nursery() as several:
            for _ in range(16):
                several.start_soon(put)
        assert sorted(fresh) == [False] * 15 + [True]
        check_books(store)


async def test_the_digest_is_that_of_the_bytes_whoever_wins(tmp_path: Path) -> None:
    async with opened(tmp_path) as store, store.create(spec(), meta(2 * PIECE)) as content:
        for turn in range(10):
            async with trio.open_nursery() as several:
                for seed in range(4):

                    async def put(seed: int = turn * 4 + seed) -> None:
                        await content.put(0, body(PIECE, seed=seed), expected=None)

                    several.start_soon(put)
            async with content.read(0) as view:
                assert piece_digest(view) == content.digests[0]
        check_books(store)


async def test_a_content_closes_after_the_puts_that_are_under_way(tmp_path: Path) -> None:
    data, go_on = body(4 * PIECE), threading.Event()
    async with opened(tmp_path) as store:
        async with trio.open_nursery() as several:
            async with store.create(spec(), meta(len(data))) as content:
                for number in range(4):

                    async def put(number: int = number) -> None:
                        await content.put(
                            number, piece(data, number), expected=None, also=lambda n, d: go_on.wait(60)
                        )

                    several.start_soon(put)
                while content.users < 5:
                    await trio.lowlevel.checkpoint()
            assert store.statistics().open == 1
            go_on.set()
        assert store.statistics().open == 0
        assert await read_back(store) == data
        check_books(store)


async def test_a_version_is_replaced_while_its_pieces_are_put(tmp_path: Path) -> None:
    old, new = body(6 * PIECE), body(6 * PIECE, seed=2)
    async with opened(tmp_path) as store:
        async with store.create(spec(), meta(len(old))) as before, trio.open_nursery() as olds:
            olds.start_soon(lambda: fill(before, old, complete=False))
            while not before.held:
                await trio.lowlevel.checkpoint()
            async with store.create(spec(), meta(len(new), "v2")) as after, trio.open_nursery() as news:
                news.start_soon(lambda: fill(after, new, complete=False))
                news.start_soon(lambda: fill(after, new, complete=False))
        async with store.use(TASK) as content:
            assert await contents(content) == new
            await content.complete()
        check_books(store)
    async with opened(tmp_path) as store:
        assert await read_back(store) == new
        check_books(store)


async def test_the_store_closes_while_content_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        token = trio.lowlevel.current_trio_token()
        begun, sync = trio.Event(), ContentFile.sync

        def slow(self: ContentFile) -> None:
            token.run_sync_soon(begun.set)
            sync(self)

        monkeypatch.setattr(ContentFile, "sync", slow)
        await keep(store, "one", body(3 * PIECE))
        await begun.wait()
    monkeypatch.undo()
    async with opened(tmp_path, boot="boot-2") as store:
        assert await read_back(store) == body(3 * PIECE)


async def test_durability_waits_for_pieces_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store, store.create(spec(), meta(2 * PIECE)) as content:
        syncs, sync = [], ContentFile.sync

        def counted(self: ContentFile) -> None:
            syncs.append(1)
            if len(syncs) == 1:
                trio.from_thread.run(again)
            sync(self)

        async def again() -> None:
            await content.put(0, body(PIECE, seed=9), expected=None)

        monkeypatch.setattr(ContentFile, "sync", counted)
        await fill(content, body(2 * PIECE))
        await durable(store, TASK)
        assert len(syncs) == 2


async def test_a_failed_synchronisation_leaves_the_content_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ContentFile) -> None:
        raise StoreError("no")

    monkeypatch.setattr(ContentFile, "sync", broken)
    async with opened(tmp_path) as store:
        await keep(store, "one", body(2 * PIECE))
        assert await read_back(store) == body(2 * PIECE)
        assert not store.tasks()[0].durable
    monkeypatch.undo()
    async with opened(tmp_path) as store:
        await durable(store, TASK)


@pytest.mark.parametrize("size", [700, 40_000, 3 * PIECE])
async def test_cancelled_at_every_checkpoint(tmp_path: Path, size: int) -> None:
    data, other = body(size), body(size, seed=2)

    async def work() -> None:
        await keep(store, "one", data)
        async with store.use(TASK) as content:
            view = await content.open_piece(0)
            try:
                await trio.lowlevel.checkpoint()
            finally:
                view.close()
        await store.set_pin(TASK, False)
        await keep(store, "one", other, version="v2")
        await store.digests(TASK)
        await store.remove(TASK)

    async with opened(tmp_path) as store:
        for moment in range(200):
            scope = trio.CancelScope()
            if await _cancelled_after(moment, scope, work):
                break
            check_books(store)
            if store.get(TASK) is not None:
                try:
                    read = await read_back(store)
                except TaskNotFound:
                    read = b""
                assert data.startswith(read) or other.startswith(read)
            await store.remove(TASK)
        else:
            raise AssertionError("the work never came to its end")
        await trio.testing.wait_all_tasks_blocked()
        assert store.statistics().used == 0
    async with opened(tmp_path) as store:
        assert store.tasks() == []
        assert list((tmp_path / "content").iterdir()) == []


async def test_everything_at_once_keeps_the_books_right(tmp_path: Path) -> None:
    rng = random.Random(7)
    sizes = [200, 30_000, 2 * PIECE, 3 * PIECE + 5]

    async def one(store_task: int) -> None:
        for _ in range(12):
            name, size = f"n{rng.randrange(5)}", rng.choice(sizes)
            version = f"v{size}"
            try:
                match rng.randrange(6):
                    case 0:
                        await store.remove(spec(name).task_id)
                    case 1:
                        await store.set_pin(spec(name).task_id, rng.random() < 0.2)
                    case 2:
                        async with store.use(spec(name).task_id) as content:
                            await contents(content)
                    case _:
                        with trio.CancelScope() as scope:
                            if rng.random() < 0.2:
                                scope.cancel()
                            await keep(store, name, body(size), version=version)
                            async with store.use(spec(name).task_id) as content:
                                await _check_bytes(content)
            except (TaskNotFound, StoreError, PieceMissing):
                pass
            check_books(store)

    async with opened(tmp_path, quota=12 * PIECE) as store:
        async with trio.open_nursery() as several:
            for number in range(6):
                several.start_soon(one, number)
        for task in store.tasks():
            await _check_stored(store, task.task_id)
        check_books(store)
        used, ids = store.statistics().used, {t.task_id for t in store.tasks()}
        assert used <= 12 * PIECE
    async with opened(tmp_path) as store:
        assert {t.task_id for t in store.tasks()} == ids
        assert store.statistics().used == used
        files = {path.name.split(".")[0] for path in (tmp_path / "content").iterdir()}
        assert files <= ids


async def _check_stored(store: Store, task_id: str) -> None:
    async with store.use(task_id) as content:
        await _check_bytes(content)


async def _check_bytes(content: TaskContent) -> None:
    length = content.meta.length
    assert length is not None
    for number in content.held:
        async with content.read(number) as view:
            assert bytes(view) == piece(body(length), number)


async def _cancelled_after(moment: int, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> bool:
    """Run ``work`` and cancel it at its ``moment``-th stop; whether it came to its end before."""

    class Counter(trio.abc.Instrument):
        def __init__(self, task: trio.lowlevel.Task) -> None:
            self.task, self.left = task, moment

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is self.task:
                self.left -= 1
                if self.left < 0:
                    scope.cancel()

    counter = Counter(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(counter)
    try:
        with scope:
            await work()
    finally:
        trio.lowlevel.remove_instrument(counter)
    return not scope.cancelled_caught
