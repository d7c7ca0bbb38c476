"""Keeps plugins from eating the memory of the process, and stops the threads that were given up.

Python does not tell whose memory is whose. So the process is watched while plugins run: every twentieth of a
second what it has gained is charged to each of them by its share in the processor time since then, since
who fills memory is busy with it. A plugin that has more than it may is stopped: its call ends with an error
at once, its thread as :mod:`cdn.sources.plugins.threads` tells. What one instruction allocates is out of
reach of that, as it keeps everything else from running meanwhile; therefore the process may, while plugins
run, get no more than ``memory`` + ``SLACK`` within one tick (RLIMIT_DATA): beyond that the allocation fails,
in the plugin.

What this cannot do: tell apart what two busy plugins, or a busy plugin and a busy engine, allocate in the
same moment; keep the engine's own allocations from failing when a plugin has just reached the limit of the
tick; stop C code that goes on whatever fails; free what a plugin keeps after its call.
A plugin that leaks a little with every call is not noticed. Programs that a plugin starts inherit the limit,
each for itself. Who wants to be safe from a plugin does not install it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cdn.sources.plugins.memory import DataLimit, Memory, process_memory
from cdn.sources.plugins.threads import Job

TICK = 0.05
"""Seconds between two looks."""
LINGER = 40
"""Ticks without anything to watch after which the watching thread ends."""
SLACK = 1024**3
"""Bytes that may come within one tick from everybody else: above all the stacks of new threads."""
STOP_AGAIN = 1.0
"""Seconds after which a thread that was stopped and still runs is stopped again."""


class Account:
    """What one plugin may take: ``memory`` bytes for all that it does at a time, 0 for no limit."""

    def __init__(self, memory: int) -> None:
        self.memory = memory

    def __repr__(self) -> str:
        return f"<Account of {self.memory} bytes>"


class Use:
    """Something that a plugin does: a call, or an answer from its begin to its close.

    ``exceeded`` becomes true when it has taken too much memory; what waits for it is cancelled then.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.exceeded = False
        self.charged = 0.0
        self.base: int | None = None
        self.seen = 0.0
        self.jobs: set[Job[Any]] = set()
        self._finished = 0.0
        self._step: tuple[int, float] | None = None
        self._cancels: set[Callable[[], None]] = set()

    def enter(self, job: Job[Any]) -> None:
        """A job of this begins."""
        self.jobs.add(job)

    def leave(self, job: Job[Any]) -> None:
        """A job of this has ended."""
        self._finished += job.cpu()
        self.jobs.discard(job)

    @contextmanager
    def step(self) -> Iterator[None]:
        """The block runs code of the plugin in the present thread."""
        begun = time.thread_time()
        self._step = time.pthread_getcpuclockid(threading.get_ident()), begun
        try:
            yield
        finally:
            self._step = None
            self._finished += time.thread_time() - begun

    @contextmanager
    def cancelled_by(self, cancel: Callable[[], None]) -> Iterator[None]:
        """In the block, ``cancel`` (called in any thread) ends the waiting when too much is taken."""
        self._cancels.add(cancel)
        try:
            yield
        finally:
            self._cancels.discard(cancel)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        step = self._step
        running = 0.0 if step is None else time.clock_gettime(step[0]) - step[1]
        return self._finished + running + sum(job.cpu() for job in tuple(self.jobs))

    def exceed(self) -> None:
        """Too much was taken: end it."""
        self.exceeded = True
        for cancel in tuple(self._cancels):
            cancel()

    def __repr__(self) -> str:
        return f"<Use {self.charged:.0f} bytes, {len(self.jobs)} jobs>"


