"""What a download has asked of which parent, and what it asks next. Pure: time (seconds) is passed in.

The rules of the choice itself lie in ``picker``; here is what they need to know: what is asked for already and
since when, and how long pieces have been known. Of pieces that stand in another zone and are for other children
to bring over, some become *overdue* for this one:

* those that have been known for ``far_patience``, once neither this host nor its parents near by have
  gained any piece for as long: whoever should bring them does not;
* a piece that a reader has been waiting for urgently for ``far_patience``.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from shared.swarm.config import SwarmConfig
from shared.swarm.picker import Demand, Holder, pick, slow_pieces
from shared.task.bitmap import Bitmap


class Asked(Protocol):
    """A parent, as far as the choice depends on it: what it offers, and what is asked of it now."""

    @property
    def offer(self) -> Holder: ...

    @property
    def asked(self) -> Collection[int]: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What the host lacks: ``missing`` are pieces that it could verify, of them ``urgent`` ones that readers wait
    for; ``known`` all that it could verify, ``held`` those that it has."""

    missing: Bitmap
    urgent: Bitmap
    known: Bitmap
    held: Bitmap


class Asking:
    """The requests of one download."""

    def __init__(self, config: SwarmConfig, rng: random.Random) -> None:
        self.requested: dict[int, float] = {}
        self.askers: Counter[int] = Counter()
        self._rng = rng
        self._far_patience = config.far_patience
        self._ages = Ages(config.stripe_patience)
        self._far_ages = Ages(config.far_patience)
        self._urgent_since: dict[int, float] = {}
        self._around = Bitmap()
        self._gained = 0.0

    def begin_again(self) -> None:
        """The content has another version now: what was known of the old one does not count."""
        self._ages.forget()
        self._far_ages.forget()
        self._urgent_since.clear()

    def pick(
        self, parent: Asked, others: Collection[Asked], wish: Wish, now: float, patience: float
    ) -> int | None:
        """The piece to ask ``parent`` for now, noted as requested; None: nothing.

        ``patience``: seconds after which a second parent may be asked for what another one still owes; where
        a piece takes longer than ``far_patience`` to cross, this counts instead.
        """
        self._ages.learn(wish.known, now)
        offer = parent.offer
        if not offer.held & wish.missing:
            return None
        offers = [other.offer for other in others]
        wanted = wish.missing - Bitmap(self.requested)
        demand = Demand(
            wanted=wanted,
            patient=self._ages.ripe(now),
            urgent=wish.urgent,
        )
        if offer.far:
            patience = max(patience, self._far_patience)
            demand.overdue = self._overdue(offers, wish, now, patience)
        if others and not (wanted and _available(wanted, [offer, *offers])):
            demand.slow = self._slow(parent, others, wish, now, patience)
        number = pick(offer, offers, demand, self._rng)
        if number is not None:
            self.requested[number] = now
            self.askers[number] += 1
        return number

    def settled(self, number: int) -> None:
        """A request ended: the piece is stored, or must be asked for again."""
        self.askers[number] -= 1
        if self.askers[number] <= 0:
            del self.askers[number]
            self.requested.pop(number, None)

    def _slow(
        self, parent: Asked, others: Collection[Asked], wish: Wish, now: float, patience: float
    ) -> Bitmap:
        """What may be asked for once more: across a border only when nothing has come for so long, and nothing
        that somebody near by is about to give."""
        far = parent.offer.far
        if far and now - self._gained < patience:
            return Bitmap()
        slow = slow_pieces(self.requested, now, patience) & wish.missing
        if far and slow:
            slow = slow - Bitmap(number for o in others if not o.offer.far for number in o.asked)
        return Bitmap(n for n in slow if self.askers[n] == 1 and n not in parent.asked)

    def _overdue(self, others: Collection[Holder], wish: Wish, now: float, patience: float) -> Bitmap:
        self._far_ages.learn(wish.known, now)
        around = wish.held.copy()
        for other in others:
            if not other.far:
                around = around | other.held
        if around != self._around:
            self._around, self._gained = around, now
        waited = {n: self._urgent_since.get(n, now) for n in wish.urgent}
        self._urgent_since = waited
        overdue = Bitmap(n for n, since in waited.items() if now - since >= patience)
        if now - self._gained >= patience:
            overdue = overdue | self._far_ages.ripe(now)
        return overdue


class Ages:
    """Which pieces have been known for ``patience`` seconds."""

    __slots__ = ("_known", "_patience", "_ripe", "_young")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.forget()

    def forget(self) -> None:
        """Begin again."""
        self._known, self._ripe = Bitmap(), Bitmap()
        self._young: deque[tuple[float, Bitmap]] = deque()

    def learn(self, known: Bitmap, now: float) -> None:
        """These are known by now."""
        new = known - self._known
        if new:
            self._known = self._known | new
            self._young.append((now, new))

    def ripe(self, now: float) -> Bitmap:
        """Those that were known ``patience`` seconds ago."""
        while self._young and self._young[0][0] <= now - self._patience:
            self._ripe = self._ripe | self._young.popleft()[1]
        return self._ripe


def _available(wanted: Bitmap, holders: Collection[Holder]) -> bool:
    """Whether some of the ``wanted`` pieces can be had from somebody without waiting for others to bring them
    over a border."""
    if not any(holder.far for holder in holders):
        return True
    return any(holder.free & wanted for holder in holders)
