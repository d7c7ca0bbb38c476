"""Content for the client of a gateway: given out from its first byte on, while the rest still arrives.

:func:`open_reading` begins or joins the download, and returns once the length is known. A body goes on for as
long as any source gives what is missing. Where the content must have a digest (``vouched``), the end of it is
withheld until it was found to have it: what turns out wrong never comes to its end. And every piece is verified
on its way out, unless it was just then on its way in: disks forget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import trio

from shared.errors import DeadlineExceeded, PieceMissing, SourceError, StoreDamaged, Unavailable
from shared.protocol import TaskMeta
from shared.store import TaskContent
from shared.store.content import OpenPiece
from shared.swarm.ahead import Ahead
from shared.swarm.fetch import RESTARTS, held_bytes
from shared.swarm.generations import MovedOn
from shared.swarm.host import Host
from shared.swarm.metrics import SOURCES
from shared.swarm.session import removed
from shared.swarm.starving import Cursor
from shared.swarm.supply import STALL, Supply
from shared.swarm.task import HostTask
from shared.swarm.vouched import is_vouched
from shared.task.identity import TaskSpec

CHUNK = 1024 * 1024
"""Bytes given out at once, at most; so many are withheld until the digest is known, at most."""
SLOWEST_PIECE, SLOWEST_HASH = 64 * 1024, 16 * 1024 * 1024
"""Bytes per second at which a piece arrives, and held content is hashed, on a machine that still gets on."""
MAX_DAMAGES = 3
"""How often one piece may turn out damaged on disk before the disk is given up."""


@dataclass(frozen=True, slots=True)
class ReadOrder:
    """What is to be read. ``patience``: seconds until its first byte must be there."""

    spec: TaskSpec
    private_headers: dict[str, str] = field(default_factory=dict, repr=False)
    cluster_only: bool = False
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Whole:
    """A small content, all of it. The other fields are as those of :class:`Reading`."""

    data: bytes
    meta: TaskMeta
    stale: bool
    hit: bool
    bytes: dict[str, int]


async def open_reading(host: Host, order: ReadOrder) -> Reading:
    """Begin to read a content, or join those who do; returns when its length is known.

    The newest generation is read, and what is held is checked against its source first where it is time to
    (not with ``cluster_only``, which never asks the source). Raises SourceError, StoreError, DigestMismatch,
    Unavailable, InvalidRequest, DeadlineExceeded after the order's patience. Close what you get.
    """
    deadline = trio.current_time() + order.patience
    spec = host.generations.newest(order.spec)
    with trio.CancelScope(deadline=deadline):
        for _ in range(RESTARTS):
            try:
                return await _opened(host, order, spec, deadline)
            except MovedOn as moved:
                spec = moved.spec
        raise SourceError("the content changed again and again while it was asked for: try later")
    raise _late(order.patience)


async def read_whole(host: Host, order: ReadOrder, limit: int) -> Whole:
    """All of a small content. Raises as :func:`open_reading` does, and SourceError beyond ``limit`` bytes."""
    reading = await open_reading(host, order)
    try:
        if reading.length > limit:
            raise SourceError(
                f"the content has {reading.length} bytes, and at most {limit} are taken of its kind",
                fault="request",
            )
        hit, stale, data = reading.hit, reading.stale, bytearray()
        await reading.ready(0, reading.length)
        async for chunk in reading.body(0, reading.length):
            data += chunk
        return Whole(bytes(data), reading.meta, stale, hit, reading.bytes)
    finally:
        await reading.aclose()


async def _opened(host: Host, order: ReadOrder, spec: TaskSpec, deadline: float) -> Reading:
    async with AsyncExitStack() as stack:
        task = await stack.enter_async_context(host.tasks.wanted(spec, spec.task_id, order.private_headers))
        if not order.cluster_only:
            await host.freshness.ensure(task)
        begin = _Begin(
            trio.current_time(),
            task.complete,
            held_bytes(task),
            Counter(task.bytes),
            deadline,
            order.patience,
        )
        host.metrics.received.labels("store").inc(begin.held)
        supply = Supply(host, task, spec, cluster_only=order.cluster_only)
        stack.push_async_callback(supply.aclose)
        if not (task.complete and is_vouched(task)):
            supply.start()
        content = await supply.described()
        stack.enter_context(content.kept())
        return Reading(host, task, content, supply, begin, stack.pop_all())


@dataclass(frozen=True, slots=True)
class _Begin:
    """How it was when the content was asked for."""

    when: float
    complete: bool
    held: int
    counts: Counter[str]
    deadline: float
    patience: float


class Reading:
    """One reader's part in a task. Close it; a body that came to its end has done so.

    ``length`` is that of the content in bytes; ``hit``: all of it was held here when it was asked for.
    """

    def __init__(
        self,
        host: Host,
        task: HostTask,
        content: TaskContent,
        supply: Supply,
        begin: _Begin,
        stack: AsyncExitStack,
    ) -> None:
        """``stack`` holds what is let go of in the end."""
        layout = content.layout
        assert layout is not None, "a content is read when its length is known"
        self.length = layout.length
        self.hit = begin.complete
        self._piece_length = layout.piece_length
        self._host = host
        self._task = task
        self._content = content
        self._supply = supply
        self._begin = begin
        self._stack = stack
        self._cursor = Cursor()
        self._ahead = Ahead(host, task, content, begin.when)
        stack.push_async_callback(self._ahead.aclose)
        self._failed = self._closed = False
        task.fetches += 1
        task.cursors.add(self._cursor)

    @property
    def meta(self) -> TaskMeta:
        """What is known of the content."""
        return self._content.meta

    @property
    def stale(self) -> bool:
        """Whether the content could not be checked against its source when it was time to."""
        return self._content.record.stale

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes had so far, by where they came from; "store" is what was held before."""
        counts = {source: self._task.bytes[source] - self._begin.counts[source] for source in SOURCES}
        counts["store"] = self._begin.held
        return counts

    async def ready(self, start: int, stop: int) -> None:
        """Return when the first byte of ``start``..``stop`` can be given, at once for an empty span.

        Within what is left of the order's patience. Raises as :func:`open_reading` does.
        """
        self._check_span(start, stop)
        with trio.CancelScope(deadline=self._begin.deadline):
            if start < stop:
                (await self.open(start, stop)).close()
            elif not self.length:
                await self._until(self._sound, STALL)  # nothing can be withheld of nothing
            return
        raise _late(self._begin.patience)

    def body(self, start: int, stop: int) -> ReadingBody:
        """The bytes ``start``..``stop``, in chunks that are valid until the next one is asked for.

        Iterating raises when the rest cannot be had, or is not what it must be. Its end, and its ``aclose``,
        close the reading.
        """
        self._check_span(start, stop)
        return ReadingBody(self, start, stop)

    async def aclose(self) -> None:
        """Let go of the content. What nobody else wants is not downloaded any further."""
        if self._closed:
            return
        self._closed = True
        self._task.fetches -= 1
        self._task.cursors.remove(self._cursor)
        result = "failed" if self._failed else "done" if self._sound() else "cancelled"
        self._host.metrics.downloads.labels(result).inc()
        await self._stack.aclose()

    # --- for the body --------------------------------------------------------------------------------

    async def open(self, at: int, stop: int) -> OpenChunk:
        """The chunk that begins at byte ``at`` of a span to ``stop``, once it is there."""
        number = at // self._piece_length
        offset = number * self._piece_length
        end = min(stop, offset + self._piece_length, at + CHUNK)
        try:
            for _ in range(MAX_DAMAGES):
                await self._until_held(number, stop)
                if end == self.length:
                    await self._until(self._sound, STALL + self.length / SLOWEST_HASH)
                await self._ahead.seen(number)
                try:
                    piece = await self._content.open_piece(number, self._begin.when)
                except PieceMissing:
                    self._task.pulse.beat()  # it was damaged on disk: the task is not complete any more
                    continue
                self._ahead.look(number + 1, -(-stop // self._piece_length))
                return OpenChunk(piece, at - offset, end - offset)
            raise StoreDamaged("a stored piece is damaged again and again: check the disk of the data folder")
        except Exception:
            self._failed = True
            raise

    def begun(self) -> None:
        """Something was given out, so that nobody can begin anew."""
        self._supply.begun = True

    # --- inside --------------------------------------------------------------------------------------

    async def _until_held(self, number: int, stop: int) -> None:
        held, cursor = self._content.held, self._cursor
        cursor.waits(number, -(-stop // self._piece_length), trio.current_time())
        try:
            await self._until(lambda: number in held, STALL + self._piece_length / SLOWEST_PIECE)
        finally:
            cursor.fed(trio.current_time())

    async def _until(self, there: Callable[[], bool], patience: float) -> None:
        """Until it is there; at most ``patience`` seconds without a new piece. Raises when it will not come."""
        task, held = self._task, self._content.held
        count, since = len(held), trio.current_time()
        while True:
            self._check()
            if there():
                return
            if len(held) != count:
                count, since = len(held), trio.current_time()
            with trio.CancelScope(deadline=since + patience):
                await task.pulse.wait()
                continue
            raise self._supply.trouble or Unavailable(
                f"nothing more of the content came for {patience:.0f} s"
            )

    def _sound(self) -> bool:
        """Whether all is held, and found to be what it must be: nothing can go wrong any more."""
        content = self._content
        return content.whole and (self._task.spec.digest or content.meta.digest) in (
            "",
            content.record.verified,
        )

    def _check(self) -> None:
        """Have what is missing brought; raises when what is held here must not be given out any more."""
        if self._sound():
            return
        task, supply = self._task, self._supply
        try:
            supply.check()
        except MovedOn:
            raise _changed() from None
        if task.closed:
            raise removed(task)
        if task.content is not self._content:
            raise _changed()
        supply.start()

    def _check_span(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"{start}..{stop} is no span of {self.length} bytes")

    def __repr__(self) -> str:
        return f"<Reading of {self._task!r}>"


class OpenChunk:
    """A part of a piece; ``data`` is valid until ``close``."""

    __slots__ = ("_piece", "data")

    def __init__(self, piece: OpenPiece, start: int, stop: int) -> None:
        self._piece = piece
        self.data = memoryview(piece.data)[start:stop]

    def close(self) -> None:
        """The bytes are not looked at any more."""
        try:
            self.data.release()
        finally:
            self._piece.close()


class ReadingBody(AsyncIterator[memoryview]):
    """The chunks of one span, in order. Get it from :meth:`Reading.body`."""

    def __init__(self, reading: Reading, start: int, stop: int) -> None:
        self._reading = reading
        self._at = start
        self._stop = stop
        self._chunk: OpenChunk | None = None

    def __aiter__(self) -> ReadingBody:
        return self

    async def __anext__(self) -> memoryview:
        self._let_go()
        if self._at >= self._stop:
            await self._reading.aclose()
            raise StopAsyncIteration
        await trio.lowlevel.checkpoint()
        self._chunk = chunk = await self._reading.open(self._at, self._stop)
        self._reading.begun()
        self._at += len(chunk.data)
        return chunk.data

    async def aclose(self) -> None:
        """End it, and the reading."""
        self._let_go()
        await self._reading.aclose()

    def _let_go(self) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            chunk.close()


def _late(patience: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the first byte of the content did not come within {patience:g} s: try again later"
    )


def _changed() -> SourceError:
    return SourceError("the content changed while it was being read: read it anew", fault="reader")
