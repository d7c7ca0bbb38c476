"""Who a host is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from shared.protocol import Role


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who this host is. ``id`` outlives restarts, ``instance`` does not; ``address`` serves the pieces, and
    ``network`` is the subnet it is in ("10.1.2.0/24"), "" where that is not known."""

    id: str
    role: Role
    address: str
    location: str = ""
    network: str = ""
    instance: str = field(default_factory=lambda: f"{random.SystemRandom().getrandbits(64):016x}")
