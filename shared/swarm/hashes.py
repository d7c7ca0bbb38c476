"""Digests of a task's whole content: each is computed once, while the pieces arrive, however many want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from shared.store import TaskContent
from shared.swarm.outputs import digest_of

if TYPE_CHECKING:
    from shared.swarm.task import HostTask


class Hashes:
    """Those of one task."""

    def __init__(self, task: HostTask) -> None:
        self._task = task
        self._found: dict[str, tuple[TaskContent, str]] = {}
        self._turns: dict[str, trio.Lock] = {}

    async def of(self, algorithm: str) -> str:
        """The digest in hexadecimal; waits for as long as pieces are missing.

        Cancellation leaves the work to the next one who waits for it, from the first piece on.
        """
        async with self._turns.setdefault(algorithm, trio.Lock()):
            found = self._found.get(algorithm)
            if found is not None and found[0] is self._task.content and self._task.complete:
                return found[1]
            digest = await digest_of(self._task, algorithm)
            if self._task.content is not None:
                self._found[algorithm] = self._task.content, digest
            return digest

    def forget(self) -> None:
        """The content is another one."""
        self._found.clear()