class Watch:
    """Looks after all uses of all plugins of the process, from a thread of its own while there are any."""

    def __init__(
        self,
        *,
        probe: Callable[[], Memory | None] = process_memory,
        limit: DataLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.process_time,
    ) -> None:
        self._probe = probe
        self._limit = limit or DataLimit()
        self._clock = clock
        self._busy = busy
        self._lock = threading.Lock()
        self._uses: weakref.WeakSet[Use] = weakref.WeakSet()
        self._late: dict[Job[Any], float] = {}
        self._last: tuple[int, float] | None = None
        self._frozen = False
        self._thread: threading.Thread | None = None

    def begin(self, use: Use) -> None:
        """Look after a use from now on."""
        with self._lock:
            found = self._probe() if use.account.memory else None
            if found is None:
                return
            use.base, use.seen = found.anonymous, use.cpu()
            if not self._uses:
                self._last = found.anonymous, self._busy()
            self._uses.add(use)
            if not self._frozen:
                self._bound(found)
            self._awake()

    def end(self, use: Use) -> None:
        """The use is over."""
        with self._lock:
            self._uses.discard(use)

    def late(self, job: Job[Any], after: float = 0.0) -> None:
        """Have a job stopped that nobody waits for any more, ``after`` so many seconds."""
        with self._lock:
            moment = self._clock() + after
            self._late[job] = min(moment, self._late.get(job, moment))
            self._awake()

    @property
    def watching(self) -> bool:
        """Whether there is anything to look after."""
        return bool(self._uses or self._late or self._limit.on)

    def tick(self) -> None:
        """One look."""
        self._stop_late()
        with self._lock:
            uses = tuple(self._uses)
            found = self._probe() if uses else None
            if found is None:
                self._limit.lift()
                self._frozen = False
                return
            self._charge(uses, found)
            # Who was stopped and runs on must not get more tick by tick.
            self._frozen = any(use.exceeded and use.jobs for use in uses)
            if not self._frozen:
                self._bound(found)
            over = self._over(uses)
        for use in over:
            use.exceed()
            for job in tuple(use.jobs):
                self.late(job)

    def _charge(self, uses: tuple[Use, ...], found: Memory) -> None:
        """Share out what the process has gained."""
        busy = self._busy()
        anonymous, before = self._last or (found.anonymous, busy)
        self._last = found.anonymous, busy
        gained, spent = found.anonymous - anonymous, busy - before
        for use in uses:
            cpu = use.cpu()
            share = min(1.0, (cpu - use.seen) / spent) if spent > 0 else 0.0
            use.seen = cpu
            most = max(0, found.anonymous - (use.base or 0))
            use.charged = min(max(0.0, use.charged + gained * share), most)

    @staticmethod
    def _over(uses: tuple[Use, ...]) -> list[Use]:
        """Of each account that is overdrawn, the use with the most."""
        running: dict[Account, list[Use]] = {}
        for use in uses:
            if not use.exceeded:
                running.setdefault(use.account, []).append(use)
        return [
            max(those, key=lambda use: use.charged)
            for account, those in running.items()
            if sum(use.charged for use in those) > account.memory
        ]

    def _bound(self, found: Memory) -> None:
        self._limit.set(found.data + max(use.account.memory for use in self._uses) + SLACK)

    def _stop_late(self) -> None:
        now = self._clock()
        with self._lock:
            for job in [job for job in self._late if job.settled]:
                del self._late[job]
            due = [job for job, moment in self._late.items() if moment <= now]
            for job in due:
                self._late[job] = now + STOP_AGAIN
        for job in due:
            if not job.stop():
                with self._lock:
                    self._late.pop(job, None)

    def _awake(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="plugin watch", daemon=True)
            with suppress(RuntimeError):  # no more threads are to be had: the next call tries again
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(TICK)
            with suppress(MemoryError):  # of all moments in this one; the next look is soon
                self.tick()
            with self._lock:
                idle = 0 if self._uses or self._late else idle + 1
                if idle > LINGER:
                    self._thread = None
                    return

    def __repr__(self) -> str:
        return f"<Watch of {len(self._uses)} uses, {len(self._late)} late>"


WATCH = Watch()
"""Of this process: memory and its limit are the process's, so is who looks after them."""
