"""Which scheduler decides for which task, and which one knows of it. Pure.

All that counts are the *deciding* members: those that can be used, or, while none can, those that could
last (or all). A task belongs to one of them (see ``ring``), by the id that all generations of its content have in
common. What not everybody may have (its scope is a secret, with which its pieces can be had) belongs to a member
that is trusted, where not all are. What a scheduler was told of a task is noted by a mark; a scheduler that may have
lost what it was told gets another mark, so that it is told again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shared.swarm import ring
from shared.task.identity import TaskSpec

REMEMBERED = 20_000
"""Tasks of which it is noted who knows of them before those are sorted out that nobody here has any more."""


MOST_CHANGES = 100
"""Comings and goings after which everything is found out anew."""


class Mark:
    """Stands for what one scheduler was told, since it was last known to know nothing."""

    __slots__ = ("member",)

    def __init__(self, member: str) -> None:
        self.member = member

    def __repr__(self) -> str:
        return f"<Mark of {self.member}>"


NOBODY = Mark("")
"""There was no scheduler when something happened."""


class Ownership:
    """Of the tasks of one host. ``spec_of`` gives the spec of a task that this host has, None for others."""

    def __init__(self, spec_of: Callable[[str], TaskSpec | None]) -> None:
        self.deciding: frozenset[str] = frozenset()
        self.trusted: str | None = None
        """Who decides for what not everybody may have; "" for nobody, None where all members are trusted."""
        self.aside = ""
        """A member that decides for nothing else."""
        self._spec_of = spec_of
        self._private: dict[str, bool] = {}
        self._marks: dict[str, Mark] = {}
        self._told: dict[str, Mark] = {}
        self._owners: dict[str, tuple[str, int]] = {}  # and after how many changes that was so
        self._changes: list[tuple[frozenset[str], frozenset[str]]] = []
        self._keys: dict[str, str] = {}
        self._farewells: dict[str, dict[str, float]] = {}
        self._limit = REMEMBERED

    # --- members ---------------------------------------------------------------------------------------

    def add(self, member: str) -> None:
        """A scheduler that knows nothing yet."""
        self._marks[member] = Mark(member)

    def remove(self, member: str) -> None:
        """A scheduler is none any more."""
        del self._marks[member]
        self._farewells.pop(member, None)

    def forgotten(self, member: str) -> None:
        """The scheduler knows nothing of this host: there is nothing to take leave of."""
        self._farewells.pop(member, None)

    def decide(self, usable: frozenset[str]) -> frozenset[str]:
        """These members can be used now. Those that do not decide any more, but are still there: what was on its
        way to them is told to others."""
        members = frozenset(self._marks) - {self.aside}
        before = self.deciding
        self.deciding = usable or (before & members) or members
        if self.deciding == before:
            return frozenset()
        self._changes.append((self.deciding - before, before - self.deciding))
        if len(self._changes) > MOST_CHANGES:
            self._changes.clear()
            self._owners.clear()
        lost = (before - self.deciding) & members
        for member in lost:
            self._marks[member] = Mark(member)
        return lost

    # --- tasks -----------------------------------------------------------------------------------------

    def owner(self, task_id: str) -> str:
        """Who decides for a task; "" when there is nobody."""
        if self.trusted is not None and self.is_private(task_id):
            return self.trusted
        if len(self.deciding) <= 1:
            return next(iter(self.deciding), "")
        known = self._owners.get(task_id)
        if known is not None and known[1] == len(self._changes):
            return known[0]
        found = ring.owner(self._candidates(known), self._key(task_id))
        if known is None and len(self._owners) >= self._limit:
            self._owners.clear()
        self._owners[task_id] = found, len(self._changes)
        return found

    def is_private(self, task_id: str) -> bool:
        """Whether not everybody may have the content of a task, as far as this host knows."""
        private = self._private.get(task_id)
        if private is None:
            spec = self._spec_of(task_id)
            if spec is None:
                return False
            private = self._note_private(task_id, bool(spec.scope))
        return private

    def _note_private(self, task_id: str, private: bool) -> bool:
        if len(self._private) >= self._limit:
            self._sort_out()
        self._private[task_id] = private
        return private

    def note(self, task_id: str, spec: TaskSpec) -> None:
        """The spec of a task was heard of; one that is another task's says nothing."""
        if spec.scope and task_id not in self._private and spec.task_id == task_id:
            self._note_private(task_id, True)
        if spec.generation and task_id not in self._keys and spec.task_id == task_id:
            if len(self._keys) >= self._limit:
                self._sort_out()
            self._keys[task_id] = spec.logical_id
            self._owners.pop(task_id, None)

    def is_told(self, task_id: str) -> bool:
        """Whether its owner knows of the task."""
        mark = self._told.get(task_id)
        return mark is not None and mark is self._marks.get(self.owner(task_id))

    def was_told(self, task_id: str) -> bool:
        """Whether anybody was told of the task, or would have been."""
        return task_id in self._told

    def moves(self, task_id: str) -> bool:
        """Whether another scheduler than its owner was told of the task last."""
        mark = self._told.get(task_id)
        return mark is not None and mark.member not in ("", self.owner(task_id))

    def tell(self, task_id: str, now: float) -> None:
        """Its owner is told of the task, all that there is; whoever was before is taken leave of."""
        owner = self.owner(task_id)
        before = self._told.get(task_id)
        self._told[task_id] = self._marks.get(owner, NOBODY)
        if before is not None and before.member != owner:
            self.take_leave(before.member, task_id, now)
        if owner in self._farewells:
            self._farewells[owner].pop(task_id, None)
        if len(self._told) > self._limit:
            self._sort_out()

    def drop(self, task_id: str, now: float) -> None:
        """Nothing of the task is here any more, which its owner is told; another one that knew of it hears it, too."""
        if self.moves(task_id):
            self.take_leave(self._told[task_id].member, task_id, now)
        self._told.pop(task_id, None)
        self._owners.pop(task_id, None)
        self._keys.pop(task_id, None)
        self._private.pop(task_id, None)

    # --- taking leave ----------------------------------------------------------------------------------

    def take_leave(self, member: str, task_id: str, now: float) -> None:
        """The member is to hear, in a while, that another one decides for the task now."""
        if member in self._marks:
            waiting = self._farewells.setdefault(member, {})
            if len(waiting) < self._limit:
                waiting.setdefault(task_id, now)

    @property
    def leaving(self) -> bool:
        """Whether anybody is to be taken leave of."""
        return any(self._farewells.values())

    def farewells(self, member: str, since: float, most: int) -> Iterator[str]:
        """Tasks that the member knows of, and does not decide for, since that time; each is given once."""
        waiting = self._farewells.get(member, {})
        for task_id, moved_at in list(waiting.items()):
            if moved_at > since or most <= 0:
                return
            del waiting[task_id]
            if self.owner(task_id) != member:
                most -= 1
                yield task_id

    # --- inside ----------------------------------------------------------------------------------------

    def _candidates(self, known: tuple[str, int] | None) -> frozenset[str]:
        """Who may have what somebody had a few changes ago: that one or a newcomer, while it has not gone."""
        if known is None:
            return self.deciding
        owner, changes = known
        since = self._changes[changes:]
        if any(owner in gone for _, gone in since):
            return self.deciding
        return frozenset((owner,)).union(*(come for come, _ in since)) & self.deciding

    def _key(self, task_id: str) -> str:
        key = self._keys.get(task_id)
        if key is not None:
            return key
        spec = self._spec_of(task_id)
        if spec is None or not spec.generation:
            return task_id
        key = self._keys[task_id] = spec.logical_id
        return key

    def _sort_out(self) -> None:
        for task_id in [task_id for task_id in self._told if self._spec_of(task_id) is None]:
            del self._told[task_id]
        for task_id in [task_id for task_id in self._keys if self._spec_of(task_id) is None]:
            del self._keys[task_id]
        for task_id in [task_id for task_id in self._private if self._spec_of(task_id) is None]:
            del self._private[task_id]
        self._limit = max(REMEMBERED, 2 * max(len(self._told), len(self._keys), len(self._private)))

    def __repr__(self) -> str:
        return f"<Ownership of {len(self._told)} tasks among {len(self.deciding)}>"
