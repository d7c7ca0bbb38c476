"""A question to an address, and what it led to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peer.lan.candidates import Key
from peer.lan.turns import Lane

Result = Literal[
    "ok",
    "unreachable",
    "malformed",
    "cluster",
    "protocol",
    "self",
    "mismatch",
    "full",
    "doubt",
    "conflict",
    "unsteady",
    "same_id",
]
"""What a question led to. mismatch: another host than announced answered (it counts as found). doubt: a second process
with the id of a host that is present, both are asked again; conflict: that was confirmed. unsteady: who answers
there has another id again and again. same_id: another process has
the id of this host."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: who is at ``address``? ``host`` is the id of the host that was there, or ``key`` the sighting."""

    address: str
    timeout: float
    lane: Lane | None
    host: str = ""
    key: Key | None = None
