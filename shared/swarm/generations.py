"""Which generation of a content this host knows to be the newest."""

from __future__ import annotations

from shared.store import Store, StoredTask
from shared.task.generation import in_generation
from shared.task.identity import TaskSpec

MAX_KNOWN = 100_000
"""Contents of which a later generation is remembered; beyond it the oldest knowledge goes."""


class MovedOn(Exception):
    """The source has other content now: ``spec`` is to be had instead. Never leaves this package."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec.generation)
        self.spec = spec


class Generations:
    """Those that are stored here, and those that the scheduler told of."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: dict[str, TaskSpec] = {}
        self._logical: dict[str, str] = {}
        for stored in store.tasks():
            if stored.spec.generation:
                self.note(stored.spec)
        store.on_removed.append(self._removed)

    def newest(self, spec: TaskSpec) -> TaskSpec:
        """The spec in the newest generation that is known."""
        if not self._newest:
            return spec
        newest = self._newest.get(spec.logical_id)
        if newest is None or newest.generation <= spec.generation:
            return spec
        return in_generation(spec, newest.generation)

    def note(self, spec: TaskSpec) -> None:
        """The source has had this generation; what is held of the one before goes first when room is needed."""
        logical = spec.logical_id
        before = self._newest.pop(logical, None)
        if before is not None and before.generation >= spec.generation:
            self._newest[logical] = before
            return
        before_id = logical if before is None else before.task_id
        self._logical.pop(before_id, None)
        self._store.supersede(before_id)
        self._newest[logical] = spec
        self._logical[spec.task_id] = logical
        if len(self._newest) > MAX_KNOWN:
            self._forget(next(iter(self._newest)))

    def stored(self, spec: TaskSpec) -> list[StoredTask]:
        """All generations of a content that are held here, the newest first. Goes through the whole store."""
        logical = spec.logical_id
        found = [
            stored
            for stored in self._store.tasks()
            if stored.task_id == logical or (stored.spec.generation and stored.spec.logical_id == logical)
        ]
        return sorted(found, key=lambda stored: stored.spec.generation, reverse=True)

    def _removed(self, task_id: str) -> None:
        logical = self._logical.get(task_id)
        if logical is not None:
            self._forget(logical)

    def _forget(self, logical: str) -> None:
        self._logical.pop(self._newest.pop(logical).task_id, None)
