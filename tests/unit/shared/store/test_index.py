from __future__ import annotations

from pathlib import Path

import pytest
import trio

from shared.errors import StoreError, StoreFull
from shared.store.environment import full
from shared.store.index import Index


class Commits(Index):
    """Counts commits, and lets some fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.count = 0
        self.failing = 0

    def _commit(self, writes: dict[bytes, bytes | None]) -> StoreError | None:
        self.count += 1
        if self.failing:
            self.failing -= 1
            return full("disk")
        return super()._commit(writes)


async def test_writers_share_commits(tmp_path: Path, nursery: trio.Nursery) -> None:
    index = Commits(tmp_path / "index.mdb")
    nursery.start_soon(index.run)
    async with trio.open_nursery() as writers:
        for number in range(100):
            writers.start_soon(index.write, (b"t%03d" % number, b"value"))
    assert index.count <= 3
    assert len(list(index.items(b"t"))) == 100
    index.stop()


async def test_last_write_of_a_key_counts(tmp_path: Path, nursery: trio.Nursery) -> None:
    index = Index(tmp_path / "index.mdb")
    nursery.start_soon(index.run)
    index.write_later((b"a", b"1"), (b"b", b"1"))
    index.write_later((b"a", None))
    await index.write((b"b", b"2"), (b"c", b"3"))
    assert (index.get(b"a"), index.get(b"b"), index.get(b"c")) == (None, b"2", b"3")
    index.stop()


async def test_failed_commit_is_told_and_lazy_writes_are_tried_again(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    index = Commits(tmp_path / "index.mdb")
    nursery.start_soon(index.run)
    await index.write((b"gone", b"1"))
    index.failing = 2
    index.write_later((b"gone", None), (b"lazy", b"1"))
    with pytest.raises(StoreFull):
        await index.write((b"waited", b"1"))
    index.write_later((b"lazy", b"2"))
    with pytest.raises(StoreFull):
        await index.write((b"waited", b"1"))
    await index.write((b"other", b"1"))
    found = {key: index.get(key) for key in (b"gone", b"lazy", b"waited", b"other")}
    assert found == {b"gone": None, b"lazy": b"2", b"waited": None, b"other": b"1"}
    index.stop()


async def test_what_is_queued_at_the_end_is_committed(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.mdb")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(index.run)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            index.write_later((b"a", b"1"))
            index.stop()
    assert index.get(b"a") == b"1"
    with pytest.raises(StoreError, match="closed"):
        await index.write((b"b", b"1"))
    index.write_later((b"b", b"1"))
    index.close()
