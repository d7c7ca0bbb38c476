"""Preheats on this host: what an image is made of is found out, contents are brought, the scheduler is told.

Each preheat has a task of its own in the host's nursery, with a deadline; few contents of all of them are
brought at the same time, so that whoever waits for something else is hardly disturbed. An order that comes
again (the stream broke, the scheduler's or this host's reports were lost) begins nothing twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Protocol, TypeVar

import structlog
import trio

from shared.errors import DragonetError, InvalidRequest, SourceError, Unavailable
from shared.nursery import open_nursery
from shared.protocol import (
    Failure,
    Preheated,
    PreheatItem,
    PreheatOver,
    PreheatWanted,
    Report,
    Resolved,
    ResolveWanted,
)
from shared.swarm.fetch import FetchOrder, fetch
from shared.swarm.host import Host
from shared.swarm.links_owner import PreheatOrder
from shared.task.identity import redact_url

log = structlog.get_logger()
T = TypeVar("T")

CONCURRENT = 4
"""Contents that are brought at the same time."""
TRIES = 3
FIRST_WAIT, READER_WAIT, LAST_WAIT = 2.0, 10.0, 60.0
"""Seconds between two tries, at first and later; a source that asks for more is given it, up to the last."""
MAX_WORDS = 2000
MAX_JOBS = 256
"""Preheats that are remembered until the scheduler says that they are over; the oldest go first."""


class Resolver(Protocol):
    """Knows images: ``cdn``'s part."""

    async def resolve(self, wanted: ResolveWanted, *, own_login: bool) -> Resolved:
        """What an image is made of. ``own_login``: this host may show its own one to the registry, if there is no
        other way. Raises DragonetError."""

    async def own_headers(self, url: str) -> dict[str, str]:
        """What this host shows for its own login to the registry of a URL; {} without one. Raises SourceError."""


class _Job:
    """A preheat, as far as this host has to do with it."""

    def __init__(self) -> None:
        self.over = False
        self.scopes: set[trio.CancelScope] = set()
        self.begun: set[str] = set()
        self.told: dict[str, Report] = {}

    @contextmanager
    def work(self, patience: float) -> Iterator[trio.CancelScope]:
        """Until it is over, or so many seconds have passed."""
        with trio.move_on_after(patience) as scope:
            self.scopes.add(scope)
            if self.over:
                scope.cancel()
            try:
                yield scope
            finally:
                self.scopes.discard(scope)

    def end(self) -> None:
        """Stop what is under way."""
        self.over = True
        for scope in self.scopes:
            scope.cancel()


