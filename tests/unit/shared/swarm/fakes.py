"""A store in memory, and parents, origins and schedulers that behave as they are told."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from shared.errors import ParentGone, PieceCorrupt, PieceMissing
from shared.http.frames import frame
from shared.protocol import Availability, AvailabilityEvent, Parent, Report, TaskMeta, encode
from shared.store import Store, StoredTask
from shared.swarm.config import SwarmConfig
from shared.swarm.download import Engine
from shared.swarm.host import Host
from shared.swarm.identity import HostIdentity
from shared.swarm.limits import BufferPool, TokenBucket
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.task import HostTask
from shared.task.bitmap import Bitmap
from shared.task.digest import piece_digest
from shared.task.identity import TaskSpec
from shared.task.pieces import PieceLayout

PIECE = 4096
WALL = 1_700_000_000.0
"""Unix seconds at trio's time 0, for hosts."""
SPEC = TaskSpec("https://origin.example/file")


def random_bytes(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def metrics() -> SwarmMetrics:
    return SwarmMetrics(CollectorRegistry())


@dataclass(frozen=True)
class Sample:
    """A content and what the cluster would know of it."""

    data: bytes
    version: str = "v1"
    piece_length: int = PIECE

    revalidate: float | None = None
    digest: str = ""

    @property
    def meta(self) -> TaskMeta:
        return TaskMeta(
            self.version,
            self.piece_length,
            len(self.data),
            digest=self.digest,
            revalidate=self.revalidate,
        )

    @property
    def count(self) -> int:
        return -(-len(self.data) // self.piece_length)

    def piece(self, number: int) -> bytes:
        return self.data[number * self.piece_length : (number + 1) * self.piece_length]

    @property
    def digests(self) -> dict[int, bytes]:
        return {n: piece_digest(self.piece(n)) for n in range(self.count)}


def sample(pieces: float = 8, *, version: str = "v1", seed: int = 1) -> Sample:
    return Sample(random_bytes(int(pieces * PIECE), seed), version)


# --- the store -----------------------------------------------------------------------------------


class MemoryContent:
    """As TaskContent, without threads: virtual time does not run away while a disk works."""

    def __init__(self, store: MemoryStore, spec: TaskSpec, meta: TaskMeta) -> None:
        self.store = store
        self.spec = spec
        self.meta = meta
        self.record = SimpleNamespace(
            complete=False, validated=0.0, verified="", superseded=False, stale=False
        )
        self.pieces: dict[int, bytes] = {}
        self.digests: dict[int, bytes] = {}
        self.held = Bitmap()
        self.users = 0

    @property
    def layout(self) -> PieceLayout | None:
        return None if self.meta.length is None else PieceLayout(self.meta.length, self.meta.piece_length)

    @property
    def whole(self) -> bool:
        return self.layout is not None and self.held.covers(self.layout.count)

    def checked(self, number: int, since: float = 0.0) -> bool:
        return number not in self.store.damaged

    @contextmanager
    def kept(self) -> Iterator[None]:
        self.users += 1
        try:
            yield
        finally:
            self.store.release(self)

    async def put(
        self,
        number: int,
        data: memoryview | bytes,
        *,
        expected: bytes | None,
        also: Callable[[int, memoryview], None] | None = None,
    ) -> tuple[bytes, bool]:
        assert self.users, "nobody holds the content open"
        digest = piece_digest(data)
        if expected is not None and digest != expected:
            raise PieceCorrupt("not the digest")
        await self.store.before_put(number)
        if also is not None:
            also(number, memoryview(data))
        fresh = number not in self.held
        self.pieces[number], self.digests[number] = bytes(data), digest
        self.held.add(number)
        return digest, fresh

    async def open_piece(self, number: int, since: float = 0.0) -> SimpleNamespace:
        await trio.lowlevel.checkpoint()
        if number not in self.held or not self.users:
            raise PieceMissing("not held")
        if number in self.store.damaged:
            self.store.damaged.discard(number)
            self.held.discard(number)
            del self.pieces[number], self.digests[number]
            self.record.complete, self.record.verified = False, ""
            raise PieceMissing("damaged")
        self.users += 1
        return SimpleNamespace(data=memoryview(self.pieces[number]), close=lambda: self.store.release(self))

    @asynccontextmanager
    async def read(self, number: int, since: float = 0.0) -> AsyncIterator[memoryview]:
        piece = await self.open_piece(number)
        try:
            yield piece.data
        finally:
            piece.close()

    def validated(self, when: float, *, stale: bool = False) -> None:
        self.record.validated, self.record.stale = when, stale

    def verified(self, digest: str) -> None:
        self.record.verified = digest

    async def set_meta(self, meta: TaskMeta) -> None:
        self.meta = meta

    async def complete(self) -> None:
        self.record.complete = True


class MemoryStore:
    """As Store. ``before_put`` may be replaced to be slow or to fail."""

    def __init__(self) -> None:
        self.contents: dict[str, MemoryContent] = {}
        self.on_removed: list[Callable[[str], None]] = []
        self.on_pressure: list[Callable[[], Awaitable[None]]] = []
        self.opened = 0
        self.damaged: set[int] = set()
        self.before_create: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def before_put(self, number: int) -> None:
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def create(self, spec: TaskSpec, meta: TaskMeta) -> AsyncIterator[MemoryContent]:
        await self.before_create()
        content = self.contents.get(spec.task_id)
        if content is None or content.meta.version != meta.version:
            content = self.contents[spec.task_id] = MemoryContent(self, spec, meta)
        content.users += 1
        self.opened += 1
        try:
            yield content
        finally:
            self.opened -= 1
            self.release(content)

    def release(self, content: MemoryContent) -> None:
        assert content.users > 0
        content.users -= 1

    async def hold(self, of: Sample, *numbers: int, spec: TaskSpec = SPEC, validated: float = 0.0) -> None:
        """Begin with these pieces held."""
        async with self.create(spec, of.meta) as content:
            content.validated(validated)
            for number in numbers or range(of.count):
                await content.put(number, of.piece(number), expected=None)
            if not numbers:
                await content.complete()

    def get(self, task_id: str) -> StoredTask | None:
        content = self.contents.get(task_id)
        if content is None:
            return None
        size = sum(map(len, content.pieces.values()))
        record = content.record
        return StoredTask(
            task_id=task_id,
            spec=content.spec,
            meta=content.meta,
            held=content.held.copy(),
            size=size,
            complete=record.complete,
            durable=False,
            pinned=False,
            created=0,
            accessed=0,
            validated=record.validated,
            stale=record.stale,
            verified=record.verified,
            superseded=record.superseded,
        )

    def ids(self) -> list[str]:
        return list(self.contents)

    def tasks(self) -> list[StoredTask]:
        return [task for task_id in self.contents if (task := self.get(task_id))]

    async def digests(self, task_id: str) -> dict[int, bytes] | None:
        await trio.lowlevel.checkpoint()
        content = self.contents.get(task_id)
        return None if content is None else dict(content.digests)

    async def remove(self, task_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.contents.pop(task_id, None) is not None:
            for callback in self.on_removed:
                callback(task_id)

    def supersede(self, task_id: str) -> None:
        if task_id in self.contents:
            self.contents[task_id].record.superseded = True

    def statistics(self) -> SimpleNamespace:
        return SimpleNamespace(used=0, tasks=len(self.contents))

    def held(self, of: Sample, spec: TaskSpec = SPEC) -> bool:
        """Whether exactly this content is held."""
        content = self.contents.get(spec.task_id)
        return content is not None and content.pieces == {n: of.piece(n) for n in range(of.count)}


# --- parents -------------------------------------------------------------------------------------

Answer = Callable[[int], Awaitable[bytes | None]]
"""The bytes that answer a request for a piece; None: hang up."""


def answer(status: int, body: bytes = b"", *fields: str) -> bytes:
    lines = (f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *fields, "", "")
    return "\r\n".join(lines).encode() + body


class FakeParent:
    """A parent that is connected to over memory streams. Change its attributes to make it misbehave."""

    def __init__(self, of: Sample, held: Bitmap | None = None) -> None:
        self.sample = of
        self.held = Bitmap.full(of.count) if held is None else held
        self.asked: list[int] = []
        self.connections = 0
        self.open_connections = 0
        self.refuses = False
        self.answer: Answer = self.give
        self.changed = trio.Event()

    async def give(self, number: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if number not in self.held:
            return answer(404)
        return answer(200, self.sample.piece(number), f"Dragonet-Version: {self.sample.version}")

    def gain(self, *numbers: int) -> None:
        """Hold more pieces and tell it."""
        for number in numbers:
            self.held.add(number)
        self.changed.set()
        self.changed = trio.Event()

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        self.open_connections += 1
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some(65536)
                    if not more:
                        return
                    data += bytes(more)
                head, _, data = data.partition(b"\r\n\r\n")
                if head.split()[1].endswith(b"/availability"):
                    await self._tell(stream)
                    return
                match = re.search(rb"/pieces/(\d+) ", head)
                assert match is not None
                number = int(match[1])
                self.asked.append(number)
                reply = await self.answer(number)
                if reply is None:
                    return
                await stream.send_all(reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self.open_connections -= 1
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _tell(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            changed = self.changed
            await stream.send_all(chunk(Availability(self.sample.version, self.held.to_bytes())))
            await changed.wait()


def chunk(event: AvailabilityEvent) -> bytes:
    """An availability event as a chunk of a chunked body."""
    data = frame(encode(event))
    return b"%x\r\n%s\r\n" % (len(data), data)


class Lan:
    """Parents by address; ``connect`` is the seam of the engine."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.parents: dict[str, FakeParent] = {}

    def add(self, name: str, parent: FakeParent) -> FakeParent:
        self.parents[name] = parent
        return parent

    async def connect(self, address: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        parent = self.parents.get(address)
        if parent is None or parent.refuses:
            raise ParentGone(f"{address} refuses")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, parent, theirs)
        return ours

    async def _serve(self, parent: FakeParent, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            await parent.serve(stream)


def assigned(*names: str, complete: bool = True, stripes: bool = False) -> dict[str, Parent]:
    count = len(names)
    return {
        name: Parent(name, name, complete=complete, stripe=(i, count) if stripes else None)
        for i, name in enumerate(names)
    }


# --- the child -----------------------------------------------------------------------------------


@dataclass
class Reported:
    """A reporter that keeps everything."""

    reports: list[Report] = field(default_factory=list)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def of(self, kind: type) -> list[Report]:
        return [report for report in self.reports if isinstance(report, kind)]


def make_engine(lan: Lan, reporter: Reported, *, memory: int = 64 * PIECE) -> Engine:
    return Engine(
        SwarmConfig(),
        BufferPool(memory),
        TokenBucket(0),
        metrics(),
        reporter,
        lan.connect,
        random.Random(1),
    )


def make_task(store: MemoryStore, reporter: Reported) -> HostTask:
    return HostTask(SPEC, SPEC.task_id, cast(Store, store), reporter, metrics())


# --- origins and hosts ---------------------------------------------------------------------------


class FakeOrigin:
    """Gives its sample piece by piece. ``script`` replaces that for a test."""

    def __init__(self, of: Sample) -> None:
        self.sample = of
        self.jobs: list[OriginJob] = []
        self.running = 0
        self.script: Callable[[OriginJob, OriginSink], Awaitable[None]] = self.give
        self.asked: list[tuple[TaskSpec, dict[str, str], TaskMeta]] = []
        self.expired: Callable[[TaskMeta], Awaitable[bool | None]] = self.compare

    def supports(self, scheme: str) -> bool:
        return scheme == "https"

    def schemes(self) -> tuple[str, ...]:
        return ("https",)

    async def read(self, job: OriginJob, sink: OriginSink) -> None:
        self.jobs.append(job)
        self.running += 1
        try:
            await self.script(job, sink)
        finally:
            self.running -= 1

    async def is_expired(
        self, spec: TaskSpec, private_headers: Mapping[str, str], meta: TaskMeta
    ) -> bool | None:
        self.asked.append((spec, dict(private_headers), meta))
        return await self.expired(meta)

    async def compare(self, meta: TaskMeta) -> bool:
        await trio.lowlevel.checkpoint()
        return meta.version != self.sample.version

    async def give(self, job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(self.sample.meta)
        for number in range(self.sample.count):
            if number not in sink.held():
                data = self.sample.piece(number)
                await sink.throttle(len(data))
                sink.received(len(data))
                await sink.piece(number, memoryview(data))
        await sink.finished(self.sample.meta)


@asynccontextmanager
async def running_host(
    store: MemoryStore | Store, origin: FakeOrigin, lan: Lan | None = None, config: SwarmConfig | None = None
) -> AsyncIterator[Host]:
    """A host without a scheduler."""

    async def refuse(address: str) -> trio.abc.Stream:
        raise ParentGone(f"{address} refuses")

    host = Host(
        HostIdentity("me", "peer", "me:1"),
        cast(Store, store),
        origin,
        config or SwarmConfig(),
        metrics(),
        connect=refuse if lan is None else lan.connect,
        clock=lambda: WALL + trio.current_time(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run, None)
        yield host
        nursery.cancel_scope.cancel()
