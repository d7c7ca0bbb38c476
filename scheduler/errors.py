"""What the scheduler refuses.

::

    DragonetError
    ├── UnknownHost      the host has no lease: renew it first (404)
    ├── TooManyHosts     the scheduler follows as many hosts as it may (503)
    ├── SameHost         another process with the same host id is there (409)
    ├── TooManyPreheats  as many preheats wait as may (503)
    ├── PreheatsRefused  there is no scheduler that could have content brought ahead of need (409)
    ├── UnknownPreheat   no preheat has this id (404)
    ├── TokenWanted      the request shows no token, or not the right one (401)
    └── TokenUnset       no token is set, so nobody can show it (403)
"""

from __future__ import annotations

from shared.errors import DragonetError, Unavailable

NO_SCHEDULER = (
    "preheats need a scheduler, and the hosts here do without one: start `dragonet scheduler` on a machine of this "
    "network (the hosts find it, or are told by host.scheduler), then ask it"
)
"""Why preheats are refused where the hosts are each other's schedulers."""


class UnknownHost(DragonetError):
    """The host has no lease here, or another process took its name."""

    status = 404


class TooManyHosts(Unavailable):
    """The scheduler follows as many hosts as ``scheduler.max_hosts`` allows."""

    retry_after = 10.0


class SameHost(DragonetError):
    """Another process with the same host id has a lease, and is there."""

    status = 409


class TooManyPreheats(Unavailable):
    """As many preheats wait as may."""

    retry_after = 60.0


class PreheatsRefused(DragonetError):
    """Content cannot be brought ahead of need here."""

    status = 409


class UnknownPreheat(DragonetError):
    """No preheat has this id."""

    status = 404


class TokenWanted(DragonetError):
    """The request shows no token, or not the right one."""

    status = 401


class TokenUnset(DragonetError):
    """No token is set, so nobody can show it."""

    status = 403
