"""Quota, pins, disk and map: what has no room is refused by name, and everything else goes on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from shared.errors import StoreFull, TaskNotFound
from shared.store import Store, StoreConfig
from shared.store.environment import WriteCut
from tests.unit.shared.store.samples import KIB, PIECE, ROOMY, Sample, content_files, fill_disk, small_disk

MIB = 1024 * KIB
QUOTA = StoreConfig(quota=10 * PIECE, disk_share=1.0)


class Clock:
    """Each look is a second later, so that the order of use is plain."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


async def fill(store: Store, *samples: Sample) -> None:
    for sample in samples:
        async with store.create(sample.spec, sample.meta) as content:
            await sample.put(content)
            await content.complete()


def ids(store: Store) -> set[str]:
    return {task.task_id for task in store.tasks()}


async def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    one, two, three, four = (Sample(str(n), 3 * PIECE) for n in range(4))
    removed: list[str] = []
    async with Store.open(tmp_path, QUOTA, clock=Clock()) as store:
        store.on_removed.append(removed.append)
        await fill(store, one, two, three)
        async with store.use(one.id):
            pass
        await fill(store, four)
        assert removed == [two.id]
        assert ids(store) == {one.id, three.id, four.id}
        assert store.statistics().used == 9 * PIECE
        assert store.statistics().evicted == 1
        assert content_files(tmp_path) == {f"{sample.id}.mdb" for sample in (one, three, four)}
    async with Store.open(tmp_path, QUOTA) as store:
        assert ids(store) == {one.id, three.id, four.id}
        async with store.use(one.id) as content:
            await one.check(content)


async def test_what_its_source_no_longer_has_goes_first(tmp_path: Path) -> None:
    one, two, three, four = (Sample(str(n), 3 * PIECE) for n in range(4))
    async with Store.open(tmp_path, QUOTA, clock=Clock()) as store:
        await fill(store, one, two, three)
        store.supersede(three.id)
        store.supersede("unknown")
    async with Store.open(tmp_path, QUOTA, clock=Clock()) as store:
        stored = store.get(three.id)
        assert stored is not None
        assert stored.superseded
        async with store.use(three.id) as content:
            await fill(store, four)
            await three.check(content)
            assert ids(store) == {two.id, three.id, four.id}, "who reads it finishes"
        await fill(store, one)
        assert ids(store) == {one.id, two.id, four.id}


async def test_pinned_and_used_content_stays(tmp_path: Path) -> None:
    one, two, three = Sample("1", 4 * PIECE), Sample("2", 4 * PIECE), Sample("3", 4 * PIECE)
    async with Store.open(tmp_path, QUOTA, clock=Clock()) as store:
        await fill(store, one, two)
        await store.set_pin(one.id, True)
        async with store.use(two.id):
            with pytest.raises(StoreFull, match="quota"):
                await fill(store, three)
            assert ids(store) == {one.id, two.id}
        await fill(store, three)
        assert ids(store) == {one.id, three.id}
    async with Store.open(tmp_path, QUOTA) as store:
        stored = store.get(one.id)
        assert stored is not None
        assert stored.pinned
        await store.set_pin(one.id, False)
        with pytest.raises(TaskNotFound):
            await store.set_pin(two.id, True)


async def test_content_that_is_being_made_durable_may_go(tmp_path: Path) -> None:
    one, two = Sample("1", 8 * PIECE), Sample("2", 8 * PIECE)
    async with Store.open(tmp_path, QUOTA) as store:
        async with store.create(one.spec, one.meta) as content:
            await one.put(content)
            await content.complete()
        assert store.statistics().open == 1
        await fill(store, two)
        assert ids(store) == {two.id}
    async with Store.open(tmp_path, QUOTA) as store:
        assert ids(store) == {two.id}


async def test_who_could_do_without_content_is_asked_to_let_go(tmp_path: Path) -> None:
    one, two = Sample("1", 8 * PIECE), Sample("2", 8 * PIECE)
    async with Store.open(tmp_path, QUOTA) as store, AsyncExitStack() as idle:

        async def let_go() -> None:
            await idle.aclose()

        store.on_pressure.append(let_go)
        content = await idle.enter_async_context(store.create(one.spec, one.meta))
        await one.put(content)
        await fill(store, two)
        assert ids(store) == {two.id}


