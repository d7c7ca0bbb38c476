"""Hosts that were told nothing find each other by mDNS, and share without a scheduler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.integration.net import wait_until
from tests.integration.origins import MIB, Gate, random_content
from tests.lab.lan import LanHost, LanLab

pytestmark = pytest.mark.root

CONTENT = random_content(24 * MIB + 1, seed=51)


def longest_search(hosts: list[LanHost]) -> float:
    """Of all pairs, the most seconds from when the later one began to take part until it had been found."""
    began: dict[str, float] = {host.id: host.said("takes part in the LAN")[0]["at"] for host in hosts}
    return max(
        float(found["at"]) - max(began[host.id], began[found["host"]])
        for host in hosts
        for found in host.said("host found")
    )


def test_five_hosts_find_each_other_and_the_origin_is_read_once(
    lab: LanLab, figure: Callable[[str], None]
) -> None:
    network = lab.network()
    origin = lab.origin(network)
    began = time.monotonic()
    hosts = [lab.host(network, role) for role in ("up", "peer", "up", "peer", "up")]
    lab.wait_found(hosts)
    figure(
        f"each of five hosts had found all others {time.monotonic() - began:.1f} s after the first was started"
    )
    figure(
        f"the longest that two took to find each other, once both were there: {longest_search(hosts):.2f} s"
    )
    lab.wait_mode("ring", hosts)
    url = origin.add("/file", CONTENT)
    lab.get_all(url, hosts, CONTENT)
    assert origin.count("/file").body == len(CONTENT)

    told = json.loads(lab.run(hosts[1], "lan", "--json", "--socket", str(hosts[1].socket)).stdout)
    assert told["here"]["id"] == hosts[1].id
    addresses = {host["id"]: host["address"] for host in told["hosts"]}
    assert addresses == {host.id: f"{host.machine.address}:65002" for host in hosts if host is not hosts[1]}
    assert all(
        host["found"] and host["tasks"] == 1 and host["held"] >= len(CONTENT) for host in told["hosts"]
    )


def test_a_newcomer_is_used_and_one_who_leaves_is_gone(lab: LanLab, figure: Callable[[str], None]) -> None:
    network = lab.network()
    origin = lab.origin(network)
    hosts = [lab.host(network), lab.host(network, "peer")]
    newcomer = lab.host(network, "peer")
    lab.wait_found([*hosts, newcomer])
    url = origin.add("/file", CONTENT)
    newcomer.get(url, CONTENT)
    newcomer.terminate()
    figure(f"a host that ended in good order was gone after {lab.wait_lost(newcomer, hosts):.1f} s")
    assert newcomer.wait() == 0
    began = time.monotonic()
    newcomer.start(wait=False)
    lab.wait_found([*hosts, newcomer])
    gets = [host.start_get(url) for host in hosts]
    wait_until(lambda: newcomer.sent() > 0, "the newcomer gives pieces")
    figure(f"a newcomer had given its first piece {time.monotonic() - began:.1f} s after its start")
    for get in gets:
        assert get.wait().check(CONTENT).sources["origin"] == 0
    assert origin.count("/file").body == len(CONTENT)


def test_the_network_splits_in_two_and_heals(lab: LanLab, figure: Callable[[str], None]) -> None:
    here = lab.network()
    there = lab.network(beside=here)
    origin = lab.origin(here)
    halves = [[lab.host(here), lab.host(here, "peer")], [lab.host(there), lab.host(there, "peer")]]
    hosts = [host for half in halves for host in half]
    lab.wait_found(hosts)
    gate = Gate(8 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    gets = [host.start_get(url) for host in hosts]
    wait_until(lambda: all(host.held(url) >= 4 * MIB for host in hosts), "all have begun")

    there.part()
    lost = max(lab.wait_found(half) for half in halves)
    figure(f"each half of a split network was by itself after {lost:.1f} s")
    gate.open()
    for get in gets:
        get.wait().check(CONTENT)
    assert origin.count("/file").body <= 2 * len(CONTENT)
    each = origin.add("/each", CONTENT)
    lab.get_all(each, hosts, CONTENT)
    assert origin.count("/each").body == 2 * len(CONTENT)

    there.join()
    figure(f"a healed network was one again after {lab.wait_found(hosts):.1f} s")
    one = origin.add("/one", CONTENT)
    lab.get_all(one, hosts, CONTENT)
    assert origin.count("/one").body == len(CONTENT)
