"""How long a parent may take: deadlines and pipeline depth from measured piece times. Pure.

A fixed timeout is either so long that one stalled parent decides the whole download, or so short that
a slow network never gets a piece through. So the allowance follows what was measured, and doubles with
every miss.
"""

from __future__ import annotations

FLOOR = 2.0
"""Seconds that any piece may take, however fast the others were."""
UNMEASURED_RATE = 1024 * 1024
"""Bytes per second expected of a parent that has not delivered yet."""
UNMEASURED_GRACE = 3.0
FACTOR = 8.0
"""A piece may take so many times the measured mean."""
MAX_MISSES = 6
WEIGHT = 0.25
MIN_DEPTH, MAX_DEPTH = 2, 8


class Pace:
    """The measured speed of one parent: mean seconds per byte and mean latency, exponentially weighted."""

    __slots__ = ("latency", "misses", "seconds_per_byte")

    def __init__(self) -> None:
        self.seconds_per_byte: float | None = None
        self.latency: float | None = None
        self.misses = 0

    def delivered(self, size: int, seconds: float, latency: float) -> None:
        """A piece of ``size`` bytes took ``seconds`` from its first byte; its head came after ``latency``."""
        self.seconds_per_byte = _mix(self.seconds_per_byte, seconds / max(size, 1))
        self.latency = _mix(self.latency, latency)
        self.misses = 0

    def missed(self) -> None:
        """A piece did not come within its allowance."""
        self.misses = min(self.misses + 1, MAX_MISSES)

    def allowance(self, size: int, queued: int = 0) -> float:
        """Seconds that a piece of ``size`` bytes may take, ``queued`` others of that size being before it."""
        if self.seconds_per_byte is None or self.latency is None:
            base = UNMEASURED_GRACE + size / UNMEASURED_RATE
        else:
            base = max(FLOOR, FACTOR * (self.latency + self.seconds_per_byte * size))
        return base * (1 + queued) * 2.0**self.misses

    def depth(self, size: int) -> int:
        """How many requests of ``size`` bytes to keep outstanding so that the connection never idles."""
        if self.seconds_per_byte is None or self.latency is None:
            return MIN_DEPTH
        transfer = max(self.seconds_per_byte * size, 1e-6)
        return max(MIN_DEPTH, min(MAX_DEPTH, 2 + int(self.latency / transfer)))


def backoff(failures: int, *, first: float = 0.25, most: float = 30.0) -> float:
    """Seconds to leave a parent alone after so many failures in a row: doubling from ``first``."""
    return min(most, first * 2.0 ** max(failures - 1, 0))


def _mix(mean: float | None, value: float) -> float:
    return value if mean is None else mean + WEIGHT * (value - mean)
