"""Grants that other schedulers gave, as far as hosts tell of reading under them. Pure state.

Such a grant is taken over at most once: who made no progress under it does not get it back by telling of it again.
"""

from __future__ import annotations

MAX_STRANGERS = 4096
"""Grants remembered; beyond it, those heard of first are forgotten."""


class Strangers:
    """What was heard of grants that this scheduler did not give."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._adopted: dict[str, None] = {}

    def known_for(self, grant: str, now: float) -> float:
        """Seconds since the grant was heard of first."""
        if grant not in self._heard:
            _make_room(self._heard)
            self._heard[grant] = now
        return now - self._heard[grant]

    def adopt(self, grant: str) -> None:
        """The grant is taken over."""
        self._heard.pop(grant, None)
        _make_room(self._adopted)
        self._adopted[grant] = None

    def was_adopted(self, grant: str) -> bool:
        """Whether it was taken over, now or earlier."""
        return grant in self._adopted


def _make_room(grants: dict[str, float] | dict[str, None]) -> None:
    while len(grants) >= MAX_STRANGERS:
        del grants[next(iter(grants))]
