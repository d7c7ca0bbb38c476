"""Which piece to ask a parent for next. Pure: bitmaps and counts in, a number out.

Rules, in this order:

1. From a parent with a stripe, pieces of one's own stripe first: first copies leave a seeder disjoint,
   so that its uplink is spent on new bytes (the fluid bound needs that). They leave it in order, which
   costs the swarm nothing, since nobody else has them yet, and feeds those who read in order.
2. Rarest first among what the parents hold; ties are broken at random, so that a swarm mixes.
3. Pieces of another child's stripe only when no peer holds them and that child had its time.
4. Endgame: when nothing else is left, a piece that another parent is slow with, once more.
5. From a parent in another zone only what no parent near by holds, and of that what the child is to carry over
   the border, in order; other pieces only when they are overdue, so that each crosses once.

Readers who stream want the first pieces first: ``urgent`` pieces go before the others. Stripes hold for them
too, so that many readers do not all have the same pieces sent by the seeder.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shared.protocol import CLASSES
from shared.task.bitmap import Bitmap


@dataclass(frozen=True, slots=True)
class Holder:
    """What one parent offers: the pieces it holds, and its stripe (index, count) if it has one. ``far``: it
    stands in another zone, and the child is to take pieces of the classes ``carries`` from it."""

    held: Bitmap
    stripe: tuple[int, int] | None = None
    far: bool = False
    carries: int = 0

    @property
    def free(self) -> Bitmap:
        """What the child may take from this parent whatever others do."""
        if not self.far:
            return self.held
        return self.held & Bitmap.classes(self.carries, CLASSES, self.held.stop)


@dataclass(slots=True)
class Demand:
    """What the child lacks, when it picks.

    ``wanted``: missing, digest known, requested from nobody. ``patient``: those of ``wanted`` that have
    been available for so long that another child's stripe need not be respected. ``slow``: requested
    from others too long ago (endgame candidates). ``urgent``: a reader waits for these. ``overdue``: other
    children should have brought them into this zone long ago.
    """

    wanted: Bitmap
    patient: Bitmap = field(default_factory=Bitmap)
    slow: Bitmap = field(default_factory=Bitmap)
    urgent: Bitmap = field(default_factory=Bitmap)
    overdue: Bitmap = field(default_factory=Bitmap)


def pick(parent: Holder, others: Iterable[Holder], demand: Demand, rng: random.Random) -> int | None:
    """The piece to request from ``parent``, or None when it has nothing that is wanted from it now.

    ``others`` are the child's other parents; what they hold decides what is rare.
    """
    offered = parent.held & demand.wanted
    holders = [holder for holder in others if not holder.far]
    if parent.far:
        return _over_the_border(parent, holders, offered, demand, rng)
    if offered:
        first = _lowest(_urgent(parent, holders, offered, demand))
        if first is not None:
            return first
        if parent.stripe is not None:
            own = _in_stripe(offered, parent.stripe)
            if own:
                return _lowest(_rare(own, holders))
            offered = _nobody_else_holds(offered & demand.patient, holders)
        if offered:
            return rarest(offered, holders, rng)
    return _lowest(parent.held & demand.slow)


def _over_the_border(
    parent: Holder, near: Iterable[Holder], offered: Bitmap, demand: Demand, rng: random.Random
) -> int | None:
    for holder in near:
        offered = offered - holder.held
    own, overdue = offered & parent.free, offered & demand.overdue
    for choice in ((own | overdue) & demand.urgent, own):
        if choice:
            return _lowest(choice)
    if overdue:
        return overdue.random(rng)
    return _lowest(parent.held & demand.slow)


def rarest(candidates: Bitmap, holders: Iterable[Holder], rng: random.Random) -> int:
    """The candidate that the fewest holders have; ties at random. ``candidates`` must not be empty."""
    return _rare(candidates, holders).random(rng)


def _rare(candidates: Bitmap, holders: Iterable[Holder]) -> Bitmap:
    common: list[Bitmap] = []  # by k: the candidates that more than k holders have
    for holder in holders:
        carried = candidates & holder.held
        for k, more in enumerate(common):
            common[k], carried = more | carried, more & carried
        if carried:
            common.append(carried)
    rare = candidates
    for more in common:
        rare = candidates - more
        if rare:
            break
    return rare or candidates


def slow_pieces(requested: Mapping[int, float], now: float, patience: float) -> Bitmap:
    """Of the requested pieces (number -> time asked) those whose answer takes longer than ``patience``."""
    return Bitmap(number for number, since in requested.items() if now - since > patience)


def _urgent(parent: Holder, holders: Iterable[Holder], offered: Bitmap, demand: Demand) -> Bitmap:
    urgent = offered & demand.urgent
    if not urgent or parent.stripe is None:
        return urgent
    return _in_stripe(urgent, parent.stripe) | _nobody_else_holds(urgent & demand.patient, holders)


def _in_stripe(pieces: Bitmap, stripe: tuple[int, int]) -> Bitmap:
    index, count = stripe
    return pieces & Bitmap.stripe(index, count, pieces.stop)


def _nobody_else_holds(pieces: Bitmap, holders: Iterable[Holder]) -> Bitmap:
    for holder in holders:
        if holder.stripe is None:
            pieces = pieces - holder.held
    return pieces


def _lowest(pieces: Bitmap) -> int | None:
    return next(iter(pieces), None)