async def test_what_can_never_fit_is_refused_at_once_and_evicts_nothing(tmp_path: Path) -> None:
    small, huge = Sample("small", 4 * PIECE), Sample("huge", 11 * PIECE)
    async with Store.open(tmp_path, QUOTA) as store:
        await fill(store, small)
        with pytest.raises(StoreFull, match="quota"):
            async with store.create(huge.spec, huge.meta):
                pass
        assert ids(store) == {small.id}
        async with store.use(small.id) as content:
            await small.check(content)


async def test_unfinished_contents_in_use_keep_their_room(tmp_path: Path) -> None:
    one, two = Sample("1", 6 * PIECE), Sample("2", 6 * PIECE)
    async with Store.open(tmp_path, QUOTA) as store, store.create(one.spec, one.meta) as content:
        await one.put(content, 0)
        with pytest.raises(StoreFull, match="quota"):
            async with store.create(two.spec, two.meta):
                pass
        await one.put(content)


async def test_two_created_at_once_do_not_share_the_same_room(tmp_path: Path) -> None:
    samples = [Sample(str(n), 6 * PIECE) for n in range(3)]
    refused = []

    async with Store.open(tmp_path, QUOTA) as store:

        async def get(sample: Sample) -> None:
            try:
                async with store.create(sample.spec, sample.meta) as content:
                    await trio.testing.wait_all_tasks_blocked()
                    await sample.put(content)
            except StoreFull:
                refused.append(sample)

        async with trio.open_nursery() as nursery:
            for sample in samples:
                nursery.start_soon(get, sample)
        assert len(refused) == 2


async def test_unknown_length_over_quota(tmp_path: Path) -> None:
    small, endless = Sample("small", 4 * PIECE), Sample("endless", 20 * PIECE)
    async with Store.open(tmp_path, QUOTA, clock=Clock()) as store:
        await fill(store, small)
        async with store.create(endless.spec, endless.open_ended) as content:
            await endless.put(content, *range(6))
            assert ids(store) == {small.id, endless.id}
            await endless.put(content, *range(6, 10))
            assert ids(store) == {endless.id}
            with pytest.raises(StoreFull, match="quota"):
                await endless.put(content, 10)
            await endless.check(content, range(10))
        await fill(store, small)


async def test_pieces_written_at_once_do_not_share_the_same_room(tmp_path: Path) -> None:
    small, endless = Sample("small", 4 * PIECE), Sample("endless", 20 * PIECE)
    refused = []
    async with Store.open(tmp_path, QUOTA, clock=Clock()) as store:
        await fill(store, small)
        async with store.create(endless.spec, endless.open_ended) as content, trio.open_nursery() as nursery:

            async def put(number: int) -> None:
                try:
                    await endless.put(content, number)
                except StoreFull as error:
                    refused.append(str(error))

            for number in range(20):
                nursery.start_soon(put, number)
        assert len(refused) == 10
        assert all("quota" in words for words in refused)
        assert store.statistics().used == 10 * PIECE
        await fill(store, small)


async def test_quota_counts_inline_content(tmp_path: Path) -> None:
    config = StoreConfig(quota=100 * KIB, disk_share=1.0)
    samples = [Sample(str(n), 30 * KIB) for n in range(5)]
    async with Store.open(tmp_path, config, clock=Clock()) as store:
        await fill(store, *samples)
        assert ids(store) == {sample.id for sample in samples[2:]}
    async with Store.open(tmp_path, config) as store:
        assert store.statistics().used == 90 * KIB


async def test_number_of_tasks_is_bounded(tmp_path: Path) -> None:
    config = StoreConfig(max_tasks=3, disk_share=1.0)
    samples = [Sample(str(n), 0) for n in range(5)]
    async with Store.open(tmp_path, config, clock=Clock()) as store:
        await fill(store, *samples)
        assert ids(store) == {sample.id for sample in samples[2:]}
        for sample in samples[2:]:
            await store.set_pin(sample.id, True)
        with pytest.raises(StoreFull, match="max_tasks"):
            await fill(store, samples[0])


