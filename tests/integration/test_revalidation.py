"""Content in the cluster is checked against its source once for all, and a change becomes a new version."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, leftovers, sha256
from tests.integration.net import wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content

OLD = random_content(6 * MIB + 5, seed=71)
NEW = random_content(5 * MIB + 7, seed=72)
ALWAYS = {"DRAGONET_SOURCE_REVALIDATE": "*=0s", "DRAGONET_SCHEDULER_CHECK_TIMEOUT": "60s"}
NOTICED = 1
"""Bytes of the answer by which an origin tells that its content has changed."""


@pytest.fixture
def checking(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster in which content is checked whenever it is asked for; nothing runs yet."""
    return make_cluster(environ=ALWAYS)


def test_all_ask_at_once_and_the_origin_hears_one_question(checking: Cluster, origin: Origin) -> None:
    checking.start(peers=4)
    url = origin.add("/file.bin", OLD)
    results = [result.check(OLD) for result in checking.get_all(url, checking.peers)]
    task_id = results[0].task_id
    before = origin.count("/file.bin")
    assert before.body == len(OLD)
    gate = Gate()
    origin.change("/file.bin", answer_gate=gate)
    running = [checking.start_get(url, peer) for peer in checking.peers]
    scheduler = checking.scheduler
    assert scheduler is not None
    wait_until(lambda: scheduler.task(task_id)["asking"] == 4, "all have asked")
    gate.open()
    for one in running:
        result = one.wait().check(OLD)
        assert result.sources == {"store": len(OLD), "peer": 0, "seeder": 0, "origin": 0}
    after = origin.count("/file.bin")
    assert after.checks == before.checks + 1
    assert after.requests == before.requests + 1
    assert after.body == before.body
    checks = scheduler.metrics().value("dragonet_scheduler_checks_total", outcome="valid")
    assert checks == after.checks
    assert checking.seeders[0].metrics().value("dragonet_origin_checks_total", result="valid") == checks


def test_fresh_content_is_not_checked(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=2)
    url = origin.add("/file.bin", OLD)
    cluster.get(url, cluster.peers[0]).check(OLD)
    requests = origin.requests
    origin.change("/file.bin", content=NEW, etag='"v2"')
    for peer in cluster.peers * 2:
        cluster.get(url, peer).check(OLD)
    assert origin.requests == requests


def test_after_its_time_content_is_checked_again(
    make_cluster: Callable[..., Cluster], origin: Origin
) -> None:
    cluster = make_cluster(environ={"DRAGONET_SOURCE_REVALIDATE": "http=500ms"}).start()
    url = origin.add("/file.bin", OLD)
    peer = cluster.peers[0]

    def asked() -> bool:
        cluster.get(url, peer).check(OLD)
        return origin.count("/file.bin").checks > 0

    wait_until(asked, "the origin is asked")
    assert origin.count("/file.bin").body == len(OLD)
    origin.change("/file.bin", content=NEW, etag='"v2"')
    wait_until(lambda: cluster.get(url, peer).json["length"] == len(NEW), "the change is noticed")
    assert origin.count("/file.bin").body == len(OLD) + len(NEW) + NOTICED


def test_changed_content_is_read_once_and_all_get_it(checking: Cluster, origin: Origin) -> None:
    checking.start(peers=3)
    url = origin.add("/file.bin", OLD)
    old = checking.get_all(url, checking.peers)[0].check(OLD).task_id
    origin.change("/file.bin", content=NEW, etag='"v2"')
    cold = checking.start_peer()
    results = checking.get_all(url, checking.peers)
    assert len({result.check(NEW).task_id for result in results}) == 1
    new = results[0].task_id
    assert new != old
    assert origin.count("/file.bin").body == len(OLD) + len(NEW) + NOTICED
    peer = checking.peers[0]
    assert checking.stat(url, peer)["task_id"] == new
    shown = {task["task_id"]: task for task in checking.listed(peer)}
    assert shown[old]["superseded"]
    assert not shown[new]["superseded"]
    assert [task["task_id"] for task in checking.listed(cold)] == [new]
    assert checking.get(url, cold, "--no-origin").check(NEW).sources["store"] == len(NEW)
    done = checking.run("rm", url, "--socket", str(peer.socket))
    assert {line.split()[1] for line in done.stdout.splitlines()} == {old, new}
    assert checking.listed(peer) == []
    assert checking.get(url, peer).check(NEW).sources["origin"] == 0


