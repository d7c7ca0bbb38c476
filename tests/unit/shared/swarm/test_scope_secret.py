"""The secret of the cluster: each host has one, and that which the scheduler grants wins."""

from __future__ import annotations

from shared.errors import ConfigError
from shared.protocol import LeaseGranted
from tests.unit.shared.swarm.worlds import Clock, new_world

CLUSTERS = bytes(range(32))


async def test_a_host_takes_over_the_secret_of_the_cluster(autojump_clock: Clock) -> None:
    kept: list[bytes] = []
    async with new_world() as world:
        host = world.host
        own = host.scope_secret
        assert len(own) == 32
        assert host.lease().secret == own
        host._keep_secret = kept.append
        await host.leased(LeaseGranted("s", 10.0, known=True))
        await host.leased(LeaseGranted("s", 10.0, known=True, secret=b"short"))
        assert (host.scope_secret, kept) == (own, [])
        for _ in range(2):
            await host.leased(LeaseGranted("s", 10.0, known=True, secret=CLUSTERS))
        assert host.scope_secret == CLUSTERS == host.lease().secret
        assert kept == [CLUSTERS]


async def test_a_secret_that_cannot_be_kept_is_used_all_the_same(autojump_clock: Clock) -> None:
    def fail(secret: bytes) -> None:
        raise ConfigError("the disk is full")

    async with new_world() as world:
        world.host._keep_secret = fail
        await world.host.leased(LeaseGranted("s", 10.0, known=True, secret=CLUSTERS))
        assert world.host.scope_secret == CLUSTERS
