"""The active tasks of a host: opened when someone needs them, closed when nobody has for a while."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import trio

from shared.errors import TaskNotFound
from shared.protocol import Failure
from shared.store import Store
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.task import HostTask, Reporter
from shared.task.identity import TaskSpec

MAX_IDLE = 128
"""Idle tasks that are kept open at most: each takes two open files, of which a process may have 1024 or fewer."""


class HostTasks:
    """Finds and opens tasks; counts who uses them. An idle task is closed after ``linger`` seconds, or when too
    many others are idle."""

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        metrics: SwarmMetrics,
        *,
        linger: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._metrics = metrics
        self._linger = linger
        self._clock = clock
        self._tasks: dict[str, HostTask] = {}

    def __iter__(self) -> Iterator[HostTask]:
        return iter(list(self._tasks.values()))

    def active(self, task_id: str) -> HostTask | None:
        """The task if it is open."""
        return self._tasks.get(task_id)

    @asynccontextmanager
    async def wanted(
        self, spec: TaskSpec, task_id: str, private_headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[HostTask]:
        """The task, with what the store holds of it, for the time of the context; new if need be.

        Whoever wants it names ``spec.url`` as a place where it can be read, showing ``private_headers``.
        """
        async with self.used(spec, task_id) as task:
            with task.places.named(spec, private_headers or {}):
                yield task

    @asynccontextmanager
    async def used(self, spec: TaskSpec, task_id: str) -> AsyncIterator[HostTask]:
        """As :meth:`wanted`, for somebody who names no place."""
        task = self._retain(spec, task_id)
        try:
            await self._make_room()
            await task.recall()
            yield task
        finally:
            self.release(task)

    async def held(self, task_id: str) -> HostTask:
        """A task of which something is held here, for serving; give it back with :meth:`release`.

        Raises TaskNotFound.
        """
        task = self._tasks.get(task_id)
        if task is not None and task.content is not None:
            task.users += 1
            return task
        stored = self._store.get(task_id)
        if stored is None:
            raise TaskNotFound("this host holds nothing of the task")
        task = self._retain(stored.spec, task_id)
        try:
            await self._make_room()
            await task.recall()
        except BaseException:
            self.release(task)
            raise
        return task

    def release(self, task: HostTask) -> None:
        """The counterpart of :meth:`held`."""
        task.users -= 1
        task.idle_since = trio.current_time()

    async def close_idle(self, older_than: float | None = None) -> None:
        """Close the tasks that nobody has used for ``older_than`` seconds (default: the linger)."""
        limit = trio.current_time() - (self._linger if older_than is None else older_than)
        for task in self:
            if task.idle_since <= limit:
                await self._close(task)

    async def _make_room(self) -> None:
        """Close what has been idle for longest while too much is."""
        if len(self._tasks) <= MAX_IDLE:
            return
        idle = sorted((task for task in self if not task.users), key=lambda task: task.idle_since)
        for task in idle[: max(0, len(idle) - MAX_IDLE)]:
            await self._close(task)

    async def _close(self, task: HostTask) -> None:
        if not task.users and self._tasks.get(task.id) is task:
            del self._tasks[task.id]
            await task.aclose()

    async def forget(self, task_id: str) -> None:
        """Close the task whoever uses it: its content is being removed."""
        task = self._tasks.pop(task_id, None)
        if task is not None:
            await task.aclose()

    async def refuse(self, task: HostTask, failure: Failure) -> None:
        """Remove content that must not be given to anybody; whoever waits for it here is told why."""
        if task.closed:
            return
        task.wrong = True
        task.fail(failure)
        await self.forget(task.id)
        await self._store.remove(task.id)

    async def aclose(self) -> None:
        """Close all tasks."""
        for task in self:
            self._tasks.pop(task.id, None)
            await task.aclose()

    def _retain(self, spec: TaskSpec, task_id: str) -> HostTask:
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = HostTask(
                spec, task_id, self._store, self._reporter, self._metrics, self._clock
            )
        task.users += 1
        return task
