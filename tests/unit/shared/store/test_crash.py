"""Kills, crashes of the machine, damaged files, two processes: what is there afterwards is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
import trio

from shared.errors import PieceMissing, StoreDamaged, StoreLocked, TaskNotFound
from shared.store import Store
from shared.task.digest import piece_digest
from tests.unit.shared.store import child
from tests.unit.shared.store.samples import KIB, PIECE, ROOMY, Sample, content_files

ROOT = Path(__file__).parents[4]


@contextmanager
def storing_child(folder: Path, length: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(Path(child.__file__)), str(folder), str(length)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("after", [0, 1, 7, 39])
async def test_killed_between_puts(tmp_path: Path, after: int) -> None:
    sample = Sample("killed", 40 * PIECE + 3)
    with storing_child(tmp_path, len(sample.data)) as process:
        for number in range(after + 1):
            assert read_line(process) == str(number)
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with Store.open(tmp_path, ROOMY) as store:
        stored = store.get(sample.id)
        assert stored is not None
        assert stored.held.covers(after + 1), "what was reported as stored is there"
        assert store.statistics().used == stored.size
        async with store.create(sample.spec, sample.meta) as content:
            assert content.held == stored.held
            await sample.check(content)
            for number in range(sample.layout.count):
                if number not in content.held:
                    await sample.put(content, number)
            await content.complete()
            await sample.check(content)


async def test_killed_after_the_last_piece_is_complete_and_becomes_durable(tmp_path: Path) -> None:
    sample = Sample("killed", 2 * PIECE)
    with storing_child(tmp_path, len(sample.data)) as process:
        while read_line(process) != "all":
            pass
    async with Store.open(tmp_path, ROOMY, boot=lambda: _boot_id()) as store:
        stored = store.get(sample.id)
        assert stored is not None
        assert stored.complete
        await until_durable(store, sample.id)
    async with Store.open(tmp_path, ROOMY, boot=lambda: "another") as store:
        assert store.get(sample.id) is not None


async def test_killed_inline_content(tmp_path: Path) -> None:
    sample = Sample("killed", 5000)
    with storing_child(tmp_path, len(sample.data)) as process:
        assert read_line(process) == "0"
    async with Store.open(tmp_path, ROOMY) as store, store.use(sample.id) as content:
        await sample.check(content)


async def test_second_process_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with storing_child(tmp_path, 2 * PIECE) as process:
        while read_line(process) != "all":
            pass
        with pytest.raises(StoreLocked, match=rf"pid {process.pid}\b.*{tmp_path}.*--data-dir"):
            async with Store.open(tmp_path, ROOMY):
                pass
        assert process.poll() is None
    async with Store.open(tmp_path, ROOMY) as store:
        assert len(store.tasks()) == 1


async def test_second_opener_in_the_same_process(tmp_path: Path) -> None:
    async with Store.open(tmp_path, ROOMY):
        with pytest.raises(StoreLocked, match=f"pid {os.getpid()}"):
            async with Store.open(tmp_path, ROOMY):
                pass
    async with Store.open(tmp_path, ROOMY):
        pass


# --- crash of the machine -------------------------------------------------------------------------------


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def until_durable(store: Store, task_id: str) -> None:
    with trio.fail_after(30):
        while not ((stored := store.get(task_id)) and stored.durable):
            await trio.lowlevel.checkpoint()


async def test_only_durable_content_survives_a_crash_of_the_machine(tmp_path: Path) -> None:
    whole, part = Sample("whole", 3 * PIECE), Sample("part", 3 * PIECE)
    inline, inline_part = Sample("inline", 5000), Sample("inline part", 6000)
    async with Store.open(tmp_path, ROOMY, boot=lambda: "one") as store:
        for sample in (whole, inline):
            async with store.create(sample.spec, sample.meta) as content:
                await sample.put(content)
                await content.complete()
            await until_durable(store, sample.id)
        async with store.create(part.spec, part.meta) as content:
            await part.put(content, 0, 1)
        async with store.create(inline_part.spec, inline_part.meta) as content:
            await inline_part.put(content)
    async with Store.open(tmp_path, ROOMY, boot=lambda: "one") as store:
        assert len(store.tasks()) == 4, "a restart of the process loses nothing"
        async with store.use(part.id) as content:
            assert list(content.held) == [0, 1]
    async with Store.open(tmp_path, ROOMY, boot=lambda: "two") as store:
        assert {task.task_id for task in store.tasks()} >= {whole.id, inline.id}
        assert store.get(part.id) is None
        assert content_files(tmp_path) == {f"{whole.id}.mdb"}
        for sample in (whole, inline):
            async with store.use(sample.id) as content:
                await sample.check(content)


async def test_without_a_boot_id_nothing_undurable_is_trusted(tmp_path: Path) -> None:
    part = Sample("part", 3 * PIECE)
    async with (
        Store.open(tmp_path, ROOMY, boot=lambda: "") as store,
        store.create(part.spec, part.meta) as content,
    ):
        await part.put(content, 0)
    async with Store.open(tmp_path, ROOMY, boot=lambda: "") as store:
        assert store.tasks() == []


async def test_content_of_another_version_than_the_index_says(tmp_path: Path) -> None:
    """A crash may undo the index's last commit while the file beside it is newer."""
    old, new = Sample("changing", 3 * PIECE), Sample("changing", 3 * PIECE, version="v2")
    async with Store.open(tmp_path, ROOMY) as store, store.create(old.spec, old.meta) as content:
        await old.put(content)
        await content.complete()
        await until_durable(store, old.id)
    index = (tmp_path / "index.mdb").read_bytes()
    async with Store.open(tmp_path, ROOMY) as store, store.create(new.spec, new.meta) as content:
        await new.put(content, 0)
    (tmp_path / "index.mdb").write_bytes(index)
    async with Store.open(tmp_path, ROOMY) as store:
        with pytest.raises(TaskNotFound):
            async with store.use(old.id):
                pass
        async with store.create(old.spec, old.meta) as content:
            assert not content.held


