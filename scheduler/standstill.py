"""The scheduler's clock: it stands still while the process does.

A process that was stopped, or whose machine slept, wakes up with all its deadlines passed, though nobody was late: what
hosts told it lies in its sockets still. Time that it did not see pass is therefore left out.
"""

from __future__ import annotations

import structlog
import trio

log = structlog.get_logger()

LOOK = 1.0
"""Seconds between looks at the clock."""
STANDSTILL = 4.0
"""Seconds without a look after which the process is taken to have stood still."""


class AwakeClock:
    """trio's clock, less the time in which this process stood still while :meth:`run` was running."""

    def __init__(self) -> None:
        self._left_out = 0.0
        self._looked: float | None = None

    def now(self) -> float:
        """Seconds; never goes back."""
        now = trio.current_time()
        if self._looked is not None:
            gap, self._looked = now - self._looked, now
            if gap > STANDSTILL:
                log.warning("this process stood still, and does not count that time", seconds=round(gap, 1))
                self._left_out += gap
        return now - self._left_out

    def at(self, time: float) -> float:
        """What trio's clock says when this one says ``time``."""
        return time + self._left_out

    async def run(self) -> None:
        """Look at the clock, until cancelled."""
        self._looked = trio.current_time()
        try:
            while True:
                await trio.sleep(LOOK)
                self.now()
        finally:
            self._looked = None
