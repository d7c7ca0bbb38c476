"""``kill -9`` of every role in mid-download: the others finish, and nobody fetches again what it holds.

The origin's gate stops every download at a known byte, so each test kills at exactly that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from shared.task.bitmap import Bitmap
from tests.integration.cluster import Cluster, RunningGet, task_id_of
from tests.integration.net import wait_until
from tests.integration.origins import MIB, PIECE, Gate, Origin, random_content
from tests.integration.processes import Daemon
from tests.integration.raw import first_availability

CONTENT = random_content(48 * MIB, seed=3)
HALF = 16 * MIB
"""Where the gate stands: below the first range that a reader asks for, and between two pieces."""

LEASE = 10.0


def stopped_at_half(
    cluster: Cluster, origin: Origin, *, seeders: int = 1, peers: int = 2
) -> tuple[str, Gate, list[RunningGet]]:
    """A cluster in which every peer holds the first HALF bytes and waits for more."""
    cluster.start(seeders=seeders, peers=peers)
    gate = Gate(HALF)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = [cluster.start_get(url, peer) for peer in cluster.peers]
    gate.wait_reached()
    for peer in cluster.peers:
        cluster.wait_received(peer, HALF)
    task_id = task_id_of(url)
    for host in (*cluster.peers, *[one for one in cluster.seeders if one.metrics().received("origin")]):
        wait_until(partial(holds_half, host, task_id), f"{host.name} holds half")
    return url, gate, running


def holds_half(host: Daemon, task_id: str) -> bool:
    """Whether a host says that it holds all that came through the gate."""
    return Bitmap.from_bytes(first_availability(host.address, task_id).held).covers(HALF // PIECE)


def all_registered(cluster: Cluster) -> bool:
    """Whether every peer's wish is known to the scheduler."""
    assert cluster.scheduler is not None
    return cluster.scheduler.metrics().value("dragonet_scheduler_waiting_peers") == len(cluster.peers)


def test_killed_peer_goes_on_from_what_it_holds(cluster: Cluster, origin: Origin) -> None:
    url, gate, (first, second) = stopped_at_half(cluster, origin)
    victim = cluster.peers[0]
    victim.kill()
    first.wait().check_failed()
    gate.open()
    second.wait().check(CONTENT)
    victim.restart()
    again = cluster.get(url, victim).check(CONTENT)
    assert again.sources["store"] == HALF
    assert again.sources["origin"] == 0
    assert victim.metrics().received() == len(CONTENT) - HALF, "no held piece was fetched again"
    assert origin.count("/file.bin").body == len(CONTENT)


def test_killed_peer_comes_back_while_the_download_runs(cluster: Cluster, origin: Origin) -> None:
    url, gate, (first, second) = stopped_at_half(cluster, origin)
    victim = cluster.peers[0]
    victim.kill()
    first.wait().check_failed()
    victim.restart()
    again = cluster.start_get(url, victim)
    gate.open()
    second.wait().check(CONTENT)
    assert again.wait().check(CONTENT).sources["store"] >= HALF
    assert victim.metrics().received() <= len(CONTENT) - HALF
    assert origin.count("/file.bin").body == len(CONTENT)


def test_killed_complete_peer_serves_from_its_store_after_restart(
    cluster: Cluster, make_origin: Callable[..., Origin]
) -> None:
    cluster.start(seeders=0, peers=2)
    one, two = cluster.peers
    origin = make_origin()
    url = origin.add("/file.bin", CONTENT)
    cluster.get(url, one).check(CONTENT)
    one.kill()
    origin.close()
    one.restart()
    assert cluster.get(url, two).check(CONTENT).sources["peer"] == len(CONTENT)
    assert one.metrics().received() == 0


def test_killed_seeder_is_replaced_by_a_peer(cluster: Cluster, origin: Origin) -> None:
    _, gate, running = stopped_at_half(cluster, origin)
    cluster.seeders[0].kill()
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    read = sum(peer.metrics().received("origin") for peer in cluster.peers)
    assert read == len(CONTENT) - HALF, "only what nobody held was read by the peers"
    assert origin.count("/file.bin").body <= len(CONTENT) + 8 * MIB, "what the killed seeder had in flight"


def test_killed_seeder_goes_on_from_what_it_holds(cluster: Cluster, origin: Origin) -> None:
    _, gate, running = stopped_at_half(cluster, origin)
    (seeder,) = cluster.seeders
    seeder.kill()
    seeder.restart()
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    read = seeder.metrics().received("origin") + sum(p.metrics().received("origin") for p in cluster.peers)
    assert read == len(CONTENT) - HALF


def test_killed_second_seeder_does_not_matter(cluster: Cluster, origin: Origin) -> None:
    _, gate, running = stopped_at_half(cluster, origin, seeders=2, peers=1)
    reader = next(one for one in cluster.seeders if one.metrics().received("origin"))
    reader.kill()
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    other = next(one for one in cluster.seeders if one is not reader)
    read = other.metrics().received("origin") + cluster.peers[0].metrics().received("origin")
    assert read <= len(CONTENT)


def test_killed_scheduler_restarted_knows_all_and_downloads_finish(cluster: Cluster, origin: Origin) -> None:
    url, gate, running = stopped_at_half(cluster, origin)
    scheduler = cluster.scheduler
    assert scheduler is not None
    task_id = task_id_of(url)
    scheduler.kill()
    scheduler.restart()
    wait_until(lambda: len(scheduler.hosts()) == 3, "the scheduler knows all hosts again", LEASE)
    wait_until(lambda: task_id in str(scheduler.tasks()), "the scheduler knows the task again", LEASE)
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    hosts = [*cluster.peers, *cluster.seeders]
    assert sum(one.metrics().received("origin") for one in hosts) <= len(CONTENT) + 16 * PIECE
    late = cluster.start_peer()
    assert cluster.get(url, late).check(CONTENT).sources["origin"] == 0


def test_downloads_finish_while_the_scheduler_stays_dead(cluster: Cluster, origin: Origin) -> None:
    _, gate, running = stopped_at_half(cluster, origin)
    assert cluster.scheduler is not None
    cluster.scheduler.kill()
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    for peer in cluster.peers:
        assert peer.metrics().received() <= len(CONTENT) + 16 * PIECE


def test_a_get_begun_without_scheduler_finishes(cluster: Cluster, origin: Origin) -> None:
    cluster.start(seeders=0, peers=1)
    assert cluster.scheduler is not None
    cluster.scheduler.kill()
    url = origin.add("/file.bin", CONTENT)
    cluster.get(url, cluster.peers[0]).check(CONTENT)


@pytest.mark.parametrize("point", [0, 12, 24, 36])
def test_killed_at_any_time(cluster: Cluster, origin: Origin, point: int) -> None:
    """A peer and the seeder die together at several points of a download, in mid-piece; two peers survive."""
    cluster.start(peers=3)
    gate = Gate(point * MIB + PIECE // 2)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = [cluster.start_get(url, peer) for peer in cluster.peers]
    gate.wait_reached()
    wait_until(partial(all_registered, cluster), "all peers are registered")
    cluster.peers[0].kill()
    cluster.seeders[0].kill()
    gate.open()
    running[0].wait().check_failed()
    for one in running[1:]:
        one.wait().check(CONTENT)
    cluster.peers[0].restart()
    cluster.get(url, cluster.peers[0]).check(CONTENT)
