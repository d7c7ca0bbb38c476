"""What the tests of the store share: contents, a store in a folder, and processes that are killed."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from shared.protocol import TaskMeta
from shared.store import Store, StoreConfig, TaskContent
from shared.task.digest import piece_digest
from shared.task.identity import TaskSpec
from shared.task.pieces import PieceLayout

ROOT = Path(__file__).parents[4]
PIECE = 64 * 1024
"""Piece length of these contents: small, so that several pieces take no time."""


class Clock:
    """Wall time that goes on when told to, by a second at each look."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def spec(name: str = "one") -> TaskSpec:
    return TaskSpec(url=f"http://origin.example/{name}")


def meta(length: int | None, version: str = "v1", piece_length: int = PIECE) -> TaskMeta:
    return TaskMeta(version=version, piece_length=piece_length, length=length)


def body(length: int, seed: int = 1) -> bytes:
    """The bytes of a content, other ones for each seed."""
    return random.Random(seed).randbytes(length)


def piece(data: bytes, number: int, piece_length: int = PIECE) -> bytes:
    return data[number * piece_length : (number + 1) * piece_length]


async def fill(content: TaskContent, data: bytes, *, complete: bool = True) -> None:
    """Put all pieces of a content."""
    layout = PieceLayout(len(data), content.meta.piece_length)
    for number in range(layout.count):
        part = piece(data, number, layout.piece_length)
        await content.put(number, part, expected=piece_digest(part))
    if complete:
        await content.complete()


async def keep(store: Store, name: str, data: bytes, version: str = "v1", *, complete: bool = True) -> str:
    """Store a whole content; gives its task id."""
    async with store.create(spec(name), meta(len(data), version)) as content:
        await fill(content, data, complete=complete)
    return spec(name).task_id


async def contents(content: TaskContent) -> bytes:
    """All pieces held, in order, read back."""
    parts = []
    for number in content.held:
        async with content.read(number) as data:
            parts.append(bytes(data))
    return b"".join(parts)


async def read_back(store: Store, name: str = "one") -> bytes:
    async with store.use(spec(name).task_id) as content:
        return await contents(content)


@asynccontextmanager
async def opened(folder: Path, *, boot: str = "boot-1", **options: Any) -> AsyncIterator[Store]:
    """A store that knows which boot it is on and has its own clock."""
    clock = options.pop("clock", Clock())
    async with Store.open(folder, StoreConfig(**options), clock=clock, boot=lambda: boot) as store:
        yield store


async def durable(store: Store, task_id: str) -> None:
    """Wait until a task survives a crash of the machine."""
    with trio.fail_after(60):
        while not ((task := store.get(task_id)) and task.durable):
            await trio.lowlevel.checkpoint()


def check_books(store: Store) -> None:
    """What the store says that it uses is what its tasks hold."""
    assert store.statistics().used == sum(task.size for task in store.tasks())


class Child:
    """A Python process that runs ``program``; it prints a line when it has got so far."""

    def __init__(self, program: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, timeout: float = 60) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        assert ready, "the child process says nothing"
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
