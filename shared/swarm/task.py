"""A host's part in one task while it is active: what is known, what is held, and who is told of changes.

Everything that brings pieces (parents, the origin) and everything that wants them (downloads, children)
meets here. Pieces of two versions never meet: a new version closes the old content first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from math import inf
from typing import Protocol

import msgspec
import trio

from shared.errors import StoreError
from shared.protocol import (
    Failure,
    Parent,
    PeerFinished,
    PeerHolding,
    PiecesHeld,
    Report,
    TaskMeta,
)
from shared.store import Store, TaskContent
from shared.swarm.hashes import Hashes
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.outputs import OutputFile
from shared.swarm.places import Places
from shared.swarm.pulse import Pulse
from shared.swarm.starving import Cursors
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec
from shared.task.pieces import PieceLayout


class Reporter(Protocol):
    """Who hears what happens here: the link to the scheduler, or nobody."""

    def report(self, report: Report) -> None:
        """Queue a report; never blocks."""


class HostTask:
    """One active task of this host. Owned by :class:`shared.swarm.tasks.HostTasks`."""

    def __init__(
        self,
        spec: TaskSpec,
        task_id: str,
        store: Store,
        reporter: Reporter,
        metrics: SwarmMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` gives Unix seconds."""
        self.spec = spec
        self.id = task_id
        self.key = spec.piece_key
        """What who wants pieces of it has to show, "" for nothing."""
        self.places = Places(spec)
        self.content: TaskContent | None = None
        self.digests: dict[int, bytes] = {}
        self.digested = Bitmap()
        self.parents: dict[str, Parent] = {}
        self.failure: Failure | None = None
        self.wrong = False
        """It was closed because its content does not have the digest that it must have."""
        self.closed = False
        """The task was closed for good (idle, or removed here): it is no longer one of the host's."""
        self.bytes: Counter[str] = Counter()
        self.outputs: list[OutputFile] = []
        self.hashes = Hashes(self)
        self.unvouched = ""
        """In words: the content does not have the digest that its source vouches for (see ``vouched``)."""
        self.cursors = Cursors()
        """Where those are who read the content in order while it comes."""
        self.pulse = Pulse()
        self.users = 0
        self.fetches = 0
        """Callers that are getting the content."""
        self.idle_since = 0.0
        self._finished = False
        self._store = store
        self._reporter = reporter
        self._metrics = metrics
        self._clock = clock
        self._stack = AsyncExitStack()
        self._opening = trio.Lock()

    # --- knowing ---------------------------------------------------------------------------------

    @property
    def meta(self) -> TaskMeta | None:
        """What is known of the content; None before the origin answered."""
        return self.content.meta if self.content is not None else None

    @property
    def layout(self) -> PieceLayout | None:
        """How the content is cut; None while its length is unknown."""
        meta = self.meta
        return None if meta is None or meta.length is None else PieceLayout(meta.length, meta.piece_length)

    @property
    def held(self) -> Bitmap:
        """The pieces held (live: do not change it)."""
        return self.content.held if self.content is not None else Bitmap()

    @property
    def complete(self) -> bool:
        """Every piece is held (a piece found damaged on disk ends that)."""
        content = self.content
        return self._finished and content is not None and content.record.complete

    def piece_size(self, number: int) -> int:
        """Length in bytes of a piece; the full piece length while the content's length is unknown."""
        layout, meta = self.layout, self.meta
        if meta is None:
            raise LookupError("the task has no metadata yet")
        return meta.piece_length if layout is None else layout.size(number)

    def missing(self) -> Bitmap:
        """Pieces that can be asked for: not held, and their digest is known."""
        return self.digested - self.held

    def holding(self) -> PeerHolding | None:
        """The report of all that is held; None when there is nothing to say."""
        if self.content is None:
            return None
        return PeerHolding(
            task=self.id,
            spec=self.spec,
            meta=self.content.meta,
            held=self.content.held.to_bytes(),
            digests={n: self.content.digests[n] for n in self.content.held},
            complete=self.complete,
            fresh=self.fresh_for() if self.content.meta.revalidate is not None else 0.0,
            stale=self.stale,
        )

    @property
    def stale(self) -> bool:
        """When it was last time to ask the source whether the content has changed, that could not be found
        out: by nobody in the cluster, or not by this host, where it is alone."""
        return self.content is not None and self.content.record.stale

    def fresh_for(self) -> float:
        """Seconds for which the content need not be checked against its source; infinite for never."""
        content = self.content
        return 0.0 if content is None else fresh_for(content.meta, content.record.validated, self._clock())

    # --- learning --------------------------------------------------------------------------------

    async def adopt(self, meta: TaskMeta) -> None:
        """Take over metadata from the origin or the scheduler; another version drops what was held.

        Raises StoreError when there is no room for the content, or the task has been closed.
        """
        async with self._opening:
            if self.closed:
                raise _removed()
            if self.content is not None and self.content.meta.version == meta.version:
                known = self.content.meta
                sha256, digest = meta.sha256 or known.sha256, meta.digest or known.digest
                meta = msgspec.structs.replace(meta, sha256=sha256, digest=digest)
                if meta != self.content.meta:
                    await self.content.set_meta(meta)
            else:
                await self._close()
                await self._open(meta)
        self.failure = None
        self.pulse.beat()
        await self.check_complete()

    async def recall(self) -> None:
        """Take up what the store holds of the task, where nothing is open yet. Raises StoreError.

        What is held is looked up when it is this call's turn: a version that was about to be replaced must
        not come back.
        """
        async with self._opening:
            if self.closed:
                raise _removed()
            stored = self._store.get(self.id) if self.content is None else None
            if stored is None:
                return
            await self._open(stored.meta)
        self.pulse.beat()
        await self.check_complete()

    async def note_sha256(self, version: str, digest: str) -> None:
        """Keep the SHA-256 of the whole content with its metadata, if that version is still current."""
        content = self.content
        if content is not None and content.meta.version == version and not content.meta.sha256:
            await content.set_meta(msgspec.structs.replace(content.meta, sha256=digest))
            self.pulse.beat()

    def note_fresh(self, seconds: float, *, stale: bool = False) -> None:
        """The content is what its source has (``stale``: as far as is known), and need not be checked for so
        long."""
        if self.content is not None and self.content.meta.revalidate is not None:
            self.content.validated(self._clock() + seconds - self.content.meta.revalidate, stale=stale)

    def learn(self, version: str, digests: Mapping[int, bytes]) -> None:
        """Digests from the scheduler; those of another version, or contradicting known ones, are ignored."""
        if self.content is None or self.content.meta.version != version:
            return
        for number, digest in digests.items():
            self._learn(number, digest)
        self.pulse.beat()

    def fail(self, failure: Failure) -> None:
        """The task cannot be had now; those who wait are told."""
        self.failure = failure
        self.pulse.beat()

    # --- keeping ---------------------------------------------------------------------------------

    async def keep(self, version: str, number: int, data: memoryview, source: str) -> None:
        """Verify, write to the outputs, and store a piece from a parent; ``source`` is "peer" or "seeder".

        Raises PieceCorrupt when it does not have the digest read at the origin, StoreError when it
        cannot be stored. A piece of a version that is no longer current is dropped.
        """
        content = self.content
        expected = self.digests.get(number)
        if content is None or content.meta.version != version or expected is None:
            return
        _, fresh = await content.put(number, data, expected=expected, also=self._output_of(content))
        if fresh:
            self._gained(content, number, len(data), source)
            self._reporter.report(PiecesHeld(self.id, version, [number]))
            await self.check_complete()

    async def keep_from_origin(self, version: str, number: int, data: memoryview) -> bytes:
        """Store a piece that was read at the origin; gives its digest.

        Raises StoreError, also when the content has been removed or got another version meanwhile.
        """
        content = self.content
        if content is None or content.meta.version != version:
            raise _removed()
        digest, fresh = await content.put(number, data, expected=None, also=self._output_of(content))
        if content is self.content:
            self._learn(number, digest)
        if fresh:
            self._gained(content, number, len(data), "origin")
        return digest

    async def check_complete(self) -> None:
        """Mark the task complete when the last piece is there."""
        content, layout = self.content, self.layout
        if content is None or layout is None or self.complete or not content.held.covers(layout.count):
            return
        self._finished = True
        await content.complete()
        self._reporter.report(PeerFinished(self.id, content.meta.version))
        self.pulse.beat()

    async def aclose(self) -> None:
        """Close the content, for good; what is held stays in the store."""
        self.closed = True
        with trio.CancelScope(shield=True):
            async with self._opening:
                await self._close()
        self.pulse.beat()

    async def _open(self, meta: TaskMeta) -> None:
        self.content = await self._stack.enter_async_context(self._store.create(self.spec, meta))
        for number in self.content.held:
            self._learn(number, self.content.digests[number])

    async def _close(self) -> None:
        self.content, self._finished, self.unvouched = None, False, ""
        self.hashes.forget()
        self.digests, self.digested = {}, Bitmap()
        stack, self._stack = self._stack, AsyncExitStack()
        with trio.CancelScope(shield=True):
            await stack.aclose()

    def _learn(self, number: int, digest: bytes) -> None:
        if self.digests.setdefault(number, digest) is digest:
            self.digested.add(number)

    def _gained(self, content: TaskContent, number: int, size: int, source: str) -> None:
        self.bytes[source] += size
        self._metrics.received.labels(source).inc(size)
        if content is self.content:
            self.pulse.beat()

    def _output_of(self, content: TaskContent) -> Callable[[int, memoryview], None] | None:
        if not self.outputs:
            return None
        outputs, version, piece_length = list(self.outputs), content.meta.version, content.meta.piece_length

        def write(number: int, data: memoryview) -> None:
            for output in outputs:
                output.write(version, number * piece_length, number, data)

        return write

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.held)} pieces"
        return f"<HostTask {self.id[:12]} {state}, {self.users} users>"


def fresh_for(meta: TaskMeta, validated: float, now: float) -> float:
    """Seconds for which content that was valid at ``validated`` need not be checked (Unix times).

    Infinite when it never is; 0 also when the clock has been set back since.
    """
    if meta.revalidate is None:
        return inf
    return max(0.0, validated + meta.revalidate - now) if validated <= now else 0.0


def _removed() -> StoreError:
    return StoreError("the content was removed or replaced on this host while it was in use: try again")
