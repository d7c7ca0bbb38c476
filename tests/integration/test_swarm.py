"""The way things should go: one origin read, any number of machines, every byte right."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.integration.cluster import Cluster, Peer, leftovers, sha256, task_id_of
from tests.integration.net import request, wait_until
from tests.integration.origins import KIB, MIB, Gate, Origin, random_content

CONTENT = random_content(24 * MIB + 12345, seed=7)
SMALL = random_content(700 * KIB, seed=8)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_the_origin_is_read_once(cluster: Cluster, origin: Origin, count: int) -> None:
    cluster.start(peers=count)
    url = origin.add("/file.bin", CONTENT)
    for result in cluster.get_all(url, cluster.peers):
        result.check(CONTENT)
        assert sum(result.sources.values()) == len(CONTENT)
        assert result.sources["origin"] == 0, "the seeder reads the origin, not the peers"
        assert result.sources["store"] == 0
    assert origin.count("/file.bin").body == len(CONTENT)
    sources = [peer.metrics() for peer in cluster.peers]
    assert all(metrics.received() >= len(CONTENT) for metrics in sources)
    assert all(metrics.received("origin") == 0 for metrics in sources)
    seeder = cluster.seeders[0].metrics()
    assert seeder.received("origin") == len(CONTENT)
    assert seeder.value("dragonet_sent_bytes_total") >= len(CONTENT)
    assert seeder.has("dragonet_origin_reads_total")
    for name in ("dragonet_pieces_failed_total", "dragonet_verify_failures_total"):
        assert all(metrics.has(name) for metrics in sources)
        assert name != "dragonet_verify_failures_total" or all(m.value(name) == 0 for m in sources)


def test_peers_give_to_each_other_without_a_seeder(cluster: Cluster, origin: Origin) -> None:
    cluster.start(seeders=0, peers=3)
    url = origin.add("/file.bin", CONTENT)
    results = [result.check(CONTENT) for result in cluster.get_all(url, cluster.peers)]
    assert origin.count("/file.bin").body == len(CONTENT)
    assert sum(result.sources["origin"] for result in results) == len(CONTENT)
    assert sum(result.sources["peer"] for result in results) == 2 * len(CONTENT)


def test_what_a_get_tells(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file.bin", SMALL)
    first = swarm.get(url, swarm.peers[0]).check(SMALL)
    assert len(first.stdout.strip().splitlines()) == 1, "with --json stdout holds one object"
    assert first.stderr == ""
    assert {"task_id", "length", "sha256", "seconds", "bytes"} <= first.json.keys()
    assert set(first.sources) == {"store", "peer", "seeder", "origin"}
    assert first.json["seconds"] > 0
    assert len(first.task_id) == 64
    assert first.sources["seeder"] == len(SMALL)
    again = swarm.get(url, swarm.peers[0]).check(SMALL)
    assert again.sources == {"store": len(SMALL), "peer": 0, "seeder": 0, "origin": 0}
    assert again.task_id == first.task_id
    assert origin.count("/file.bin").body == len(SMALL)


def listed(swarm: Cluster, peer: Peer) -> set[str]:
    """The task ids that ``dragonet ls`` shows."""
    return {task["task_id"] for task in swarm.listed(peer)}


def test_stat_ls_and_rm(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    url = origin.add("/file.bin", SMALL)
    task_id = swarm.get(url, peer).check(SMALL).task_id
    for name in (url, task_id):
        told = swarm.stat(name, peer)
        assert told["task_id"] == task_id
        assert told["length"] == len(SMALL)
    assert task_id in listed(swarm, peer)
    assert swarm.run("ls", "--socket", str(peer.socket)).returncode == 0
    assert swarm.run("stat", url, "--socket", str(peer.socket)).returncode == 0
    assert swarm.run("rm", url, "--socket", str(peer.socket)).returncode == 0
    assert task_id not in listed(swarm, peer)
    gone = swarm.run("stat", task_id, "--socket", str(peer.socket))
    assert gone.returncode == 1
    assert len(gone.stderr.strip().splitlines()) == 1
    swarm.get(url, peer).check(SMALL)
    assert origin.count("/file.bin").body == len(SMALL), "the seeder holds it still"


def test_a_late_peer_is_served_by_the_swarm_when_origin_and_seeder_are_gone(
    cluster: Cluster, make_origin: Callable[..., Origin]
) -> None:
    cluster.start(peers=2)
    origin = make_origin()
    url = origin.add("/file.bin", SMALL)
    early, late = cluster.peers
    cluster.get(url, early).check(SMALL)
    origin.close()
    seeder = cluster.seeders[0]
    seeder.terminate()
    assert seeder.wait() == 0
    assert cluster.get(url, late).check(SMALL).sources["peer"] == len(SMALL)


def test_range(swarm: Cluster, origin: Origin) -> None:
    one, two = swarm.peers
    url = origin.add("/file.bin", CONTENT)
    first, last = 1_000_001, 1_000_000 + 700_000
    part = CONTENT[first : last + 1]
    cut = swarm.get(url, one, "--range", f"{first}-{last}").check(part)
    assert origin.count("/file.bin").body == len(part), "only the range is read"
    assert swarm.get(url, two, "--range", f"{first}-{last}").check(part).task_id == cut.task_id
    assert origin.count("/file.bin").body == len(part)
    end = len(CONTENT)
    swarm.get(url, one, "--range", f"{end - 10}-{end + 1000}").check(CONTENT[-10:])
    swarm.get(url, one, "--range", f"{end}-{end + 5}").check_failed("range", "beyond")
    swarm.get(url, one, "--range", "10-5").check_failed("10-5", code=2)


def test_range_of_a_source_without_ranges(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file.bin", SMALL, ranges="ignore")
    swarm.get(url, swarm.peers[0], "--range", "100-600000").check(SMALL[100:600_001])


def test_tag_application_and_filter_make_the_identity(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    url = origin.add("/file.bin?sign=1&keep=2", SMALL)
    signed_again = origin.add("/file.bin?sign=9&keep=2", SMALL)
    plain = swarm.get(url, peer).task_id
    assert swarm.get(url, peer, "--tag", "t").check(SMALL).task_id != plain
    assert swarm.get(url, peer, "--application", "a").check(SMALL).task_id != plain
    filtered = swarm.get(url, peer, "--filter", "sign&other").check(SMALL)
    served = origin.requests
    same = swarm.get(signed_again, peer, "--filter", "sign&other").check(SMALL)
    assert same.task_id == filtered.task_id
    assert origin.requests == served


def test_digest(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    url = origin.add("/file.bin", SMALL)
    swarm.get(url, peer, "--digest", f"sha256:{sha256(SMALL)}").check(SMALL)
    other = origin.add("/other.bin", CONTENT)
    wrong = sha256(b"something else")
    swarm.get(other, peer, "--digest", f"sha256:{wrong}").check_failed("sha256")
    assert task_id_of(other) not in listed(swarm, peer), "content with another digest is not kept"
    swarm.get(url, peer, "--digest", f"sha256:{wrong}").check_failed("sha256")
    swarm.get(url, peer, "--digest", "sha256:12").check_failed("digest", code=2)
    swarm.get(url, peer, "--digest", f"md99:{wrong}").check_failed("md99", code=2)


def test_no_origin(swarm: Cluster, origin: Origin) -> None:
    one, two = swarm.peers
    url = origin.add("/file.bin", SMALL)
    swarm.get(url, one, "--no-origin").check_failed("--no-origin")
    assert origin.requests == 0
    swarm.get(url, two).check(SMALL)
    swarm.get(url, one, "--no-origin").check(SMALL)
    assert origin.count("/file.bin").body == len(SMALL)


def test_headers_reach_the_origin(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    url = origin.add("/file.bin", SMALL, authorization="Bearer let-me-in")
    swarm.get(url, peer).check_failed("401")
    headers = ["--header", "Authorization: Bearer let-me-in", "--header", "User-Agent: x/1"]
    swarm.get(url, peer, *headers).check(SMALL)
    asked = origin.count("/file.bin").asked[-1]
    assert asked.headers["authorization"] == "Bearer let-me-in"
    assert asked.headers["user-agent"] == "x/1"
    swarm.get(url, peer).check_failed("401")
    swarm.get(url, peer, "--header", "no colon here").check_failed(code=2)


def test_output_is_replaced_only_by_the_whole_file(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    folder = swarm.folder / "out"
    folder.mkdir()
    target = folder / "file"
    target.write_bytes(b"what was here before")
    gate = Gate(2 * MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = swarm.start_get(url, peer, output=target)
    gate.wait_reached()
    swarm.wait_held(peer, url, 2 * MIB)
    assert target.read_bytes() == b"what was here before"
    gate.open()
    running.wait().check(CONTENT)
    assert leftovers(folder) == ["file"]
    target.write_bytes(b"and again")
    missing = swarm.get(origin.url + "/none", peer, output=target)
    assert missing.code == 1
    assert target.read_bytes() == b"and again"
    assert leftovers(folder) == ["file"]


def test_output_folder_is_missing_or_not_writable(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file.bin", SMALL)
    nowhere = swarm.folder / "nowhere" / "file"
    result = swarm.get(url, swarm.peers[0], output=nowhere)
    assert result.code in (1, 2)
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(nowhere.parent) in result.stderr
    assert swarm.get(url, swarm.peers[0], output=swarm.folder).code in (1, 2)


def test_interrupted_get_leaves_nothing_and_the_next_one_goes_on(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    gate = Gate(4 * MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = swarm.start_get(url, peer)
    gate.wait_reached()
    swarm.wait_held(peer, url, 4 * MIB)
    running.interrupt()
    assert running.wait().code == 130
    assert leftovers(running.output.parent) == []
    gate.open()
    assert swarm.get(url, peer).check(CONTENT).sources["store"] >= 4 * MIB - 512 * KIB


def test_timeout_and_limit(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    gate = Gate(MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    swarm.get(url, peer, "--timeout", "1").check_failed("1 s")
    gate.open()
    slow = swarm.get(url, peer, "--limit", "20MiB/s").check(CONTENT)
    assert slow.json["seconds"] > 0.3, "24 MiB at 20 MiB/s"
    swarm.get(url, peer, "--limit", "fast").check_failed("fast", code=2)
    swarm.get(url, peer, "--timeout", "-1").check_failed(code=2)


def test_two_gets_of_the_same_task_at_one_peer_transfer_it_once(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    gate = Gate(MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    before = peer.metrics().received()
    running = [swarm.start_get(url, peer) for _ in range(3)]
    gate.wait_reached()
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    assert peer.metrics().received() - before == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)


def test_one_shot_without_daemon(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file.bin", CONTENT)
    result = swarm.get(url, None).check(CONTENT)
    assert result.sources == {"store": 0, "peer": 0, "seeder": 0, "origin": len(CONTENT)}
    assert origin.count("/file.bin").body == len(CONTENT)
    swarm.get(origin.url + "/none", None).check_failed("404")


def test_one_shot_joins_the_swarm(swarm: Cluster, origin: Origin) -> None:
    assert swarm.scheduler is not None
    url = origin.add("/file.bin", CONTENT)
    swarm.get(url, swarm.peers[0]).check(CONTENT)
    result = swarm.get(url, None, environ={"DRAGONET_HOST_SCHEDULER": swarm.scheduler.url}).check(CONTENT)
    assert result.sources["origin"] == 0
    assert origin.count("/file.bin").body == len(CONTENT)


def test_file_scheme_only_below_configured_roots(swarm: Cluster) -> None:
    outside = swarm.folder / "secret"
    outside.write_bytes(b"not yours")
    swarm.get(outside.as_uri(), swarm.peers[0]).check_failed()
    swarm.get("gopher://127.0.0.1/x", swarm.peers[0]).check_failed("gopher")


def test_wrong_usage_is_exit_code_2(swarm: Cluster) -> None:
    wrong = (["get"], ["get", "http://x/", "--nonsense"], ["nonsense"], ["peer", "--listen", "here"])
    for arguments in wrong:
        done = swarm.run(*arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert done.stderr.strip(), arguments
    done = swarm.run("get", "not a url", "-o", str(swarm.folder / "x"))
    assert done.returncode == 2
    assert swarm.run("version").returncode == 0
    assert swarm.run("config").returncode == 0


def test_unknown_settings_name_the_nearest(swarm: Cluster) -> None:
    (swarm.folder / "bad.toml").write_text("[peer]\nlistenn = '127.0.0.1:1'\n")
    done = swarm.run("config", environ={"DRAGONET_CONFIG": str(swarm.folder / "bad.toml")})
    assert done.returncode in (1, 2)
    assert "listen" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_role_answers_for_itself(swarm: Cluster) -> None:
    for daemon in swarm.daemons:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert request(daemon.address, path).status == 200, (daemon, path)
        assert request(daemon.address, "/healthz", "HEAD").status == 200
        assert request(daemon.address, "/nothing/here").status == 404
        assert request(daemon.address, "/healthz", "POST", b"x").status == 405


def test_not_ready_without_scheduler(cluster: Cluster) -> None:
    cluster.start()
    assert cluster.scheduler is not None
    (peer,) = cluster.peers
    cluster.scheduler.kill()
    wait_until(lambda: request(peer.address, "/readyz").status == 503, "the peer says that it is not ready")
    assert "scheduler" in request(peer.address, "/readyz").text
    assert request(peer.address, "/healthz").status == 200
    cluster.scheduler.restart()
    peer.wait_ready()


def test_listings_of_the_scheduler(swarm: Cluster, origin: Origin) -> None:
    assert swarm.scheduler is not None
    url = origin.add("/file.bin", SMALL)
    task_id = swarm.get(url, swarm.peers[0]).check(SMALL).task_id
    shown = json.dumps(swarm.scheduler.hosts())
    assert all(host.address in shown for host in (*swarm.peers, *swarm.seeders))
    assert task_id in json.dumps(swarm.scheduler.tasks())
    assert url in json.dumps(swarm.scheduler.task(task_id))
    assert request(swarm.scheduler.address, "/v1/tasks/" + "0" * 64).status == 404
