"""All hosts of a cluster have one secret in common, which outlives every process and is shown nowhere."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.integration.cluster import Cluster, Daemon
from tests.integration.net import request, wait_until


def secrets(cluster: Cluster) -> dict[Path, str]:
    """What the hosts keep."""
    return {path: path.read_text() for path in cluster.folder.rglob("scope-secret")}


def one_secret(cluster: Cluster, hosts: int) -> str:
    """That of all hosts, once they have it."""
    wait_until(lambda: len(set(secrets(cluster).values())) == 1, "all hosts have one secret")
    kept = secrets(cluster)
    assert len(kept) == hosts
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    return next(iter(kept.values())).split()[0]


def again(daemon: Daemon) -> None:
    daemon.kill()
    daemon.restart()


def test_one_secret_for_all(cluster: Cluster) -> None:
    cluster.start(peers=2)
    secret = one_secret(cluster, 3)
    assert len(bytes.fromhex(secret)) == 32
    again(cluster.peers[0])
    assert cluster.scheduler is not None
    again(cluster.scheduler)
    scheduler = cluster.scheduler
    wait_until(lambda: len(scheduler.hosts()) == 3, "the scheduler knows all hosts again")
    cluster.start_peer()
    wait_until(lambda: len(secrets(cluster)) == 4, "the new host has a secret")
    assert one_secret(cluster, 4) == secret
    pages = [request(scheduler.address, page).text for page in ("/v1/hosts", "/v1/tasks", "/metrics")]
    for text in (*pages, *(daemon.log for daemon in cluster.daemons)):
        assert secret not in text
        assert repr(bytes.fromhex(secret)) not in text
