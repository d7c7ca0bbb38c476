"""Content given to a caller from its first byte to its last, while its pieces still arrive in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shared.errors import PieceMissing
from shared.store import TaskContent

if TYPE_CHECKING:
    from shared.swarm.task import HostTask


class Taker(Protocol):
    """Who gets the content."""

    async def piece(self, data: memoryview) -> None:
        """The next piece. ``data`` is not there any more after the call; nothing else comes meanwhile."""

    async def again(self) -> None:
        """What was given is not the content any more, or could not be given to its end: it begins anew."""


class Pouring:
    """Gives a task's pieces to ``taker``, in order. ``poured`` is the content that was given to its end."""

    def __init__(self, taker: Taker) -> None:
        self.poured: TaskContent | None = None
        self._taker = taker
        self._begun = False

    async def run(self, task: HostTask) -> None:
        """Until cancelled; begins again whenever the content becomes another one."""
        while True:
            content = task.content
            if content is None or content is self.poured:
                await task.pulse.wait()
                continue
            if self._begun:
                await self._taker.again()
            self._begun = True
            if await self._pour(task, content):
                self.poured = content
                task.pulse.beat()

    async def _pour(self, task: HostTask, content: TaskContent) -> bool:
        """Whether all of it was given."""
        number = 0
        while task.content is content:
            layout = content.layout
            if layout is not None and number >= layout.count:
                return True
            if number not in content.held:
                await task.pulse.wait()
                continue
            try:
                async with content.read(number) as data:
                    await self._taker.piece(memoryview(data))
            except PieceMissing:
                task.pulse.beat()  # it was damaged on disk: the task is not complete any more
                continue
            number += 1
        return False
