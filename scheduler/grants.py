"""Who reads the origin, and which pieces. Pure.

Rules:

* Seeders first, then peers; among them who holds most of the task already, reads least elsewhere, and is
  least loaded; ties at random.
* Several readers of one task get runs of pieces of their own.
* Pieces that any host in service holds are not read again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shared.protocol import Role
from shared.task.bitmap import Bitmap

SMALLEST_SHARE = 8
"""Pieces below which a read is not split further: another connection to the origin would cost more."""


@dataclass(slots=True, eq=False)
class Grant:
    """A host's leave to read the origin. ``pieces`` None: everything that the host lacks.

    ``progress`` is when it last told anything new, ``received`` the bytes that it told of. ``place`` is the URL
    that is read, "" where that is not known: the grant is of an earlier scheduler.
    """

    id: str
    host: str
    pieces: Bitmap | None
    progress: float
    place: str
    opened: bool = False
    received: int = 0


@dataclass(frozen=True, slots=True)
class Applicant:
    """A host that could read: what the choice depends on, and the ``place`` (URL) where it would."""

    host: str
    role: Role
    held: int
    grants: int
    load: float
    place: str = ""


def choose_reader(applicants: Iterable[Applicant], rng: random.Random) -> Applicant | None:
    """The best applicant, None without any."""
    return min(
        applicants,
        key=lambda a: (a.role != "seeder", -a.held, a.grants, a.load, rng.random()),
        default=None,
    )


def split(pieces: Bitmap, shares: int) -> list[Bitmap]:
    """Cut the pieces, in ascending order, into at most ``shares`` parts of about the same number."""
    numbers = list(pieces)
    shares = max(1, min(shares, len(numbers) // SMALLEST_SHARE))
    ends = [len(numbers) * i // shares for i in range(shares + 1)]
    return [Bitmap(numbers[a:b]) for a, b in pairwise(ends)]


def runs(pieces: Bitmap | None) -> list[tuple[int, int]] | None:
    """The wire form: (first, count) runs; None stays None."""
    return None if pieces is None else list(pieces.spans())


def ungranted(pieces: Bitmap | None, grants: Sequence[Grant]) -> Bitmap | None:
    """Those of the needed ``pieces`` that nobody reads yet.

    None (everything, however much that is) stays None only while nobody reads; a grant for everything
    leaves nothing.
    """
    if pieces is None:
        return Bitmap() if grants else None
    for grant in grants:
        if grant.pieces is None:
            return Bitmap()
        pieces = pieces - grant.pieces
    return pieces
