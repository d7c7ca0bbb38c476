"""Hosts that find each other and have no scheduler: they are each other's, and go on whoever dies.

All stand on loopback and are told each other's addresses; how they find each other is tested in the lab.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, Peer, RunningGet, task_id_of
from tests.integration.net import get_json, request, wait_until
from tests.integration.origins import KIB, MIB, PIECE, Gate, Origin, random_content
from tests.integration.ring import Ring
from tests.integration.test_kill import holds_half

CONTENT = random_content(24 * MIB + 7, seed=81)
LONG = random_content(48 * MIB, seed=82)
HALF = 16 * MIB
IN_FLIGHT = 16 * MIB
"""Bytes more than the content that an origin may have sent where two reads are broken off, half of it where one is. A
second read of what was left would be 32 MiB."""
SMALL = [random_content(300 * KIB + number, seed=900 + number) for number in range(12)]


@pytest.fixture
def make_ring(make_cluster: Callable[..., Cluster]) -> Callable[..., Ring]:
    """Makes rings in clusters of their own."""
    return lambda count, **settings: Ring(make_cluster(), count, **settings)


def received(hosts: list[Peer], *sources: str) -> int:
    """Bytes that these hosts have received."""
    return sum(host.metrics().received(*sources) for host in hosts)


# --- nobody dies ---------------------------------------------------------------------------------------------


def test_the_origin_is_read_once(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3).start()
    url = origin.add("/file.bin", CONTENT)
    for result in ring.cluster.get_all(url, ring.hosts):
        result.check(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    assert received(ring.hosts, "origin") == len(CONTENT)
    assert received(ring.hosts, "peer") == 2 * len(CONTENT)
    for host in ring.hosts:
        assert ring.cluster.get(url, host).check(CONTENT).sources["store"] == len(CONTENT)


def test_every_host_decides_for_some(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """Many contents at once, each wanted by all: each is read once, and they belong to several hosts."""
    ring = make_ring(3).start()
    urls = [origin.add(f"/file{number}.bin", content) for number, content in enumerate(SMALL)]
    owners = {ring.owner(url).name for url in urls}
    running = [
        (ring.cluster.start_get(url, host), content)
        for url, content in zip(urls, SMALL, strict=True)
        for host in ring.hosts
    ]
    for one, content in running:
        one.wait().check(content)
    assert len(owners) > 1
    for number, content in enumerate(SMALL):
        assert origin.count(f"/file{number}.bin").body == len(content)


def test_a_scheduler_inside_tells_strangers_nothing(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """What the pieces' listener has of a scheduler is the protocol of hosts: no listings, no preheats."""
    ring = make_ring(2).start()
    url = origin.add("/file.bin", SMALL[0])
    ring.cluster.get(url, ring.hosts[0]).check(SMALL[0])
    for host in ring.hosts:
        assert request(host.address, "/v1/hello").status == 200
        for path in ("/v1/hosts", "/v1/tasks", f"/v1/tasks/{task_id_of(url)}", "/v1/preheats"):
            assert request(host.address, path).status in (404, 405)
        assert request(host.address, "/v1/preheats", "POST", b"{}").status in (404, 405)
        assert len(get_json(ring.schedulers_of[host.name], "/v1/hosts")["hosts"]) == 2


def test_a_newcomer_is_told_by_itself(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """The others have never heard of it, and hear of it when it takes its lease."""
    ring = make_ring(2).start()
    url = origin.add("/file.bin", CONTENT)
    for host in ring.hosts:
        ring.cluster.get(url, host).check(CONTENT)
    late = ring.add()
    ring.wait_whole()
    assert ring.cluster.get(url, late).check(CONTENT).sources["peer"] == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)