# --- damage ---------------------------------------------------------------------------------------------


async def stored(folder: Path, sample: Sample, *numbers: int) -> Path:
    async with Store.open(folder, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        await sample.put(content, *numbers)
        if content.whole:
            await content.complete()
            await until_durable(store, sample.id)
    return folder / "content" / f"{sample.id}.mdb"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("damage", ["garbage", "empty", "short", "gone"])
async def test_damaged_content_is_dropped_and_fetched_again(tmp_path: Path, damage: str, whole: bool) -> None:
    sample, other = Sample("damaged", 4 * PIECE), Sample("other", 2 * PIECE)
    await stored(tmp_path, other)
    path = await stored(tmp_path, sample, *range(4 if whole else 2))
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 10000)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "short":
        os.truncate(path, path.stat().st_size - 3 * PIECE // 2)
    else:
        path.unlink()
    async with Store.open(tmp_path, ROOMY) as store:
        async with store.create(sample.spec, sample.meta) as content:
            assert not content.held
            await sample.put(content)
            await sample.check(content)
        async with store.use(other.id) as content:
            await other.check(content)
        assert store.statistics().used == 6 * PIECE


@pytest.mark.parametrize("length", [4 * PIECE, 20 * KIB])
async def test_rotten_piece_is_dropped_and_fetched_again(tmp_path: Path, length: int) -> None:
    sample = Sample("rotten", length)
    path = await stored(tmp_path, sample)
    if length <= 64 * KIB:
        path = tmp_path / "index.mdb"
    number = sample.layout.count - 1
    data = path.read_bytes()
    at = data.find(sample.piece(number)[:64])
    assert at > 0
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(64))
    async with Store.open(tmp_path, ROOMY) as store, store.use(sample.id) as content:
        missing = 0
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                nonlocal missing
                with pytest.raises(PieceMissing):
                    async with content.read(number):
                        pass
                missing += 1

            for _ in range(3):
                nursery.start_soon(read)
        assert missing == 3
        left = store.get(sample.id)
        assert left is not None
        assert not left.complete
        assert not left.durable
        assert left.size == store.statistics().used == len(sample.data) - len(sample.piece(number))
        await sample.check(content)
        await content.put(number, sample.piece(number), expected=piece_digest(sample.piece(number)))
        await content.complete()
        await sample.check(content)
        await until_durable(store, sample.id)
    async with Store.open(tmp_path, ROOMY) as store, store.use(sample.id) as content:
        await sample.check(content)


async def test_strays_are_deleted_at_open(tmp_path: Path) -> None:
    sample = Sample("some", 2 * PIECE)
    await stored(tmp_path, sample)
    folder = tmp_path / "content"
    for name in ("f" * 64 + ".mdb", "f" * 64 + ".mdb-lock", f"{sample.id}.0.gone", sample.id, "notes.txt"):
        (folder / name).write_bytes(b"stray")
    (folder / "a folder").mkdir()
    async with Store.open(tmp_path, ROOMY) as store:
        assert content_files(tmp_path) == {f"{sample.id}.mdb", "a folder"}
        async with store.use(sample.id) as content:
            await sample.check(content)


async def test_unreadable_record_is_dropped(tmp_path: Path) -> None:
    sample, other = Sample("some", 2 * PIECE), Sample("other", 2 * PIECE)
    await stored(tmp_path, sample)
    await stored(tmp_path, other)
    with lmdb.open(str(tmp_path / "index.mdb"), subdir=False) as index, index.begin(write=True) as txn:
        txn.put(b"t" + sample.id.encode(), b"\xc1nonsense")
    async with Store.open(tmp_path, ROOMY) as store:
        assert [task.task_id for task in store.tasks()] == [other.id]
    assert content_files(tmp_path) == {f"{other.id}.mdb"}


@pytest.mark.parametrize("damage", ["garbage", "short"])
async def test_damaged_index_says_what_to_do(tmp_path: Path, damage: str) -> None:
    await stored(tmp_path, Sample("some", 60 * KIB))
    path = tmp_path / "index.mdb"
    if damage == "garbage":
        path.write_bytes(b"nonsense" * 10000)
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreDamaged, match=f"remove the folder {tmp_path}"):
        async with Store.open(tmp_path, ROOMY):
            pass


async def test_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    with pytest.raises(StoreDamaged, match="--data-dir"):
        async with Store.open(tmp_path / "data", ROOMY):
            pass


async def test_errors_of_the_body_come_out_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Store.open(tmp_path, ROOMY):
            raise KeyError("mine")


async def test_cancelled_store_writes_what_is_begun(tmp_path: Path) -> None:
    """Everything is cancelled at once; a shielded writer must not wait for an index that has stopped."""
    sample = Sample("inline", 30 * KIB)
    with trio.move_on_after(30) as outer:
        async with Store.open(tmp_path, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
            outer.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await sample.put(content)
    async with Store.open(tmp_path, ROOMY) as store, store.use(sample.id) as content:
        await sample.check(content)