def test_a_reader_of_the_old_content_finishes(checking: Cluster, origin: Origin) -> None:
    content = random_content(24 * MIB, seed=73)
    checking.start(peers=3)
    slow, one, other = checking.peers
    url = origin.add("/file.bin", content)
    checking.get(url, one).check(content)
    running = checking.start_get(url, slow, "--limit", "4MiB/s")
    checking.wait_held(slow, url, 2 * MIB)
    assert slow.process is not None
    slow.process.send_signal(signal.SIGSTOP)
    try:
        origin.change("/file.bin", content=NEW, etag='"v2"')
        for peer in (one, other):
            checking.get(url, peer).check(NEW)
        assert running.running
    finally:
        slow.process.send_signal(signal.SIGCONT)
    running.wait().check(content)
    checking.get(url, slow).check(NEW)
    assert origin.count("/file.bin").body == len(content) + len(NEW) + NOTICED


@pytest.mark.parametrize("trouble", ["down", "500", "gone"])
def test_an_origin_in_trouble_changes_nothing(
    checking: Cluster, make_origin: Callable[..., Origin], trouble: str
) -> None:
    checking.start(peers=2)
    origin = make_origin()
    url = origin.add("/file.bin", OLD)
    checking.get(url, checking.peers[0]).check(OLD)
    if trouble == "down":
        origin.close()
    else:
        origin.change("/file.bin", status=500 if trouble == "500" else 404)
    for peer in checking.peers:
        checking.get(url, peer).check(OLD)
    assert checking.scheduler is not None
    failed = checking.scheduler.metrics().value("dragonet_scheduler_checks_total", outcome="failed")
    assert failed == checking.seeders[0].metrics().value("dragonet_origin_checks_total", result="error") > 0


def test_the_source_cannot_be_compared_without_validators(checking: Cluster, origin: Origin) -> None:
    checking.start()
    url = origin.add("/file.bin", OLD, etag=None)
    peer = checking.peers[0]
    checking.get(url, peer).check(OLD)
    origin.change("/file.bin", content=NEW)
    checking.get(url, peer).check(NEW)


def test_content_that_is_never_checked(make_cluster: Callable[..., Cluster], origin: Origin) -> None:
    cluster = make_cluster(environ={"DRAGONET_SOURCE_REVALIDATE": "*=0s,http=never"}).start()
    url = origin.add("/file.bin", OLD)
    peer = cluster.peers[0]
    cluster.get(url, peer).check(OLD)
    requests = origin.requests
    origin.change("/file.bin", content=NEW, etag='"v2"')
    cluster.get(url, peer).check(OLD)
    assert origin.requests == requests


def test_a_restarted_scheduler_hears_what_is_fresh(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=1)
    url = origin.add("/file.bin", OLD)
    cluster.get(url, cluster.peers[0]).check(OLD)
    requests = origin.requests
    _restart_scheduler(cluster, hosts=2)
    for peer in (cluster.peers[0], cluster.start_peer()):
        cluster.get(url, peer).check(OLD)
    assert origin.requests == requests


def test_a_restarted_scheduler_hears_of_the_newest_content(checking: Cluster, origin: Origin) -> None:
    checking.start(peers=2)
    url = origin.add("/file.bin", OLD)
    one, two = checking.peers
    checking.get(url, two).check(OLD)
    origin.change("/file.bin", content=NEW, etag='"v2"')
    checking.get(url, one).check(NEW)
    read = origin.count("/file.bin").body
    _restart_scheduler(checking, hosts=3)
    cold = checking.start_peer()
    for peer in (cold, two, one):
        checking.get(url, peer).check(NEW)
    assert origin.count("/file.bin").body == read
    for daemon in checking.daemons:
        daemon.kill()
        daemon.restart()
    for peer in checking.peers:
        checking.get(url, peer).check(NEW)
    assert origin.count("/file.bin").body == read


def _restart_scheduler(cluster: Cluster, *, hosts: int) -> None:
    scheduler = cluster.scheduler
    assert scheduler is not None
    scheduler.kill()
    scheduler.restart()
    wait_until(lambda: len(scheduler.hosts()) == hosts, "the scheduler knows all hosts again")


