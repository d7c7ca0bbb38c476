"""How often something is told aloud that others can make happen as often as they like. Pure: time is passed in."""

from __future__ import annotations

MOST = 32
REST = 10.0
"""So many lines at once, and one more every so many seconds."""


class Loudness:
    """Says whether there is room in the log for one more line; ``left_out`` is how many there was none for."""

    def __init__(self) -> None:
        self.left_out = 0
        self._room = float(MOST)
        self._at = 0.0

    def one_more(self, now: float) -> bool:
        """Whether to tell this at all."""
        self._room = min(MOST, self._room + max(0.0, now - self._at) / REST)
        self._at = now
        if self._room < 1:
            self.left_out += 1
            return False
        self._room -= 1
        return True
