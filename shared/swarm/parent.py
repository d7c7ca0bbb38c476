"""One parent of one download: its connection, what it holds, how fast it is, and what it did wrong."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

import structlog
import trio

from shared.errors import (
    ParentBusy,
    ParentGone,
    ParentStalled,
    PieceCorrupt,
    PieceMissing,
    StoreError,
    TransferError,
)
from shared.protocol import Parent, ParentFailed, TaskMeta
from shared.swarm.availability import follow
from shared.swarm.limits import PieceBuffer
from shared.swarm.pace import Pace, backoff
from shared.swarm.picker import Holder
from shared.swarm.pulse import Pulse
from shared.swarm.transfer import PieceConnection
from shared.task.bitmap import Bitmap

if TYPE_CHECKING:
    from shared.swarm.download import Download

log = structlog.get_logger()

IDLE_CHECK = 0.5
"""Seconds after which an idle connection looks again: patience may have run out for some piece."""
IDLE_CLOSE = 30.0
"""Seconds after which an unused connection is closed: before the parent does it, which looks like a fault."""
GIVE_UP = 4
"""Failures in a row after which the parent is left to the scheduler's next assignment."""

FAR_QUEUE = 3
"""Pieces that may be before ours on the way from another zone: many share it, and what is given up has to cross
once more."""


