"""A repeatable wake-up for everyone who waits for something to change."""

from __future__ import annotations

import trio


class Pulse:
    """``beat()`` wakes all who are in ``wait()`` now. Check, then wait, with no await between."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def beat(self) -> None:
        """Something changed."""
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait(self) -> None:
        """Until the next beat."""
        await self._event.wait()
