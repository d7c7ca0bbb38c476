from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from shared.errors import PieceCorrupt, PieceMissing, StoreError, StoreFull, TaskNotFound
from shared.store import Store, StoreConfig
from shared.store.index import Index
from shared.task.digest import piece_digest
from tests.unit.shared.store.stored import (
    PIECE,
    Clock,
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


@pytest.mark.parametrize("length", [0, 1, 16 * 1024, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 17])
async def test_what_is_put_comes_back_also_after_a_restart(tmp_path: Path, length: int) -> None:
    data = body(length)
    async with opened(tmp_path) as store:
        await keep(store, "one", data)
        assert await read_back(store) == data
        check_books(store)
    async with opened(tmp_path) as store:
        await durable(store, TASK)
        task = store.get(TASK)
        assert task is not None
        assert (task.complete, task.durable, task.size) == (True, True, length)
        assert task.spec == spec()
        assert task.meta == meta(length)
        assert await read_back(store) == data
        assert store.statistics().used == length
        assert store.statistics().open == 0


async def test_what_is_known_of_a_content_survives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await keep(store, "one", body(5 * PIECE))
        async with store.use(TASK) as content:
            content.validated(1234.5)
            content.verified("sha256:00")
    async with opened(tmp_path) as store:
        task = store.get(TASK)
        assert task is not None
        assert (task.validated, task.superseded) == (1234.5, False)
        async with store.use(TASK) as content:
            assert content.record.verified == "sha256:00"
            assert content.record.validated == 1234.5
        async with store.create(spec(), meta(10, "v2")) as content:
            assert (content.record.verified, content.record.validated) == ("", 0.0)


async def test_small_contents_lie_in_the_index_and_others_in_a_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        small = await keep(store, "small", body(PIECE))
        large = await keep(store, "large", body(PIECE + 1))
        names = {path.name for path in (tmp_path / "content").iterdir()}
    assert f"{large}.mdb" in names
    assert f"{small}.mdb" not in names


async def test_put_tells_the_digest_and_what_was_fresh(tmp_path: Path) -> None:
    data = body(3 * PIECE)
    async with opened(tmp_path) as store, store.create(spec(), meta(len(data))) as content:
        first = piece(data, 0)
        assert await content.put(0, memoryview(first), expected=None) == (piece_digest(first), True)
        assert await content.put(0, first, expected=piece_digest(first)) == (piece_digest(first), False)
        assert list(content.held) == [0]
        assert content.digests == {0: piece_digest(first)}
        assert content.size == store.statistics().used == PIECE


async def test_what_is_not_a_piece_is_refused(tmp_path: Path) -> None:
    data = body(2 * PIECE + 5)
    async with opened(tmp_path) as store, store.create(spec(), meta(len(data))) as content:
        with pytest.raises(PieceCorrupt, match="digest"):
            await content.put(0, piece(data, 0), expected=bytes(32))
        for number, part in [
            (0, b"short"),
            (2, body(6)),
            (3, b""),
            (-1, body(PIECE)),
            (1 << 33, body(PIECE)),
        ]:
            with pytest.raises(PieceCorrupt, match="not a piece"):
                await content.put(number, part, expected=None)
        assert not content.held
        with pytest.raises(PieceMissing):
            await content.open_piece(0)
        with pytest.raises(ValueError, match="misses"):
            await content.complete()
    async with opened(tmp_path, max_map=1 << 22) as store, store.create(spec(), meta(None)) as content:
        with pytest.raises(PieceCorrupt, match="not a piece"):
            await content.put(1 << 33, body(PIECE), expected=None)


async def test_also_sees_verified_pieces_only(tmp_path: Path) -> None:
    data, seen = body(2 * PIECE), []
    async with opened(tmp_path) as store, store.create(spec(), meta(len(data))) as content:
        with pytest.raises(PieceCorrupt):
            await content.put(0, piece(data, 1), expected=bytes(32), also=lambda n, d: seen.append(n))
        part = piece(data, 1)
        await content.put(1, part, expected=piece_digest(part), also=lambda n, d: seen.append((n, bytes(d))))
    assert seen == [(1, part)]


async def test_an_error_of_also_is_the_callers_and_nothing_is_stored(tmp_path: Path) -> None:
    def broken(number: int, data: memoryview) -> None:
        raise ZeroDivisionError

    async with opened(tmp_path) as store, store.create(spec(), meta(2 * PIECE)) as content:
        with pytest.raises(ZeroDivisionError):
            await content.put(0, body(PIECE), expected=None, also=broken)
        assert not content.held
        assert content.users == 1
        check_books(store)


async def test_unknown_tasks(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(TaskNotFound):
            async with store.use(TASK):
                pass
        with pytest.raises(TaskNotFound):
            await store.set_pin(TASK, True)
        await store.remove(TASK)
        assert await store.digests(TASK) is None
        assert store.get(TASK) is None


async def test_a_task_of_which_nothing_came_leaves_no_trace(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        async with store.create(spec(), meta(10 * PIECE)):
            assert store.get(TASK) is not None
        assert store.tasks() == []
        assert list((tmp_path / "content").iterdir()) == []


async def test_another_version_replaces_the_content_and_readers_keep_theirs(tmp_path: Path) -> None:
    old, new = body(3 * PIECE), body(2 * PIECE + 9, seed=2)
    removed: list[str] = []
    async with opened(tmp_path) as store:
        store.on_removed.append(removed.append)
        async with store.create(spec(), meta(len(old))) as before:
            await fill(before, old)
            view = await before.open_piece(1)
            async with store.create(spec(), meta(len(new), "v2")) as after:
                assert removed == [TASK]
                assert not after.held
                await fill(after, new)
                assert bytes(view.data) == piece(old, 1)
                assert await contents(before) == old
                await before.put(0, piece(old, 0), expected=None)  # late: of no more use, and harmless
                assert store.statistics().used == len(new)
            view.close()
            view.close()
        assert await read_back(store) == new
        check_books(store)
    async with opened(tmp_path) as store:
        assert await read_back(store) == new
        assert len(list((tmp_path / "content").iterdir())) == 2


@pytest.mark.parametrize(("first", "second"), [(100, 200), (100, 3 * PIECE), (3 * PIECE, 100)])
async def test_versions_do_not_mix_between_index_and_file(tmp_path: Path, first: int, second: int) -> None:
    async with opened(tmp_path) as store:
        async with (
            store.create(spec(), meta(first)) as before,
            store.create(spec(), meta(second, "v2")) as after,
        ):
            await before.put(0, piece(body(first), 0), expected=None)
            assert not after.held
            await fill(after, body(second, seed=2))
        assert await read_back(store) == body(second, seed=2)
    async with opened(tmp_path) as store:
        assert await read_back(store) == body(second, seed=2)
        check_books(store)


async def test_removed_content_can_be_read_to_its_end(tmp_path: Path) -> None:
    data = body(3 * PIECE)
    async with opened(tmp_path) as store:
        await keep(store, "one", data)
        async with store.use(TASK) as content:
            view = await content.open_piece(2)
            await store.remove(TASK)
            assert store.get(TASK) is None
            assert store.statistics().used == 0
            assert list((tmp_path / "content").iterdir()) == []
            assert bytes(view.data) == piece(data, 2)
            assert await contents(content) == data
            await keep(store, "one", data)
            view.close()
        assert await read_back(store) == data
        check_books(store)


async def test_a_view_keeps_its_content_open(tmp_path: Path) -> None:
    data = body(2 * PIECE)
    async with opened(tmp_path) as store:
        await keep(store, "one", data, complete=False)
        async with store.use(TASK) as content:
            view = await content.open_piece(0)
        assert store.statistics().open == 1
        assert bytes(view.data) == piece(data, 0)
        view.close()
        assert store.statistics().open == 0
        with pytest.raises(PieceMissing):
            await content.open_piece(0)
        with pytest.raises(StoreError, match="closed"):
            await content.put(0, piece(data, 0), expected=None)


async def test_unknown_length_grows_and_becomes_known(tmp_path: Path) -> None:
    data = body(4 * PIECE + 3)
    async with opened(tmp_path, max_map=1 << 26) as store:
        async with store.create(spec(), meta(None)) as content:
            await fill(content, data, complete=False)
            check_books(store)
            assert content.layout is None
            await content.set_meta(meta(len(data)))
            await content.set_meta(meta(None))
            assert content.meta.length == len(data)
            await content.complete()
        assert store.statistics().used == len(data)
    async with opened(tmp_path) as store:
        task = store.get(TASK)
        assert task is not None
        assert task.complete
        assert await read_back(store) == data


@pytest.mark.parametrize("length", [0, PIECE, 2 * PIECE - 1, 2 * PIECE + 1])
async def test_a_length_that_does_not_fit_to_the_pieces_is_refused(tmp_path: Path, length: int) -> None:
    async with opened(tmp_path, max_map=1 << 24) as store, store.create(spec(), meta(None)) as content:
        await fill(content, body(2 * PIECE), complete=False)
        if length != 2 * PIECE + 1:
            with pytest.raises(StoreError, match="does not fit"):
                await content.set_meta(meta(length))
            async with store.create(spec(), meta(length)) as other:
                assert not other.held
            check_books(store)
        with pytest.raises(StoreError, match="does not fit"):
            await content.set_meta(meta(2 * PIECE, "v2"))


async def test_one_content_is_opened_once(tmp_path: Path, nursery: trio.Nursery) -> None:
    data, seen = body(2 * PIECE), []
    async with opened(tmp_path) as store:

        async def one() -> None:
            async with store.create(spec(), meta(len(data))) as content:
                seen.append(content)
                await fill(content, data)
                await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as several:
            for _ in range(8):
                several.start_soon(one)
        assert len({id(content) for content in seen}) == 1
        await durable(store, TASK)
        while seen[0].users:
            await trio.lowlevel.checkpoint()
        assert store.statistics().open == 0
        check_books(store)


async def test_metadata_pins_and_digests_last(tmp_path: Path) -> None:
    data = body(2 * PIECE)
    async with opened(tmp_path) as store:
        await keep(store, "one", data)
        await store.set_pin(TASK, True)
        async with store.use(TASK) as content:
            await content.complete()
    async with opened(tmp_path) as store:
        task = store.get(TASK)
        assert task is not None
        assert task.pinned
        assert await store.digests(TASK) == {n: piece_digest(piece(data, n)) for n in range(2)}
        await store.set_pin(TASK, False)
    async with opened(tmp_path) as store:
        assert not store.tasks()[0].pinned


async def test_many_small_tasks_share_their_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    commit = Index._commit

    def counted(self: Index, writes: dict[bytes, bytes | None]) -> StoreError | None:
        commits.append(len(writes))
        return commit(self, writes)

    monkeypatch.setattr(Index, "_commit", counted)
    async with opened(tmp_path) as store:
        async with trio.open_nursery() as several:
            for i in range(200):
                several.start_soon(keep, store, f"small-{i}", body(1000 + i, seed=i))
        assert len(store.tasks()) == 200
        assert len(commits) < 100
        check_books(store)
    async with opened(tmp_path) as store:
        for i in range(200):
            assert await read_back(store, f"small-{i}") == body(1000 + i, seed=i)
        assert all(task.durable for task in store.tasks())


# --- quota -------------------------------------------------------------------------------------------------


async def test_the_quota_evicts_the_least_recently_used(tmp_path: Path) -> None:
    removed: list[str] = []
    async with opened(tmp_path, quota=10 * PIECE) as store:
        store.on_removed.append(removed.append)
        a, b, c = [await keep(store, name, body(3 * PIECE)) for name in "abc"]
        await store.set_pin(b, True)
        await read_back(store, "a")
        d = await keep(store, "d", body(4 * PIECE))
        assert removed == [c]
        async with store.use(a):
            with pytest.raises(StoreFull, match="quota"):
                await keep(store, "e", body(8 * PIECE))
            await keep(store, "e", body(4 * PIECE))
        assert removed == [c, d]
        assert {task.task_id for task in store.tasks()} == {a, b, spec("e").task_id}
        assert store.statistics().evicted == 2
        check_books(store)


async def test_what_can_never_fit_is_refused_at_once_and_evicts_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, quota=10 * PIECE) as store:
        await keep(store, "a", body(9 * PIECE))
        with pytest.raises(StoreFull, match=r"store\.quota"):
            async with store.create(spec("b"), meta(10 * PIECE + 1)):
                pass
        assert len(store.tasks()) == 1


async def test_a_reservation_counts_what_others_still_need(tmp_path: Path) -> None:
    async with opened(tmp_path, quota=10 * PIECE) as store, store.create(spec("a"), meta(6 * PIECE)):
        with pytest.raises(StoreFull):
            async with store.create(spec("b"), meta(5 * PIECE)):
                pass
        async with store.create(spec("b"), meta(4 * PIECE)):
            pass


async def test_pieces_of_unknown_length_are_held_to_the_quota(tmp_path: Path) -> None:
    async with opened(tmp_path, quota=4 * PIECE, max_map=1 << 24) as store:
        await keep(store, "a", body(2 * PIECE))
        async with store.create(spec("b"), meta(None)) as content:
            for number in range(4):
                await content.put(number, body(PIECE, seed=number), expected=None)
            assert len(store.tasks()) == 1
            assert (await content.put(0, body(PIECE, seed=0), expected=None))[1] is False
            with pytest.raises(StoreFull, match="quota"):
                await content.put(4, body(PIECE), expected=None)
            assert len(content.held) == 4
        check_books(store)


async def test_a_full_map_is_told_and_evicts_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, max_map=1 << 20) as store:
        await keep(store, "a", body(2 * PIECE))
        async with store.create(spec("b"), meta(None)) as content:
            with pytest.raises(StoreFull, match=r"store\.max_map"):
                await fill(content, body(40 * PIECE))
            assert 8 < len(content.held) < 16
            for number in content.held:
                async with content.read(number) as data:
                    assert bytes(data) == piece(body(40 * PIECE), number)
        assert len(store.tasks()) == 2
        check_books(store)


async def test_the_number_of_tasks_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path, max_tasks=3) as store:
        for i in range(5):
            await keep(store, str(i), body(10))
        assert [task.task_id for task in store.tasks()] == [spec(str(i)).task_id for i in (2, 3, 4)]


