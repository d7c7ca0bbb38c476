"""Origins on their bad days: refusals, cuts, lies about ranges, changes in mid-download, redirects."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from tests.integration.cluster import Cluster, RunningGet, sha256
from tests.integration.net import wait_until
from tests.integration.origins import KIB, MIB, PIECE, Gate, Origin, Ranges, random_content

CONTENT = random_content(6 * MIB + 4321, seed=11)
LARGE = random_content(40 * MIB, seed=12)
OTHER = random_content(6 * MIB + 99, seed=13)
SOON = 5.0
"""Far more than the second in which everyone is told, far less than any timeout of ours."""


def all_waiting(cluster: Cluster, url: str, gate: Gate) -> list[RunningGet]:
    """Every peer asks for ``url``; the origin is asked, answers nothing yet, and all are known to wait."""
    scheduler = cluster.scheduler
    assert scheduler is not None
    running = [cluster.start_get(url, peer) for peer in cluster.peers]
    gate.wait_reached()
    wait_until(
        lambda: scheduler.metrics().value("dragonet_scheduler_waiting_peers") == len(running),
        "all peers are registered",
        poll=0.1,
    )
    return running


def test_refusal_reaches_everyone_with_one_request(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=4)
    for status in (401, 403, 404, 410, 429, 500, 503):
        gate = Gate(0)
        url = origin.add(f"/{status}", b"", status=status, answer_gate=gate)
        running = all_waiting(cluster, url, gate)
        gate.open()
        for one in running:
            one.wait(SOON).check_failed(str(status))
        cluster.get(url, cluster.peers[0], timeout=SOON).check_failed(str(status))
        assert origin.count(f"/{status}").requests == 1


def test_an_origin_that_recovers_is_asked_again(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    url = origin.add("/file", CONTENT, status=503)
    swarm.get(url, peer).check_failed("503")
    origin.change("/file", status=200)
    wait_until(lambda: swarm.get(url, peer).code == 0, "the failure is forgotten", 30, poll=0.5)


def test_origin_that_nobody_listens_on(swarm: Cluster, make_origin: Callable[..., Origin]) -> None:
    origin = make_origin()
    url = origin.add("/file", CONTENT)
    origin.close()
    swarm.get(url, swarm.peers[0]).check_failed("127.0.0.1")
    swarm.get("http://no-such-host.invalid/file", swarm.peers[0]).check_failed("no-such-host.invalid")


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("length", [0, 1, 700 * KIB, len(CONTENT)])
def test_no_content_length(swarm: Cluster, origin: Origin, framing: str, length: int) -> None:
    content = CONTENT[:length]
    url = origin.add("/file", content, framing=framing, ranges="ignore")
    for result in swarm.get_all(url, swarm.peers):
        result.check(content)
    assert origin.count("/file").body == len(content)


def test_chunked_body_cut_is_not_taken_for_whole(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", CONTENT, framing="chunked", ranges="ignore", cut_after=2 * MIB, cuts=-1)
    swarm.get(url, swarm.peers[0]).check_failed()
    assert origin.count("/file").requests < 20


def test_ignores_range(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", LARGE, ranges="ignore")
    for result in swarm.get_all(url, swarm.peers):
        result.check(LARGE)
    assert origin.count("/file").body == len(LARGE)


@pytest.mark.parametrize("ranges", ["shifted", "wrong total", "no header", "too long"])
def test_wrong_content_range(swarm: Cluster, origin: Origin, ranges: Ranges) -> None:
    """Either the content arrives right, by another way of asking, or the error names what is wrong."""
    url = origin.add("/file", LARGE, ranges=ranges)
    result = swarm.get(url, swarm.peers[0])
    if result.code == 0:
        result.check(LARGE)
    else:
        result.check_failed("range")
    assert origin.count("/file").requests < 20


def test_body_cut_once_is_resumed(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", CONTENT, cut_after=2 * MIB + 1000, cuts=1)
    for result in swarm.get_all(url, swarm.peers):
        result.check(CONTENT)
    assert origin.count("/file").body < len(CONTENT) + 2 * PIECE, "what was read is not read again"


def test_body_cut_often_is_resumed_while_there_is_progress(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", CONTENT, cut_after=1 * MIB + 1000, cuts=-1)
    swarm.get(url, swarm.peers[0]).check(CONTENT)


def test_body_cut_always_without_progress_fails(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", CONTENT, cut_after=0, cuts=-1)
    swarm.get(url, swarm.peers[0]).check_failed()
    assert origin.count("/file").requests < 20


def test_body_cut_once_without_ranges(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", CONTENT, ranges="ignore", cut_after=3 * MIB, cuts=1)
    swarm.get(url, swarm.peers[0]).check(CONTENT)


@pytest.mark.parametrize("size", [100, len(CONTENT)])
def test_gzip_is_unpacked(swarm: Cluster, origin: Origin, size: int) -> None:
    content = CONTENT[:size]
    url = origin.add("/file", content, encoding="gzip", ranges="ignore")
    for result in swarm.get_all(url, swarm.peers):
        result.check(content)
    assert origin.count("/file").body == len(gzip.compress(content, 1, mtime=0))


def test_gzip_bomb_is_refused(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", bytes(512 * MIB), encoding="gzip", ranges="ignore")
    result = swarm.get(url, swarm.peers[0])
    result.check_failed()
    assert swarm.seeders[0].memory("RssAnon") < 200 * MIB


def test_a_file_that_is_gzip_itself_stays_packed(swarm: Cluster, origin: Origin) -> None:
    packed = gzip.compress(CONTENT, 1)
    url = origin.add("/file.gz", packed, headers={"Content-Type": "application/gzip"})
    swarm.get(url, swarm.peers[0]).check(packed)


@pytest.mark.parametrize("after", [PIECE, 2 * MIB + 5, 30 * MIB])
def test_change_in_mid_download_is_never_mixed(swarm: Cluster, origin: Origin, after: int) -> None:
    """At ``after`` bytes the connections break and the content is another one."""
    gate = Gate(after)
    url = origin.add("/file", LARGE, gate=gate, cut_after=after, cuts=8)
    running = [swarm.start_get(url, peer) for peer in swarm.peers]
    wait_until(lambda: origin.count("/file").body >= min(after, 16 * MIB), "the first part was read")
    new = random_content(len(LARGE), seed=99)
    origin.change("/file", content=new, etag='"v2"', cut_after=None, gate=None)
    gate.open()
    for one in running:
        result = one.wait()
        assert result.code == 0, result.stderr
        result.check(LARGE if result.json["sha256"] != sha256(new) else new)


def test_change_of_length_in_mid_download(swarm: Cluster, origin: Origin) -> None:
    gate = Gate(3 * MIB)
    url = origin.add("/file", CONTENT, gate=gate, cut_after=3 * MIB, cuts=4)
    running = [swarm.start_get(url, peer) for peer in swarm.peers]
    for peer in swarm.peers:
        swarm.wait_held(peer, url, 3 * MIB - PIECE)
    origin.change("/file", content=OTHER, etag='"v2"', cut_after=None, gate=None)
    gate.open()
    for one in running:
        one.wait().check(OTHER)


def test_change_without_validators(swarm: Cluster, origin: Origin) -> None:
    """An origin without ETag and Last-Modified: what is delivered is one version as a whole."""
    url = origin.add("/file", CONTENT, etag=None, cut_after=3 * MIB, cuts=1)
    swarm.get(url, swarm.peers[0]).check(CONTENT)


def test_change_between_two_gets_keeps_serving_one_version(swarm: Cluster, origin: Origin) -> None:
    url = origin.add("/file", CONTENT)
    swarm.get(url, swarm.peers[0]).check(CONTENT)
    origin.change("/file", content=OTHER, etag='"v2"')
    result = swarm.get(url, swarm.peers[1])
    assert result.code == 0, result.stderr
    result.check(CONTENT if result.json["length"] == len(CONTENT) else OTHER)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(swarm: Cluster, origin: Origin, status: int) -> None:
    origin.add("/there/file", CONTENT)
    url = origin.add("/here", redirect="/there/file", redirect_status=status)
    swarm.get(url, swarm.peers[0]).check(CONTENT)
    assert origin.count("/there/file").body == len(CONTENT)


def test_redirect_to_another_host_takes_no_credentials_along(
    swarm: Cluster, make_origin: Callable[..., Origin]
) -> None:
    here, there = make_origin(), make_origin("127.0.0.2")
    target = there.add("/file", CONTENT)
    url = here.add("/file", redirect=target, authorization="Bearer abc")
    headers = ["--header", "Authorization: Bearer abc", "--header", "Cookie: a=b", "--header", "X-Api-Key: k"]
    swarm.get(url, swarm.peers[0], *headers).check(CONTENT)
    for asked in there.count("/file").asked:
        assert not {"authorization", "cookie", "x-api-key"} & asked.headers.keys()


def test_redirect_loop_and_endless_chain(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    swarm.get(origin.add("/loop", redirect="/loop"), peer).check_failed("redirect")
    for number in range(30):
        origin.add(f"/chain/{number}", redirect=f"/chain/{number + 1}")
    swarm.get(f"{origin.url}/chain/0", peer).check_failed("redirect")
    assert origin.requests < 40
    swarm.get(origin.add("/away", redirect="gopher://127.0.0.1/x"), peer).check_failed()
    swarm.get(origin.add("/disk", redirect="file:///etc/passwd"), peer).check_failed()
    swarm.get(origin.add("/cloud", redirect="http://169.254.169.254/latest"), peer).check_failed("169.254")


def test_denied_addresses(swarm: Cluster) -> None:
    for url in ("http://169.254.169.254/latest/meta-data", "http://[fe80::1]/x", "http://0.0.0.0/x"):
        swarm.get(url, swarm.peers[0], timeout=20).check_failed()


def test_slow_origin_is_waited_for(swarm: Cluster, origin: Origin) -> None:
    content = CONTENT[: 3 * MIB]
    url = origin.add("/file", content, rate=1 * MIB)
    for result in swarm.get_all(url, swarm.peers):
        result.check(content)
    assert origin.count("/file").body == len(content)


def test_origin_silent_in_mid_body_is_given_up(make_cluster: Callable[..., Cluster], origin: Origin) -> None:
    cluster = make_cluster(
        environ={"DRAGONET_SOURCE_IDLE_TIMEOUT": "2s", "DRAGONET_SCHEDULER_GRANT_TIMEOUT": "4s"}
    )
    cluster.start()
    gate = Gate(1 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    cluster.get(url, cluster.peers[0]).check_failed()
    gate.open()
