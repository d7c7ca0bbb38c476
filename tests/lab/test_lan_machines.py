"""What real networks are like: equal names, copied disks, neighbours, many interfaces, IPv6 alone, and noise."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable

import pytest

from tests.integration.net import wait_until
from tests.integration.origins import MIB, random_content
from tests.lab.lan import LanHost, LanLab, owner_of

pytestmark = pytest.mark.root

CONTENT = random_content(8 * MIB + 1, seed=54)


def share(lab: LanLab, hosts: list[LanHost], path: str) -> None:
    """All of ``hosts`` fetch a new file at once; the origin is read once."""
    network = hosts[0].machine.cables[0].network
    origin = lab.origin(network)
    lab.get_all(origin.add(path, CONTENT), hosts, CONTENT)
    assert origin.count(path).body == len(CONTENT)


def test_machines_of_one_name_and_others(lab: LanLab) -> None:
    network = lab.network()
    names = ["twin", "twin", "", "ein-langer-name-" * 3 + "ende"]
    hosts = [lab.host(network.machine(hostname=name), "peer") for name in names]
    lab.wait_found(hosts)
    assert sorted(host["name"] for host in hosts[2].others().values()) == sorted(
        name for name in names if name
    )
    share(lab, hosts, "/names")


def test_a_copied_data_folder(lab: LanLab) -> None:
    network = lab.network()
    first, other = lab.host(network, "peer"), lab.host(network, "peer")
    lab.wait_found([first, other])
    copy = lab.add(network, "peer")
    shutil.copytree(first.data, copy.data)
    before = first.id
    assert copy.id == before
    copy.start(wait=False)
    wait_until(lambda: copy.id != before, "the copy has an id of its own")
    assert first.id == before
    lab.wait_found([first, other, copy])
    share(lab, [first, other, copy], "/copy")
    copy.kill()
    kept = copy.id
    copy.restart()
    assert copy.id == kept
    lab.wait_found([first, other, copy])


def test_two_clusters_on_one_wire(lab: LanLab) -> None:
    network = lab.network()
    ours = [lab.host(network), lab.host(network, "peer")]
    theirs = [lab.host(network, role, "--set", "lan.cluster=other") for role in ("up", "peer")]
    lab.wait_found(ours)
    lab.wait_found(theirs)
    wait_until(
        lambda: all(host.view()["ignored"].get("cluster", 0) >= 1 for host in [*ours, *theirs]),
        "each has counted those of the other cluster",
    )
    assert {host.view()["cluster"] for host in theirs} == {"other"}
    origin = lab.origin(network)
    url = origin.add("/file", CONTENT)
    lab.get_all(url, [*ours, *theirs], CONTENT)
    assert origin.count("/file").body == 2 * len(CONTENT)


def test_container_bridges_and_several_interfaces(lab: LanLab, figure: Callable[[str], None]) -> None:
    wired, wireless = lab.network(), lab.network()
    machines = [wired.machine() for _ in range(3)]
    for machine in machines[:2]:
        machine.attach(wireless)
    for machine in machines:
        machine.add_bridge("docker0", "172.17.0.1/16")
        machine.add_bridge("br-0123456789ab", "172.18.0.1/16")
    hosts = [lab.host(machine, "peer") for machine in machines]
    lab.wait_found(hosts)
    told = [address for host in hosts for one in host.others().values() for address in one["addresses"]]
    assert not [address for address in told if address.startswith(("172.", "127."))]
    share(lab, hosts, "/wired")

    both = hosts[:2]
    hosts[0].machine.cables[0].down()
    figure(f"a pulled cable was found out after {lab.wait_lost(hosts[0], [hosts[2]]):.1f} s")
    wait_until(
        lambda: all(
            one.id in other.present() and other.others()[one.id]["address"].startswith(f"{wireless.prefix}.")
            for one, other in (both, reversed(both))
        ),
        "the two go on by their other interface",
        60,
    )
    origin = lab.origin(wireless)
    hosts[0].machine.cables[1].add_route(f"{wireless.outside}/32", wireless.gateway)
    # the third is seen by one of them only: what it decides for is not the matter here
    names = (f"/wireless-{number}" for number in itertools.count())
    path = next(name for name in names if owner_of(origin.url + name, hosts) != hosts[2].id)
    url = origin.add(path, CONTENT)
    hosts[0].get(url, CONTENT)
    assert hosts[1].get(url, CONTENT).sources["origin"] == 0
    hosts[0].machine.cables[0].up()
    lab.wait_found(hosts)


def test_ipv6_alone(lab: LanLab) -> None:
    network = lab.network(ipv4=False, ipv6=True)
    hosts = [lab.host(network, role) for role in ("up", "peer", "peer")]
    lab.wait_found(hosts)
    assert all(one["address"].startswith("[f") for host in hosts for one in host.others().values())
    share(lab, hosts, "/six")


def test_link_local_addresses_alone(lab: LanLab) -> None:
    network = lab.network(ipv4=False)
    hosts = [lab.host(network, role) for role in ("up", "peer", "peer")]
    lab.wait_found(hosts)
    assert all(one["address"].startswith("[fe80::") for host in hosts for one in host.others().values())


def test_without_multicast(lab: LanLab) -> None:
    network = lab.network()
    known = network.machine()
    flags = ("--set", "lan.mdns=false", "--set", f"lan.peers={known.address}:65002")
    hosts = [lab.host(known, "peer", *flags), *(lab.host(network, "peer", *flags) for _ in range(2))]
    lab.wait_found(hosts)
    share(lab, hosts, "/static")
