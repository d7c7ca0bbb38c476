"""What is left after a kill, a crash of the machine, damage on the disk, and with two processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from shared.errors import PieceMissing, StoreDamaged, StoreLocked
from shared.store import Store, StoreConfig
from tests.unit.shared.store.stored import (
    PIECE,
    Child,
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

PUTS = """
import sys, trio
from pathlib import Path
from tests.unit.shared.store.stored import PIECE, body, fill, meta, opened, piece, spec

async def main():
    data, small = body(8 * PIECE), body(900)
    async with opened(Path(sys.argv[1])) as store:
        async with store.create(spec("small"), meta(900)) as content:
            await fill(content, small)
        async with store.create(spec(), meta(len(data))) as content:
            for number in (0, 5, 2, 7, 1, 3, 4, 6):
                await content.put(number, piece(data, number), expected=None)
                print(number, flush=True)

trio.run(main)
"""

HOLDS = """
import sys, trio
from pathlib import Path
from tests.unit.shared.store.stored import opened

async def main():
    async with opened(Path(sys.argv[1])):
        print("open", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("last", [0, 2, 6])
async def test_pieces_survive_a_kill_between_puts(tmp_path: Path, last: int) -> None:
    child = Child(PUTS, tmp_path)
    try:
        told = [int(child.line())]
        while told[-1] != last:
            told.append(int(child.line()))
    finally:
        child.kill()
    data = body(8 * PIECE)
    async with opened(tmp_path) as store:
        check_books(store)
        assert await read_back(store, "small") == body(900)
        async with store.create(spec(), meta(len(data))) as content:
            assert set(told) <= set(content.held)
            for number in content.held:
                async with content.read(number) as view:
                    assert bytes(view) == piece(data, number)
            await fill(content, data)
        assert await read_back(store) == data


async def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    child = Child(HOLDS, tmp_path)
    try:
        assert child.line() == "open"
        with pytest.raises(StoreLocked, match=f"pid {child.pid}"):
            async with opened(tmp_path):
                pass
    finally:
        child.kill()
    async with opened(tmp_path):
        with pytest.raises(StoreLocked, match=f"pid {os.getpid()}"):
            async with opened(tmp_path):
                pass


async def test_after_a_crash_of_the_machine_only_what_is_durable_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for name, size in [("file", 3 * PIECE), ("small", 100), ("empty", 0)]:
            await durable(store, await keep(store, name, body(size)))
        await keep(store, "part", body(3 * PIECE), complete=False)
        await keep(store, "small part", body(100), complete=False)
        await store.set_pin(spec("part").task_id, True)
    async with opened(tmp_path, boot="boot-2") as store:
        assert {t.task_id for t in store.tasks()} == {
            spec(name).task_id for name in ("file", "small", "empty")
        }
        assert await read_back(store, "file") == body(3 * PIECE)
        check_books(store)
        assert {path.name.split(".")[0] for path in (tmp_path / "content").iterdir()} == {
            spec("file").task_id
        }
    async with opened(tmp_path, boot="boot-2") as store:
        assert len(store.tasks()) == 3


async def test_an_unknown_boot_is_never_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path, boot="") as store:
        await keep(store, "part", body(3 * PIECE), complete=False)
    async with opened(tmp_path, boot="") as store:
        assert store.tasks() == []


async def test_what_was_complete_is_made_durable_after_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await keep(store, "one", body(2 * PIECE), complete=False)
        await keep(store, "small", body(20), complete=False)
    async with opened(tmp_path) as store:
        for name in ("one", "small"):
            await durable(store, spec(name).task_id)
    async with opened(tmp_path, boot="boot-2") as store:
        assert len(store.tasks()) == 2


async def test_a_damaged_piece_is_dropped_and_can_be_put_again(tmp_path: Path) -> None:
    data = body(3 * PIECE)
    async with opened(tmp_path) as store:
        await durable(store, await keep(store, "one", data))
    _rot(tmp_path, piece(data, 1))
    async with opened(tmp_path) as store:
        async with store.use(TASK) as content:
            missing = []

            async def read() -> None:
                try:
                    await content.open_piece(1)
                except PieceMissing as error:
                    missing.append(str(error))

            async with trio.open_nursery() as readers:
                for _ in range(4):
                    readers.start_soon(read)
            assert len(missing) == 4
            assert list(content.held) == [0, 2]
            assert set(content.digests) == {0, 2}
            check_books(store)
            task = store.get(TASK)
            assert task is not None
            assert not task.complete
            assert not task.durable
            await fill(content, data)
            assert await contents(content) == data
        await durable(store, TASK)
        assert store.statistics().open == 0
        check_books(store)
    async with opened(tmp_path, boot="boot-2") as store:
        assert await read_back(store) == data


async def test_a_damaged_small_content_is_dropped(tmp_path: Path) -> None:
    data = body(50_000)
    async with opened(tmp_path) as store:
        await keep(store, "one", data)
    _rot(tmp_path, data[-4000:])
    async with opened(tmp_path) as store:
        with pytest.raises(PieceMissing, match="damaged"):
            await read_back(store)
        check_books(store)
        assert await keep(store, "one", data)
        assert await read_back(store) == data


@pytest.mark.parametrize("left", [0, 100, 4096, 3 * 4096, 100_000])
async def test_a_file_that_was_cut_is_dropped_and_kills_nobody(tmp_path: Path, left: int) -> None:
    data = body(3 * PIECE)
    async with opened(tmp_path) as store:
        await durable(store, await keep(store, "one", data))
        await keep(store, "other", data)
    os.truncate(tmp_path / "content" / f"{TASK}.mdb", left)
    async with opened(tmp_path) as store:
        async with store.create(spec(), meta(len(data))) as content:
            await fill(content, data)
            assert await contents(content) == data
        assert await read_back(store, "other") == data
        check_books(store)


async def test_files_that_nobody_knows_go_and_records_without_file_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for name in ("one", "two"):
            await durable(store, await keep(store, name, body(2 * PIECE)))
    content = tmp_path / "content"
    (content / f"{TASK}.mdb").unlink()
    for stray in ("stray.mdb", "ab.1.gone", f"{spec('two').task_id}.7.gone"):
        (content / stray).write_bytes(b"x")
    async with opened(tmp_path) as store:
        assert [task.task_id for task in store.tasks()] == [spec("two").task_id]
        check_books(store)
        assert {path.name for path in content.iterdir()} == {
            f"{spec('two').task_id}.mdb",
            f"{spec('two').task_id}.mdb-lock",
        }


@pytest.mark.parametrize("garbage", [b"x" * 20_000, b"x" * 100])
async def test_a_damaged_index_is_told(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "index.mdb").write_bytes(garbage)
    with pytest.raises(StoreDamaged, match="remove the folder"):
        async with opened(tmp_path):
            pass


async def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDamaged, match="--data-dir"):
        async with Store.open(tmp_path / "file", StoreConfig()):
            pass


def _rot(folder: Path, found: bytes) -> None:
    """Change one byte in the middle of what is stored."""
    for path in folder.rglob("*.mdb"):
        data = path.read_bytes()
        at = data.find(found[: 4096 * 4 // 5])
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + len(found) // 2)
                file.write(b"\xff")
            return
    raise AssertionError("the piece is not on the disk")
