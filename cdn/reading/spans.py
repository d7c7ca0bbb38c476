"""Reading a source in ranges, several at a time where it is long.

Ranges are short at first, so that pieces come about in order and a reader that fails loses little. A source that
takes long to begin an answer, beside the time that reading it takes, is asked for longer ones: some do
work for each request that grows with the content. For the same reason the third and further connections
wait until it is seen that this source is not one of them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from cdn.reading.plan import (
    ASKING,
    Ask,
    ContentChanged,
    Found,
    RangesUnusable,
    ReadSignal,
    check_follow_up,
    content_bytes,
    cut_runs,
    wanted_pieces,
    worthwhile_span,
)
from cdn.reading.stores import Stores, storing
from cdn.sources.interface import RangeNotSatisfiable, SourceCut, SourceResponse
from shared.errors import DragonetError, SourceError
from shared.task.bitmap import Bitmap
from shared.task.pieces import PieceLayout

if TYPE_CHECKING:
    from cdn.reading.session import SourceSession

BUSY = frozenset({429, 502, 503, 504})
"""Statuses of a source that is asked for too much at once; in mid-read they are waited out like a cut."""


class _Run:
    """Consecutive pieces that one worker reads, and how far it is."""

    def __init__(self, first: int, count: int) -> None:
        self.number = first
        self.stop = first + count
        self.filled = 0
        self.buffer: memoryview | None = None

    @property
    def left(self) -> tuple[int, int]:
        """The pieces still to be read, as (first, count)."""
        return self.number, self.stop - self.number


class SpanReader:
    """Reads all wanted pieces of one version; the first answer brings the first of them."""

    def __init__(self, session: SourceSession, found: Found, ask: Ask) -> None:
        if found.meta.length is None:
            raise ValueError("a source read in ranges has a known length")
        self._session = session
        self._found = found
        self._layout = PieceLayout(found.meta.length, found.meta.piece_length)
        wanted = wanted_pieces(self._layout.count, session.pieces, session.sink.held())
        self._first = self._covered(wanted, ask)
        rest = wanted
        if self._first is not None:
            start, count = self._first
            rest = wanted - (Bitmap.full(start + count) - Bitmap.full(start))
        self._queue = deque(cut_runs(rest, found.meta.piece_length, session.span))
        self._span = session.span
        self._bytes = len(wanted) * found.meta.piece_length
        self._active = 0
        self._answered = trio.Event()
        self._asking = 0.0
        self._judged = trio.Event()

    async def run(self, answer: SourceResponse) -> None:
        """Until every wanted piece is handed over.

        Raises SourceError or StoreError, ContentChanged or RangesUnusable; the first one cancels the other
        workers.
        """
        config = self._session.config
        if self._first is None:
            await answer.aclose()
        runs = len(self._queue) + (self._first is not None)
        workers = 1 if self._bytes <= config.parallel_from else max(1, min(config.connections, runs))
        buffers = self._session.buffers(self._found.meta, workers + 1)
        async with storing(self._session.store, buffers) as stores, trio.open_nursery() as nursery:
            for index in range(workers):
                self._active += 1
                nursery.start_soon(self._work, index, stores, answer if index == 0 and self._first else None)

    def _covered(self, wanted: Bitmap, ask: Ask) -> tuple[int, int] | None:
        """The wanted pieces with which the first answer begins; None when it begins with one held already."""
        length = self._layout.piece_length
        start = (ask.first - self._session.window.first) // length
        end = ask.last + 1 - self._session.window.first
        stop = self._layout.count if end >= self._layout.length else end // length
        for first, count in wanted.spans():
            if first <= start < min(first + count, stop):
                return start, min(first + count, stop) - start
        return None

    async def _work(self, index: int, stores: Stores, answer: SourceResponse | None) -> None:
        try:
            if index > 1:
                await self._answered.wait()
                with trio.move_on_after(self._asking / ASKING):
                    await self._judged.wait()
            if answer is not None and self._first is not None:
                await self._read(_Run(*self._first), stores, answer)
            while self._queue and await self._read(self._next(), stores, None):
                pass
        except (DragonetError, ReadSignal) as error:
            stores.fail(error)
        finally:
            self._active -= 1
            self._answered.set()
            self._judged.set()

    def _next(self) -> _Run:
        """The next run, as long as one may be now."""
        first, count = self._queue.popleft()
        length = self._found.meta.piece_length
        while self._queue and self._queue[0][0] == first + count:
            if (count + self._queue[0][1]) * length > self._span:
                break
            count += self._queue.popleft()[1]
        return _Run(first, count)

    def _learn(self, asking: float, reading: float, received: int) -> None:
        """An answer took ``asking`` seconds to begin and ``reading`` to come: how long should ranges be?"""
        self._judged.set()
        self._span = min(worthwhile_span(self._span, asking, reading, received), max(self._span, self._bytes))

    async def _read(self, run: _Run, stores: Stores, answer: SourceResponse | None) -> bool:
        """Read a run to its end; False when it was left to the other workers, because the source is busy."""
        failures = 0
        while run.number < run.stop:
            before = (run.number, run.filled)
            try:
                begun = trio.current_time()
                follow_up = answer is None
                if answer is None:
                    answer = await self._open(run)
                opened = trio.current_time()
                if follow_up and not self._answered.is_set():
                    self._asking = opened - begun
                    self._answered.set()
                async with answer:
                    received = await self._receive(run, stores, answer)
                if follow_up:
                    self._learn(opened - begun, trio.current_time() - opened, received)
            except SourceError as error:
                if (run.number, run.filled) != before:
                    failures = 0
                if error.origin_status in BUSY and self._active > 1:
                    self._queue.appendleft(run.left)
                    if run.buffer is not None:
                        stores.buffers.give(run.buffer)
                    return False
                failures = await self._session.wait_out(error, failures)
            answer = None
        return True

    async def _open(self, run: _Run) -> SourceResponse:
        shift = self._session.window.first
        _, last = content_bytes(self._layout, run.left)
        first = self._layout.offset(run.number) + run.filled
        ask = Ask(shift + first, shift + last, self._found.validators.strong)
        try:
            answer = await self._session.ask(ask)
        except RangeNotSatisfiable:
            raise ContentChanged from None
        try:
            check_follow_up(answer, ask, self._found)
        except BaseException:
            with trio.CancelScope(shield=True):
                await answer.aclose()
            raise
        return answer

    async def _receive(self, run: _Run, stores: Stores, answer: SourceResponse) -> int:
        received = 0
        while run.number < run.stop:
            size = self._layout.size(run.number)
            if run.buffer is None:
                run.buffer = await stores.buffers.take()
            count = await self._session.receive(answer, run.buffer[run.filled : size])
            if not count:
                raise SourceCut(f"{self._session.shown} ended a part early, after {received} bytes")
            received += count
            run.filled += count
            if run.filled == size:
                stores.begin(run.number, run.buffer[:size], run.buffer)
                run.number, run.filled, run.buffer = run.number + 1, 0, None
        whole = answer.range is not None and received == len(answer.range)
        if whole and answer.content_length < 0 and await answer.receive_into(memoryview(bytearray(1))):
            raise RangesUnusable("a part is longer than its Content-Range says")
        return received
