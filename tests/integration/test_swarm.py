"""The way things should go: one origin read, any number of machines, every byte right."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.integration.cluster import Cluster, leftovers, sha256
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


def test_what_a_get_tells(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    url = origin.add("/file.bin", SMALL)
    first = cluster.get(url, cluster.peers[0]).check(SMALL)
    assert len(first.stdout.strip().splitlines()) == 1, "with --json stdout holds one object"
    assert first.stderr == ""
    assert {"task_id", "length", "sha256", "seconds", "bytes"} <= first.json.keys()
    assert set(first.sources) == {"store", "peer", "seeder", "origin"}
    assert first.json["seconds"] > 0
    assert len(first.task_id) == 64
    assert first.sources["seeder"] == len(SMALL)
    again = cluster.get(url, cluster.peers[0]).check(SMALL)
    assert again.sources == {"store": len(SMALL), "peer": 0, "seeder": 0, "origin": 0}
    assert again.task_id == first.task_id
    assert origin.count("/file.bin").body == len(SMALL)


def test_stat_ls_and_rm(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/file.bin", SMALL)
    assert cluster.listed(peer) == []
    task_id = cluster.get(url, peer).check(SMALL).task_id
    for name in (url, task_id):
        told = cluster.stat(name, peer)
        assert told["task_id"] == task_id
        assert told["length"] == len(SMALL)
    assert [task["task_id"] for task in cluster.listed(peer)] == [task_id]
    assert cluster.run("ls", "--socket", str(peer.socket)).returncode == 0
    assert cluster.run("stat", url, "--socket", str(peer.socket)).returncode == 0
    assert cluster.run("rm", url, "--socket", str(peer.socket)).returncode == 0
    assert cluster.listed(peer) == []
    gone = cluster.run("stat", task_id, "--socket", str(peer.socket))
    assert gone.returncode == 1
    assert len(gone.stderr.strip().splitlines()) == 1
    cluster.get(url, peer).check(SMALL)
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


def test_range(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=2)
    one, two = cluster.peers
    url = origin.add("/file.bin", CONTENT)
    first, last = 1_000_001, 1_000_000 + 700_000
    part = CONTENT[first : last + 1]
    cut = cluster.get(url, one, "--range", f"{first}-{last}").check(part)
    assert origin.count("/file.bin").body == len(part), "only the range is read"
    assert cluster.get(url, two, "--range", f"{first}-{last}").check(part).task_id == cut.task_id
    assert origin.count("/file.bin").body == len(part)
    end = len(CONTENT)
    cluster.get(url, one, "--range", f"{end - 10}-{end + 1000}").check(CONTENT[-10:])
    cluster.get(url, one, "--range", f"{end}-{end + 5}").check_failed("range", "beyond")
    cluster.get(url, one, "--range", "10-5").check_failed("10-5", code=2)


def test_range_of_a_source_without_ranges(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    url = origin.add("/file.bin", SMALL, ranges="ignore")
    cluster.get(url, cluster.peers[0], "--range", "100-600000").check(SMALL[100:600_001])


def test_tag_application_and_filter_make_the_identity(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/file.bin?sign=1&keep=2", SMALL)
    signed_again = origin.add("/file.bin?sign=9&keep=2", SMALL)
    plain = cluster.get(url, peer).task_id
    assert cluster.get(url, peer, "--tag", "t").check(SMALL).task_id != plain
    assert cluster.get(url, peer, "--application", "a").check(SMALL).task_id != plain
    filtered = cluster.get(url, peer, "--filter", "sign&other").check(SMALL)
    served = origin.requests
    same = cluster.get(signed_again, peer, "--filter", "sign&other").check(SMALL)
    assert same.task_id == filtered.task_id
    assert origin.requests == served


def test_digest(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/file.bin", SMALL)
    cluster.get(url, peer, "--digest", f"sha256:{sha256(SMALL)}").check(SMALL)
    other = origin.add("/other.bin", CONTENT)
    wrong = sha256(b"something else")
    cluster.get(other, peer, "--digest", f"sha256:{wrong}").check_failed("sha256")
    known = [task["task_id"] for task in cluster.listed(peer)]
    assert len(known) == 1, "content with another digest is not kept"
    cluster.get(url, peer, "--digest", f"sha256:{wrong}").check_failed("sha256")
    cluster.get(url, peer, "--digest", "sha256:12").check_failed("digest", code=2)
    cluster.get(url, peer, "--digest", f"md99:{wrong}").check_failed("md99", code=2)


def test_no_origin(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=2)
    one, two = cluster.peers
    url = origin.add("/file.bin", SMALL)
    cluster.get(url, one, "--no-origin").check_failed("--no-origin")
    assert origin.requests == 0
    cluster.get(url, two).check(SMALL)
    cluster.get(url, one, "--no-origin").check(SMALL)
    assert origin.count("/file.bin").body == len(SMALL)


def test_headers_reach_the_origin(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/file.bin", SMALL, authorization="Bearer let-me-in")
    cluster.get(url, peer).check_failed("401")
    headers = ["--header", "Authorization: Bearer let-me-in", "--header", "User-Agent: x/1"]
    cluster.get(url, peer, *headers).check(SMALL)
    asked = origin.count("/file.bin").asked[-1]
    assert asked.headers["authorization"] == "Bearer let-me-in"
    assert asked.headers["user-agent"] == "x/1"
    cluster.get(url, peer).check_failed("401")
    cluster.get(url, peer, "--header", "no colon here").check_failed(code=2)


def test_output_is_replaced_only_by_the_whole_file(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    folder = cluster.folder / "out"
    folder.mkdir()
    target = folder / "file"
    target.write_bytes(b"what was here before")
    gate = Gate(2 * MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = cluster.start_get(url, peer, output=target)
    gate.wait_reached()
    cluster.wait_received(peer, 2 * MIB)
    assert target.read_bytes() == b"what was here before"
    gate.open()
    running.wait().check(CONTENT)
    assert leftovers(folder) == ["file"]
    target.write_bytes(b"and again")
    missing = cluster.get(origin.url + "/none", peer, output=target)
    assert missing.code == 1
    assert target.read_bytes() == b"and again"
    assert leftovers(folder) == ["file"]


def test_output_folder_is_missing_or_not_writable(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    url = origin.add("/file.bin", SMALL)
    nowhere = cluster.folder / "nowhere" / "file"
    result = cluster.get(url, cluster.peers[0], output=nowhere)
    assert result.code in (1, 2)
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(nowhere.parent) in result.stderr
    assert cluster.get(url, cluster.peers[0], output=cluster.folder).code in (1, 2)


def test_interrupted_get_leaves_nothing_and_the_next_one_goes_on(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    gate = Gate(4 * MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = cluster.start_get(url, peer)
    gate.wait_reached()
    cluster.wait_received(peer, 4 * MIB)
    running.interrupt()
    assert running.wait(15).code == 130
    assert leftovers(running.output.parent) == []
    gate.open()
    assert cluster.get(url, peer).check(CONTENT).sources["store"] >= 4 * MIB - 512 * KIB


def test_timeout_and_limit(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    gate = Gate(MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    cluster.get(url, peer, "--timeout", "1").check_failed("1 s")
    gate.open()
    slow = cluster.get(url, peer, "--limit", "20MiB/s").check(CONTENT)
    assert slow.json["seconds"] > 0.3, "24 MiB at 20 MiB/s"
    cluster.get(url, peer, "--limit", "fast").check_failed("fast", code=2)
    cluster.get(url, peer, "--timeout", "-1").check_failed(code=2)


def test_two_gets_of_the_same_task_at_one_peer_transfer_it_once(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    gate = Gate(MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = [cluster.start_get(url, peer) for _ in range(3)]
    gate.wait_reached()
    gate.open()
    for one in running:
        one.wait().check(CONTENT)
    assert peer.metrics().received() == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)


def test_one_shot_without_daemon(cluster: Cluster, origin: Origin) -> None:
    url = origin.add("/file.bin", CONTENT)
    result = cluster.get(url, None).check(CONTENT)
    assert result.sources == {"store": 0, "peer": 0, "seeder": 0, "origin": len(CONTENT)}
    assert origin.count("/file.bin").body == len(CONTENT)
    cluster.get(origin.url + "/none", None).check_failed("404")


def test_one_shot_joins_the_swarm(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    assert cluster.scheduler is not None
    url = origin.add("/file.bin", CONTENT)
    cluster.get(url, cluster.peers[0]).check(CONTENT)
    result = cluster.get(url, None, environ={"DRAGONET_HOST_SCHEDULER": cluster.scheduler.url}).check(CONTENT)
    assert result.sources["origin"] == 0
    assert origin.count("/file.bin").body == len(CONTENT)


def test_file_scheme_only_below_configured_roots(cluster: Cluster) -> None:
    cluster.start()
    outside = cluster.folder / "secret"
    outside.write_bytes(b"not yours")
    cluster.get(outside.as_uri(), cluster.peers[0]).check_failed()
    cluster.get("gopher://127.0.0.1/x", cluster.peers[0]).check_failed("gopher")


def test_wrong_usage_is_exit_code_2(cluster: Cluster) -> None:
    wrong = (["get"], ["get", "http://x/", "--nonsense"], ["nonsense"], ["peer", "--listen", "here"])
    for arguments in wrong:
        done = cluster.run(*arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert done.stderr.strip(), arguments
    done = cluster.run("get", "not a url", "-o", str(cluster.folder / "x"))
    assert done.returncode == 2
    assert cluster.run("version").returncode == 0
    assert cluster.run("config").returncode == 0


def test_unknown_settings_name_the_nearest(cluster: Cluster) -> None:
    (cluster.folder / "bad.toml").write_text("[peer]\nlistenn = '127.0.0.1:1'\n")
    done = cluster.run("config", environ={"DRAGONET_CONFIG": str(cluster.folder / "bad.toml")})
    assert done.returncode in (1, 2)
    assert "listen" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_role_answers_for_itself(cluster: Cluster) -> None:
    cluster.start()
    for daemon in cluster.daemons:
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


def test_listings_of_the_scheduler(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=2)
    assert cluster.scheduler is not None
    url = origin.add("/file.bin", SMALL)
    task_id = cluster.get(url, cluster.peers[0]).check(SMALL).task_id
    assert len(cluster.scheduler.hosts()) == 3
    (task,) = cluster.scheduler.tasks()
    assert task_id in json.dumps(task)
    assert url in json.dumps(cluster.scheduler.task(task_id))
    assert request(cluster.scheduler.address, "/v1/tasks/" + "0" * 64).status == 404
