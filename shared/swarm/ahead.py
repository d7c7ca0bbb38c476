"""The next pieces verified while those before them are sent, so that a client waits for only one of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from shared.errors import DragonetError
from shared.store import TaskContent
from shared.swarm.pulse import Pulse

if TYPE_CHECKING:
    from shared.swarm.host import Host
    from shared.swarm.task import HostTask

log = structlog.get_logger()

DEPTH = 3
"""Pieces that are verified before they are asked for."""


class Ahead:
    """Looks ahead in one content of a task, for one reader, in the host's nursery."""

    def __init__(self, host: Host, task: HostTask, content: TaskContent, since: float) -> None:
        """What was verified after ``since`` (by trio's clock) need not be verified again."""
        self._host = host
        self._task = task
        self._since = since
        self._content = content
        self._next = self._stop = 0
        self._running = False
        self._scope = trio.CancelScope()
        self._pulse = Pulse()

    def look(self, number: int, stop: int) -> None:
        """Verify some pieces from this one on, below ``stop``, as far as they are held."""
        self._next = max(self._next, number)
        self._stop = min(number + DEPTH, stop)
        if self._running or not self._wanted():
            return
        self._scope = trio.CancelScope()
        try:
            self._host.nursery.start_soon(self._run, self._scope)
        except RuntimeError:  # the host stops
            return
        self._running = True

    async def seen(self, number: int) -> None:
        """Return when nothing is being found out about this piece any more."""
        while self._running and self._next <= number < self._stop:
            await self._pulse.wait()

    async def aclose(self) -> None:
        """Nothing is left of it afterwards."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            while self._running:
                await self._pulse.wait()

    def _wanted(self) -> bool:
        """Whether there is a piece to be verified; ``_next`` is the first one then."""
        content = self._content
        while self._next < self._stop and content.checked(self._next, self._since):
            self._next += 1
        return self._next < self._stop and self._next in content.held

    async def _run(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while self._wanted():
                    (await self._content.open_piece(self._next, self._since)).close()
                    self._next += 1
                    self._pulse.beat()
        except DragonetError as error:  # the reader will see the same, and knows what to do
            log.debug("a piece cannot be read ahead", piece=self._next, cause=str(error))
            self._task.pulse.beat()  # perhaps it was damaged on disk: the task is not complete any more
        except Exception as error:
            log.error("reading ahead ended by a defect", piece=self._next, error=repr(error), exc_info=True)
        finally:
            self._running = False
            self._pulse.beat()
