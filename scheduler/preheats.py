"""Preheats: contents that are brought to hosts before anybody asks for them. Pure state, time passed in.

A job goes from *queued* over *resolving* (an image: a host finds out what it is made of) and *running* (hosts
bring its contents) to its end: *succeeded*, *partial* (some of it failed), *failed* or *cancelled*. What each
host has yet to bring is a set of item numbers; every number leaves it exactly once, as done or as failed. When
all are empty the job has ended, and forgets the credentials that it came with.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from scheduler.errors import TooManyPreheats
from shared.protocol import Failure, PreheatItem
from shared.task.identity import TaskSpec

State = Literal["queued", "resolving", "running", "succeeded", "partial", "failed", "cancelled"]
Result = Literal["succeeded", "partial", "failed", "cancelled"]

MAX_FAILURES = 1000
"""Failures of one job that are told one by one; all are counted."""
MAX_ITEMS_KEPT = 100_000
"""Items of jobs that are over, all together; the oldest jobs are forgotten beyond it."""
MAX_QUEUED = 1000
"""Jobs that may wait for their turn."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Which hosts are to hold the content: ``among`` them a share in percent, or a number; else all."""

    among: Literal["seeders", "all"] = "seeders"
    percent: int | None = None
    count: int | None = None

    def choose(self, seeders: Iterable[str], others: Iterable[str], seed: int) -> list[str]:
        """The chosen ones, seeders first, the same for the same ``seed``; at least one where there is any."""
        rng = random.Random(f"preheat {seed}")
        hosts = sorted(seeders)
        rng.shuffle(hosts)
        if self.among == "all":
            rest = sorted(others)
            rng.shuffle(rest)
            hosts += rest
        if self.count is not None:
            return hosts[: max(1, self.count)]
        if self.percent is not None:
            return hosts[: max(1, math.ceil(len(hosts) * self.percent / 100))]
        return hosts

    def __str__(self) -> str:
        if self.count is not None:
            return f"{self.count}" if self.among == "all" else f"{self.count} of the seeders"
        if self.percent is not None:
            return f"{self.percent}%" if self.among == "all" else f"{self.percent}% of the seeders"
        return self.among


