"""``dragonet lan`` beside real daemons on loopback, which know each other by ``lan.peers``."""

from __future__ import annotations

import json
import signal
import subprocess

from tests.integration.cluster import Cluster
from tests.integration.net import wait_until
from tests.integration.processes import dragonet_command

QUIET = {"DRAGONET_LAN_DISCOVERY": "on", "DRAGONET_LAN_MDNS": "false"}


def test_two_hosts_see_each_other_and_so_does_one_who_is_no_host(cluster: Cluster) -> None:
    first, _ = cluster.start_up(name="first", environ=QUIET)
    named = {**QUIET, "DRAGONET_LAN_PEERS": first.address}
    second, _ = cluster.start_up(name="second", environ=named)

    def ring() -> bool:
        told = json.loads(cluster.run("lan", "--json", "--socket", str(first.socket)).stdout)
        return bool(told["mode"] == "ring" and [host["member"] for host in told["hosts"]] == [True])

    wait_until(ring, "the first has heard of the second")
    shown = cluster.run("lan", "--socket", str(second.socket))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "this host and 1 other" in shown.stdout
    assert "(a ring of 2)" in shown.stdout
    assert first.address in shown.stdout

    alone = cluster.run(
        "lan",
        "--json",
        environ={**named, "DRAGONET_PEER_SOCKET": "nobody.sock", "DRAGONET_HOST_SCHEDULER": ""},
    )
    assert alone.returncode == 0
    assert "no dragonet daemon answers on nobody.sock" in alone.stderr
    told = json.loads(alone.stdout)
    assert [(host["address"], host["state"], host["found"]) for host in told["hosts"]] == [
        (first.address, "present", ["static"])
    ]
    assert (told["here"]["state"], told["mode"]) == ("absent", "ring")


def test_a_host_that_looks_for_nobody(cluster: Cluster) -> None:
    cluster.start(seeders=0)
    (peer,) = cluster.peers
    shown = cluster.run("lan", "--socket", str(peer.socket))
    assert shown.returncode == 0
    assert "(configured)" in shown.stdout
    assert "Nobody else is looked for" in shown.stdout


def test_watching_ends_with_ctrl_c(cluster: Cluster) -> None:
    cluster.start(seeders=0)
    (peer,) = cluster.peers
    command = [*dragonet_command(), "lan", "--watch", "--socket", str(peer.socket)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cluster.environment(None)
    ) as watching:
        assert watching.stdout is not None
        for _ in range(2):
            assert json.loads(watching.stdout.readline())["mode"] == "configured"
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert errors == b""


def test_a_daemon_that_goes_while_it_is_watched(cluster: Cluster) -> None:
    cluster.start(seeders=0)
    (peer,) = cluster.peers
    command = [*dragonet_command(), "lan", "--watch", "--json", "--socket", str(peer.socket)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cluster.environment(None)
    ) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        peer.kill()
        _, errors = watching.communicate(timeout=30)
    assert watching.returncode == 1
    assert b"dragonet daemon" in errors or b"the daemon hung up" in errors
    assert len(errors.splitlines()) == 1
