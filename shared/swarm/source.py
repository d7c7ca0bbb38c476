"""Going back to source: reads of origins that the scheduler granted to this host (or that it must do alone).

A read belongs to a grant; it ends by itself, by being revoked, or with the host. What is read goes into
the task like any other piece; digests and progress go to the scheduler, so that the swarm can begin
before the read has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from shared.errors import DragonetError, Fault, InvalidRequest, SourceError, StoreError
from shared.nursery import open_nursery
from shared.offline import is_offline
from shared.protocol import (
    Failure,
    SourceFailed,
    SourceFinished,
    SourceGranted,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    TaskMeta,
)
from shared.swarm.limits import TokenBucket
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.origin import Origin, OriginJob
from shared.swarm.task import HostTask, Reporter
from shared.swarm.tasks import HostTasks
from shared.swarm.vouched import Unvouched, check_vouched, is_vouched, see_vouched
from shared.task.bitmap import Bitmap
from shared.task.digest import parse_content_digest
from shared.task.identity import TaskSpec, redact_url

log = structlog.get_logger()

PROGRESS_INTERVAL = 1.0
"""Seconds between signs of life of a slow read."""

Throttle = Callable[[int], Awaitable[None]]


class SourceReads:
    """The origin reads that run on this host, by grant."""

    def __init__(
        self, tasks: HostTasks, origin: Origin, reporter: Reporter, metrics: SwarmMetrics, bucket: TokenBucket
    ) -> None:
        self._tasks = tasks
        self._origin = origin
        self._reporter = reporter
        self._metrics = metrics
        self._bucket = bucket
        self._running: dict[str, trio.CancelScope] = {}
        self._sinks: dict[str, _Sink] = {}

    def start(self, nursery: trio.Nursery, granted: SourceGranted) -> None:
        """Begin a granted read in ``nursery``; a grant that runs already is left alone."""
        if granted.grant not in self._running:
            self._running[granted.grant] = trio.CancelScope()
            nursery.start_soon(self._run_granted, granted)

    def revoke(self, grant: str) -> None:
        """Stop a read; what it brought so far is kept."""
        scope = self._running.get(grant)
        if scope is not None:
            scope.cancel()

    def progress(self, task_id: str) -> list[SourceProgress]:
        """How far the reads of a task have come: for a scheduler that did not grant them."""
        return [sink.progress(grant) for grant, sink in self._sinks.items() if sink.task_id == task_id]

    def reading(self, task_id: str) -> bool:
        """Whether the task is being read here."""
        return any(sink.task_id == task_id for sink in self._sinks.values())

    @property
    def running(self) -> int:
        """Reads under way."""
        return len(self._running)

    async def read_alone(self, task: HostTask, spec: TaskSpec, throttle: Throttle) -> None:
        """Read what the task lacks at the place ``spec.url`` without a grant: no scheduler answers. Raises
        SourceError, StoreError.

        ``throttle(count)`` waits until so many bytes may be received.
        """
        log.info("going back to source without a scheduler", task=task.id, url=redact_url(spec.url))
        self._metrics.source_fallbacks.inc()
        sink = _Sink(task, None, self._reporter, throttle)
        job = OriginJob(spec, task.places.headers(spec), task.meta)
        await self._origin.read(job, sink)

    async def _run_granted(self, granted: SourceGranted) -> None:
        try:
            with self._running[granted.grant]:
                async with self._tasks.used(granted.spec, granted.task) as task:
                    await self._read_vouched(granted, task)
        except SourceError as error:
            offline = is_offline(error)
            fault: Fault = "reader" if offline else error.fault
            failure = Failure(str(error), error.origin_status, error.retry_after, fault)
            self._failed(granted, failure, wrong=isinstance(error, _Wrong), offline=offline)
        except DragonetError as error:
            failure = Failure(str(error), None, error.retry_after, "reader")
            self._failed(granted, failure, offline=is_offline(error))
        except Exception as error:
            log.error("source read ended by a defect", task=granted.task, error=repr(error), exc_info=True)
            self._failed(granted, Failure(f"a defect in dragonet: {error!r}", fault="reader"))
        finally:
            del self._running[granted.grant]
            self._sinks.pop(granted.grant, None)

    async def _read_vouched(self, granted: SourceGranted, task: HostTask) -> None:
        """Read; content without the digest that its source vouches for is removed, and the source's fault."""
        try:
            await self._read(granted, task)
        except Unvouched as error:
            await self._tasks.refuse(task, Failure(str(error)))
            raise _Wrong(str(error)) from None
        except StoreError:
            if task.closed and task.failure is not None:  # somebody else here found it out first
                kind = _Wrong if task.wrong else SourceError
                raise kind(task.failure.words, fault=task.failure.fault) from None
            raise

    async def _read(self, granted: SourceGranted, task: HostTask) -> None:
        log.info("going back to source", task=task.id, url=redact_url(granted.spec.url))
        if not task.places.readable(granted.spec):
            raise SourceError("whoever wanted this here, with credentials, has gone", fault="reader")
        if granted.meta is not None and (task.meta is None or task.meta.version != granted.meta.version):
            await task.adopt(granted.meta)
        if granted.meta is not None:
            task.learn(granted.meta.version, granted.digests)
        sink = self._sinks[granted.grant] = _Sink(task, granted.grant, self._reporter, self._bucket.take)
        pieces = None if granted.pieces is None else tuple(granted.pieces)
        job = OriginJob(granted.spec, task.places.headers(granted.spec), task.meta, pieces)
        async with open_nursery() as nursery:
            if not granted.spec.tree:  # of a folder's stream, nobody asks for the digest
                nursery.start_soon(sink.hash)
            nursery.start_soon(see_vouched, task)
            await self._origin.read(job, sink)
            nursery.cancel_scope.cancel()

    def _failed(
        self, granted: SourceGranted, failure: Failure, *, wrong: bool = False, offline: bool = False
    ) -> None:
        say = log.info if offline else log.warning  # it may well be over in a moment
        say(
            "reading the source failed",
            task=granted.task,
            url=redact_url(granted.spec.url),
            status=failure.status,
            cause=failure.words,
        )
        self._reporter.report(SourceFailed(granted.task, granted.grant, failure, wrong, offline))


