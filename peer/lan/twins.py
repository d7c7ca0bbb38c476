"""Who gives way when two processes have the id of one host: the folder of one is a copy. Pure: time is passed in.

Who is new here gives way: nobody counts on it yet. What the other tells of its age decides only between two that
are both new, and not for long; who is *established* (somebody else has been present for a while) keeps its id
whatever is claimed, so that nobody can take the id of a host that works. And nobody takes another id often.
"""

from __future__ import annotations

from math import inf

NEWCOMER = 10.0
"""Seconds for which somebody else has to be present until a host is established."""
PATIENCE = 10.0
"""Seconds that the later one of two newcomers has to take another id."""
FIRST_PAUSE, LAST_PAUSE = 60.0, 3600.0
"""Seconds until a host may take another id again."""
MAX_MET = 16


class Twins:
    """The others with this host's id."""

    def __init__(self) -> None:
        self._met: dict[str, float] = {}  # since when the other should have given way; inf where it need not
        self._after = -inf
        self._pause = FIRST_PAUSE

    def gives_way(
        self, me: tuple[float, str], other: tuple[float, str], now: float, *, established: bool
    ) -> bool:
        """Whether this host is to take another id now, since another process answered with the one that it has.
        ``me`` and ``other``: when it began, in Unix seconds, and its instance."""
        since = self._met.pop(other[1], None)
        if since is None:
            since = inf if established or now < self._after else now
        self._met[other[1]] = since
        if len(self._met) > MAX_MET:
            del self._met[next(iter(self._met))]
        if since == inf or not (other < me or since + PATIENCE <= now):
            return False
        self._after, self._pause = now + self._pause, min(LAST_PAUSE, 2 * self._pause)
        self._met.clear()
        return True
