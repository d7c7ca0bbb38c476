"""Whose turn it is to be asked: how many at once, how many in a second, and newcomers beside those known. Pure.

Hosts known and candidates take turns while both wait, so that neither five hundred invented announcements keep
known hosts from being asked in time, nor many hosts that are gone a newcomer from being found.
"""

from __future__ import annotations

from math import inf
from typing import Literal

Lane = Literal["known", "new"]

AT_ONCE = 16
LANE_AT_ONCE = 12
"""Questions under way at most: of all, and of one kind."""
RATE, BURST = 20.0, 32.0
"""Questions in a second, and at once after a quiet time."""


class Turns:
    """A token bucket with two lanes. Times are seconds of any clock."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._filled = inf
        self._running: dict[Lane, int] = {"known": 0, "new": 0}
        self._last: Lane = "new"

    def take(self, now: float, *, known: bool, new: bool) -> Lane | None:
        """The lane that may ask now, of those in which somebody waits; ``done`` is to be called for it."""
        self._fill(now)
        if self._tokens < 1 or sum(self._running.values()) >= AT_ONCE:
            return None
        known, new = known and self._free("known"), new and self._free("new")
        if not known and not new:
            return None
        lane: Lane = "known" if known and (not new or self._last == "new") else "new"
        self._last = lane
        self._tokens -= 1
        self._running[lane] += 1
        return lane

    def undo(self, lane: Lane) -> None:
        """Nobody was asked after all."""
        self._tokens += 1
        self._running[lane] -= 1

    def done(self, lane: Lane) -> None:
        """A question was answered, or not."""
        self._running[lane] -= 1

    def earliest(self, now: float, *, known: float, new: float) -> float:
        """When ``take`` is next worth a try, where somebody waits from these times on; inf: after ``done``."""
        if sum(self._running.values()) >= AT_ONCE:
            return inf
        due = min(known if self._free("known") else inf, new if self._free("new") else inf)
        self._fill(now)
        return due if self._tokens >= 1 else max(due, now + (1 - self._tokens) / RATE)

    def _free(self, lane: Lane) -> bool:
        return self._running[lane] < LANE_AT_ONCE

    def _fill(self, now: float) -> None:
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._filled) * RATE)
        self._filled = now