@dataclass(frozen=True, slots=True)
class PreheatOrder:
    """What is to be brought where: an ``image`` by its name, or the contents that ``specs`` tell of.

    ``headers`` are the credentials for reading it; ``shown`` is the order as people may see it.
    """

    shown: str
    image: str = ""
    specs: tuple[TaskSpec, ...] = ()
    platforms: tuple[str, ...] = ()
    targets: Targets = Targets()
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item that a host could not bring, and why."""

    item: int
    host: str
    failure: Failure


class Job:
    """One preheat. ``deadline``, ``began`` and ``ended`` are times of the scheduler's clock."""

    def __init__(self, number: int, order: PreheatOrder, now: float, timeout: float) -> None:
        self.id = number
        self.shown = order.shown
        self.image = order.image
        self.specs = order.specs
        self.platforms = order.platforms
        self.targets = order.targets
        self.headers = order.headers
        self.timeout = timeout
        self.created = now
        self.deadline = now + timeout
        self.began: float | None = None
        self.ended: float | None = None
        self.state: State = "queued"
        self.failure: Failure | None = None
        self.wake: float | None = self.deadline
        # resolving
        self.resolver = ""
        self.resolve_by = math.inf
        self.tried: set[str] = set()
        self.unmet_since: float | None = None
        # running
        self.private = False
        self.own_login = False
        self.notes: list[str] = []
        self.items: list[PreheatItem] = []
        self.left: dict[str, set[int]] = {}
        self.away: dict[str, float] = {}
        self.readers: set[str] = set()
        self.read: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        self.failed: Counter[int] = Counter()
        self.failures: deque[ItemFailure] = deque(maxlen=MAX_FAILURES)
        self.done_bytes = 0
        self.bytes: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self.ended is not None

    @property
    def hosts(self) -> list[str]:
        """Those that are to hold the content."""
        return list(self.left)

    def wants(self, host: str) -> list[PreheatItem]:
        """What the host has yet to bring."""
        return [self.items[number] for number in sorted(self.left.get(host, ()))]

    def number_of(self, task: str) -> int | None:
        """The number of the item with this task id."""
        return self._numbers.get(task)

    # --- events --------------------------------------------------------------------------------------

    def begin_resolving(self, now: float) -> None:
        """Its turn has come: what the image is made of is to be found out."""
        self.state, self.began = "resolving", now

    def begin_running(
        self, items: Iterable[PreheatItem], hosts: Iterable[str], now: float, readers: Iterable[str] = ()
    ) -> None:
        """All ``hosts`` are to bring all ``items``. ``readers``: only these may read the origins, so what none of
        them can read fails everywhere; () where that does not matter."""
        self.state = "running"
        self.began = now if self.began is None else self.began
        self.resolver = ""
        for item in items:
            task = item.spec.task_id
            if task not in self._numbers:
                self._numbers[task] = len(self.items)
                self.items.append(item)
        self.left = {host: set(range(len(self.items))) for host in hosts}
        self.readers = set(readers)
        self._conclude(now)

    def brought(self, host: str, task: str, length: int, sources: dict[str, int], now: float) -> bool:
        """The host holds an item; False when that was known, or it is none of this job's."""
        number = self._take(host, task)
        if number is None:
            return False
        self.done[number] += 1
        self.read[number] += host in self.readers
        self.done_bytes += length
        self.bytes.update(sources)
        self._conclude(now)
        return True

    def missed(self, host: str, task: str, failure: Failure, now: float) -> int:
        """The host could not bring an item; gives how many that makes, 0 when it was known."""
        number = self._take(host, task)
        if number is None:
            return 0
        count = self._fail(number, host, failure)
        self._conclude(now)
        return count

    def give_up(self, hosts: Iterable[str], failure: Failure, now: float) -> int:
        """All that these hosts had yet to bring has failed; gives how many items that were."""
        count = 0
        for host in list(hosts):
            self.away.pop(host, None)
            numbers = sorted(self.left.get(host, ()))
            if numbers:
                self.left[host] = set()
            for number in numbers:
                count += self._fail(number, host, failure)
        self._conclude(now)
        return count

    def end(self, result: Result, failure: Failure | None, now: float) -> None:
        """Nothing more is done for it, and its credentials are forgotten."""
        if self.over:
            return
        self.state, self.failure, self.ended, self.wake = result, failure, now, None
        self.headers = {}
        self.left = {host: set() for host in self.left}
        self.away = {}

    # --- inside --------------------------------------------------------------------------------------

    def _take(self, host: str, task: str) -> int | None:
        number = self._numbers.get(task)
        left = self.left.get(host)
        if number is None or left is None or number not in left or self.state != "running":
            return None
        left.discard(number)
        return number

    def _fail(self, number: int, host: str, failure: Failure) -> int:
        self.failed[number] += 1
        self.failures.append(ItemFailure(number, host, failure))
        if host not in self.readers or self.read[number]:
            return 1
        if any(number in self.left[reader] for reader in self.readers):
            return 1
        orphans = [other for other, left in self.left.items() if number in left]
        for other in orphans:
            self.left[other].discard(number)
            self.failed[number] += 1
            self.failures.append(ItemFailure(number, other, failure))
        return 1 + len(orphans)

    def _conclude(self, now: float) -> None:
        if self.state != "running" or any(self.left.values()):
            return
        if not self.failed:
            self.end("succeeded", None, now)
        else:
            failure = self.failures[0].failure
            self.end("partial" if self.done else "failed", failure, now)

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state}, {len(self.items)} items to {len(self.left)} hosts>"


class Jobs:
    """The jobs of a scheduler: those that go on, and the last ones that are over."""

    def __init__(self, *, history: int) -> None:
        self._history = history
        self._jobs: dict[int, Job] = {}
        self._last = 0

    def __iter__(self) -> Iterator[Job]:
        """All, the latest first."""
        return reversed(list(self._jobs.values()))

    def active(self) -> list[Job]:
        """Those that are not over, oldest first."""
        return [job for job in self._jobs.values() if not job.over]

    def get(self, number: int) -> Job | None:
        """The job of this id."""
        return self._jobs.get(number)

    def add(self, order: PreheatOrder, *, now: float, wall: float, timeout: float) -> Job:
        """A new job. Raises TooManyPreheats.

        Ids are numbers, since other programs' APIs have them so; they come from the clock (``wall``, Unix
        seconds), so that those of an earlier run of the scheduler are not taken for others.
        """
        if len(self.active()) >= MAX_QUEUED:
            raise TooManyPreheats(
                f"{MAX_QUEUED} preheats wait already: wait until some have ended, or cancel them"
            )
        self._last = max(self._last + 1, int(wall))
        job = self._jobs[self._last] = Job(self._last, order, now, timeout)
        self._forget_old()
        return job

    def next_deadline(self) -> float | None:
        """When a job has to be looked at."""
        return min((job.wake for job in self.active() if job.wake is not None), default=None)

    def _forget_old(self) -> None:
        over = [job for job in self._jobs.values() if job.over]
        items = sum(len(job.items) for job in over)
        surplus = len(over) - self._history
        for job in over:
            if surplus <= 0 and items <= MAX_ITEMS_KEPT:
                return
            surplus -= 1
            items -= len(job.items)
            del self._jobs[job.id]
