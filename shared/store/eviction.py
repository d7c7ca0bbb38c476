"""What goes when room is needed: what its source no longer has, then what was least recently used; never what
is pinned or in use. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task that could go: its bytes, when it was last used (0: nobody asks for it any more), and whether it
    must stay."""

    task_id: str
    size: int
    accessed: float
    kept: bool


def choose(candidates: Iterable[Candidate], needed: int) -> list[str]:
    """The tasks to evict so that ``needed`` bytes come free, oldest use first.

    Nothing when what may go does not suffice: then evicting would only lose content.
    """
    if needed <= 0:
        return []
    chosen: list[str] = []
    freed = 0
    for candidate in _oldest_first(candidates):
        if candidate.size <= 0:
            continue
        chosen.append(candidate.task_id)
        freed += candidate.size
        if freed >= needed:
            return chosen
    return []


def choose_count(candidates: Iterable[Candidate], count: int) -> list[str]:
    """Up to ``count`` tasks to evict, whatever their size, oldest use first."""
    return [c.task_id for c in _oldest_first(candidates)[: max(0, count)]]


def expired(candidates: Iterable[Candidate], now: float, ttl: float) -> list[str]:
    """The tasks that nobody used for ``ttl`` seconds; none when it is 0."""
    if ttl <= 0:
        return []
    return [c.task_id for c in candidates if not c.kept and c.accessed + ttl <= now]


def _oldest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted((c for c in candidates if not c.kept), key=lambda c: (c.accessed, c.task_id))
