"""What a plugin's answer is read from: bytes, open files and iterables in a worker thread, what is async in
the loop.
"""

from __future__ import annotations

import inspect
import io
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import trio

from cdn.sources.interface import SourceResponse
from cdn.sources.plugins.flow import Flow, Target
from cdn.sources.plugins.threads import Stop
from cdn.sources.plugins.words import Words

QUICK = 0.05
"""Seconds for which chunks are gathered once there is something to give."""
READ = 256 * 1024
"""Bytes asked of an open file at a time."""
END = object()
"""Instead of a chunk: no more come."""


class Closers:
    """What lets go of an answer, each called once: ``plain`` ones may block, ``later`` ones are async.

    What they raise is logged and no more: the content is as good as it was.
    """

    def __init__(self, words: Words, closers: Iterable[Callable[[], object]] = ()) -> None:
        self._words = words
        self.plain: deque[Callable[[], object]] = deque()
        self.later: deque[Callable[[], Any]] = deque()
        for closer in closers:
            (self.later if _is_async(closer) else self.plain).append(closer)

    def run_plain(self) -> None:
        """Call the plain ones. Blocking."""
        while True:
            try:
                closer = self.plain.popleft()
            except IndexError:
                return
            try:
                closed = closer()
            except Stop:
                raise
            except BaseException as error:  # noqa: BLE001 - logged by the next line
                self._words.raised(error, "close", None)
            else:
                if inspect.isawaitable(closed):
                    self.later.append(partial(_same, closed))

    async def run_later(self) -> None:
        """Await the async ones, until one of them raises."""
        while self.later:
            await self.later.popleft()()

    def __repr__(self) -> str:
        return f"<Closers {len(self.plain)} plain, {len(self.later)} async>"


class PlainBody:
    """Chunks that may block. ``fill`` is for one thread at a time.

    ``instant`` tells that nothing in it can block, ``busy`` that a thread is in it.
    """

    def __init__(self, next_chunk: Callable[[], object], flow: Flow, *, instant: bool = False) -> None:
        self.instant = instant
        self.busy = False
        self._next = next_chunk
        self._flow = flow

    def fill(self, target: Target) -> int:
        """Fill the target with what comes quickly; the number of bytes, 0 at the end."""
        flow, count, begun = self._flow, 0, time.monotonic()
        self.busy = True
        try:
            while count < target.size:
                if not flow.wanting:
                    given = flow.give(target, count)
                    if not given:
                        break
                    count += given
                elif count and time.monotonic() - begun > QUICK:
                    break
                else:
                    self._pull()
            return count
        finally:
            self.busy = False

    def _pull(self) -> None:
        chunk = self._next()
        if chunk is END:
            self._flow.end()
        else:
            self._flow.accept(chunk)

    def __repr__(self) -> str:
        return f"<PlainBody {self._flow!r}>"


class AsyncBody:
    """Chunks that are awaited."""

    def __init__(self, next_chunk: Callable[[], Awaitable[object]], flow: Flow) -> None:
        self._next = next_chunk
        self._flow = flow

    async def fill(self, target: Target) -> int:
        """As :meth:`PlainBody.fill`."""
        flow, count, begun = self._flow, 0, time.monotonic()
        while count < target.size:
            if not flow.wanting:
                given = flow.give(target, count)
                if not given:
                    break
                count += given
            elif count and time.monotonic() - begun > QUICK:
                break
            else:
                chunk = await self._next()
                if chunk is END:
                    flow.end()
                elif not flow.accept(chunk):
                    await trio.lowlevel.checkpoint()  # nothing at all, for ever, must not hold the loop
        return count

    def __repr__(self) -> str:
        return f"<AsyncBody {self._flow!r}>"


def open_body(words: Words, given: SourceResponse, flow: Flow, closers: Closers) -> PlainBody | AsyncBody:
    """How the answer is read; what closes what is opened with that is put to the ``closers``.

    Calls nothing of the plugin's that could block. Raises SourceError when its body is nothing of the kind.
    """
    body: Any = given.body
    if type(given).receive_into is not SourceResponse.receive_into:
        receive: Any = given.receive_into
        if inspect.iscoroutinefunction(receive):
            return AsyncBody(_Received(words, receive).anext, flow)
        return PlainBody(_Received(words, receive).next, flow)
    if isinstance(body, (bytes, bytearray, memoryview)):
        return PlainBody(partial(next, iter((body,)), END), flow, instant=True)
    if isinstance(body, AsyncIterable):
        return AsyncBody(_Awaited(body, closers).next, flow)
    file = _file(words, body)
    if file is not None:
        return PlainBody(file, flow)
    if isinstance(body, Iterable) and not isinstance(body, str):
        return PlainBody(_Iterated(body, closers).next, flow)
    raise words.gave(body, "the body of download", "it takes bytes, an iterable of bytes, or an open file")


