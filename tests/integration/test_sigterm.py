"""SIGTERM: running transfers get a grace period, leases are given up, the exit code is 0."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.integration.cluster import Cluster
from tests.integration.net import wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content
from tests.integration.raw import SlowChild, first_availability

CONTENT = random_content(12 * MIB, seed=41)
UNKNOWN_PIECE = 4 * MIB
"""Piece length of content whose length is not known beforehand."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_roles_end_with_0_and_give_up_their_leases(cluster: Cluster, number: int) -> None:
    cluster.start(peers=2)
    scheduler = cluster.scheduler
    assert scheduler is not None
    assert len(scheduler.hosts()) == 3
    leaving = [cluster.peers[0], cluster.seeders[0]]
    for daemon in leaving:
        assert daemon.process is not None
        daemon.process.send_signal(number)
    for daemon in leaving:
        assert daemon.wait() == 0
    assert cluster.peers[1].address in str(scheduler.hosts())
    assert len(scheduler.hosts()) == 1, "the others said good-bye"
    assert scheduler.process is not None
    scheduler.process.send_signal(number)
    assert scheduler.wait() == 0
    assert cluster.peers[1].answers("/healthz")


def test_running_get_is_finished_within_the_grace_period(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    gate = Gate(4 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    running = cluster.start_get(url, peer)
    gate.wait_reached()
    cluster.wait_held(peer, url, 4 * MIB)
    peer.terminate()
    wait_until(lambda: not peer.answers("/readyz"), "the peer is going")
    gate.open()
    running.wait().check(CONTENT)
    assert peer.wait() == 0


def test_running_upload_is_finished_within_the_grace_period(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (seeder,) = cluster.seeders
    url = origin.add("/file", CONTENT, framing="chunked", ranges="ignore")
    task_id = cluster.get(url, cluster.peers[0]).check(CONTENT).task_id
    version = first_availability(seeder.address, task_id).version
    with SlowChild(seeder.address, task_id, 1, version) as child:
        assert child.status == 200
        begun = child.read(1000)
        seeder.terminate()
        wait_until(lambda: not seeder.answers("/readyz"), "the seeder is going")
        assert begun + child.read() == CONTENT[UNKNOWN_PIECE : 2 * UNKNOWN_PIECE]
    assert seeder.wait() == 0


def test_what_takes_longer_than_the_grace_period_is_cut(
    make_cluster: Callable[..., Cluster], origin: Origin
) -> None:
    cluster = make_cluster(environ={"DRAGONET_SERVER_GRACE": "1s"})
    cluster.start()
    (peer,) = cluster.peers
    gate = Gate(4 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    running = cluster.start_get(url, peer)
    gate.wait_reached()
    cluster.wait_held(peer, url, 4 * MIB)
    peer.terminate()
    running.wait(30).check_failed()
    assert peer.wait(30) == 0
    gate.open()


def test_a_second_signal_ends_at_once(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    gate = Gate(4 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    running = cluster.start_get(url, peer)
    cluster.wait_held(peer, url, 4 * MIB)
    assert peer.process is not None
    peer.process.send_signal(signal.SIGINT)
    wait_until(lambda: not peer.answers("/readyz"), "the peer is going")
    peer.process.send_signal(signal.SIGINT)
    peer.wait(8)
    running.wait(30).check_failed()
    gate.open()


def test_seeder_leaving_in_mid_read_is_replaced(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    gate = Gate(4 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    running = cluster.start_get(url, cluster.peers[0])
    cluster.wait_held(cluster.peers[0], url, 4 * MIB)
    cluster.seeders[0].terminate()
    gate.open()
    running.wait().check(CONTENT)
    assert cluster.seeders[0].wait() == 0
