"""Checks in which the engine that reads sources for the swarm does the reading."""

from __future__ import annotations

import msgspec
import trio
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.metrics import OriginMetrics
from cdn.reading.session import SourceSession
from cdn.sources.interface import AsyncResourceClient
from cdn.sources.testing.example import Example, check, doing, expect, read_all, same
from shared.protocol import TaskMeta
from shared.swarm.origin import OriginJob
from shared.task.bitmap import Bitmap
from shared.task.digest import piece_digest
from shared.task.identity import TaskSpec

Runs = tuple[tuple[int, int], ...]


class _Sink:
    """Keeps pieces in memory as the store does: those of a new version replace the old one's."""

    def __init__(self) -> None:
        self.meta: TaskMeta | None = None
        self.final: TaskMeta | None = None
        self.pieces: dict[int, bytes] = {}

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces[number] for number in sorted(self.pieces))

    async def opened(self, meta: TaskMeta) -> None:
        if self.meta is not None and self.meta.version != meta.version:
            self.pieces.clear()
        self.meta = meta

    def held(self) -> Bitmap:
        return Bitmap(self.pieces)

    def digest(self, number: int) -> bytes | None:
        piece = self.pieces.get(number)
        return None if piece is None else piece_digest(piece)

    async def piece(self, number: int, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        expect(number not in self.pieces, f"the engine read piece {number} twice")
        self.pieces[number] = bytes(data)

    def received(self, count: int) -> None:
        pass

    async def throttle(self, count: int) -> None:
        await trio.lowlevel.checkpoint()

    async def finished(self, meta: TaskMeta) -> None:
        self.final = meta


async def _run(
    example: Example,
    client: AsyncResourceClient,
    sink: _Sink,
    meta: TaskMeta | None = None,
    pieces: Runs | None = None,
) -> TaskMeta:
    config = SourceConfig(parallel_from=0, retry_delay=0.0)
    job = OriginJob(TaskSpec(url=example.url), dict(example.headers), meta, pieces)
    with doing("reading through the engine"):
        await SourceSession(client, job, sink, config, OriginMetrics(CollectorRegistry())).run()
    if sink.final is None:
        raise AssertionError("the engine did not finish")
    return sink.final


@check
async def the_engine_reads_it(example: Example, client: AsyncResourceClient) -> None:
    """Read as a seeder reads it, the content and its length are right."""
    sink = _Sink()
    meta = await _run(example, client, sink)
    expect(meta.length == len(example.content), f"the engine takes the length for {meta.length}")
    same(sink.content, example.content, "what the engine read")


@check
async def the_engine_reads_parts_at_the_same_time(example: Example, client: AsyncResourceClient) -> None:
    """Cut into small pieces and asked for with gaps, over several ranges at a time, each piece is right."""
    if len(example.content) < 256:
        return
    known = _Sink()
    found = await _run(example, client, known)
    size = len(example.content) // 15 + 1
    small = msgspec.structs.replace(found, piece_length=size)
    count = -(-len(example.content) // size)
    sink = _Sink()
    await _run(example, client, sink, small, ((1, 2), (4, 1), (6, 3), (count - 1, 1)))
    for number, data in sink.pieces.items():
        same(data, example.content[number * size : (number + 1) * size], f"piece {number} of {count}")
    expect(
        sorted(sink.pieces) == sorted({1, 2, 4, 6, 7, 8, count - 1}),
        f"the engine was asked for some pieces of {count} and read {sorted(sink.pieces)}",
    )
    await _run(example, client, sink, small)
    same(sink.content, example.content, "what the engine read in parts")


@check
async def the_engine_reads_what_it_changed_to(example: Example, client: AsyncResourceClient) -> None:
    """Content that changed after it was read is read anew, and never mixed with what was there before."""
    if example.change is None or len(example.content) < 256:
        return
    found = await _run(example, client, _Sink())
    size = len(example.content) // 15 + 1
    before = msgspec.structs.replace(found, piece_length=size)
    sink = _Sink()
    sink.meta, sink.pieces = before, {0: example.content[:size]}
    with doing("the example's change"):
        await example.changed()
    content = await read_all(client, example.request(), 2 * len(example.content) + 1024 * 1024)
    await _run(example, client, sink, before)
    same(sink.content, content, "what the engine read after the change, with a piece held from before it,")
