"""``dragonet up`` whose scheduler other machines reach: it is one for all of them, found or configured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.net import wait_until
from tests.integration.origins import MIB, random_content
from tests.lab.lan import LanLab

pytestmark = pytest.mark.root

CONTENT = random_content(12 * MIB + 1, seed=57)
OPEN = ("--set", "scheduler.listen=*:8002")


def test_it_is_found_and_used(lab: LanLab) -> None:
    network = lab.network()
    origin = lab.origin(network)
    first = lab.host(network, "up", *OPEN, wait=True)
    found = lab.host(network, "up")
    told = lab.host(
        network, "peer", "--listen", "*:65002", "--scheduler", f"http://{first.machine.address}:8002"
    )
    for host in (found, told):
        host.wait_ready()
    wait_until(lambda: found.mode() == "scheduler", "the second host uses the first one's scheduler")
    assert first.mode() == told.mode() == "configured"
    url = origin.add("/file", CONTENT)
    first.get(url, CONTENT)
    for host in (found, told):
        assert host.get(url, CONTENT).sources["origin"] == 0, "it is reached where it says it is"
    assert origin.count("/file").body == len(CONTENT)

    another = origin.add("/another", CONTENT)
    found.get(another, CONTENT)
    assert first.sent() > 0, "it is a seeder: it reads what others want"
    assert origin.count("/another").body == len(CONTENT)

    first.kill()
    wait_until(lambda: found.mode() == "alone", "the second host goes on by itself")


def test_a_host_returns_to_it(lab: LanLab, figure: Callable[[str], None]) -> None:
    network = lab.network()
    first = lab.host(network, "up", *OPEN, wait=True)
    others = [lab.host(network, "up"), lab.host(network, "peer")]
    lab.wait_mode("scheduler", others)
    first.terminate()
    assert first.wait() == 0
    figure(f"the ring was there {lab.wait_mode('ring', others):.1f} s after the last scheduler said goodbye")
    first.start(wait=False)
    lab.wait_mode("scheduler", others)
