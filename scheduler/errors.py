"""What the scheduler refuses.

::

    DragonetError
    ├── UnknownHost      the host has no lease: renew it first (404)
    └── TooManyHosts     the scheduler follows as many hosts as it may (503)
"""

from __future__ import annotations

from shared.errors import DragonetError, Unavailable


class UnknownHost(DragonetError):
    """The host has no lease here, or another process took its name."""

    status = 404


class TooManyHosts(Unavailable):
    """The scheduler follows as many hosts as ``scheduler.max_hosts`` allows."""

    retry_after = 10.0
