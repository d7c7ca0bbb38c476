"""One stored task: what goes in comes out, and nothing wrong goes in."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio

from shared.errors import PieceCorrupt, PieceMissing, StoreError, TaskNotFound
from shared.protocol import TaskMeta
from shared.store import Store, StoreConfig
from shared.store.environment import MAX_READERS
from shared.task.digest import piece_digest
from tests.unit.shared.store.samples import KIB, PIECE, ROOMY, Sample, content_files


@pytest.mark.parametrize(
    "length", [1, 3 * KIB, 64 * KIB, 64 * KIB + 1, PIECE, PIECE + 1, 5 * PIECE, 5 * PIECE + 17]
)
async def test_pieces_come_out_as_they_went_in(tmp_path: Path, length: int) -> None:
    sample = Sample("some", length)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content)
            await sample.check(content)
            assert content.whole
            await content.complete()
        stored = store.get(sample.id)
        assert stored is not None
        assert (stored.size, stored.complete) == (length, True)
        assert stored.held.covers(sample.layout.count)
        assert store.statistics().used == length
    assert content_files(tmp_path) == (set() if length <= 64 * KIB else {f"{sample.id}.mdb"})
    async with Store.open(tmp_path, ROOMY) as store, store.use(sample.id) as content:
        assert content.meta == sample.meta
        assert content.digests == {n: piece_digest(sample.piece(n)) for n in range(sample.layout.count)}
        await sample.check(content)


async def test_empty_content_is_complete_without_pieces(tmp_path: Path) -> None:
    sample = Sample("empty", 0)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            assert content.whole
            await content.complete()
        stored = store.get(sample.id)
        assert stored is not None
        assert stored.complete
    async with Store.open(tmp_path, ROOMY) as store:
        stored = store.get(sample.id)
        assert stored is not None
        assert stored.complete
        assert stored.size == 0


async def test_small_content_of_several_pieces_is_not_inline(tmp_path: Path) -> None:
    sample = Sample("small", 40 * KIB, piece_length=16 * KIB)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        await sample.put(content)
        await sample.check(content)


@pytest.mark.parametrize("length", [10 * KIB, 3 * PIECE])
async def test_wrong_bytes_are_refused(tmp_path: Path, length: int) -> None:
    sample = Sample("some", length)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        piece = sample.piece(0)
        flipped = bytes([piece[0] ^ 1]) + piece[1:]
        written: list[int] = []
        with pytest.raises(PieceCorrupt):
            await content.put(
                0, flipped, expected=piece_digest(piece), also=lambda number, _: written.append(number)
            )
        for number, data in [
            (0, piece[:-1]),
            (0, piece + b"x"),
            (0, b""),
            (sample.layout.count, piece),
            (-1, piece),
        ]:
            with pytest.raises(PieceCorrupt):
                await content.put(number, data, expected=None)
        assert written == []
        assert not content.held
        assert await content.put(0, piece, expected=piece_digest(piece)) == (piece_digest(piece), True)
        assert store.statistics().used == len(piece)


async def test_held_pieces_are_verified_but_not_stored_again(tmp_path: Path) -> None:
    sample = Sample("some", 2 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        written: list[tuple[int, bytes]] = []

        def also(number: int, data: memoryview) -> None:
            written.append((number, bytes(data)))

        assert (await content.put(0, sample.piece(0), expected=None, also=also))[1]
        assert not (await content.put(0, sample.piece(0), expected=None, also=also))[1]
        with pytest.raises(PieceCorrupt):
            await content.put(0, sample.piece(1), expected=piece_digest(sample.piece(0)))
        assert written == [(0, sample.piece(0))] * 2
        assert store.statistics().used == PIECE


async def test_same_piece_put_by_two_at_once_counts_once(tmp_path: Path) -> None:
    sample = Sample("some", 2 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(sample.put, content, 0)
        assert store.statistics().used == content.size == PIECE


async def test_missing_pieces(tmp_path: Path) -> None:
    sample = Sample("some", 3 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        await sample.put(content, 1)
        for number in (0, 2, 3, -1):
            with pytest.raises(PieceMissing):
                async with content.read(number):
                    pass
        with pytest.raises(ValueError, match="misses pieces"):
            await content.complete()


async def test_length_becomes_known(tmp_path: Path) -> None:
    sample = Sample("open ended", 2 * PIECE + 5)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.open_ended) as content:
            await sample.put(content)
            assert not content.whole
            assert content.size == store.statistics().used == 2 * PIECE + 5
            await content.set_meta(sample.meta)
            assert content.whole
            await content.complete()
            await sample.check(content)
        async with store.create(sample.spec, sample.open_ended) as content:
            assert content.meta == sample.meta, "what is known is not forgotten"
    async with Store.open(tmp_path, ROOMY) as store:
        stored = store.get(sample.id)
        assert stored is not None
        assert stored.meta == sample.meta
        assert stored.complete


async def test_length_learnt_elsewhere_is_taken_over_when_reopened(tmp_path: Path) -> None:
    sample = Sample("open ended", 2 * PIECE + 5)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.open_ended) as content:
            await sample.put(content, 0)
        async with store.create(sample.spec, sample.meta) as content:
            assert content.meta == sample.meta
            assert list(content.held) == [0]


@pytest.mark.parametrize("length", [PIECE, 2 * PIECE, 2 * PIECE + 4, 2 * PIECE + 6])
async def test_length_that_contradicts_the_pieces(tmp_path: Path, length: int) -> None:
    sample = Sample("open ended", 2 * PIECE + 5)
    lying = TaskMeta(version="v1", piece_length=PIECE, length=length)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.open_ended) as content:
            await sample.put(content)
            with pytest.raises(StoreError, match="does not fit"):
                await content.set_meta(lying)
            assert content.meta.length is None
        async with store.create(sample.spec, lying) as content:
            assert content.meta == lying
            assert not content.held, "nothing of it can be right, so it begins anew"
        assert store.statistics().used == 0


async def test_metadata_of_another_version_is_refused(tmp_path: Path) -> None:
    sample = Sample("some", 2 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        for other in (
            TaskMeta(version="v2", piece_length=PIECE, length=2 * PIECE),
            TaskMeta(version="v1", piece_length=2 * PIECE, length=2 * PIECE),
            TaskMeta(version="v1", piece_length=PIECE, length=3 * PIECE),
        ):
            with pytest.raises(StoreError, match="does not fit"):
                await content.set_meta(other)
        assert content.meta == sample.meta


async def test_new_version_replaces_the_old_one_and_readers_keep_theirs(tmp_path: Path) -> None:
    old, new = Sample("changing", 3 * PIECE), Sample("changing", 4 * PIECE, version="v2")
    removed: list[str] = []
    async with Store.open(tmp_path, ROOMY) as store:
        store.on_removed.append(removed.append)
        async with store.create(old.spec, old.meta) as reading:
            await old.put(reading)
            async with reading.read(2) as view, store.create(new.spec, new.meta) as content:
                assert removed == [old.id]
                assert not content.held
                await new.put(content, 0, 3)
                assert view == old.piece(2)
                await old.check(reading)
                await old.put(reading)
                await new.check(content, [0, 3])
                assert store.statistics().used == 2 * PIECE
            stored = store.get(old.id)
            assert stored is not None
            assert stored.meta == new.meta
        assert content_files(tmp_path) == {f"{old.id}.mdb"}
    async with Store.open(tmp_path, ROOMY) as store, store.use(new.id) as content:
        assert content.meta == new.meta
        await new.check(content, [0, 3])


async def test_other_piece_length_is_other_content(tmp_path: Path) -> None:
    sample, recut = Sample("some", 4 * PIECE), Sample("some", 4 * PIECE, piece_length=2 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content)
        async with store.create(recut.spec, recut.meta) as content:
            assert not content.held


async def test_removed_while_read_and_written(tmp_path: Path) -> None:
    sample = Sample("some", 3 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content, 0)
            await store.remove(sample.id)
            assert store.get(sample.id) is None
            assert content_files(tmp_path) == set()
            await sample.put(content, 1)
            await sample.check(content, [0, 1])
            assert store.statistics().used == 0
            with pytest.raises(TaskNotFound):
                async with store.use(sample.id):
                    pass
        await store.remove(sample.id)
        assert store.statistics().used == 0


async def test_closed_content_refuses_instead_of_crashing(tmp_path: Path) -> None:
    sample = Sample("some", 3 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content, 0)
        with pytest.raises(StoreError):
            await sample.put(content, 1)
        with pytest.raises(PieceMissing):
            await content.open_piece(0)


async def test_view_outlives_the_context_it_came_from(tmp_path: Path) -> None:
    sample = Sample("some", 3 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content, 0)
            piece = await content.open_piece(0)
        assert store.statistics().open == 1
        assert piece.data == sample.piece(0)
        piece.close()
        assert store.statistics().open == 0


async def test_any_number_of_views_is_open_at_once(tmp_path: Path) -> None:
    """Slow clients each keep one open, so many of them must not keep others out."""
    sample = Sample("some", 4 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        await sample.put(content, 0)
        await sample.put(content, 1)
        views = [(number % 2, await content.open_piece(number % 2)) for number in range(2 * MAX_READERS)]
        assert all(view.data == sample.piece(number) for number, view in views)
        await sample.put(content, 2)
        views.append((2, await content.open_piece(2)))
        for number, view in views[:-5]:
            assert view.data == sample.piece(number)
            view.close()
        views = views[-5:]
        await sample.put(content, 3)
        views.append((3, await content.open_piece(3)))
        for number, view in views:
            assert view.data == sample.piece(number)
            view.close()
        await sample.check(content)


async def test_views_while_the_content_grows(tmp_path: Path) -> None:
    """One that is kept open after each write is of another state of the file; there is room for so many only, and
    what an earlier one shows can be seen still."""
    sample = Sample("some", (MAX_READERS + 8) * 16 * KIB, piece_length=16 * KIB)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        views = []
        for number in range(MAX_READERS + 4):
            await sample.put(content, number)
            views.append(await content.open_piece(0))
        assert all(view.data == sample.piece(0) for view in views)
        newest = MAX_READERS + 3
        with pytest.raises(StoreError):
            await content.open_piece(newest)
        assert newest in content.held, "it is not lost"
        for view in views[:10]:
            view.close()
        latest = await content.open_piece(newest)
        assert latest.data == sample.piece(newest)
        for view in [*views[10:], latest]:
            view.close()


async def test_content_closed_while_a_put_runs(tmp_path: Path) -> None:
    """The storage stays open until the worker thread is done with it, and what is removed meanwhile goes then."""
    sample, begun, go_on = Sample("some", PIECE), trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def hold_up(*_: object) -> None:
        token.run_sync_soon(begun.set)
        assert go_on.wait(60)

    async with Store.open(tmp_path, ROOMY) as store, trio.open_nursery() as nursery:
        async with store.create(sample.spec, sample.meta) as content:
            nursery.start_soon(lambda: content.put(0, sample.piece(0), expected=None, also=hold_up))
            await begun.wait()
        assert store.statistics().open == 1
        nursery.start_soon(store.remove, sample.id)
        go_on.set()
    assert content_files(tmp_path) == set()


async def test_cancelled_put_is_whole_or_not_at_all(tmp_path: Path) -> None:
    sample = Sample("some", 4 * PIECE)
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    await started.wait()
                    scope.cancel()

                nursery.start_soon(cancel)
                await content.put(
                    0,
                    sample.piece(0),
                    expected=None,
                    also=lambda *_: token.run_sync_soon(started.set),
                )
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert list(content.held) == [0]
        with trio.CancelScope() as scope:
            scope.cancel()
            await sample.put(content, 1)
        assert list(content.held) == [0]
    async with Store.open(tmp_path, ROOMY) as store, store.use(sample.id) as content:
        await sample.check(content, [0])


async def test_looking_at_digests_is_no_access(tmp_path: Path) -> None:
    now = [100.0]
    sample = Sample("some", 2 * PIECE)
    async with Store.open(tmp_path, ROOMY, clock=lambda: now[0]) as store:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content)
        now[0] = 200.0
        assert await store.digests(sample.id) == {n: piece_digest(sample.piece(n)) for n in range(2)}
        assert [task.accessed for task in store.tasks()] == [100.0]
        async with store.use(sample.id):
            pass
        assert [task.accessed for task in store.tasks()] == [200.0]
        assert await store.digests("0" * 64) is None


async def test_task_of_which_nothing_came_leaves_no_trace(tmp_path: Path) -> None:
    sample = Sample("some", 2 * PIECE)
    removed: list[str] = []
    async with Store.open(tmp_path, ROOMY) as store:
        store.on_removed.append(removed.append)
        async with store.create(sample.spec, sample.meta):
            assert store.get(sample.id) is not None
        assert store.tasks() == []
    assert content_files(tmp_path) == set()
    assert removed == []


async def test_ids_that_are_no_file_names(tmp_path: Path) -> None:
    sample = Sample("some", 2 * PIECE)
    async with Store.open(tmp_path, StoreConfig()) as store:
        with pytest.raises(Exception, match="64 hexadecimal"):
            async with store.create(sample.spec, sample.meta, "../../../etc/passwd"):
                pass
        assert store.tasks() == []
