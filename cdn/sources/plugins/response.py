"""A plugin's answer as the engine reads it: each wait for bytes is bounded, and so is letting go."""

from __future__ import annotations

from functools import partial

import structlog
import trio

from cdn.sources.interface import SourceRequest, SourceResponse
from cdn.sources.plugins.body import Closers, PlainBody, closers_of, open_body
from cdn.sources.plugins.calls import PluginCalls
from cdn.sources.plugins.flow import Flow, Target
from cdn.sources.plugins.guard import Use
from cdn.sources.plugins.words import Words
from shared.errors import SourceError

log = structlog.get_logger()

CLOSING = 5.0
"""Seconds, at most, that letting go of something may take."""


class PluginResponse(SourceResponse):
    """What ``download`` gave, checked already. ``use`` ends with the close."""

    def __init__(
        self, calls: PluginCalls, given: SourceResponse, request: SourceRequest, use: Use, closers: Closers
    ) -> None:
        part = given.range if given.status == 206 else None
        length = given.content_length
        if length < 0:
            length = -1 if part is None else len(part)
            if part is None and isinstance(given.body, (bytearray, memoryview)):
                length = memoryview(given.body).nbytes
        super().__init__(
            status=given.status,
            headers={str(name): str(value) for name, value in given.headers.items()},
            content_length=length,
            range=part,
            etag=given.etag,
            last_modified=given.last_modified,
            content_type=given.content_type,
            digest=given.digest,
            url=given.url or request.url,
            decoded=given.decoded,
        )
        self._calls = calls
        self._request = request
        self._use = use
        self._failure: SourceError | None = None
        self._closing = closers
        told = length if part is None else len(part)
        flow = Flow(calls.words, None if told < 0 else told, calls.memory)
        self._chunks_of = open_body(calls.words, given, flow, closers)

    async def receive_into(self, buffer: memoryview) -> int:
        """As in :class:`SourceResponse`; as many chunks at once as come quickly.

        Raises SourceError that names the plugin; SourceCut when fewer bytes came than it told. Cancelled, or
        after an error, it gives no more.
        """
        if self._failure is None and self._use.exceeded:
            self._failure = self._calls.words.memory("download")
        if self._failure is not None:
            raise self._failure
        target = Target(buffer)
        try:
            return await self._receive(target)
        except SourceError as error:
            self._failure = error
            raise
        except BaseException:
            self._failure = self._calls.words.error("is read no further: its answer was given up")
            raise
        finally:
            target.take_back()

    async def _receive(self, target: Target) -> int:
        calls, body = self._calls, self._chunks_of
        late = calls.words.silent()
        if not isinstance(body, PlainBody):
            fill = partial(body.fill, target)
            return await calls.in_loop("download", fill, self._use, late, request=self._request)
        if body.instant:
            await trio.lowlevel.checkpoint()
            return body.fill(target)
        return await calls.in_thread(
            "download",
            partial(body.fill, target),
            self._use,
            late,
            request=self._request,
            discard=lambda _: self._closing.run_plain(),
        )

    async def aclose(self) -> None:
        """Let go of what is behind the answer, also when cancelled; raises nothing.

        What a thread that was given up still works with is closed by that thread, when it returns.
        """
        body = self._chunks_of
        try:
            await let_go(
                self._calls, self._closing, self._use, busy=isinstance(body, PlainBody) and body.busy
            )
        finally:
            self._calls.done(self._use)


async def let_go(calls: PluginCalls, closers: Closers, use: Use, *, busy: bool = False) -> None:
    """Close, for a few seconds at most; the plain ones not while a thread is ``busy`` with them."""
    if not closers.plain and not closers.later:
        return
    late = calls.words.late("close")
    with trio.move_on_after(min(CLOSING, calls.timeout), shield=True):
        try:
            if closers.plain and not busy:
                await calls.in_thread("close", closers.run_plain, use, late)
            if closers.later:
                await calls.in_loop("close", closers.run_later, use, late)
        except SourceError as error:
            log.info("source plugin did not close its answer", reason=str(error))


def discard_given(words: Words, given: object) -> None:
    """Close what ``download`` gave when nobody waits for it any more. Blocking; what is async is left."""
    if given is not None:
        closers_of(words, given).run_plain()
