"""Which hosts stand near each other, and who brings which pieces over a zone's border. Pure.

A host's zone is the first element of its location, else its subnet; a host of which neither is known is near
to everybody. Rules for content that a zone lacks:

* The pieces are cut into ``CLASSES`` classes (by number). Each has one *carrier*: the waiting host of the zone
  that takes its pieces from far parents. The others get them from hosts near by, so each crosses once.
* While no piece can have crossed yet, the classes are dealt anew to all who wait. From then on carriers keep
  theirs, since nobody else knows what they have asked for; newcomers are carriers only of what is orphaned.
* A carrier that is gone leaves its classes to those who have the fewest, at once.
* When a transfer takes so long that it pays, hosts without any class are given some of the others'. These are
  nobody's for a while, in which what was asked for arrives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

from scheduler.placement import stripe_count
from shared.protocol import CLASSES, HostLease

HANDOVER = 4.0
"""Seconds at least for which classes are nobody's when they change hands."""
ON_THE_WAY = 8
"""Pieces that a carrier may have asked for; it takes the time of so many until they are there."""
LEVEL_EVERY = 2.0
"""Seconds between two looks whether hosts without a class should be given some."""
WORTH = 20.0
"""Seconds that a zone's transfer must still take for a handover to pay."""

EVERYTHING = (1 << CLASSES) - 1


def zone_of(lease: HostLease) -> str:
    """The zone of a host, "" where it is not known."""
    return re.split(r"[/|]", lease.location, maxsplit=1)[0] or lease.network


def near(one: str, other: str) -> bool:
    """Whether hosts of these zones may exchange pieces freely."""
    return one == other or not one or not other


@dataclass(slots=True)
class Carriers:
    """The carriers of one zone: ``shares`` are their classes, as bits, in the order in which they came."""

    shares: dict[str, int] = field(default_factory=dict)
    _coming: list[tuple[float, str, int]] = field(default_factory=list)
    _level_at: float = inf
    _start: tuple[float, int] = (0.0, 0)

    def follow(self, hosts: list[str], now: float, *, held: Callable[[], int], fresh: bool) -> set[str]:
        """These hosts of the zone wait now, and ``held()`` pieces are in the zone. ``fresh``: no piece can have
        crossed yet. Gives those whose classes are others than before."""
        before = dict(self.shares)
        if fresh or not any(host in self.shares for host in hosts):
            self.shares, self._coming = deal(hosts), []
        else:
            staying = set(hosts)
            left = sum(share for host, share in self.shares.items() if host not in staying)
            left |= sum(share for _, host, share in self._coming if host not in staying)
            self._coming = [coming for coming in self._coming if coming[1] in staying]
            self.shares = {host: self.shares.get(host, 0) for host in hosts}
            self._give(left)
        if not self._idle():
            self._level_at = inf
        elif self._level_at == inf:
            self._start, self._level_at = (now, held()), now + LEVEL_EVERY
        return {host for host in before.keys() | self.shares.keys() if before.get(host, 0) != self.of(host)}

    def of(self, host: str) -> int:
        """The classes of a host, as bits."""
        return self.shares.get(host, 0)

    def hand_over(self, now: float) -> set[str]:
        """Classes on their way that have arrived; gives the hosts that have them now."""
        there = [coming for coming in self._coming if coming[0] <= now]
        self._coming = [coming for coming in self._coming if coming[0] > now]
        for _, host, share in there:
            self.shares[host] |= share
        return {host for _, host, _ in there}

    def level(self, now: float, *, held: int, lacking: int) -> set[str]:
        """Start to give hosts without a class some of the others', if it is time and pays: ``lacking`` pieces
        have still to come into the zone. Gives those who have fewer now."""
        if now < self._level_at:
            return set()
        self._level_at = now + LEVEL_EVERY if (idle := self._idle()) else inf
        since, before = self._start
        if not idle or lacking * (now - since) < WORTH * max(held - before, 1):
            return set()
        fair = CLASSES // min(len(self.shares), CLASSES)
        spare: list[int] = []
        poorer = set()
        for host, share in self.shares.items():
            mine = bits(share)
            surplus = min(len(mine) - fair, fair * len(idle) - len(spare))
            if surplus > 0:
                given = [mine[(2 * i + 1) * len(mine) // (2 * surplus)] for i in range(surplus)]
                self.shares[host] = share & ~mask(given)
                spare += given
                poorer.add(host)
        there = now + max(HANDOVER, ON_THE_WAY * len(poorer) * (now - since) / max(held - before, 1))
        for i, host in enumerate(idle):
            if given := spare[i :: len(idle)]:
                self._coming.append((there, host, mask(given)))
        self._level_at = inf if not self._idle() else self._level_at
        return poorer

    def postpone(self, now: float) -> None:
        """It cannot be told yet whether :meth:`level` pays."""
        if self._level_at <= now:
            self._level_at = now + LEVEL_EVERY

    def next_look(self) -> float:
        """When :meth:`hand_over` or :meth:`level` has something to do; infinite for never."""
        return min((when for when, _, _ in self._coming), default=self._level_at)

    def _idle(self) -> list[str]:
        """Those who carry nothing and are to get nothing, as far as there are classes for all."""
        coming = {host for _, host, _ in self._coming}
        idle = [host for host, share in self.shares.items() if not share and host not in coming]
        return idle[: max(CLASSES - (len(self.shares) - len(idle)), 0)]

    def _give(self, share: int) -> None:
        """To those who have the fewest; among them the newest, who have the most time."""
        for number in bits(share):
            newest = reversed(self.shares)
            poorest = min(newest, key=lambda host: self.shares[host].bit_count())
            self.shares[poorest] |= 1 << number

    def __repr__(self) -> str:
        shares = {host: share.bit_count() for host, share in self.shares.items()}
        return f"<Carriers {shares}, {len(self._coming)} handed over>"


@dataclass(slots=True)
class Crew:
    """Those of one zone who wait for a task: their ``ranks`` and the number of ``stripes`` among them, for what
    comes from a reader or seeder near by, and the ``carriers`` for what comes from far."""

    ranks: dict[str, int] = field(default_factory=dict)
    stripes: int = 1
    carriers: Carriers = field(default_factory=Carriers)

    def muster(self, hosts: list[str]) -> bool:
        """These wait now; True when there are more or fewer stripes than before."""
        before, self.stripes = self.stripes, stripe_count(len(hosts))
        self.ranks = {host: rank for rank, host in enumerate(hosts)}
        return before != self.stripes


def deal(hosts: Iterable[str]) -> dict[str, int]:
    """All classes, dealt one by one; who comes after the last one gets none."""
    names = list(hosts)
    dealt = names[:CLASSES]
    return dict.fromkeys(names, 0) | {
        host: mask(range(i, CLASSES, len(dealt))) for i, host in enumerate(dealt)
    }


def bits(share: int) -> list[int]:
    """The classes that a share has, ascending."""
    return [number for number in range(share.bit_length()) if share >> number & 1]


def mask(classes: Iterable[int]) -> int:
    """The share that has these classes."""
    share = 0
    for number in classes:
        share |= 1 << number
    return share
