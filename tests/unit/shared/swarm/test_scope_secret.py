"""The secret of the cluster: each host has one, and the oldest one that a scheduler grants wins."""

from __future__ import annotations

import math

import pytest

from shared.errors import ConfigError
from shared.protocol import LeaseGranted
from tests.unit.shared.swarm.worlds import Clock, new_world

CLUSTERS = bytes(range(32))


async def test_a_host_takes_over_the_secret_of_the_cluster(autojump_clock: Clock) -> None:
    kept: list[tuple[bytes, float]] = []
    async with new_world() as world:
        host = world.host
        own = host.scope_secret
        assert len(own) == 32
        assert host.lease().secret == own
        host._keep_secret = lambda *what: kept.append(what)
        await host.leased(LeaseGranted("s", 10.0, known=True))
        await host.leased(LeaseGranted("s", 10.0, known=True, secret=b"short", secret_since=1.0))
        assert (host.scope_secret, kept) == (own, [])
        for _ in range(2):
            await host.leased(LeaseGranted("s", 10.0, known=True, secret=CLUSTERS, secret_since=7.5))
        assert host.scope_secret == CLUSTERS == host.lease().secret
        assert host.lease().secret_since == 7.5
        assert kept == [(CLUSTERS, 7.5)]


@pytest.mark.parametrize(
    ("since", "secret", "taken"),
    [
        (99.0, b"\xff" * 32, True),
        (100.0, b"\x00" * 32, True),
        (100.0, b"\xff" * 32, False),
        (101.0, b"\x00" * 32, False),
        (-1.0, b"\x00" * 32, False),
        (math.nan, b"\x00" * 32, False),
        (math.inf, b"\x00" * 32, False),
    ],
)
async def test_only_an_older_secret_is_taken(
    autojump_clock: Clock, since: float, secret: bytes, taken: bool
) -> None:
    async with new_world() as world:
        host = world.host
        host.scope_secret, host.secret_since = CLUSTERS, 100.0
        granted = LeaseGranted("s", 10.0, known=True, secret=secret, secret_since=since)
        await host.leased(granted)
        assert (host.scope_secret == secret) == taken


async def test_a_secret_that_cannot_be_kept_is_used_all_the_same(autojump_clock: Clock) -> None:
    def fail(secret: bytes, since: float) -> None:
        raise ConfigError("the disk is full")

    async with new_world() as world:
        world.host._keep_secret = fail
        await world.host.leased(LeaseGranted("s", 10.0, known=True, secret=CLUSTERS))
        assert world.host.scope_secret == CLUSTERS
