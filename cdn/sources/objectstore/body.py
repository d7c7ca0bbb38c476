"""An answer of an object store, read chunk by chunk in worker threads.

A thread that waits for a chunk cannot be interrupted. When the caller goes (its deadline passed, or it was
cancelled), the thread is left behind and ends by itself, at the latest by obstore's own deadline; the buffer
that it was lent is taken back before, so that it never writes into memory that is somebody else's by then.
"""

from __future__ import annotations

import threading
import time
from email.utils import format_datetime
from typing import TYPE_CHECKING

import trio

from cdn.sources.interface import ContentRange, SourceCut, SourceResponse
from cdn.sources.objectstore.troubles import FOREIGN, Asked, body_error
from shared.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import GetResult, ObjectMeta

MIN_CHUNK = 64 * 1024
"""Bytes that obstore gathers at least for one chunk. Measured: 1 to 1 MiB are equally fast from loopback,
where chunks are of 400 KiB anyway; more costs another copy. Small, so that a slow source is not taken for
one that stands still."""

_SLICE = 0.1
"""Seconds after which a thread hands back what it has, so that limits and progress see a slow source."""


class _Lent:
    """A caller's buffer, until it is taken back."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._lock = threading.Lock()
        self.filled = 0

    def put(self, data: memoryview) -> int:
        """Copy what fits; gives how much that was, 0 when the buffer is full or taken back."""
        with self._lock:
            count = min(len(data), len(self._buffer) - self.filled)
            if count > 0:
                self._buffer[self.filled : self.filled + count] = data[:count]
                self.filled += count
            return max(count, 0)

    @property
    def full(self) -> bool:
        """Whether nothing more fits, now or ever."""
        return self.filled >= len(self._buffer)

    def take_back(self) -> None:
        """Nothing is written into the buffer any more, whatever a thread does."""
        with self._lock:
            self._buffer = memoryview(b"")


class ObjectResponse(SourceResponse):
    """The bytes of one object, or of a part of it. ``idle`` is the patience for the next ones, in seconds."""

    def __init__(
        self,
        result: GetResult,
        url: str,
        asked: Asked,
        limiter: trio.CapacityLimiter,
        *,
        part: bool,
        idle: float,
    ) -> None:
        meta = result.meta
        first, stop = result.range
        etag, last_modified = validators(meta)
        super().__init__(
            status=206 if part else 200,
            range=ContentRange(first, stop - 1, meta["size"]) if part else None,
            content_length=stop - first,
            etag=etag,
            last_modified=last_modified,
            content_type=result.attributes.get("Content-Type", ""),
            url=url,
        )
        self._stream: Iterator[bytes] | None = iter(result.stream(MIN_CHUNK))
        self._rest = memoryview(b"")
        self._received = 0
        self._broken: SourceError | None = None
        self._asked = asked
        self._limiter = limiter
        self._idle = idle

    async def receive_into(self, buffer: memoryview) -> int:
        if self._broken is not None:
            raise self._broken
        if not buffer or self._received == self.content_length:
            await trio.lowlevel.checkpoint()
            return 0
        if self._stream is None:
            raise self._cut("it was given up")
        stream, lent = self._stream, _Lent(buffer)
        self._stream = None
        try:
            with trio.move_on_after(self._idle) as scope:
                ended = await trio.to_thread.run_sync(
                    self._fill, stream, lent, abandon_on_cancel=True, limiter=self._limiter
                )
                self._stream = None if ended else stream
        finally:
            lent.take_back()
        self._received += lent.filled
        if scope.cancelled_caught:
            self._broken = self._cut(f"{self._asked.service.host} sent nothing for {self._idle:g} seconds")
        elif self._stream is None and self._broken is None and self._received < self.content_length:
            self._broken = self._cut("the answer ended")
        if self._broken is not None and not lent.filled:
            raise self._broken
        return lent.filled

    def _fill(self, stream: Iterator[bytes], lent: _Lent) -> bool:
        """In a thread: fill the buffer, or as much of it as time allows; True when nothing more will come."""
        begun = time.monotonic()
        rest, self._rest = self._rest, memoryview(b"")
        try:
            while not lent.full:
                if not rest:
                    if lent.filled and time.monotonic() - begun > _SLICE:
                        return False
                    chunk = next(stream, None)
                    if chunk is None:
                        return True
                    rest = memoryview(chunk)
                rest = rest[lent.put(rest) :]
            self._rest = rest
            # With all of it here the end is seen at once, and the connection is free for the next request.
            whole = self._received + lent.filled == self.content_length
            return whole and next(stream, None) is None
        except FOREIGN as error:
            self._broken = body_error(error, self._asked, self._received + lent.filled, self.content_length)
            return True

    def _cut(self, what: str) -> SourceCut:
        return SourceCut(
            f"{self._asked.shown} broke off after {self._received} of {self.content_length} bytes: {what}"
        )

    async def aclose(self) -> None:
        """Let go of the connection: what is not read any more is not fetched any more."""
        self._stream = None
        self._rest = memoryview(b"")
        await trio.lowlevel.checkpoint()


def validators(meta: ObjectMeta) -> tuple[str, str]:
    """The ETag in its quotes, and the time of change as an HTTP date; "" where the store gave none."""
    etag = meta["e_tag"] or ""
    if etag and not etag.endswith('"'):
        etag = f'"{etag}"'
    moment = meta["last_modified"]
    return etag, format_datetime(moment, usegmt=True) if moment.timestamp() > 0 else ""
