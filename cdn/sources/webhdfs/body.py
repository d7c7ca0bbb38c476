"""The bytes of a file in HDFS, none of which is given before it is known of which version it is."""

from __future__ import annotations

import trio

from cdn.sources.interface import ContentRange, SourceCut, SourceResponse
from cdn.sources.webhdfs.calls import Asked, WebHdfsCalls, mapped
from cdn.sources.webhdfs.protocol import FileStatus
from shared.errors import SourceError
from shared.http.client import ClientStream, HttpError

_BATCH = 256 * 1024
"""Bytes received for one check at least, where the file has as many."""

_BATCH_SECONDS = 1.0
"""After which bytes are checked and given even where the caller's buffer has room for more."""


class FileResponse(SourceResponse):
    """An answer from a data node.

    A data node finds a file by its path, and finds the blocks of a long file bit by bit, so a file that is
    replaced meanwhile may go on as the new one. The name node is therefore asked after the bytes have come
    and before they are given: when the file is then what it was before, so are they. That is one small call
    for each buffer of the caller, a piece mostly, or for each second.
    """

    def __init__(
        self,
        calls: WebHdfsCalls,
        asked: Asked,
        found: FileStatus,
        part: ContentRange | None,
        stream: ClientStream | None,
    ) -> None:
        super().__init__(
            status=200 if part is None else 206,
            range=part,
            content_length=found.length if part is None else len(part),
            etag=found.etag,
            last_modified=found.last_modified,
            content_type="application/octet-stream",
            url=asked.request.url,
        )
        self._calls = calls
        self._asked = asked
        self._found = found
        self._stream = stream
        self._left = self.content_length
        self._checked = memoryview(b"")
        self._failure: SourceError | None = None

    async def receive_into(self, buffer: memoryview) -> int:
        """As in :class:`SourceResponse`; SourceCut also when the file is no longer what it was."""
        if not self._checked:
            if not self._left or not len(buffer):
                return 0
            if len(buffer) >= min(_BATCH, self._left):
                return await self._batch(buffer[: self._left])
            own = memoryview(bytearray(min(_BATCH, self._left)))
            self._checked = own[: await self._batch(own)]
        count = min(len(buffer), len(self._checked))
        buffer[:count] = self._checked[:count]
        self._checked = self._checked[count:]
        return count

    async def _batch(self, room: memoryview) -> int:
        """Receive into ``room`` until it is full or a second is over; what came before a failure is good."""
        filled, until = 0, trio.current_time() + _BATCH_SECONDS
        while self._failure is None and filled < len(room) and (not filled or trio.current_time() < until):
            try:
                filled += await self._receive(room[filled:])
            except SourceError as error:
                self._failure = error
        if not filled and self._failure is not None:
            raise self._failure
        if filled == self._left:
            await self._expect_end()
        await self._check()
        self._left -= filled
        return filled

    async def _receive(self, room: memoryview) -> int:
        if self._stream is None:
            raise SourceCut(f"{self._asked.shown} is read after its answer was closed")
        try:
            count = await self._stream.receive_into(room)
        except HttpError as error:
            raise mapped(error) from error
        if not count:
            raise SourceCut(f"the data node of {self._asked.shown} ended early")
        return count

    async def _expect_end(self) -> None:
        if self._stream is None or self._stream.content_length is not None:
            return
        try:
            extra = await self._stream.receive()
        except HttpError as error:
            raise mapped(error) from error
        if extra:
            raise misread(self._asked)

    async def _check(self) -> None:
        await check_unchanged(self._calls, self._asked, self._found)

    async def aclose(self) -> None:
        """Let go of the connection."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()


async def open_file(
    calls: WebHdfsCalls, asked: Asked, found: FileStatus, part: ContentRange | None
) -> FileResponse:
    """Begin to read a file, or a part of it. Raises SourceError; SourceCut when it is not as ``found``."""
    first, length = (0, found.length) if part is None else (part.first, len(part))
    if not length:
        return FileResponse(calls, asked, found, part, None)
    stream = await calls.open(asked, first, length)
    try:
        if stream.content_length not in (None, length):
            await check_unchanged(calls, asked, found)
            raise misread(asked)
        if stream.headers.get("content-encoding", "identity").lower() != "identity":
            raise SourceError(f"{asked.shown} comes in an encoding that was not asked for")
        return FileResponse(calls, asked, found, part, stream)
    except BaseException:
        await stream.aclose()
        raise


async def check_unchanged(calls: WebHdfsCalls, asked: Asked, found: FileStatus) -> None:
    """Raises SourceCut when the file is another one than ``found`` by now."""
    now = await calls.status(asked)
    if (now.etag, now.length) != (found.etag, found.length):
        raise SourceCut(f"{asked.shown} changed while it was read")


def misread(asked: Asked) -> SourceError:
    """The error for an answer with more or fewer bytes than it should have."""
    return SourceError(f"the data node of {asked.shown} did not send the bytes that were asked for")
