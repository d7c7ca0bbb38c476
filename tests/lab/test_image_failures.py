"""What fails in the middle of a pull, while hosts with containerd and podman pull the same image: ``make lab``,
as root. The cables are slow, so that there is a middle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.net import wait_until
from tests.lab.cluster import Host, ImageLab
from tests.lab.images import Image, put_image
from tests.lab.layers import MIB
from tests.lab.network import MBIT
from tests.lab.runtimes import Pull

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

BEGUN = 8 * MIB
"""What each host has received when something fails."""


class Mixed:
    """Two hosts that pull with containerd, and two with podman."""

    def __init__(self, lab: ImageLab) -> None:
        self.lab = lab
        self.image = put_image(lab.registry, "team/app", [16 * MIB] * 4)
        self.runtimes = dict(zip(lab.hosts, ("containerd", "containerd", "podman", "podman"), strict=True))
        self.pulls: dict[Host, Pull] = {}

    def begin(self) -> None:
        """Begin everywhere, and wait until every host has received something."""
        for host, runtime in self.runtimes.items():
            (self.pulls[host],) = self.lab.pull(self.image, runtime, [host])
        self.lab.wait_received(self.lab.hosts, BEGUN, self.pulls.values())

    def check(self) -> None:
        """That all pulls succeed, and brought the right content."""
        for pull in self.pulls.values():
            pull.check()
        for host, runtime in self.runtimes.items():
            host.runtimes[runtime].check_image(self.lab.reference(self.image), self.image)


@pytest.fixture
def mixed() -> Iterator[Mixed]:
    with ImageLab(hosts=4, runtimes=("containerd", "podman"), rate=100 * MBIT) as lab:
        yield Mixed(lab)


def test_the_seeder_is_killed(mixed: Mixed) -> None:
    mixed.begin()
    mixed.lab.seeder.kill()
    mixed.check()


def test_a_parent_is_killed(mixed: Mixed) -> None:
    """Its own runtime, a containerd, goes on at the registry."""
    mixed.begin()
    victim = mixed.lab.hosts[0]
    wait_until(
        lambda: victim.peer.metrics().value("dragonet_sent_bytes_total") > MIB, "the victim is a parent", 60
    )
    assert mixed.pulls[victim].process.poll() is None
    victim.peer.kill()
    mixed.check()


def test_the_scheduler_is_killed(mixed: Mixed) -> None:
    mixed.begin()
    mixed.lab.scheduler.kill()
    mixed.check()


def test_the_scheduler_is_killed_and_comes_back(mixed: Mixed) -> None:
    mixed.begin()
    mixed.lab.scheduler.kill()
    mixed.lab.scheduler.restart()
    mixed.check()


def test_the_registry_is_stopped(mixed: Mixed) -> None:
    """When the seeder has all that is asked for, the cluster needs no registry."""
    lab = mixed.lab
    for machine in (lab.store, lab.centre):
        machine.limit(0)
    mixed.begin()
    wait_until(lambda: sum(lab.blob_egress(mixed.image).values()) >= mixed.image.size, "all was read", 60)
    for pull in mixed.pulls.values():
        assert pull.process.poll() is None, "the pull was to be slower than the reading"
    lab.stop_registry()
    mixed.check()
    for host in lab.hosts:
        for runtime in ("containerd", "podman"):
            host.runtimes[runtime].forget()
    again = {
        host: "podman" if runtime == "containerd" else "containerd"
        for host, runtime in mixed.runtimes.items()
    }
    for host, runtime in again.items():
        lab.pull_all(mixed.image, runtime, [host])


def test_the_registry_is_not_there_when_a_host_begins() -> None:
    with ImageLab(hosts=3, runtimes=("containerd", "podman")) as lab:
        image: Image = put_image(lab.registry, "team/app", [4 * MIB, MIB])
        lab.pull_all(image, "containerd", lab.hosts[:1])
        lab.stop_registry()
        lab.pull_all(image, "containerd", lab.hosts[1:2])
        lab.pull_all(image, "podman", lab.hosts[2:])