def test_one_that_all_know_is_enough(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """Nobody but the first one is known to anybody at first: it tells them of each other."""
    ring = make_ring(1)
    hosts = [ring.add(ring.places[0])] + [ring.add() for _ in range(3)]
    ring.wait_whole()
    url = origin.add("/file.bin", CONTENT)
    for result in ring.cluster.get_all(url, hosts):
        result.check(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    hosts[0].kill()
    ring.wait_whole(hosts[1:])


def test_a_host_alone_serves_itself(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(1).start()
    url = origin.add("/file.bin", CONTENT)
    [host] = ring.hosts
    ring.cluster.get(url, host).check(CONTENT)
    assert ring.cluster.get(url, host).check(CONTENT).sources["store"] == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    assert ring.view(host)["mode"] == "alone"


def test_peers_and_seeders_are_a_ring_too(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(0)
    cluster = ring.cluster
    seeder = cluster.start_seeder(environ=ring.settings())
    ring.places.append(seeder.address)
    peers = []
    for _ in range(2):
        peers.append(cluster.start_peer(environ=ring.settings()))
        ring.places.append(peers[-1].address)
    for peer in peers:
        wait_until(
            lambda peer=peer: len(ring.members(peer)) == 3 and ring.view(peer)["mode"] == "ring",
            f"{peer.name} sees three",
        )
    url = origin.add("/file.bin", CONTENT)
    for result in cluster.get_all(url, peers):
        assert result.check(CONTENT).sources["origin"] == 0
    assert seeder.metrics().received("origin") == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)


def test_another_cluster_is_left_alone(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3)
    for place in ring.places[:2]:
        ring.add(place, wait=False)
    stranger = ring.add(ring.places[2], wait=False, environ={"DRAGONET_LAN_CLUSTER": "another"})
    own = ring.hosts[:2]
    for host in ring.hosts:
        host.wait_ready()
    ring.wait_whole(own)
    assert ring.view(stranger)["mode"] == "alone"
    wait_until(lambda: ring.view(own[0])["ignored"].get("cluster", 0) > 0, "the stranger is counted")
    url = origin.add("/file.bin", CONTENT)
    for result in ring.cluster.get_all(url, ring.hosts):
        result.check(CONTENT)
    assert origin.count("/file.bin").body == 2 * len(CONTENT), "each cluster reads it for itself"
    assert received([stranger], "peer") == 0


def test_preheats_are_refused_in_words(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(2).start()
    url = origin.add("/file.bin", SMALL[0])
    for host in ring.hosts:
        done = ring.cluster.run("preheat", url, "--scheduler", f"http://{ring.schedulers_of[host.name]}")
        assert done.returncode == 1
        assert "preheats need a scheduler" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_private_content(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """Nobody else is told of it, neither another host nor a scheduler that was found: each host has its own."""
    ring = make_ring(3).start()
    url = origin.add("/private.bin", CONTENT)
    mine = ("--header", "Authorization: Bearer of-mine")
    for result in ring.cluster.get_all(url, ring.hosts, *mine):
        assert result.check(CONTENT).sources["origin"] == len(CONTENT)
    again = ring.cluster.get(url, ring.hosts[0], *mine)
    assert again.check(CONTENT).sources["store"] == len(CONTENT)
    scheduler = ring.start_scheduler()
    ring.wait_mode("scheduler")
    later = origin.add("/later.bin", SMALL[1])
    for result in ring.cluster.get_all(later, ring.hosts, *mine):
        assert result.check(SMALL[1]).sources["origin"] == len(SMALL[1])
    other = ring.cluster.get(later, ring.hosts[0], "--header", "Authorization: Bearer of-another")
    assert other.check(SMALL[1]).sources["origin"] == len(SMALL[1])
    public = origin.add("/public.bin", SMALL[0])
    for result in ring.cluster.get_all(public, ring.hosts):
        result.check(SMALL[0])
    tasks = get_json(scheduler.address, "/v1/tasks")["tasks"]
    assert [task["url"] for task in tasks] == [public]
    for host in ring.hosts:
        assert "of-mine" not in host.log


def secrets(ring: Ring) -> dict[Path, str]:
    """What scopes of images are derived from, as the hosts keep it."""
    return {path: path.read_text().split()[0] for path in ring.cluster.folder.rglob("scope-secret")}


def test_nobody_is_told_a_secret(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """Anybody may come to a network; what only the hosts of a configured scheduler may know is told to no one."""
    ring = make_ring(3).start()
    url = origin.add("/file.bin", SMALL[0])
    for result in ring.cluster.get_all(url, ring.hosts):
        result.check(SMALL[0])
    ring.start_scheduler()
    ring.wait_mode("scheduler")
    later = origin.add("/later.bin", SMALL[1])
    for result in ring.cluster.get_all(later, ring.hosts):
        result.check(SMALL[1])
    kept = secrets(ring)
    assert len(set(kept.values())) == len(kept) == 3, "each host has the one it began with"
    for daemon in ring.cluster.daemons:
        assert not any(secret in daemon.log for secret in kept.values())


# --- somebody dies -------------------------------------------------------------------------------------------


def stopped_at_half(ring: Ring, origin: Origin) -> tuple[Peer, list[Peer], list[RunningGet], str, Gate]:
    """Three hosts hold the first half of a content, for which a fourth one decides: that one, the three (whoever
    reads the origin first), their downloads, the URL, and what holds the rest back."""
    owner, *others = ring.hosts
    gate = Gate(HALF)
    url = ring.add_owned(origin, owner, LONG, gate=gate)
    running = [ring.cluster.start_get(url, host) for host in others]
    gate.wait_reached()
    for host in others:
        ring.cluster.wait_received(host, HALF)
        wait_until(partial(holds_half, host, task_id_of(url)), f"{host.name} holds half")
    pairs = sorted(zip(others, running, strict=True), key=lambda pair: -pair[0].metrics().received("origin"))
    assert pairs[1][0].metrics().received("origin") == 0, "one host reads the origin"
    return owner, [host for host, _ in pairs], [one for _, one in pairs], url, gate


def body(origin: Origin, url: str) -> int:
    """Bytes of the URL that the origin has served."""
    return origin.count(url.removeprefix(origin.url)).body


def test_the_one_that_decides_dies(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """Another one decides then, and the read goes on where it is."""
    ring = make_ring(4).start()
    owner, hosts, running, url, gate = stopped_at_half(ring, origin)
    owner.kill()
    ring.wait_whole(hosts)
    gate.open()
    for one in running:
        one.wait().check(LONG)
    assert received(hosts, "origin") <= len(LONG) + 16 * PIECE
    assert body(origin, url) <= len(LONG) + IN_FLIGHT // 2


def test_the_one_that_reads_dies(make_ring: Callable[..., Ring], origin: Origin) -> None:
    """Another one reads on; what is there is not read again."""
    ring = make_ring(4).start()
    _, (reader, *others), (lost, *running), url, gate = stopped_at_half(ring, origin)
    reader.kill()
    gate.open()
    lost.wait().check_failed()
    for one in running:
        one.wait().check(LONG)
    assert received(others, "origin") == len(LONG) - HALF
    assert body(origin, url) <= len(LONG) + IN_FLIGHT // 2, "what the dead one had in flight"


def test_a_mere_parent_dies(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(4).start()
    _, (reader, parent, other), running, url, gate = stopped_at_half(ring, origin)
    parent.kill()
    gate.open()
    running[1].wait().check_failed()
    running[0].wait().check(LONG)
    running[2].wait().check(LONG)
    assert received([reader, other], "origin") == len(LONG)
    assert body(origin, url) == len(LONG)


def test_the_one_that_reads_and_decides_dies(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3).start()
    owner, *others = ring.hosts
    gate = Gate(HALF)
    url = ring.add_owned(origin, owner, LONG, gate=gate)
    lost = ring.cluster.start_get(url, owner)
    gate.wait_reached()
    running = [ring.cluster.start_get(url, host) for host in others]
    for host in others:
        ring.cluster.wait_received(host, HALF)
        wait_until(partial(holds_half, host, task_id_of(url)), f"{host.name} holds half")
    owner.kill()
    gate.open()
    lost.wait().check_failed()
    for one in running:
        one.wait().check(LONG)
    assert received(others, "origin") <= len(LONG) - HALF + 16 * PIECE
    assert body(origin, url) <= len(LONG) + IN_FLIGHT


def test_who_returns_is_used_again(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3).start()
    first, second, third = ring.hosts
    url = ring.add_owned(origin, first, CONTENT)
    ring.cluster.get(url, first).check(CONTENT)
    first.kill()
    ring.wait_whole([second, third])
    first.restart()
    ring.wait_whole()
    assert ring.cluster.get(url, second).check(CONTENT).sources["peer"] == len(CONTENT)
    first.kill()
    ring.wait_whole([second, third])
    assert ring.cluster.get(url, third).check(CONTENT).sources["peer"] == len(CONTENT)
    assert origin.count(url.removeprefix(origin.url)).body == len(CONTENT)


def test_who_leaves_says_so(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3).start()
    leaving, *others = ring.hosts
    url = ring.add_owned(origin, leaving, CONTENT)
    ring.cluster.get(url, others[0]).check(CONTENT)
    leaving.terminate()
    assert leaving.wait() == 0
    ring.wait_whole(others)
    assert ring.cluster.get(url, others[1]).check(CONTENT).sources["peer"] == len(CONTENT)
    assert origin.count(url.removeprefix(origin.url)).body == len(CONTENT)


@pytest.mark.parametrize("count", [1, 3])
def test_who_leaves_finishes_what_it_does(make_ring: Callable[..., Ring], origin: Origin, count: int) -> None:
    """Its own scheduler is gone by then, and the others have taken over, if there are any."""
    ring = make_ring(count).start()
    leaving = ring.hosts[0]
    gate = Gate(HALF)
    url = ring.add_owned(origin, leaving, LONG, gate=gate)
    running = ring.cluster.start_get(url, leaving)
    gate.wait_reached()
    ring.cluster.wait_received(leaving, HALF)
    leaving.terminate()
    wait_until(lambda: not leaving.answers("/readyz"), "the host is going")
    gate.open()
    running.wait().check(LONG)
    assert leaving.wait() == 0
    assert body(origin, url) <= len(LONG) + IN_FLIGHT // 2


def test_a_download_outlives_all_others(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3).start()
    owner, left, other = ring.hosts
    gate = Gate(HALF)
    url = ring.add_owned(origin, owner, LONG, gate=gate)
    running = ring.cluster.start_get(url, left)
    gate.wait_reached()
    owner.kill()
    other.kill()
    gate.open()
    running.wait().check(LONG)
    assert left.metrics().received("origin") <= len(LONG) + 16 * PIECE


# --- a scheduler comes and goes ------------------------------------------------------------------------------


def test_a_scheduler_takes_over_and_goes_again(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(3).start()
    before = origin.add("/before.bin", CONTENT)
    ring.cluster.get(before, ring.hosts[0]).check(CONTENT)
    scheduler = ring.start_scheduler()
    ring.wait_mode("scheduler")
    wait_until(lambda: len(scheduler.hosts()) == 3, "all hosts have a lease")
    assert ring.view(ring.hosts[0])["schedulers"] == [scheduler.url]
    assert ring.cluster.get(before, ring.hosts[1]).check(CONTENT).sources["peer"] == len(CONTENT)
    during = origin.add("/during.bin", CONTENT)
    for result in ring.cluster.get_all(during, ring.hosts):
        result.check(CONTENT)
    assert task_id_of(during) in str(scheduler.tasks())
    scheduler.kill()
    ring.wait_whole()
    after = origin.add("/after.bin", CONTENT)
    for result in ring.cluster.get_all(after, ring.hosts):
        result.check(CONTENT)
    assert ring.cluster.get(before, ring.hosts[2]).check(CONTENT).sources["peer"] == len(CONTENT)
    for path in ("/before.bin", "/during.bin", "/after.bin"):
        assert origin.count(path).body == len(CONTENT), path
    scheduler.restart()
    ring.wait_mode("scheduler")


def test_a_scheduler_comes_and_goes_in_mid_download(make_ring: Callable[..., Ring], origin: Origin) -> None:
    ring = make_ring(4).start()
    _, hosts, running, url, gate = stopped_at_half(ring, origin)
    scheduler = ring.start_scheduler()
    ring.wait_mode("scheduler")
    wait_until(lambda: task_id_of(url) in str(scheduler.tasks()), "the scheduler knows of it")
    gate.move(HALF + 8 * MIB)
    for host in hosts:
        ring.cluster.wait_received(host, HALF + 8 * MIB)
    scheduler.kill()
    ring.wait_whole()
    gate.open()
    for one in running:
        one.wait().check(LONG)
    assert received(hosts, "origin") <= len(LONG) + 16 * PIECE
    assert body(origin, url) <= len(LONG) + IN_FLIGHT


# --- what it costs to start ----------------------------------------------------------------------------------


def test_on_loopback_alone_nothing_of_discovery_is_loaded(cluster: Cluster) -> None:
    peer, _ = cluster.start_up(environ={"DRAGONET_HOST_SCHEDULER": "", "PYTHONPROFILEIMPORTTIME": "1"})
    told = get_json(str(peer.socket), "/v1/lan")
    assert told["mode"] == "configured"
    assert not told["discovery"]
    loaded = peer.log
    assert " peer.hosting\n" in loaded
    for name in ("zeroconf", "dns.resolver", "peer.lan.mdns", "peer.lan.lan"):
        assert f" {name}\n" not in loaded
    with pytest.raises((OSError, http.client.HTTPException, AssertionError)):
        get_json(peer.address, "/v1/hello")


def test_without_mdns_it_is_not_loaded(make_ring: Callable[..., Ring]) -> None:
    ring = make_ring(1, environ={"PYTHONPROFILEIMPORTTIME": "1"}).start()
    for name in ("zeroconf", "dns.resolver"):
        assert f" {name}\n" not in ring.hosts[0].log
