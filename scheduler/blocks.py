"""What children say against parents, and for how long it counts. Pure.

A complaint makes the scheduler *avoid* the pair for a while, doubling with each further one: the parent is
assigned only where the child would have none otherwise. A parent that gave wrong bytes, or failed
``SHUN_STRIKES`` times, is *shunned*: for this child it does not exist until the time is over. What two
children (or the only one) call corrupt is *banned* from the task for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_BLOCK = 5.0
LONGEST_BLOCK = 60.0
BUSY_BLOCK = 1.0
SHUN_STRIKES = 3
FORGIVEN_AFTER = 120.0
"""Seconds without a complaint after which earlier ones no longer count."""
MAX_BLOCKS = 256
"""Parents that one child's complaints are remembered of."""


@dataclass(frozen=True, slots=True)
class Block:
    """A child's complaints about one parent."""

    since: float
    until: float
    strikes: int
    corrupt: bool = False

    def avoids(self, now: float) -> bool:
        """Whether another parent is to be preferred."""
        return now < self.until

    def shuns(self, now: float) -> bool:
        """Whether the parent is none at all for this child."""
        return now < self.until and (self.corrupt or self.strikes >= SHUN_STRIKES)


def complain(before: Block | None, reason: str, now: float, *, corrupt_for: float) -> Block:
    """The block after one more complaint; ``reason`` is TransferError.reason."""
    if before is not None and now - before.since > FORGIVEN_AFTER:
        before = None
    strikes = before.strikes if before is not None else 0
    corrupt = before is not None and before.corrupt and before.until > now
    until = before.until if before is not None else now
    if reason == "corrupt":
        return Block(now, max(until, now + corrupt_for), strikes + 1, True)
    if reason == "busy":
        return Block(now, max(until, now + BUSY_BLOCK), strikes, corrupt)
    length = min(LONGEST_BLOCK, FIRST_BLOCK * 2.0**strikes)
    return Block(now, max(until, now + length), strikes + 1, corrupt)


class Accusations:
    """Who is called corrupt, by whom, and who is banned for it. One for each task."""

    __slots__ = ("_accusers", "_bans", "_length")

    def __init__(self, length: float) -> None:
        self._length = length
        self._accusers: dict[str, dict[str, float]] = {}
        self._bans: dict[str, float] = {}

    def accuse(self, parent: str, child: str, now: float, *, only_child: bool) -> bool:
        """Note that ``child`` got wrong bytes from ``parent``; True when this bans the parent."""
        accusers = self._accusers.setdefault(parent, {})
        accusers[child] = now
        recent = [who for who, when in accusers.items() if now - when <= self._length]
        if len(recent) < 2 and not only_child:
            return False
        del self._accusers[parent]
        self._bans[parent] = now + self._length
        return True

    def banned(self, host: str, now: float) -> bool:
        """Whether nobody is to fetch from the host now."""
        return now < self._bans.get(host, now)

    def forget(self, host: str) -> None:
        """The host is another process now, or gone."""
        self._accusers.pop(host, None)
        self._bans.pop(host, None)
        for accusers in self._accusers.values():
            accusers.pop(host, None)

    def expire(self, now: float) -> list[str]:
        """Lift the bans whose time is over; gives the hosts."""
        over = [host for host, until in self._bans.items() if until <= now]
        for host in over:
            del self._bans[host]
        return over

    def next_expiry(self) -> float | None:
        """When the next ban is lifted."""
        return min(self._bans.values(), default=None)
