"""Getting a task for a caller: downloaded, written to the caller's file, and checked against a digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from shared.errors import DeadlineExceeded, DigestMismatch, PieceMissing, SourceError
from shared.nursery import open_nursery
from shared.protocol import Failure
from shared.store import TaskContent
from shared.swarm.generations import MovedOn
from shared.swarm.host import Host
from shared.swarm.metrics import SOURCES
from shared.swarm.outputs import OutputFile, check_digest
from shared.swarm.pouring import Pouring, Taker
from shared.swarm.session import Session, removed
from shared.swarm.task import HostTask
from shared.swarm.vouched import Unvouched, check_vouched, is_vouched, see_vouched
from shared.task.identity import TaskSpec
from shared.task.pieces import PieceLayout

PROGRESS_INTERVAL = 0.1
RESTARTS = 3
"""How often content may change while it is being written out before the caller is told."""


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """What a caller wants.

    ``digest`` is (algorithm, hex) or None. ``output`` is a writable descriptor that stays the caller's.
    ``limit`` is bytes per second (0: none), ``timeout`` seconds (None: none). ``hash_content``: the
    result has the content's SHA-256 even where no digest was asked for. ``taker`` gets the content as it
    comes; not for content whose digest must be known first. ``may_read`` False: this host is not to be told to
    read the origin on this account.
    """

    spec: TaskSpec
    private_headers: dict[str, str] = field(default_factory=dict, repr=False)
    digest: tuple[str, str] | None = None
    output: int | None = None
    cluster_only: bool = False
    limit: float = 0
    timeout: float | None = None
    hash_content: bool = False
    taker: Taker | None = None
    may_read: bool = True


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a fetch is. ``length`` is None while unknown; ``bytes`` counts by source."""

    length: int | None
    done: int
    bytes: dict[str, int]
    parents: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A finished fetch. ``sha256`` is "" when it was not asked for; ``seconds`` since it began."""

    task_id: str
    length: int
    sha256: str
    seconds: float
    bytes: dict[str, int]


OnProgress = Callable[[FetchProgress], None]


async def fetch(host: Host, order: FetchOrder, on_progress: OnProgress | None = None) -> Fetched:
    """Have the host get a task. Raises SourceError, StoreError, DigestMismatch, DeadlineExceeded, …

    Cancellation, or an error, leaves the pieces that came (a next fetch goes on from them), except
    after a digest mismatch: then what this fetch brought is removed, unless others are getting it too.
    """
    metrics = host.metrics
    try:
        if order.timeout is None:
            result = await _Fetch(host, order, on_progress).run()
        else:
            with trio.move_on_after(order.timeout) as scope:
                result = await _Fetch(host, order, on_progress).run()
            if scope.cancelled_caught:
                raise DeadlineExceeded(
                    f"the content did not come within {order.timeout:g} s: allow more time with --timeout; "
                    "what came already is kept and will be used"
                )
    except trio.Cancelled:
        metrics.downloads.labels("cancelled").inc()
        raise
    except Exception:
        metrics.downloads.labels("failed").inc()
        raise
    metrics.downloads.labels("done").inc()
    return result


class _Fetch:
    def __init__(self, host: Host, order: FetchOrder, on_progress: OnProgress | None) -> None:
        self._host = host
        self._order = order
        self._on_progress = on_progress
        self._began = trio.current_time()
        self._store_bytes = 0
        self._before: dict[str, int] = {}
        self._session: Session | None = None
        self._digests: dict[str, str] = {}
        self._hashed: dict[str, TaskContent] = {}
        self._pouring = None if order.taker is None else Pouring(order.taker)

    async def run(self) -> Fetched:
        spec = self._host.generations.newest(self._order.spec)
        for _ in range(RESTARTS):
            try:
                return await self._get(spec)
            except MovedOn as moved:
                spec = moved.spec
        raise _restless()

    async def _get(self, spec: TaskSpec) -> Fetched:
        """One generation of the content. Raises MovedOn when there is a newer one."""
        order, task_id = self._order, spec.task_id
        async with self._host.tasks.wanted(spec, task_id, order.private_headers) as task:
            if not order.cluster_only:
                await self._host.freshness.ensure(task)
            was_complete = task.complete
            self._store_bytes = held_bytes(task)
            self._before = dict(task.bytes)
            self._host.metrics.received.labels("store").inc(self._store_bytes)
            output = None if order.output is None else OutputFile(order.output)
            if output is not None:
                task.outputs.append(output)
            task.fetches += 1
            try:
                layout = await self._brought(task, output)
                self._check_digest()
            except Unvouched as error:
                self._host.metrics.verify_failures.inc()
                await self._host.tasks.refuse(task, Failure(str(error)))
                raise
            except DigestMismatch:
                self._host.metrics.verify_failures.inc()
                if not was_complete and task.fetches == 1 and not task.closed:
                    await self._host.remove(task_id)
                raise
            finally:
                task.fetches -= 1
                if output is not None:
                    task.outputs.remove(output)
                    await output.detach()
            self._tell_progress(task)
            return Fetched(
                task_id=task_id,
                length=layout.length,
                sha256=self._digests.get("sha256", ""),
                seconds=trio.current_time() - self._began,
                bytes=self._by_source(task),
            )

    async def _brought(self, task: HostTask, output: OutputFile | None) -> PieceLayout:
        for _ in range(RESTARTS):
            content = await self._completed(task)
            layout = content.layout
            if layout is None:
                continue
            try:
                if output is not None:
                    await output.finish(content, layout)
            except PieceMissing:
                continue
            if task.content is content:
                return layout
        raise _restless()

    async def _completed(self, task: HostTask) -> TaskContent:
        """The task's content, all of it held, and hashed as the order wants it."""
        async with open_nursery() as nursery:
            nursery.start_soon(self._tick, task)
            nursery.start_soon(see_vouched, task)
            algorithms = self._algorithms()
            for algorithm in algorithms:
                nursery.start_soon(self._hash, task, algorithm)
            if self._pouring is not None:
                nursery.start_soon(self._pouring.run, task)
            while True:
                content = task.content
                check_vouched(task)
                if task.closed:
                    raise removed(task)
                if content is None or not task.complete:
                    await self._download(task)
                elif (
                    any(self._hashed.get(algorithm) is not content for algorithm in algorithms)
                    or not is_vouched(task)
                    or (self._pouring is not None and self._pouring.poured is not content)
                ):
                    await task.pulse.wait()
                else:
                    break
            nursery.cancel_scope.cancel()
        return content

    async def _download(self, task: HostTask) -> None:
        order = self._order
        async with self._host.sessions.join(
            task, cluster_only=order.cluster_only, limit=order.limit, may_read=order.may_read
        ) as session:
            self._session = session
            while not (task.complete or session.ended):
                session.check(order.spec)
                await task.pulse.wait()
            if not task.complete:
                session.check(order.spec)

    def _algorithms(self) -> set[str]:
        wanted = {"sha256"} if self._order.hash_content else set()
        if self._order.digest is not None:
            wanted.add(self._order.digest[0])
        return wanted

    async def _hash(self, task: HostTask, algorithm: str) -> None:
        asked = self._order.digest is not None and self._order.digest[0] == algorithm
        while True:
            digest = await (task.hashes.of(algorithm) if asked else _sha256_told_or_computed(task))
            content = task.content
            if content is not None:
                self._digests[algorithm], self._hashed[algorithm] = digest, content
                task.pulse.beat()
            while task.content is content:
                await task.pulse.wait()

    def _check_digest(self) -> None:
        if self._order.digest is not None:
            algorithm, wanted = self._order.digest
            check_digest(wanted, self._digests[algorithm], algorithm)

    # --- progress --------------------------------------------------------------------------------------

    async def _tick(self, task: HostTask) -> None:
        while self._on_progress is not None:
            self._tell_progress(task)
            await trio.sleep(PROGRESS_INTERVAL)

    def _tell_progress(self, task: HostTask) -> None:
        if self._on_progress is not None:
            meta = task.meta
            parents = self._session.download.parents if self._session is not None else 0
            length = None if meta is None else meta.length
            self._on_progress(FetchProgress(length, held_bytes(task), self._by_source(task), parents))

    def _by_source(self, task: HostTask) -> dict[str, int]:
        counts = {source: task.bytes[source] - self._before.get(source, 0) for source in SOURCES}
        counts["store"] = self._store_bytes
        return counts


