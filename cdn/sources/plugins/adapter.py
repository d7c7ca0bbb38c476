"""A plugin's resource client as the engine uses it: async, on time, and held to what it promises.

Whatever a plugin does wrong ends as a SourceError that names the plugin and what it did. Nothing that it
raises goes further, SystemExit and its like included, and what it blocks are its own threads. What its
answers say of ranges and versions is judged by the engine (cdn.reading), as with every other source; what
the engine cannot judge is asked here, with one byte: whether the plugin keeps to ranges at all.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
import trio

from cdn.sources.interface import (
    AsyncResourceClient,
    ExpireInfo,
    ResourceClient,
    SourceEntry,
    SourceRequest,
    SourceResponse,
    unlistable,
)
from cdn.sources.plugins.body import Closers, closers_of
from cdn.sources.plugins.calls import PluginCalls
from cdn.sources.plugins.checks import (
    check_answer,
    check_entries,
    check_entry,
    check_length,
    check_methods,
    check_moment,
    check_truth,
)
from cdn.sources.plugins.guard import WATCH, Use
from cdn.sources.plugins.response import CLOSING, PluginResponse, discard_given, let_go
from cdn.sources.plugins.threads import Job
from cdn.sources.plugins.words import Unimplemented, Words
from shared.errors import SourceError

T = TypeVar("T")

__all__ = ["PluginClient", "adapt", "check_methods"]

log = structlog.get_logger()

PATIENCE = 0.5
"""Seconds that ``is_immutable``, which must not block, may do so: the only call that the loop waits for."""
KNOWN = 1024
"""URLs of which is remembered that the plugin keeps to their ranges."""


def adapt(
    client: ResourceClient, *, name: str, timeout: float, memory: int, secrets: Iterable[str] = ()
) -> AsyncResourceClient:
    """The plugin ``name``'s client for the engine; its methods may be plain, generators, or async.

    Each call, and each wait for the next bytes of an answer, ends within ``timeout`` seconds; the plugin may
    take ``memory`` bytes (0: no limit; see :mod:`cdn.sources.plugins.guard`). ``secrets`` are never shown.
    Raises SourceError when the client lacks methods.
    """
    check_methods(client)
    return PluginClient(client, PluginCalls(name, timeout, memory, secrets=secrets))


class PluginClient(AsyncResourceClient):
    """Made by :func:`adapt`. All methods raise SourceError only, and are cancelled at once."""

    def __init__(self, client: ResourceClient, calls: PluginCalls) -> None:
        self.plugin = calls.words.name
        self._client: Any = client
        self._calls = calls
        self._words = calls.words
        self._probed: OrderedDict[str, None] = OrderedDict()
        self._probing: dict[str, trio.Lock] = {}
        self._blocks = False

    async def get_content_length(self, request: SourceRequest) -> int:
        """Checked: bytes, or ``UNKNOWN_SOURCE_FILE_LENGTH``."""
        return check_length(self._words, await self._ask("get_content_length", request))

    async def is_support_range(self, request: SourceRequest) -> bool:
        """Checked."""
        return check_truth(self._words, await self._ask("is_support_range", request), "is_support_range")

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """Checked; never where the plugin does not implement it."""
        try:
            return check_truth(self._words, await self._ask("is_expired", request, info), "is_expired")
        except Unimplemented:
            return False

    async def get_last_modified(self, request: SourceRequest) -> int:
        """Checked; -1 where the plugin does not implement it."""
        try:
            return check_moment(self._words, await self._ask("get_last_modified", request))
        except Unimplemented:
            return -1

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        """Checked; relative URLs become whole ones."""
        method = getattr(self._client, "list", None)
        if method is None:
            raise unlistable(request.url)
        with self._using() as use:
            try:
                found = await self._calls.call("list", method, own(request), use=use)
                return await self._entries(found, request, use)
            except Unimplemented:
                raise unlistable(request.url) from None

    async def _entries(self, found: object, request: SourceRequest, use: Use) -> Sequence[SourceEntry]:
        late = self._words.late("list")
        if isinstance(found, AsyncIterable):
            gather = partial(_gather, self._words, found, request.url)
            return await self._calls.in_loop("list", gather, use, late, request=request)
        check = partial(check_entries, self._words, found, request.url)
        return await self._calls.in_thread("list", check, use, late, request=request)

    async def download(self, request: SourceRequest) -> SourceResponse:
        """Checked; its bytes are, while they come (see :class:`PluginResponse`)."""
        if request.range is not None and request.range[0] > 0 and request.url not in self._probed:
            lock = self._probing.setdefault(request.url, trio.Lock())
            try:
                async with lock:
                    if request.url not in self._probed:
                        await self._probe(request, request.range[0])
            finally:
                if not lock.statistics().tasks_waiting:
                    self._probing.pop(request.url, None)
        return await self._download(request)

    async def _probe(self, request: SourceRequest, first: int) -> None:
        """Have one byte of a range. Raises SourceError when more than that comes.

        An answer with other bytes than those asked for would be taken for what it says it is, and be seen to
        be too long only after its pieces were stored.
        """
        asked = dataclasses.replace(request, range=(first, first))
        async with await self._download(asked) as answer:
            part = answer.range
            if part is not None and len(part) == 1:
                buffer = memoryview(bytearray(1))
                while await answer.receive_into(buffer):
                    pass
        self._probed[request.url] = None
        if len(self._probed) > KNOWN:
            self._probed.popitem(last=False)

    async def _download(self, request: SourceRequest) -> PluginResponse:
        calls, use = self._calls, self._calls.use()
        closers = Closers(self._words)
        try:
            given = await calls.call(
                "download",
                self._client.download,
                own(request),
                use=use,
                discard=partial(discard_given, self._words),
            )
            closers = self._look(partial(closers_of, self._words, given), request)
            if use.exceeded:
                raise self._words.memory("download")
            checked = self._look(partial(check_answer, self._words, given, request), request)
            answer = self._look(partial(PluginResponse, calls, checked, request, use, closers), request)
            if answer.content_length == 0:
                # Nobody would read it, so nobody would see that there is something.
                await answer.receive_into(memoryview(bytearray(1)))
        except BaseException:
            await let_go(calls, closers, use)
            calls.done(use)
            raise
        return answer

    def _look(self, look: Callable[[], T], request: SourceRequest) -> T:
        """Look at what the plugin gave, whose attributes may be code of the plugin's as well."""
        failure: SourceError
        try:
            return look()
        except BaseException as error:  # noqa: BLE001 - as wherever the plugin's code runs
            failure = self._words.raised(error, "download", request)
        raise failure

    def is_immutable(self, request: SourceRequest) -> bool:
        """False for everything that goes wrong. A plugin whose answer takes too long is not asked again."""
        method = getattr(self._client, "is_immutable", None)
        if method is None or self._blocks or _is_default(method):
            return False
        done = threading.Event()
        job: Job[object] = Job(
            partial(method, own(request)),
            partial(self._words.raised, what="is_immutable", request=request),
            ended=lambda _: done.set(),
        )
        trio.lowlevel.start_thread_soon(job.run, lambda _: None, f"plugin {self.plugin}")
        if not done.wait(PATIENCE) and job.abandon():
            self._blocks = True
            WATCH.late(job)
            log.warning("source plugin blocks in is_immutable and is not asked again", plugin=self.plugin)
            return False
        try:
            if job.error is not None:
                raise job.error
            return check_truth(self._words, job.value, "is_immutable")
        except SourceError as error:
            log.info("source plugin cannot tell whether content is immutable", reason=str(error))
            return False

    async def close(self) -> None:
        """Let the plugin close, for a few seconds at most; nothing is raised."""
        method = getattr(self._client, "close", None)
        if method is None:
            return
        with self._using() as use, trio.move_on_after(min(CLOSING, self._calls.timeout)):
            try:
                await self._calls.call("close", method, use=use)
            except SourceError as error:
                log.info("source plugin did not close", reason=str(error))

    async def _ask(self, what: str, request: SourceRequest, *rest: object) -> object:
        with self._using() as use:
            return await self._calls.call(what, getattr(self._client, what), own(request), *rest, use=use)

    @contextmanager
    def _using(self) -> Iterator[Use]:
        use = self._calls.use()
        try:
            yield use
        finally:
            self._calls.done(use)

    def __repr__(self) -> str:
        return f"<PluginClient {self.plugin} of {self._calls!r}>"


def own(request: SourceRequest) -> SourceRequest:
    """The request for a plugin, whose changes to its headers reach nobody else."""
    return dataclasses.replace(request, headers=dict(request.headers))


def _is_default(method: object) -> bool:
    return getattr(method, "__func__", None) is ResourceClient.is_immutable


async def _gather(words: Words, found: AsyncIterable[object], folder: str) -> list[SourceEntry]:
    return [check_entry(words, value, folder) async for value in found]