async def test_content_expires(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    clock = Clock()
    async with opened(tmp_path, ttl=1000, clock=clock) as store:
        a, b = [await keep(store, name, body(2 * PIECE)) for name in "ab"]
        await store.set_pin(b, True)
        gone = trio.Event()
        store.on_removed.append(lambda task_id: gone.set())
        clock.now += 1001
        mock_clock.jump(10)
        await gone.wait()
        assert store.get(a) is None
        assert store.get(b) is not None
        check_books(store)


async def test_an_idle_open_content_is_not_written_again_and_again(
    tmp_path: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store, store.create(spec(), meta(2 * PIECE)) as content:
        await fill(content, body(2 * PIECE))
        await durable(store, TASK)
        written: list[int] = []

        async def flushed() -> None:
            mock_clock.jump(10)
            await trio.testing.wait_all_tasks_blocked()

        await flushed()
        monkeypatch.setattr(Index, "write_later", lambda self, *writes: written.append(len(writes)))
        await flushed()
        assert sum(written) == 0
        async with content.read(0):
            pass
        await flushed()
        await flushed()
        assert sum(written) == 1
        monkeypatch.undo()


async def test_errors_of_the_body_come_out_as_themselves(tmp_path: Path) -> None:
    with pytest.raises(TaskNotFound):
        async with Store.open(tmp_path, StoreConfig()):
            raise TaskNotFound("mine")
