"""Two zones: what one of them lacks is brought over its border once."""

from __future__ import annotations

from collections.abc import Iterable

from tests.integration.cluster import Cluster, Peer
from tests.integration.origins import MIB, Origin, random_content

CONTENT = random_content(24 * MIB + 12345, seed=7)


def crossed(peers: Iterable[Peer]) -> float:
    """Piece bytes that these peers received from other zones."""
    return sum(peer.metrics().value("dragonet_cross_zone_bytes_total") for peer in peers)


def start(cluster: Cluster, origin: Origin) -> tuple[list[Peer], list[Peer], str]:
    """A scheduler, a seeder and two peers in one zone, three peers in the other, and a URL."""
    cluster.start_scheduler()
    cluster.start_seeder(environ={"DRAGONET_HOST_LOCATION": "east/1"})
    here = [cluster.start_peer(environ={"DRAGONET_HOST_LOCATION": f"east/{n}"}) for n in range(2)]
    there = [cluster.start_peer(environ={"DRAGONET_HOST_LOCATION": f"west/{n}"}) for n in range(3)]
    return here, there, origin.add("/file.bin", CONTENT)


def test_nothing_crosses_twice_when_all_begin_at_once(cluster: Cluster, origin: Origin) -> None:
    here, there, url = start(cluster, origin)
    for result in cluster.get_all(url, [*here, *there]):
        result.check(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    assert crossed(here) == 0
    assert len(CONTENT) <= crossed(there) <= 1.05 * len(CONTENT)


def test_nothing_crosses_twice_when_one_zone_begins_later(cluster: Cluster, origin: Origin) -> None:
    here, there, url = start(cluster, origin)
    for zone in (here, there):
        for result in cluster.get_all(url, zone):
            result.check(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    assert crossed(here) == 0
    assert len(CONTENT) <= crossed(there) <= 1.05 * len(CONTENT)
