"""Who becomes whose parent. Pure: what is known of the candidates in, the chosen ones out.

A good parent has pieces that the child lacks, stands near, and has free upload slots; complete ones and
seeders are slightly better, parents that the child has already are kept unless others are clearly better
(connections are worth something), and some chance mixes the swarm, so that it does not hang on the
first few holders. One of the list is always a reader of the origin or a seeder, if there is any: that is
where new pieces appear.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.protocol import Role

USEFUL, NEAR, FREE, COMPLETE, SEEDER, KEPT, CHANCE = 4.0, 2.0, 2.0, 0.5, 0.25, 0.5, 1.0
EXACT_STRIPES = 8
MOST_STRIPES = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that could be a parent of one child.

    ``useful``: holds something the child lacks, or reads the origin. ``children``: how many it has
    already; ``current``: the child is one of them. ``avoided``: the child complained about it lately.
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

    @property
    def spring(self) -> bool:
        """Whether pieces come from here that nobody else has yet."""
        return self.reading or (self.role == "seeder" and self.useful)


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
