"""Who of several decides for what: rendezvous hashing. Pure.

Each member has a weight for each key, and the heaviest has it. So when a member comes or goes, only that
member's keys move; and all who see the same members name the same one, without asking anybody.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b


def owner(members: Collection[str], key: str) -> str:
    """The member that has the key (the logical id of a task). Raises LookupError when there is none."""
    if not members:
        raise LookupError("nobody is there who could have it")
    if len(members) == 1:
        return next(iter(members))
    suffix = key.encode()
    return max(members, key=lambda member: (_weight(member, suffix), member))


def _weight(member: str, suffix: bytes) -> bytes:
    return blake2b(member.encode() + suffix).digest()[:8]