async def test_time_to_live(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    now = [1000.0]
    old, used, pinned, young = (Sample(name, PIECE) for name in ("old", "used", "pinned", "young"))
    async with Store.open(tmp_path, StoreConfig(ttl=60, disk_share=1.0), clock=lambda: now[0]) as store:
        gone = trio.Event()
        store.on_removed.append(lambda _: gone.set())
        await fill(store, old, used, pinned)
        await store.set_pin(pinned.id, True)
        now[0] += 50
        await fill(store, young)
        now[0] += 10
        async with store.use(used.id):
            mock_clock.jump(6)
            await gone.wait()
        assert ids(store) == {used.id, pinned.id, young.id}


async def test_map_full(tmp_path: Path) -> None:
    endless, small = Sample("endless", 40 * PIECE), Sample("small", 2 * PIECE)
    async with Store.open(tmp_path, StoreConfig(max_map=2 * MIB, disk_share=1.0)) as store:
        await fill(store, small)
        async with store.create(endless.spec, endless.open_ended) as content:
            with pytest.raises(StoreFull, match="max_map"):
                await endless.put(content)
            held = list(content.held)
            assert 10 < len(held) < 16
            await endless.check(content, held)
        assert small.id in ids(store), "evicting would not help"
    async with Store.open(tmp_path, ROOMY) as store, store.use(endless.id) as content:
        assert list(content.held) == held
        await endless.check(content, held)
        await endless.put(content)


async def test_disk_share(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16 * MIB) as disk:
        one, two, large = Sample("1", 3 * MIB), Sample("2", 4 * MIB), Sample("large", 9 * MIB)
        async with Store.open(disk / "data", StoreConfig(disk_share=0.5), clock=Clock()) as store:
            await fill(store, one)
            with pytest.raises(StoreFull, match="disk"):
                await fill(store, large)
            assert ids(store) == {one.id}
            await fill(store, two)
            assert two.id in ids(store)


async def test_disk_full_evicts_then_names_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12 * MIB) as disk:
        one, endless = Sample("1", 4 * MIB), Sample("endless", 20 * MIB)
        async with Store.open(disk / "data", ROOMY, clock=Clock()) as store:
            await fill(store, one)
            async with store.create(endless.spec, endless.open_ended) as content:
                with pytest.raises(StoreFull, match="disk"):
                    await endless.put(content)
                held = list(content.held)
                assert len(held) > 8 * MIB // PIECE, "the other content went first"
                await endless.check(content, held)
            assert ids(store) == {endless.id}
            await store.remove(endless.id)
            await fill(store, one)
        async with Store.open(disk / "data", ROOMY) as store, store.use(one.id) as content:
            await one.check(content)


async def test_what_a_full_disk_cut_is_written_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another piece may have made room since, so that it cannot be seen any more what was the matter."""
    sample = Sample("1", 2 * PIECE)
    async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        put, cuts = content._pieces.put, 1

        def cut(*arguments: Any) -> None:
            nonlocal cuts
            if cuts:
                cuts -= 1
                raise WriteCut("input/output error")
            put(*arguments)

        monkeypatch.setattr(content._pieces, "put", cut)
        await sample.put(content, 0)
        await sample.check(content, [0])
        cuts = 2
        with pytest.raises(WriteCut):
            await sample.put(content, 1)
        assert list(content.held) == [0]


async def test_disk_filled_by_others(tmp_path: Path) -> None:
    """No eviction can help, and even the index cannot be written: errors with a name, and nothing breaks."""
    with small_disk(tmp_path / "disk", 12 * MIB) as disk:
        kept, other, tiny = Sample("kept", 2 * MIB), Sample("other", 2 * MIB), Sample("tiny", 20 * KIB)
        ballast = disk / "ballast"
        async with Store.open(disk / "data", ROOMY, clock=Clock()) as store:
            await fill(store, kept)
            await store.set_pin(kept.id, True)
            async with store.create(other.spec, other.meta) as content:
                await other.put(content, 0)
                fill_disk(ballast)
                with pytest.raises(StoreFull, match="disk"):
                    await other.put(content)
                with pytest.raises(StoreFull, match="disk"):
                    await fill(store, tiny)
                async with store.use(kept.id) as unharmed:
                    await kept.check(unharmed)
                ballast.unlink()
                await other.put(content)
            await fill(store, tiny)
        async with Store.open(disk / "data", ROOMY) as store:
            assert ids(store) == {kept.id, other.id, tiny.id}
            for sample in (kept, other, tiny):
                async with store.use(sample.id) as content:
                    await sample.check(content)


async def test_data_folder_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MIB) as disk:
        fill_disk(disk / "ballast")
        with pytest.raises(StoreFull, match="disk"):
            async with Store.open(disk / "data", ROOMY):
                pass


async def test_removed_on_a_full_disk_stays_removed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12 * MIB) as disk:
        one, two = Sample("1", 2 * MIB), Sample("2", 30 * KIB)
        async with Store.open(disk / "data", ROOMY) as store:
            await fill(store, one, two)
            fill_disk(disk / "ballast")
            await store.remove(two.id)
            await store.remove(one.id)
            assert store.statistics().used == 0
        async with Store.open(disk / "data", ROOMY) as store:
            assert ids(store) == set()