def _restless() -> SourceError:
    return SourceError("the content changed again and again while it was being read: try later")


async def _sha256_told_or_computed(task: HostTask) -> str:
    """The SHA-256 of a complete content: as the reader of its origin found it, or, where that is not told,
    computed here. (What a caller asks to be verified is always computed here.)"""
    while not task.complete:
        await task.pulse.wait()
    found: list[str] = []
    async with open_nursery() as nursery:

        async def hear() -> None:
            while task.meta is None or not task.meta.sha256:
                await task.pulse.wait()
            found.append(task.meta.sha256)
            nursery.cancel_scope.cancel()

        async def compute() -> None:
            digest = await task.hashes.of("sha256")
            found.append(digest)
            if task.meta is not None:
                await task.note_sha256(task.meta.version, digest)
            nursery.cancel_scope.cancel()

        nursery.start_soon(hear)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(compute)
    return found[0]


def held_bytes(task: HostTask) -> int:
    """The bytes of a task that are held here."""
    layout, meta, held = task.layout, task.meta, task.held
    if meta is None or not held:
        return 0
    if layout is None:
        return len(held) * meta.piece_length
    last = layout.count - 1
    shorter = layout.piece_length - layout.size(last) if last in held else 0
    return len(held) * layout.piece_length - shorter
