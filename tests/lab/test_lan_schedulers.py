"""Schedulers on a LAN: found and lost in the middle of downloads, and one for two subnets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.net import get_json, wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content
from tests.lab.lan import LanHost, LanLab
from tests.lab.network import Machine, Network, connect

pytestmark = pytest.mark.root

CONTENT = random_content(24 * MIB + 1, seed=53)
EVERYWHERE = ("--listen", "0.0.0.0:8002")


def test_a_scheduler_appears_and_disappears_in_the_middle_of_downloads(
    lab: LanLab, figure: Callable[[str], None]
) -> None:
    network = lab.network()
    origin = lab.origin(network)
    hosts = [lab.host(network, role) for role in ("up", "peer", "peer")]
    late = lab.add(network, "peer")
    lab.wait_found(hosts)
    gate = Gate(4 * MIB)
    url = origin.add("/file", CONTENT, gate=gate)
    gets = [host.start_get(url) for host in hosts]

    def move_on(offset: int) -> None:
        gate.move(offset)
        wait_until(lambda: all(host.held(url) >= offset - MIB for host in hosts), f"all hold {offset} bytes")

    move_on(4 * MIB)
    scheduler = lab.host(network, "scheduler", *EVERYWHERE)
    figure(f"a scheduler was used {lab.wait_mode('scheduler', hosts):.1f} s after its start")
    move_on(8 * MIB)
    late.start()
    lab.wait_mode("scheduler", [*hosts, late])
    hosts.append(late)
    gets.append(late.start_get(url))
    assert {host["host"] for host in get_json(scheduler.address, "/v1/hosts")["hosts"]} == {
        host.id for host in hosts
    }
    move_on(12 * MIB)
    scheduler.kill()
    figure(f"hosts decided for themselves {lab.wait_mode('ring', hosts):.1f} s after its kill")
    move_on(16 * MIB)
    scheduler.restart()
    figure(f"it was used again after {lab.wait_mode('scheduler', hosts):.1f} s")
    scheduler.terminate()
    figure(f"hosts decided for themselves {lab.wait_mode('ring', hosts):.1f} s after its good end")
    gate.open()
    for get in gets:
        get.wait().check(CONTENT)
    figure(f"the origin was read {origin.count('/file').body / len(CONTENT):.2f} times")
    assert origin.count("/file").body <= 2 * len(CONTENT)
    again = origin.add("/again", CONTENT)
    lab.get_all(again, hosts, CONTENT)
    assert origin.count("/again").body == len(CONTENT)


def test_two_schedulers_share_the_contents(lab: LanLab) -> None:
    network = lab.network()
    origin = lab.origin(network)
    schedulers = [lab.host(network, "scheduler", *EVERYWHERE, wait=True) for _ in range(2)]
    hosts = [lab.host(network, role) for role in ("peer", "seeder", "peer")]
    peers = [host for host in hosts if host.role == "peer"]
    wait_until(
        lambda: all(len(host.view()["schedulers"]) == 2 for host in peers if host.answers()),
        "both schedulers are used",
    )
    lab.wait_mode("scheduler", peers)
    for number in range(4):
        url = origin.add(f"/file-{number}", CONTENT)
        lab.get_all(url, peers, CONTENT)
        assert origin.count(f"/file-{number}").body == len(CONTENT)
    assert all(get_json(scheduler.address, "/v1/hosts")["hosts"] for scheduler in schedulers)


class Routed:
    """Two subnets with a router between, a scheduler in the first, and a way to the origin for each."""

    def __init__(self, lab: LanLab, seeders: int = 0) -> None:
        self.lab = lab
        self.near, self.far = lab.network(), lab.network()
        self.router: Machine = self.near.machine()
        self.router.attach(self.far)
        connect(self.router, self.near, self.far)
        self.far.route(f"{self.near.outside}/32", self.far.gateway)
        self.origin: Origin = lab.origin(self.near)
        self.scheduler = lab.host(self.near, "scheduler", *EVERYWHERE, wait=True)
        for _ in range(seeders):
            lab.host(self.near, "seeder", *self._flags, wait=True)

    @property
    def _flags(self) -> tuple[str, ...]:
        return "--listen", "0.0.0.0:65002", "--scheduler", f"http://{self.scheduler.address}"

    def host(self, network: Network) -> LanHost:
        return self.lab.host(network, "peer", *self._flags)

    def crossed(self) -> int:
        """Bytes that have passed the router, both ways, with all headers."""
        return sum(cable.traffic.to_machine + cable.traffic.from_machine for cable in self.router.cables) // 2

    def crossing(self, work: Callable[[], object]) -> float:
        """What passes the router while ``work`` is done, in contents."""
        before = self.crossed()
        work()
        return (self.crossed() - before) / len(CONTENT)


@pytest.mark.parametrize("seeders", [0, 1])
def test_between_two_subnets_nothing_crosses_twice(
    lab: LanLab, figure: Callable[[str], None], seeders: int
) -> None:
    routed = Routed(lab, seeders)
    near = [routed.host(routed.near) for _ in range(2)]
    far = [routed.host(routed.far) for _ in range(3)]
    for host in [*near, *far]:
        host.wait_ready()
        assert host.mode() == "configured"

    url = routed.origin.add("/at-once", CONTENT)
    crossed = routed.crossing(lambda: lab.get_all(url, [*near, *far], CONTENT))
    figure(f"all at once: {crossed:.3f} contents crossed")
    assert crossed <= 1.1

    url = routed.origin.add("/later", CONTENT)
    lab.get_all(url, near, CONTENT)
    crossed = routed.crossing(lambda: lab.get_all(url, far, CONTENT))
    figure(f"one subnet later: {crossed:.3f} contents crossed")
    assert crossed <= 1.1

    assert {routed.origin.count(path).body for path in ("/at-once", "/later")} == {len(CONTENT)}
    counted = sum(host.metrics().value("dragonet_cross_zone_bytes_total") for host in [*near, *far])
    figure(f"the metric of what crosses: {counted / len(CONTENT):.3f} contents")
    assert 2 * len(CONTENT) <= counted <= 2.2 * len(CONTENT)
