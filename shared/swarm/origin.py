"""What the swarm needs from below the sources: reading content at its origin into a task. Interface only.

``cdn`` implements :class:`Origin`; the swarm engine implements :class:`OriginSink` and gives it to a read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shared.protocol import TaskMeta
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec


@dataclass(frozen=True, slots=True)
class OriginJob:
    """What is to be read.

    ``private_headers`` belong to the request on whose behalf this host reads; they go to the origin
    only. ``meta`` is what the cluster knows of the content (None: nothing). ``pieces`` limits the read
    to these (first, count) runs; None: everything that the sink does not hold.
    """

    spec: TaskSpec
    private_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    meta: TaskMeta | None = None
    pieces: tuple[tuple[int, int], ...] | None = None


class OriginSink(Protocol):
    """Where a read puts what it finds. Every method may raise StoreError; the read then ends with it."""

    async def opened(self, meta: TaskMeta) -> None:
        """The origin answered. Before any piece; again whenever the version changes (older pieces are
        dropped by then) and when only now the length became known to be another."""

    def held(self) -> Bitmap:
        """The pieces of the current version that need not be read (a copy)."""

    def digest(self, number: int) -> bytes | None:
        """The digest that the cluster knows for a piece of the current version."""

    async def piece(self, number: int, data: memoryview) -> None:
        """A whole piece. The sink is done with ``data`` when this returns."""

    def received(self, count: int) -> None:
        """``count`` more bytes came from the origin (for progress and rate; never blocks)."""

    async def throttle(self, count: int) -> None:
        """Wait until ``count`` more bytes may be received under the download limits."""

    async def finished(self, meta: TaskMeta) -> None:
        """Everything asked for was read; ``meta.length`` is final. Raises DigestMismatch when the content is
        not what the source vouches for."""


class Origin(Protocol):
    """Reads sources of every scheme that this host knows."""

    async def read(self, job: OriginJob, sink: OriginSink) -> None:
        """Read what the job asks for into the sink.

        Returns after ``sink.finished``. Raises SourceError (status, words, whose fault), or what the sink
        raises.
        Cancellation leaves the pieces that were handed over, and no connection open.
        """

    async def is_expired(
        self, spec: TaskSpec, private_headers: Mapping[str, str], meta: TaskMeta
    ) -> bool | None:
        """Whether the source has other content now than ``meta`` tells of, or will surely not give it any more.

        None when that cannot be found out: a source in trouble is not to be read again by everybody.
        """

    def supports(self, scheme: str) -> bool:
        """Whether this host can read URLs of the scheme."""

    def schemes(self) -> tuple[str, ...]:
        """The schemes whose URLs this host can read. Cheap: asked at every renewal of the lease."""