class Preheats:
    """The preheats of a host. Reports go to ``host``; tasks live in its nursery."""

    def __init__(self, host: Host, resolver: Resolver, *, concurrent: int = CONCURRENT) -> None:
        self._host = host
        self._resolver = resolver
        self._slots = trio.Semaphore(concurrent)
        self._jobs: dict[int, _Job] = {}

    def ordered(self, order: PreheatOrder, *, own_login: bool = False) -> None:
        """The scheduler wants something, or nothing more. Returns at once. ``own_login``: this host may show its own
        login to a registry to find out what an image is made of."""
        match order:
            case ResolveWanted():
                self._begin(order.job, "image", order, own_login)
            case PreheatWanted():
                self._bring(order)
            case PreheatOver():
                self._forget(order.job)

    def reports(self) -> list[Report]:
        """All that was reported of preheats that are not over: for a scheduler that may not have heard it."""
        return [report for job in self._jobs.values() for report in job.told.values()]

    def __len__(self) -> int:
        return len(self._jobs)

    # --- orders ----------------------------------------------------------------------------------------

    def _begin(self, number: int, key: str, order: ResolveWanted, own_login: bool) -> None:
        job = self._job(number)
        if key in job.told:
            self._host.report(job.told[key])
        elif key not in job.begun:
            job.begun.add(key)
            self._host.nursery.start_soon(self._resolve, job, order, own_login)

    def _bring(self, order: PreheatWanted) -> None:
        job = self._job(order.job)
        fresh = []
        for item in order.items:
            task = item.spec.task_id
            if task in job.told:
                self._host.report(job.told[task])
            elif task not in job.begun:
                job.begun.add(task)
                fresh.append(item)
        if fresh:
            self._host.nursery.start_soon(self._run, job, order, fresh)

    def _job(self, number: int) -> _Job:
        job = self._jobs.get(number)
        if job is None:
            job = self._jobs[number] = _Job()
            if len(self._jobs) > MAX_JOBS:
                self._forget(next(iter(self._jobs)))
        return job

    def _forget(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            job.end()

    def _report(self, job: _Job, key: str, report: Report) -> None:
        if not job.over:
            job.told[key] = report
            self._host.report(report)

    # --- images ----------------------------------------------------------------------------------------

    async def _resolve(self, job: _Job, order: ResolveWanted, own_login: bool) -> None:
        failure = Failure(
            f"{order.image} could not be looked at within {order.patience:.0f} s", fault="reader"
        )
        resolve = partial(self._resolver.resolve, order, own_login=own_login)
        with job.work(order.patience):
            try:
                self._report(job, "image", await _patiently(resolve))
                return
            except DragonetError as error:
                failure = failure_of(error)
            except Exception as error:
                log.error("looking at an image ended by a defect", error=repr(error), exc_info=True)
                failure = Failure(f"a defect in dragonet: {type(error).__name__}", fault="reader")
        log.info("an image cannot be preheated", image=order.image, cause=failure.words)
        self._report(job, "image", Resolved(order.job, failure=failure))

    # --- contents --------------------------------------------------------------------------------------

    async def _run(self, job: _Job, order: PreheatWanted, items: Iterable[PreheatItem]) -> None:
        with job.work(order.patience):
            headers, may_read = await self._credentials(order)
            async with open_nursery() as nursery:
                for item in items:
                    await self._slots.acquire()
                    nursery.start_soon(self._bring_item, job, order.job, item, headers, may_read)

    async def _credentials(self, order: PreheatWanted) -> tuple[dict[str, str], bool]:
        """(private headers, whether this host may be told to read the origins)."""
        if not order.own_login:
            return order.headers, order.may_read
        try:
            headers = await self._resolver.own_headers(order.items[0].spec.url)
        except DragonetError as error:
            log.warning("this host's own login is not to be had", cause=str(error))
            headers = {}
        return headers, bool(headers)

    async def _bring_item(
        self, job: _Job, number: int, item: PreheatItem, headers: dict[str, str], may_read: bool
    ) -> None:
        task = item.spec.task_id
        try:
            order = FetchOrder(item.spec, headers, may_read=may_read)
            fetched = await _patiently(partial(fetch, self._host, order), waits_for_reader=not may_read)
            self._report(job, task, Preheated(number, task, fetched.length, fetched.bytes))
        except DragonetError as error:
            log.warning("a content cannot be preheated", url=redact_url(item.spec.url), cause=str(error))
            self._report(job, task, Preheated(number, task, failure=failure_of(error)))
        except Exception as error:
            log.error("a preheat ended by a defect", task=task, error=repr(error), exc_info=True)
            words = f"a defect in dragonet: {type(error).__name__}"
            self._report(job, task, Preheated(number, task, failure=Failure(words, fault="reader")))
        finally:
            self._slots.release()


async def _patiently(work: Callable[[], Awaitable[T]], *, waits_for_reader: bool = False) -> T:
    """Do it, and again where that may help. Raises what is no mere trouble, or trouble that lasts.

    ``waits_for_reader``: that nobody reads it yet lasts as long as it may.
    """
    wait = FIRST_WAIT
    for attempt in count(1):
        try:
            return await work()
        except DragonetError as error:
            unread = waits_for_reader and isinstance(error, SourceError) and error.fault == "reader"
            if not unread and (attempt >= TRIES or not _may_pass(error)):
                raise
            asked = error.retry_after or 0.0
        await trio.sleep(min(max(wait, asked), LAST_WAIT))
        wait = min(2 * wait, READER_WAIT)
    raise AssertionError("it is tried until it is done, or raises")


def failure_of(error: DragonetError) -> Failure:
    """The error as others are told it."""
    words = str(error)[:MAX_WORDS]
    if isinstance(error, SourceError):
        return Failure(words, error.origin_status, error.retry_after, error.fault)
    return Failure(
        words, None, error.retry_after, "request" if isinstance(error, InvalidRequest) else "reader"
    )


def _may_pass(error: DragonetError) -> bool:
    """Whether it may be over in a moment: nobody answers now, or too much is asked."""
    if isinstance(error, SourceError):
        status = error.origin_status
        return error.fault != "request" and (status is None or status in (408, 425, 429) or status >= 500)
    return isinstance(error, Unavailable)