class ParentWorker:
    """Keeps one parent busy. Ends when cancelled, when the parent lied, or after failures in a row."""

    def __init__(self, download: Download, parent: Parent, version: str) -> None:
        self.parent = parent
        self.pace = Pace()
        self.held = Bitmap()
        self.asked: deque[int] = deque()
        self.cancelled = False
        self._download = download
        self._version = version
        self._scope = trio.CancelScope()
        self._receiving: trio.CancelScope | None = None
        self._failures = 0
        self._quiet_until = 0.0
        self._follows = False
        self._nursery: trio.Nursery | None = None
        self._news = Pulse()

    @property
    def offer(self) -> Holder:
        """What the picker needs to know of this parent."""
        return Holder(self.held, self.parent.stripe, self.parent.far, self.parent.carries)

    def update(self, parent: Parent) -> None:
        """Take over a new assignment of the same parent (its stripe may have changed)."""
        if parent != self.parent:
            self.parent = parent
            self.look()

    def look(self) -> None:
        """There may be something more to ask for. A worker that waits is told of nothing else: most of what
        happens to a task (a piece comes, another parent gains one) gives it nothing to do."""
        self._news.beat()

    def cancel(self) -> None:
        """End the worker; pieces it asked for go back to be asked of others."""
        self.cancelled = True
        self._scope.cancel()

    def supersede(self, number: int) -> None:
        """Another parent delivered this piece: if it is being received here too, stop receiving it."""
        if self._receiving is not None and self.asked and self.asked[0] == number:
            self._receiving.cancel()

    async def run(self, stores: trio.Nursery) -> None:
        """Fetch from the parent. Received pieces are stored by tasks in the ``stores`` nursery."""
        layout = self._download.task.layout
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self.parent.complete and layout is not None:
                    self.held = Bitmap.full(layout.count)
                else:
                    self._start_following()
                while self._failures < GIVE_UP and self._meta is not None:
                    try:
                        await self._until_useful()
                        await self._connected(stores)
                    except TransferError as error:
                        await self._failed(error)
                nursery.cancel_scope.cancel()

    # --- pieces --------------------------------------------------------------------------------------

    @property
    def _meta(self) -> TaskMeta | None:
        """The task's metadata; None once its version is another than this worker fetches."""
        meta = self._download.task.meta
        return meta if meta is not None and meta.version == self._version else None

    async def _until_useful(self) -> None:
        task = self._download.task
        while self._meta is not None and not self.held & task.missing():
            await self._news.wait()

    async def _connected(self, stores: trio.Nursery) -> None:
        stream = await self._download.engine.connect(self.parent.address)
        connection = PieceConnection(stream, self.parent.address, self._download.task.key)
        used_at = trio.current_time()
        try:
            while trio.current_time() - used_at < IDLE_CLOSE:
                await self._ask(connection)
                if self.asked:
                    await self._receive(connection, stores)
                    used_at = trio.current_time()
                else:
                    with trio.move_on_after(IDLE_CHECK):
                        await self._news.wait()
        finally:
            while self.asked:
                self._download.settled(self.asked.popleft())
            await connection.aclose()

    async def _ask(self, connection: PieceConnection) -> None:
        task = self._download.task
        while (meta := self._meta) is not None and trio.current_time() >= self._quiet_until:
            if len(self.asked) >= self.pace.depth(meta.piece_length):
                return
            number = self._download.pick(self)
            if number is None:
                return
            self.asked.append(number)
            await self._download.throttle(task.piece_size(number))
            await connection.request(task.id, number, self._version)

    async def _receive(self, connection: PieceConnection, stores: trio.Nursery) -> None:
        if self._meta is None:
            raise Superseded("the content has another version now")
        number = self.asked[0]
        buffer: PieceBuffer | None = None
        with trio.CancelScope() as scope:
            self._receiving = scope
            try:
                buffer = await self._receive_piece(connection, number)
            except PieceMissing:
                self.held.discard(number)
                self._note("missing")
                self._start_following()
            except ParentBusy as error:
                self._note("busy")
                self._quiet_until = trio.current_time() + min(error.retry_after or 0.25, 5.0)
            finally:
                self._receiving = None
        if scope.cancelled_caught:
            raise Superseded(f"piece {number} came from another parent first")
        if buffer is None:
            self._download.settled(self.asked.popleft())
            return
        self._failures = 0
        self.asked.popleft()  # from now on the storing task answers for it
        stores.start_soon(self._store, number, buffer)

    async def _receive_piece(self, connection: PieceConnection, number: int) -> PieceBuffer:
        task, address = self._download.task, self.parent.address
        size = task.piece_size(number)
        asked_at = trio.current_time()
        queued = FAR_QUEUE if self.parent.far else 0
        with trio.move_on_after(self.pace.allowance(size, queued)) as answering:
            length = await connection.head()
        if answering.cancelled_caught:
            raise self._too_slow(number)
        latency = trio.current_time() - asked_at
        with contextlib.suppress(LookupError):  # of another version by now: what comes is dropped anyway
            size = task.piece_size(number)  # the content's length may have become known meanwhile
        if length > size or (length < size and task.layout is not None):
            raise PieceCorrupt(f"{address} sent {length} bytes for piece {number}, which has {size}")
        buffer = await self._download.engine.buffers.acquire(length)
        try:
            began = trio.current_time()
            with trio.move_on_after(self.pace.allowance(size, queued)) as sending:
                await connection.body(buffer.view)
            if sending.cancelled_caught:
                raise self._too_slow(number)
        except BaseException:
            buffer.release()
            raise
        seconds = trio.current_time() - began
        self.pace.delivered(length, seconds, latency)
        metrics = self._download.engine.metrics
        metrics.piece_seconds.labels(self.parent.role).observe(seconds)
        if self.parent.far:
            metrics.crossed.labels(self.parent.role).inc(length)
        return buffer

    def _too_slow(self, number: int) -> ParentStalled:
        self.pace.missed()
        return ParentStalled(f"{self.parent.address} was too slow with piece {number}")

    async def _store(self, number: int, buffer: PieceBuffer) -> None:
        download = self._download
        try:
            await download.task.keep(self._version, number, buffer.view, self.parent.role)
        except PieceCorrupt as error:
            self._lied(error)
        except StoreError as error:
            download.store_failed(error)
        finally:
            buffer.release()
            download.settled(number)

    # --- what it holds -------------------------------------------------------------------------------

    def _start_following(self) -> None:
        if not self._follows and self._nursery is not None:
            self._follows = True
            self._nursery.start_soon(self._follow)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                stream = await self._download.engine.connect(self.parent.address)
                task = self._download.task
                await follow(stream, self.parent.address, task.id, self._version, self._now_holds, task.key)
            except TransferError as error:
                failures += 1
                self.held = Bitmap()
                log.debug("availability stream ended", parent=self.parent.address, reason=str(error))
                if failures >= GIVE_UP:
                    self._report(error.reason)
                    self.cancel()
            await trio.sleep(backoff(failures))

    def _now_holds(self, held: Bitmap) -> None:
        self.held = held
        self.look()

    # --- what it did wrong ---------------------------------------------------------------------------

    async def _failed(self, error: TransferError) -> None:
        if isinstance(error, Superseded):
            return
        if isinstance(error, PieceCorrupt):
            self._lied(error)
            return
        self._note(error.reason)
        self._failures += 1
        log.info("parent failed", parent=self.parent.address, reason=error.reason, cause=str(error))
        self._report(error.reason)
        if not self._follows:
            self.held = Bitmap() if isinstance(error, ParentGone) and self._failures >= GIVE_UP else self.held
        await trio.sleep(backoff(self._failures))

    def _lied(self, error: PieceCorrupt) -> None:
        """Wrong bytes: nothing more is taken from this parent in this download."""
        download = self._download
        log.warning("parent sent wrong bytes", parent=self.parent.address, cause=str(error))
        self._note(error.reason)
        download.engine.metrics.verify_failures.inc()
        download.banned.add(self.parent.host)
        self._report("corrupt")
        self.cancel()

    def _note(self, reason: str) -> None:
        self._download.engine.metrics.pieces_failed.labels(reason).inc()

    def _report(self, reason: str) -> None:
        self._download.engine.reporter.report(ParentFailed(self._download.task.id, self.parent.host, reason))

    def __repr__(self) -> str:
        return f"<ParentWorker {self.parent.address}, {len(self.asked)} asked, holds {len(self.held)}>"


class Superseded(TransferError):
    """Not a fault: another parent was faster with the same piece, or the content got a new version."""

    reason = "superseded"
