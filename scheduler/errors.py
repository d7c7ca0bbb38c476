"""What the scheduler refuses.

::

    DragonetError
    ├── UnknownHost      the host has no lease: renew it first (404)
    ├── TooManyHosts     the scheduler follows as many hosts as it may (503)
    ├── TooManyPreheats  as many preheats wait as may (503)
    ├── UnknownPreheat   no preheat has this id (404)
    ├── TokenWanted      the request shows no token, or not the right one (401)
    └── TokenUnset       no token is set, so nobody can show it (403)
"""

from __future__ import annotations

from shared.errors import DragonetError, Unavailable


class UnknownHost(DragonetError):
    """The host has no lease here, or another process took its name."""

    status = 404


class TooManyHosts(Unavailable):
    """The scheduler follows as many hosts as ``scheduler.max_hosts`` allows."""

    retry_after = 10.0


class TooManyPreheats(Unavailable):
    """As many preheats wait as may."""

    retry_after = 60.0


class UnknownPreheat(DragonetError):
    """No preheat has this id."""

    status = 404


class TokenWanted(DragonetError):
    """The request shows no token, or not the right one."""

    status = 401


class TokenUnset(DragonetError):
    """No token is set, so nobody can show it."""

    status = 403
