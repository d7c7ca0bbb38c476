"""Who becomes whose parent. Pure: what is known of the candidates in, the chosen ones out.

A good parent has pieces that the child lacks, stands near, and has free upload slots; complete ones and
seeders are slightly better, parents that the child has already are kept unless others are clearly better
(connections are worth something), and some chance mixes the swarm, so that it does not hang on the
first few holders. One of the list is always a reader of the origin or a seeder, if there is any: that is
where new pieces appear.

What the hosts of the child's own zone hold or are about to read is had from them alone. Where that is not all,
a few hosts of other zones come on top; the child keeps those that it has, since what was asked of them would
have to cross the border again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.protocol import CLASSES, Role
from shared.task.bitmap import Bitmap

USEFUL, NEAR, FREE, COMPLETE, SEEDER, KEPT, CHANCE = 4.0, 2.0, 2.0, 0.5, 0.25, 0.5, 1.0
EXACT_STRIPES = 8
MOST_STRIPES = 64
FAR_PARENTS = 2
"""Parents in other zones: few, so that little is on its way when something changes."""
COMPLEMENT = 4
"""Parents of the own zone that may be added because they hold what would have to come from another zone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that could be a parent of one child.

    ``useful``: holds something the child lacks, or reads the origin. ``children``: how many it has
    already; ``current``: the child is one of them. ``avoided``: the child complained about it lately. ``far``: it
    stands in another zone than the child. ``offers``: what it holds or is about to read and the child lacks;
    ``offers_all``: it reads everything.
    """

    host: str
    address: str
    role: Role
    location: str
    slots: int
    children: int
    useful: bool
    complete: bool
    reading: bool
    current: bool = False
    avoided: bool = False
    far: bool = False
    offers: Bitmap = field(default_factory=Bitmap)
    offers_all: bool = False

    @property
    def spring(self) -> bool:
        """Whether pieces come from here that nobody else has yet."""
        return self.reading or (self.role == "seeder" and self.useful)


def choose(
    candidates: Sequence[Candidate],
    location: str,
    limit: int,
    rng: random.Random,
    *,
    lacks: Bitmap | None,
    carries: int,
) -> list[Candidate]:
    """The parents of a child: as ``place`` finds them in its own zone, and others where these do not suffice.

    ``lacks``: the pieces that the child has not (None: their number is not known). ``carries``: the classes of
    those that it is to bring over the border of its zone.
    """
    far = [c for c in candidates if c.far and (c.useful or c.current)]
    close = [c for c in candidates if not c.far]
    if not any(c.useful for c in far) or _suffice(close, lacks):
        return place(close, location, limit, rng)
    chosen = place(close, location, limit, rng)
    chosen += _complement(close, chosen, carries)
    kept = [c for c in far if c.current and not c.avoided][: 2 * FAR_PARENTS]
    names = {c.host for c in kept}
    more = max((FAR_PARENTS if carries else 1) - len(kept), 0)
    others = place([c for c in far if c.host not in names], location, more, rng)
    if any(c.spring for c in kept):
        others = others[:more]
    return chosen + kept + others


def _suffice(close: Sequence[Candidate], lacks: Bitmap | None) -> bool:
    """Whether the hosts of the child's zone have, or will have, all that it lacks."""
    sound = [c for c in close if not c.avoided]
    if any(c.offers_all for c in sound):
        return True
    return lacks is not None and not lacks - _offered(sound)


def _complement(close: Sequence[Candidate], chosen: Sequence[Candidate], carries: int) -> list[Candidate]:
    """Hosts of the zone that hold pieces which the child carries and none of its ``chosen`` parents holds."""
    offered = _offered(close)
    wanted = (offered & Bitmap.classes(carries, CLASSES, offered.stop)) - _offered(chosen)
    names = {c.host for c in chosen}
    rest = [c for c in close if c.host not in names and not c.avoided]
    more: list[Candidate] = []
    while wanted and rest and len(more) < COMPLEMENT:
        best = max(rest, key=lambda c: len(c.offers & wanted))
        if not best.offers & wanted:
            break
        more.append(best)
        rest.remove(best)
        wanted = wanted - best.offers
    return more


def _offered(candidates: Sequence[Candidate]) -> Bitmap:
    offered = Bitmap()
    for candidate in candidates:
        offered = offered | candidate.offers
    return offered


def place(candidates: Sequence[Candidate], location: str, limit: int, rng: random.Random) -> list[Candidate]:
    """At most ``limit`` parents, and one reader or seeder beyond it if none is among them; best first.

    Avoided candidates are taken only when there is no other useful one.
    """
    good = [c for c in candidates if not c.avoided]
    if not any(c.useful for c in good):
        good = list(candidates)
    ranked = sorted(good, key=lambda c: score(c, location) + CHANCE * rng.random(), reverse=True)
    chosen = ranked[:limit]
    if not any(c.spring for c in chosen):
        chosen += [c for c in ranked[limit:] if c.spring][:1]
    return chosen


def score(candidate: Candidate, location: str) -> float:
    """How good a parent the candidate is for a child at ``location``; higher is better."""
    children = candidate.children - (1 if candidate.current else 0)
    free = max(-1.0, (candidate.slots - children) / max(candidate.slots, 1))
    return (
        USEFUL * candidate.useful
        + NEAR * nearness(candidate.location, location)
        + FREE * free
        + COMPLETE * candidate.complete
        + SEEDER * (candidate.role == "seeder")
        + KEPT * candidate.current
    )


def nearness(one: str, other: str) -> float:
    """The share of leading elements that two locations ("zone/rack", "a|b|c") have in common, 0 to 1."""
    if not one or not other:
        return 0.0
    a, b = re.split(r"[/|]", one), re.split(r"[/|]", other)
    common = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        common += 1
    return common / max(len(a), len(b))


def stripe_count(children: int) -> int:
    """Into how many stripes a seeder's pieces are cut for so many downloading children.

    Exactly as many for a few; beyond that a power of two, so that one child more does not change the
    stripes of all. Every stripe has a child: first copies are disjoint and nothing is left out.
    """
    if children <= EXACT_STRIPES:
        return max(children, 1)
    return min(MOST_STRIPES, 1 << (children.bit_length() - 1))


def stripe_of(rank: int, count: int) -> tuple[int, int] | None:
    """The stripe of the child that is ``rank``-th among the downloading ones; None when there is but one."""
    return (rank % count, count) if count > 1 else None
