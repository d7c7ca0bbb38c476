"""dragonet between machines with addresses of their own and a scheduler that each of them is told: ``make lab``."""

from __future__ import annotations

import pytest

from tests.integration.net import get_json, wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content
from tests.lab.lan import LanHost, LanLab

pytestmark = pytest.mark.root


class Told:
    """A scheduler and a seeder on one machine, and two peers, all with flags that say where they are."""

    def __init__(self, lab: LanLab) -> None:
        network = lab.network()
        centre = network.machine()
        self.origin: Origin = lab.origin(network)
        self.scheduler = lab.host(centre, "scheduler", "--listen", "0.0.0.0:8002", wait=True)
        flags = ("--listen", "0.0.0.0:65002", "--scheduler", f"http://{self.scheduler.address}")
        self.seeder = lab.host(centre, "seeder", *flags)
        self.peers: list[LanHost] = [lab.host(network, "peer", *flags) for _ in range(2)]
        for host in (self.seeder, *self.peers):
            host.wait_ready()


def test_the_origin_is_read_once(lab: LanLab) -> None:
    content = random_content(48 * MIB)
    told = Told(lab)
    url = told.origin.add("/file", content)
    machines = {host.machine.address for host in (told.seeder, *told.peers)}
    addresses = {host["address"] for host in get_json(told.scheduler.address, "/v1/hosts")["hosts"]}
    assert addresses == {f"{address}:65002" for address in machines}
    lab.get_all(url, told.peers, content)
    assert told.origin.count("/file").body == len(content)


def test_a_machine_that_was_cut_off_goes_on(lab: LanLab) -> None:
    content = random_content(32 * MIB)
    told = Told(lab)
    gate = Gate(8 * MIB)
    url = told.origin.add("/file", content, gate=gate)
    cut = told.peers[1]
    gets = [peer.start_get(url) for peer in told.peers]
    wait_until(lambda: gate.waiting, "the origin is being read")
    cut.machine.unplug()
    gate.open()
    gets[0].wait().check(content)
    assert gets[1].running
    cut.machine.plug()
    gets[1].wait().check(content)
    assert told.origin.count("/file").body == len(content)
