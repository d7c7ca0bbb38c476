"""A disk that is really full: a small tmpfs, which only root can mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import StoreFull
from tests.unit.shared.store.stored import (
    PIECE,
    Child,
    body,
    check_books,
    contents,
    fill,
    keep,
    meta,
    opened,
    piece,
    read_back,
    spec,
)

SIZE = 2 * 1024 * 1024

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    if shutil.which("mount") is None or shutil.which("umount") is None:
        words = "the programs mount and umount are missing"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill_up(folder: Path, leave: int = 0) -> None:
    """Take the room that is left, but for ``leave`` bytes."""
    stat = os.statvfs(folder)
    room = stat.f_bavail * stat.f_frsize - leave
    if room > 0:
        with (folder / "ballast").open("wb") as file, contextlib.suppress(OSError):
            while True:  # others may write meanwhile: as much as there is, in ever smaller steps
                try:
                    os.posix_fallocate(file.fileno(), 0, room)
                    break
                except OSError:
                    room -= 4096
                    if room <= 0:
                        raise


async def test_unpinned_content_makes_room(small_disk: Path) -> None:
    data = body(10 * PIECE)
    async with opened(small_disk, disk_share=1.0) as store:
        for name in "abcde":
            await keep(store, name, data)
        assert store.get(spec("a").task_id) is None
        assert await read_back(store, "e") == data
        check_books(store)
    async with opened(small_disk, disk_share=1.0) as store:
        assert await read_back(store, "e") == data
        check_books(store)


async def test_a_full_disk_is_told_and_what_is_held_stays(small_disk: Path) -> None:
    data = body(20 * PIECE)
    async with opened(small_disk, disk_share=1.0, max_map=1 << 26) as store:
        async with store.create(spec(), meta(None)) as content:
            for number in range(4):
                await content.put(number, piece(data, number), expected=None)
            _fill_up(small_disk, leave=PIECE // 2)
            with pytest.raises(StoreFull, match="disk"):
                await content.put(4, piece(data, 4), expected=None)
            assert await contents(content) == data[: 4 * PIECE]
            (small_disk / "ballast").unlink()
            await fill(content, data, complete=False)
            await content.set_meta(meta(len(data)))
            await content.complete()
        check_books(store)
    async with opened(small_disk, disk_share=1.0) as store:
        assert await read_back(store) == data


@pytest.mark.parametrize("believes", [True, False])
@pytest.mark.parametrize("leave", [0, 4096, 20_000, 40_000, 60_000, 90_000])
async def test_every_step_meets_the_full_disk(
    small_disk: Path, leave: int, believes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``believes``: the store sees the room that there is; otherwise only the writes themselves fail."""
    if not believes:
        monkeypatch.setattr("shared.store.ledger.disk_room", lambda folder, share: 1 << 40)
    async with opened(small_disk, disk_share=1.0) as store:
        await keep(store, "kept", body(3 * PIECE))
        await store.set_pin(spec("kept").task_id, True)
        _fill_up(small_disk, leave)
        for size in (100, 50_000, 2 * PIECE, 12 * PIECE):
            for turn in range(3):
                with contextlib.suppress(StoreFull):
                    await keep(store, f"{size} {turn}", body(size))
        check_books(store)
        await store.remove(spec("100 0").task_id)
        assert await read_back(store, "kept") == body(3 * PIECE)
        (small_disk / "ballast").unlink(missing_ok=True)
        await keep(store, "after", body(3 * PIECE))
        await store.remove(spec("100 1").task_id)
        ids = {task.task_id for task in store.tasks()}
    async with opened(small_disk, disk_share=1.0) as store:
        assert {task.task_id for task in store.tasks()} == ids
        assert await read_back(store, "after") == body(3 * PIECE)
        check_books(store)


OPENS = """
import sys, trio
from pathlib import Path
from shared.errors import StoreFull
from tests.unit.shared.store.stored import opened

async def main():
    try:
        async with opened(Path(sys.argv[1])):
            print("open", flush=True)
    except StoreFull as error:
        print("full", flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("leave", range(0, 13 * 4096, 4096))
def test_opening_on_a_full_disk_is_an_error_and_no_crash(small_disk: Path, leave: int) -> None:
    _fill_up(small_disk, leave)
    child = Child(OPENS, small_disk)
    try:
        assert child.line() in ("full", "open")
    finally:
        child.kill()
