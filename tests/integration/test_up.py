"""``dragonet up``: scheduler, seeder and peer in one process, and a second machine that joins it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.integration.cluster import Cluster
from tests.integration.net import request, wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content

CONTENT = random_content(10 * MIB + 1, seed=61)


def test_up_serves_gets_and_reads_the_origin_once(cluster: Cluster, origin: Origin) -> None:
    peer, scheduler = cluster.start_up()
    url = origin.add("/file.bin", CONTENT)
    first = cluster.get(url, peer).check(CONTENT)
    assert first.sources["origin"] + first.sources["seeder"] == len(CONTENT)
    assert cluster.get(url, peer).check(CONTENT).sources["store"] == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    assert request(scheduler, "/readyz").status == 200


def test_up_goes_on_after_a_kill(cluster: Cluster, origin: Origin) -> None:
    peer, _ = cluster.start_up()
    gate = Gate(4 * MIB)
    url = origin.add("/file.bin", CONTENT, gate=gate)
    running = cluster.start_get(url, peer)
    gate.wait_reached()
    stat = partial(cluster.stat, url, peer)
    wait_until(lambda: stat().get("held", 0) >= 4 * MIB, "the peer holds what came", poll=0.2)
    peer.kill()
    running.wait().check_failed()
    gate.open()
    peer.restart()
    assert cluster.get(url, peer).check(CONTENT).sources["store"] >= 4 * MIB
    assert origin.count("/file.bin").body < len(CONTENT) + MIB


def test_another_machine_joins(cluster: Cluster, origin: Origin) -> None:
    peer, scheduler = cluster.start_up()
    url = origin.add("/file.bin", CONTENT)
    cluster.get(url, peer).check(CONTENT)
    other = cluster.start_peer(flags=["--scheduler", f"http://{scheduler}"])
    result = cluster.get(url, other).check(CONTENT)
    assert result.sources["origin"] == 0
    assert origin.count("/file.bin").body == len(CONTENT)


def test_port_in_use_is_one_sentence(cluster: Cluster) -> None:
    _, scheduler = cluster.start_up()
    taken = {"DRAGONET_SCHEDULER_LISTEN": scheduler}
    done = cluster.run("up", "--data-dir", str(cluster.folder / "second"), environ=taken, timeout=20)
    assert done.returncode == 1
    assert scheduler.rpartition(":")[2] in done.stderr


@pytest.mark.parametrize("role", ["up", "peer", "seeder"])
def test_no_role_starts_with_a_wrong_option(cluster: Cluster, role: str) -> None:
    listening = (
        f"DRAGONET_{name}" for name in ("SCHEDULER_LISTEN", "PEER_LISTEN", "PEER_GATEWAY", "SEEDER_LISTEN")
    )
    environ = dict.fromkeys(listening, "127.0.0.1:0") | {"DRAGONET_SOURCE_OPTIONS": "oci.insecur=a"}
    done = cluster.run(role, "--data-dir", str(cluster.folder / "data"), environ=environ, timeout=20)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dragonet: source.options.oci has no option 'insecur': there are")