class _Wrong(SourceError):
    """What was read does not have the digest that it must have."""


class _Sink:
    """Takes what an origin read brings into the task, and tells the scheduler (if ``grant`` is one)."""

    def __init__(
        self,
        task: HostTask,
        grant: str | None,
        reporter: Reporter,
        throttle: Throttle,
    ) -> None:
        self._task = task
        self._grant = grant
        self._reporter = reporter
        self._throttle = throttle
        self._version = task.meta.version if task.meta is not None else ""
        self._received = 0
        self._told_at = -PROGRESS_INTERVAL
        self._sha256 = ""

    @property
    def task_id(self) -> str:
        return self._task.id

    def progress(self, grant: str) -> SourceProgress:
        return SourceProgress(self._task.id, grant, self._received)

    async def hash(self) -> None:
        """Hash the content while it arrives, so that no other host has to; cancel it when it is not needed."""
        self._sha256 = await self._task.hashes.of("sha256")
        self._task.pulse.beat()

    async def opened(self, meta: TaskMeta) -> None:
        if meta.digest:
            _check_digest_text(self._task, meta)
        await self._task.adopt(meta)
        self._task.note_fresh(meta.revalidate or 0.0)
        self._version = meta.version
        if self._grant is not None:
            self._reporter.report(SourceOpened(self._task.id, self._grant, meta))

    def held(self) -> Bitmap:
        return self._task.held.copy()

    def digest(self, number: int) -> bytes | None:
        return self._task.digests.get(number)

    async def piece(self, number: int, data: memoryview) -> None:
        digest = await self._task.keep_from_origin(self._version, number, data)
        if self._grant is not None:
            self._reporter.report(SourcePieces(self._task.id, self._grant, self._version, {number: digest}))

    def received(self, count: int) -> None:
        self._received += count
        now = trio.current_time()
        if self._grant is not None and now - self._told_at >= PROGRESS_INTERVAL:
            self._told_at = now
            self._reporter.report(self.progress(self._grant))

    async def throttle(self, count: int) -> None:
        await self._throttle(count)

    async def finished(self, meta: TaskMeta) -> None:
        current = self._task.meta
        if current is None or current.version != meta.version:
            raise StoreError("the content got another version on this host while its origin was being read")
        await self._task.adopt(meta)
        if self._grant is None:
            return
        if current.length != meta.length:
            self._reporter.report(
                SourceOpened(self._task.id, self._grant, meta)
            )  # others wait for the length
        meta = await self._seen_through(meta)
        self._reporter.report(SourceFinished(self._task.id, self._grant, meta))

    async def _seen_through(self, meta: TaskMeta) -> TaskMeta:
        """The metadata with the content's digest, where this host holds all of it. Raises Unvouched."""
        task = self._task
        if task.spec.tree:
            return meta
        while task.complete and task.meta is not None and task.meta.version == meta.version:
            check_vouched(task)
            if self._sha256 and is_vouched(task):
                meta = msgspec.structs.replace(meta, sha256=self._sha256)
                await task.note_sha256(meta.version, meta.sha256)
                break
            await task.pulse.wait()
        if task.closed:
            raise StoreError("the content was removed on this host while its origin was being read")
        return meta


def _check_digest_text(task: HostTask, meta: TaskMeta) -> None:
    """Raises SourceError when it is not known what the source vouches for."""
    try:
        parse_content_digest(meta.digest)
    except InvalidRequest as error:
        url = redact_url(task.spec.url)
        raise SourceError(f"what {url} vouches for cannot be verified: {error}") from None
