"""Whether held content is still what its source has, before it is given out again.

The scheduler knows, or has one host of the cluster ask the source (:class:`CheckGranted`). Where no
scheduler answers, this host asks by itself, once in ``TaskMeta.revalidate`` seconds. Whatever goes wrong on
the way counts as "nothing changed": the source is protected, and content that is here stays served, as
stale (``HostTask.stale``).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from shared.protocol import CheckGranted, FreshWanted, Report, SourceChecked, TaskFresh, TaskMeta, TaskMoved
from shared.swarm.generations import MovedOn
from shared.swarm.origin import Origin
from shared.swarm.pulse import Pulse
from shared.swarm.task import HostTask
from shared.task.generation import in_generation, next_generation
from shared.task.identity import TaskSpec, redact_url

if TYPE_CHECKING:
    from shared.swarm.host import Host

log = structlog.get_logger()

ASK_AGAIN = 5.0
"""Seconds without an answer after which the scheduler is asked once more."""
WATCH = 0.5
"""Seconds between looks at whether the scheduler has been silent for too long."""
LONGEST_ANSWER = 40.0
"""Seconds after which a scheduler that is there, and does not answer, is not waited for any more: what it
says later counts for the next one."""
ALONE_PATIENCE, ALONE_TREE_PATIENCE = 10.0, 60.0
"""Seconds that a source may take to answer a host that has no scheduler, and to list a folder for it."""


class _Question:
    """One content that somebody waits for, and what came out."""

    def __init__(self, task: HostTask, meta: TaskMeta) -> None:
        self.task = task
        self.meta = meta
        self.answered = False
        self.moved: TaskSpec | None = None
        self.pulse = Pulse()
        self.turn = trio.Lock()
        self.waiting = 0

    def answer(self, moved: TaskSpec | None = None) -> None:
        self.answered, self.moved = True, moved
        self.pulse.beat()


class Freshness:
    """What a host asks, and is asked, of the freshness of content."""

    def __init__(self, host: Host, origin: Origin, *, clock: Callable[[], float] = time.time) -> None:
        self._host = host
        self._origin = origin
        self._clock = clock
        self._questions: dict[str, _Question] = {}
        self._checks: set[str] = set()

    async def ensure(self, task: HostTask) -> None:
        """Return when the task may be given out as what its source has. Raises MovedOn when it has changed.

        At once, without a message, while it is known to be fresh, and for a task that nothing is known of:
        its registration is a question already.
        """
        meta = task.meta
        if meta is None or not self._outdated(task):
            return
        async with self._question(task, meta) as question, question.turn:
            if not question.answered:
                await self._find_out(question)
        if question.moved is not None:
            raise MovedOn(question.moved)

    def questions(self, task_id: str) -> list[Report]:
        """What the scheduler has to be asked of a task, if it was not heard."""
        question = self._questions.get(task_id)
        return [] if question is None or question.answered else [self._report(question)]

    # --- what the scheduler says -----------------------------------------------------------------------

    def told_fresh(self, told: TaskFresh) -> None:
        """The content may be given out for so long."""
        task = self._host.tasks.active(told.task)
        if task is not None:
            task.note_fresh(told.seconds, stale=told.stale)
        question = self._questions.get(told.task)
        if question is not None:
            question.answer()

    def told_moved(self, told: TaskMoved) -> None:
        """The source has other content now."""
        task = self._host.tasks.active(told.task)
        stored = self._host.store.get(told.task) if task is None else None
        spec = task.spec if task is not None else stored.spec if stored is not None else None
        if spec is not None:
            self._moved(told.task, in_generation(spec, told.generation))

    def check(self, nursery: trio.Nursery, granted: CheckGranted) -> None:
        """Ask the source, for the whole cluster; a check that is under way is left alone."""
        if granted.grant not in self._checks:
            self._checks.add(granted.grant)
            nursery.start_soon(self._check, granted)

    async def _check(self, granted: CheckGranted) -> None:
        try:
            task = self._host.tasks.active(granted.task)
            headers = task.places.headers(granted.spec) if task is not None else {}
            if self._origin.supports(granted.spec.scheme) and (headers or not granted.spec.scope):
                expired = await self._is_expired(granted.spec, headers, granted.meta, granted.patience)
                outcome = SourceChecked(granted.task, granted.grant, bool(expired), failed=expired is None)
            else:
                outcome = SourceChecked(granted.task, granted.grant, None)
            self._host.report(outcome)
        finally:
            self._checks.discard(granted.grant)

    # --- asking ----------------------------------------------------------------------------------------

    def _outdated(self, task: HostTask) -> bool:
        return task.fresh_for() <= 0 and (task.complete or self._host.sessions.begun(task.id))

    @asynccontextmanager
    async def _question(self, task: HostTask, meta: TaskMeta) -> AsyncIterator[_Question]:
        question = self._questions.get(task.id)
        if question is None or question.answered:
            question = self._questions[task.id] = _Question(task, meta)
        question.waiting += 1
        try:
            yield question
        finally:
            question.waiting -= 1
            over = question.answered or not question.waiting
            if over and self._questions.get(task.id) is question:
                del self._questions[task.id]

    async def _find_out(self, question: _Question) -> None:
        host = self._host
        patience = host.engine.config.scheduler_patience
        begun = trio.current_time()
        told_at = begun - ASK_AGAIN
        while not question.answered:
            now = trio.current_time()
            if host.link is None or host.link.lost_for(question.task.id) > patience:
                await self._ask_alone(question)
                return
            if now - begun > LONGEST_ANSWER:
                log.warning("the scheduler does not say whether content is fresh", task=question.task.id)
                self._keep_serving(question, stale=True)
                return
            if now - told_at >= ASK_AGAIN:
                told_at = now
                host.report(self._report(question))
            with trio.move_on_after(WATCH):
                await question.pulse.wait()

    async def _ask_alone(self, question: _Question) -> None:
        task = question.task
        headers, meta = task.places.headers(task.spec), task.meta or question.meta
        patience = ALONE_TREE_PATIENCE if task.spec.tree else ALONE_PATIENCE
        expired = await self._is_expired(task.spec, headers, meta, patience)
        if not expired:
            self._keep_serving(question, stale=expired is None)
            return
        log.info("content has changed at its source", task=task.id, url=redact_url(task.spec.url))
        generation = next_generation(task.spec.generation, self._clock())
        self._moved(task.id, in_generation(task.spec, generation))

    def _keep_serving(self, question: _Question, *, stale: bool) -> None:
        question.task.note_fresh(question.meta.revalidate or 0.0, stale=stale)
        question.answer()

    def _moved(self, task_id: str, spec: TaskSpec) -> None:
        self._host.generations.note(spec)
        self._host.sessions.move(task_id, spec)
        question = self._questions.get(task_id)
        if question is not None:
            question.answer(spec)

    async def _is_expired(
        self, spec: TaskSpec, headers: Mapping[str, str], meta: TaskMeta, patience: float
    ) -> bool | None:
        """None: this host cannot ask, or it cannot be found out."""
        if not self._origin.supports(spec.scheme):
            return None
        try:
            with trio.move_on_after(patience):
                return await self._origin.is_expired(spec, headers, meta)
        except Exception as error:
            log.error("a check ended by a defect", url=redact_url(spec.url), error=repr(error), exc_info=True)
        return None

    def _report(self, question: _Question) -> FreshWanted:
        task = question.task
        may_read = self._origin.supports(task.spec.scheme)
        return FreshWanted(task.id, task.spec, task.meta or question.meta, may_read)
