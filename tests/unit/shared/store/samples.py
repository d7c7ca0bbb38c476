"""Contents to store, and the means to break what is stored."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shared.protocol import TaskMeta
from shared.store import StoreConfig, TaskContent
from shared.task.identity import TaskSpec, make_spec
from shared.task.pieces import PieceLayout

KIB = 1024
PIECE = 128 * KIB
ROOMY = StoreConfig(disk_share=1.0)


class Sample:
    """Some content with its spec and metadata; the pieces are cut from ``data``."""

    def __init__(self, name: str, length: int, *, version: str = "v1", piece_length: int = PIECE) -> None:
        self.spec: TaskSpec = make_spec(f"http://origin/{name}")[0]
        self.id = self.spec.task_id
        self.data = random.Random(f"{name} {version}").randbytes(length)
        self.meta = TaskMeta(version=version, piece_length=piece_length, length=length)
        self.open_ended = TaskMeta(version=version, piece_length=piece_length)
        self.layout = PieceLayout(length, piece_length)

    def piece(self, number: int) -> bytes:
        offset = self.layout.offset(number)
        return self.data[offset : offset + self.layout.size(number)]

    async def put(self, content: TaskContent, *numbers: int) -> None:
        for number in numbers or range(self.layout.count):
            await content.put(number, self.piece(number), expected=None)

    async def check(self, content: TaskContent, numbers: Iterable[int] | None = None) -> None:
        """The pieces held (or ``numbers``) are right."""
        for number in content.held if numbers is None else numbers:
            async with content.read(number) as data:
                assert data == self.piece(number)


def content_files(folder: Path) -> set[str]:
    """What lies in the content folder, without LMDB's lock files."""
    return {path.name for path in (folder / "content").iterdir() if not path.name.endswith("-lock")}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of ``size`` bytes. Skips where it cannot be had; in CI a missing program is a failure."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    for program in ("mount", "umount"):
        if shutil.which(program) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"the program {program} is missing")
            pytest.skip(f"the program {program} is missing")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (64 * KIB, 4 * KIB):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
