"""Calls of a plugin's functions, plain or async: each ends in time, with a value or a SourceError.

Plain functions run in worker threads, async ones in the loop. What a plain function waits for keeps nobody
else waiting; an async function must not block, because then everything waits, deadlines included. An async
function that catches its own cancellation and goes on holds its caller up: nothing can be done about that.
"""

from __future__ import annotations

import inspect
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, TypeVar, cast

import trio

from cdn.sources.interface import SourceRequest
from cdn.sources.plugins.guard import WATCH, Account, Use, Watch
from cdn.sources.plugins.threads import Job
from cdn.sources.plugins.words import Words
from shared.errors import SourceError

T = TypeVar("T")

THREADS = 32
"""Calls of one plugin at a time, those included that were given up and have not returned."""
STUCK = 8
"""Calls that have run for longer than they may, from which on the plugin is not called any more."""


class PluginCalls:
    """Calls one plugin's functions. ``timeout`` is in seconds, ``memory`` in bytes (0: no limit)."""

    def __init__(
        self,
        name: str,
        timeout: float,
        memory: int,
        *,
        secrets: Iterable[str] = (),
        threads: int = THREADS,
        watch: Watch = WATCH,
    ) -> None:
        self.words = Words(name, timeout, memory, secrets)
        self.timeout = timeout
        self.memory = memory
        self._account = Account(memory)
        self._watch = watch
        self._limiter = trio.CapacityLimiter(threads)
        self._abandoned: dict[Job[Any], float] = {}

    @property
    def stuck(self) -> int:
        """Calls that were given up, have run for longer than they may, and have not returned."""
        now = time.monotonic()
        return sum(1 for moment in tuple(self._abandoned.values()) if moment <= now)

    def use(self) -> Use:
        """Something that the plugin does; end it with :meth:`done`."""
        use = Use(self._account)
        self._watch.begin(use)
        return use

    def done(self, use: Use) -> None:
        """It is over."""
        self._watch.end(use)

    async def call(
        self,
        what: str,
        function: Callable[..., T | Awaitable[T]],
        *arguments: Any,
        use: Use,
        discard: Callable[[Any], None] = lambda _: None,
    ) -> T:
        """What ``function(*arguments)`` gives, in the end. ``what`` is its name in errors.

        ``discard`` gets the result of a call that nobody waits for any more, in its thread. Raises SourceError.
        """
        request = next((a for a in arguments if isinstance(a, SourceRequest)), None)
        late = self.words.late(what)
        if not inspect.iscoroutinefunction(function):
            found = await self.in_thread(
                what, partial(function, *arguments), use, late, request=request, discard=discard
            )
            if not inspect.isawaitable(found):
                return found
            return cast(T, await self.in_loop(what, partial(_same, found), use, late, request=request))
        return cast(T, await self.in_loop(what, partial(function, *arguments), use, late, request=request))

    async def in_thread(
        self,
        what: str,
        call: Callable[[], T],
        use: Use,
        late: SourceError,
        *,
        request: SourceRequest | None = None,
        discard: Callable[[Any], None] = lambda _: None,
    ) -> T:
        """Run a plain call in a worker thread. Raises SourceError: ``late`` when it takes too long.

        Cancellation takes effect at once; the thread is left alone, and stopped when it takes too long.
        """
        if self.stuck >= STUCK:
            raise self.words.stuck(self.stuck)
        job = Job(
            call,
            partial(self.words.raised, what=what, request=request),
            discard=discard,
            ended=partial(self._ended, use),
        )
        with trio.move_on_after(self.timeout) as waiting:
            await self._limiter.acquire_on_behalf_of(job)
        if waiting.cancelled_caught:
            raise self.words.busy(int(self._limiter.total_tokens))
        use.enter(job)
        taken = _Taken(self._limiter, job)
        failure = late
        try:
            with trio.move_on_after(self.timeout) as scope, use.cancelled_by(_canceller(scope)):
                await trio.to_thread.run_sync(
                    job.run,
                    thread_name=f"plugin {self.words.name}",
                    abandon_on_cancel=True,
                    limiter=cast(trio.CapacityLimiter, taken),
                )
        except RuntimeError:
            failure = self.words.threadless()
        finally:
            if not taken.handed:
                self._limiter.release_on_behalf_of(job)
            if job.abandon():
                if taken.handed and failure is late:
                    self._leave_behind(job, 0.0 if scope.cancelled_caught else self.timeout)
                else:
                    use.leave(job)  # it never began
        if job.succeeded and not job.abandoned:
            return cast(T, job.value)
        if use.exceeded:
            raise self.words.memory(what)
        raise job.error or failure

    def _leave_behind(self, job: Job[Any], patience: float) -> None:
        """Nobody waits for the job; after so many seconds it is stopped, and counts as stuck."""
        self._abandoned[job] = time.monotonic() + patience
        self._watch.late(job, patience)
        if job.settled:
            self._abandoned.pop(job, None)  # it has ended meanwhile

    def _ended(self, use: Use, job: Job[Any]) -> None:
        use.leave(job)
        self._abandoned.pop(job, None)

    async def in_loop(
        self,
        what: str,
        call: Callable[[], Awaitable[T]],
        use: Use,
        late: SourceError,
        *,
        request: SourceRequest | None = None,
    ) -> T:
        """Await an async call. Raises SourceError: ``late`` when it takes too long."""
        failure: SourceError | None = None
        with trio.move_on_after(self.timeout) as scope, use.cancelled_by(_canceller(scope)):
            try:
                return await _metered(_awaited(call), use)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - a plugin's SystemExit must not end the daemon
                cancelled = error.split(trio.Cancelled)[0] if isinstance(error, BaseExceptionGroup) else None
                if cancelled is not None:
                    raise cancelled from None
                failure = self.words.raised(error, what, request)
        if use.exceeded:
            raise self.words.memory(what)
        raise failure or late

    def __repr__(self) -> str:
        return f"<PluginCalls of {self.words.name}, {self.stuck} stuck>"


class _Taken:
    """A limiter's token that has been taken already, for ``trio.to_thread.run_sync``."""

    def __init__(self, limiter: trio.CapacityLimiter, job: Job[Any]) -> None:
        self.handed = False
        self._limiter = limiter
        self._job = job

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self.handed = True

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(self._job)


def _canceller(scope: trio.CancelScope) -> Callable[[], None]:
    token = trio.lowlevel.current_trio_token()

    def cancel() -> None:
        try:
            token.run_sync_soon(scope.cancel)
        except trio.RunFinishedError:
            return  # nobody waits any more

    return cancel


async def _same(found: Awaitable[T]) -> T:
    return await found


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


@types.coroutine
def _metered(work: Coroutine[Any, Any, T], use: Use) -> Generator[Any, Any, T]:
    """Await ``work``, with the processor time of each of its steps charged to ``use``."""
    send: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            with use.step():
                trap = send()
        except StopIteration as end:
            return cast(T, end.value)
        try:
            send = partial(work.send, (yield trap))
        except BaseException as error:  # noqa: BLE001 - handed on
            send = partial(work.throw, error)
