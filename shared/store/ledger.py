"""The store's books: which tasks there are, what they take, what is in use, and what goes for new content.

Everything here is immediate, so nobody sees it half done. It decides what to evict and does not do it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import trio

from shared.store.config import StoreConfig
from shared.store.content import disk_room
from shared.store.environment import full
from shared.store.eviction import Candidate, choose, choose_count, expired
from shared.store.records import StoredTask, TaskRecord
from shared.store.task import TaskContent
from shared.task.bitmap import Bitmap

DISK_CHECK = 0.5
"""Seconds for which a look at the free disk space holds."""


class Ledger:
    """Records by task id, the open contents, and the tasks that are being opened or removed right now."""

    def __init__(
        self, folder: Path, config: StoreConfig, records: dict[str, TaskRecord], clock: Callable[[], float]
    ) -> None:
        self.records = records
        self.open: dict[str, TaskContent] = {}
        self.turns: dict[str, trio.Lock] = {}
        self.used = sum(record.size for record in records.values())
        self._coming = 0  # bytes of pieces that are being written now
        self._folder = folder
        self._config = config
        self._clock = clock
        self._room: tuple[float, int] | None = None

    def gained(self, size: int) -> None:
        """So many bytes more are held (negative: fewer)."""
        self.used += size
        if self._room is not None:
            self._room = (self._room[0], self._room[1] - size)

    def coming(self, content: TaskContent, size: int) -> None:
        """So many bytes more of a content are being written, and need their room (negative: fewer)."""
        content.coming += size
        self._coming += size

    def opened(self, content: TaskContent) -> None:
        """A content was opened: what it really holds counts."""
        record = content.record
        self.gained(content.size - record.size)
        record.size = content.size
        if record.complete and not content.whole:
            record.complete = record.durable = False
        self.open[content.task_id] = content

    def strike(self, task_id: str) -> tuple[TaskRecord, TaskContent | None] | None:
        """Take a task out of the books; None when it is not in them."""
        record = self.records.pop(task_id, None)
        if record is None:
            return None
        content = self.open.pop(task_id, None)
        if content is not None:
            self.note(content)
            content.dropped = True
        self.gained(-record.size)
        return record, content

    def note(self, content: TaskContent) -> None:
        """Bring a record up to date with its open content."""
        content.record.held = content.held.to_bytes()
        content.record.size = content.size

    def touch(self, content: TaskContent) -> None:
        """Someone uses a content now."""
        content.record.accessed = self._clock()

    def in_use(self, task_id: str) -> bool:
        """Whether anyone but the store itself uses a content."""
        content = self.open.get(task_id)
        return content is not None and content.users > content.own_users

    # --- what goes -------------------------------------------------------------------------------------

    def fits(self, size: int) -> bool:
        """Whether ``size`` more bytes fit now. Raises StoreError when the disk cannot be looked at."""
        return self._shortage(size) <= 0

    def for_piece(self, size: int) -> list[str]:
        """The tasks to evict for ``size`` bytes more. Raises StoreFull, naming what is full."""
        if self.fits(size):
            return []
        self._room = None  # look again: someone may have made room on the disk
        shortage = self._shortage(size)
        chosen = choose(self._candidates(), shortage)
        if shortage > 0 and not chosen:
            quota = self._config.quota
            raise full("quota" if quota and self.used + self._coming + size > quota else "disk")
        return chosen

    def for_task(self, length: int | None) -> list[str]:
        """The tasks to evict for a new one. What unfinished ones in use still need is left to them.

        Raises StoreFull, naming what is full.
        """
        chosen = [] if not length else self.for_piece(length + self._promised())
        surplus = len(self.records) - len(chosen) + 1 - self._config.max_tasks
        if surplus > 0:
            more = choose_count([c for c in self._candidates() if c.task_id not in chosen], surplus)
            if len(more) < surplus:
                raise full("tasks")
            chosen += more
        return chosen

    def for_room(self, size: int) -> list[str]:
        """The tasks to evict for ``size`` bytes of disk, whatever the quota says; none: it cannot be had."""
        return choose(self._candidates(), size)

    def expired(self) -> list[str]:
        """The tasks whose time is over."""
        return expired(self._candidates(), self._clock(), self._config.ttl)

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(
                task_id,
                record.size,
                0.0 if record.superseded else record.accessed,
                record.pinned or task_id in self.turns or self.in_use(task_id),
            )
            for task_id, record in self.records.items()
        ]

    def _promised(self) -> int:
        """Bytes that unfinished contents of known length, in use now, are still going to take."""
        promised = 0
        for task_id in self.open.keys() | self.turns.keys():
            record, content = self.records.get(task_id), self.open.get(task_id)
            if record is not None and record.meta.length is not None and not record.complete:
                size = record.size if content is None else content.size + content.coming
                promised += max(0, record.meta.length - size)
        return promised

    def _shortage(self, size: int) -> int:
        """Bytes that are missing for ``size`` more; 0 or less when they fit.

        What is being written counts against the quota; of the disk it may have taken its part already.
        """
        quota = self._config.quota
        over_quota = self.used + self._coming + size - quota if quota else 0
        return max(over_quota, size - self._disk_room())

    def _disk_room(self) -> int:
        now = time.monotonic()
        if self._room is None or now - self._room[0] > DISK_CHECK:
            self._room = (now, disk_room(self._folder, self._config.disk_share))
        return self._room[1]

    # --- what there is ---------------------------------------------------------------------------------

    def view(self, task_id: str) -> StoredTask | None:
        """A task as callers see it."""
        record, content = self.records.get(task_id), self.open.get(task_id)
        if record is None:
            return None
        return StoredTask(
            task_id=task_id,
            spec=record.spec,
            meta=record.meta,
            held=Bitmap.from_bytes(record.held) if content is None else content.held.copy(),
            size=record.size if content is None else content.size,
            complete=record.complete,
            durable=record.durable,
            pinned=record.pinned,
            created=record.created,
            accessed=record.accessed,
            validated=record.validated,
            stale=record.stale,
            verified=record.verified,
            superseded=record.superseded,
        )