def closers_of(words: Words, given: object) -> Closers:
    """What lets go of what ``download`` gave, whatever that is."""
    if not isinstance(given, SourceResponse):
        return Closers(words, _closing(given))
    overridden = type(given).aclose is not SourceResponse.aclose
    return Closers(words, [*_closing(given.body), *([given.aclose] if overridden else given.closers)])


class _Iterated:
    """Chunks of an iterable. ``iter`` is the plugin's code too: it runs where the chunks are taken."""

    def __init__(self, body: Iterable[object], closers: Closers) -> None:
        self._body = body
        self._closers = closers
        self._chunks: Iterator[object] | None = None

    def next(self) -> object:
        if self._chunks is None:
            self._chunks = iter(self._body)
            if self._chunks is not self._body:
                self._closers.plain.extendleft(_closing(self._chunks))
        chunk = next(self._chunks, END)
        if chunk is END and inspect.isgenerator(self._body) and self._body.close in self._closers.plain:
            self._closers.plain.remove(self._body.close)  # it is over: no thread is needed to close it
        return chunk


class _Awaited:
    """Chunks of an async iterable."""

    def __init__(self, body: AsyncIterable[object], closers: Closers) -> None:
        self._body = body
        self._closers = closers
        self._chunks: AsyncIterator[object] | None = None

    async def next(self) -> object:
        if self._chunks is None:
            self._chunks = aiter(self._body)
            if self._chunks is not self._body:
                self._closers.later.extendleft(_closing(self._chunks))
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            return END


class _Received:
    """Chunks that are put into a buffer: never the engine's, which whoever has it could keep."""

    def __init__(self, words: Words, receive: Callable[[memoryview], Any]) -> None:
        self._words = words
        self._receive = receive
        self._buffer: memoryview | None = None

    def next(self) -> object:
        return self._chunk(self._receive(self._view()))

    async def anext(self) -> object:
        return self._chunk(await self._receive(self._view()))

    def _view(self) -> memoryview:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(READ))
        return self._buffer

    def _chunk(self, count: object) -> object:
        if not isinstance(count, int) or not 0 <= count <= READ:
            raise self._words.gave(
                count, "the number of bytes received", "it takes 0 (the end) to the buffer's"
            )
        return self._view()[:count] if count else END


class _File:
    """Chunks of an open file, by the best of its methods that works."""

    def __init__(self, methods: Iterable[Callable[[], object]]) -> None:
        self._methods = deque(methods)

    def next(self) -> object:
        while True:
            try:
                return self._methods[0]()
            except (io.UnsupportedOperation, NotImplementedError):
                if len(self._methods) == 1:
                    raise
                self._methods.popleft()


def _file(words: Words, body: Any) -> Callable[[], object] | None:
    """How chunks are had from an open file; None when the body is none."""
    methods: list[Callable[[], object]] = [
        _Received(words, getattr(body, name)).next
        for name in ("readinto1", "readinto")
        if callable(getattr(body, name, None))
    ]
    if callable(getattr(body, "read", None)):
        methods.append(partial(_read, body))
    return _File(methods).next if methods else None


def _read(body: Any) -> object:
    chunk = body.read(READ)
    return END if isinstance(chunk, (bytes, str)) and not chunk else chunk


def _closing(thing: object) -> list[Callable[[], object]]:
    """The method that closes a thing, if it has one."""
    if isinstance(thing, (bytes, bytearray, memoryview)):
        return []
    for name in ("aclose", "close") if isinstance(thing, AsyncIterable) else ("close",):
        closer = getattr(thing, name, None)
        if callable(closer):
            return [closer]
    return []


def _is_async(closer: Callable[[], object]) -> bool:
    # (async generators' own ``aclose`` is no coroutine function)
    return inspect.iscoroutinefunction(closer) or getattr(closer, "__name__", "") == "aclose"


async def _same(found: Awaitable[object]) -> object:
    return await found