def test_without_a_scheduler_each_host_asks_for_itself(
    make_cluster: Callable[..., Cluster], make_origin: Callable[..., Origin]
) -> None:
    origin = make_origin()
    cluster = make_cluster(environ={**ALWAYS, "DRAGONET_SWARM_SCHEDULER_PATIENCE": "500ms"})
    cluster.start(seeders=0, peers=1)
    url = origin.add("/file.bin", OLD)
    peer = cluster.peers[0]
    cluster.get(url, peer).check(OLD)
    cluster.get(url, None).check(OLD)
    assert cluster.scheduler is not None
    cluster.scheduler.kill()
    for who in (peer, None):
        before = origin.count("/file.bin")
        assert cluster.get(url, who).check(OLD).sources["store"] == len(OLD)
        after = origin.count("/file.bin")
        assert (after.requests, after.checks) == (before.requests + 1, before.checks + 1)
    origin.change("/file.bin", content=NEW, etag='"v2"')
    for who in (peer, None):
        cluster.get(url, who).check(NEW)
    origin.close()
    for who in (peer, None):
        assert cluster.get(url, who).check(NEW).sources["store"] == len(NEW)


def test_a_host_that_was_restarted_knows_what_is_fresh(
    make_cluster: Callable[..., Cluster], origin: Origin
) -> None:
    cluster = make_cluster(environ={"DRAGONET_SWARM_SCHEDULER_PATIENCE": "500ms"})
    url = origin.add("/file.bin", OLD)
    for _ in range(2):
        cluster.get(url, None).check(OLD)
    assert origin.count("/file.bin").body == len(OLD)
    assert origin.count("/file.bin").checks == 0


# --- what a source vouches for -------------------------------------------------------------------------

VOUCHING = '''
"""Content with a digest that may be a lie, as the URL asks for."""
import hashlib
from cdn.sources.interface import ExpireInfo, ResourceClient, SourceRequest, SourceResponse

CONTENT = bytes(range(256)) * 8192


class Vouching(ResourceClient):
    def get_content_length(self, request):
        return len(CONTENT)

    def is_support_range(self, request):
        return False

    def is_expired(self, request, info):
        return False

    def get_last_modified(self, request):
        return -1

    def download(self, request):
        told = CONTENT if request.url.endswith("honest") else b"something else"
        algorithm = "sha512" if "sha512" in request.url else "sha256"
        digest = hashlib.new(algorithm, told).hexdigest()
        return SourceResponse(CONTENT, digest=f"{algorithm}:{digest}")


def dragonet_plugin_init(options):
    attributes = {"scheme": "vouching", "type": "resource", "name": "vouching"}
    return Vouching(), attributes
'''
VOUCHED = bytes(range(256)) * 8192


@pytest.fixture
def vouching(make_cluster: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    """A cluster with a source that vouches for its content."""
    (tmp_path / "d7y-resource-plugin-vouching.py").write_text(VOUCHING)
    return make_cluster(environ={"DRAGONET_SOURCE_PLUGIN_DIR": str(tmp_path)})


def test_content_that_its_source_vouches_for(vouching: Cluster) -> None:
    vouching.start(peers=2)
    for url in ("vouching://host/honest", "vouching://host/sha512/honest"):
        for peer in vouching.peers:
            vouching.get(url, peer).check(VOUCHED)
    vouching.get("vouching://host/honest", None).check(VOUCHED)


def test_a_source_that_lies_about_its_content(vouching: Cluster) -> None:
    vouching.start(peers=2)
    url = "vouching://host/lying"
    words = ("vouching://host/lying", f"sha256:{sha256(VOUCHED)}", f"sha256:{sha256(b'something else')}")
    running = [vouching.start_get(url, peer) for peer in vouching.peers]
    for one in running:
        one.wait().check_failed(*words)
    vouching.get(url, None).check_failed(*words)
    for peer in vouching.peers:
        assert all(task["state"] == "partial" for task in vouching.listed(peer))
    content = vouching.seeders[0].folder / "seeder1" / "seeder" / "content"
    wait_until(lambda: leftovers(content) == [], "the seeder has removed it")
    vouching.get("vouching://host/sha512/lying", vouching.peers[0]).check_failed("sha512:")
