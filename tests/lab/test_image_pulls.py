"""Hosts pull one image at the same moment, through dragonet, with real runtimes: ``make lab``, as root."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.lab.cluster import ImageLab, traffic_during
from tests.lab.images import Image, put_image
from tests.lab.layers import MIB

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def came_from_several_machines(lab: ImageLab, image: Image) -> None:
    """That each layer came to the hosts from the seeder and from other hosts, and from nowhere else."""
    found: dict[str, Counter[str]] = {}
    for host in lab.hosts:
        for digest, sources in host.given().items():
            found.setdefault(digest, Counter()).update(sources)
    for layer in image.layers:
        sources = found[layer.digest]
        assert sources["seeder"] > 0, (layer, sources)
        assert sources["peer"] > 0, (layer, sources)
        assert sources["origin"] == 0, (layer, sources)


@pytest.mark.parametrize(
    ("hosts", "runtime"), [(3, "containerd"), (8, "containerd"), (3, "podman")], ids=lambda value: str(value)
)
def test_hosts_pull_an_image_at_the_same_moment(hosts: int, runtime: str) -> None:
    with ImageLab(hosts=hosts, runtimes=[runtime]) as lab:
        image = put_image(lab.registry, "team/app", [75 * MIB] * 4)
        sent = traffic_during(lab.store, lambda: lab.pull_all(image, runtime))
        lab.read_once(image)
        assert sent.from_machine < 1.02 * image.size
        came_from_several_machines(lab, image)
        received = Counter(
            {
                source: sum(host.peer.metrics().received(source) for host in lab.hosts)
                for source in ("peer", "seeder", "origin")
            }
        )
        assert received["origin"] == 0
        assert sum(received.values()) >= hosts * image.size
        # a host sends no more than what the others took from hosts, and what was asked of two in the endgame
        given = sum(host.peer.metrics().value("dragonet_sent_bytes_total") for host in lab.hosts)
        assert given >= received["peer"]
        assert sum(host.peer.metrics().value("dragonet_sent_bytes_total") > 0 for host in lab.hosts) >= 2


def test_a_host_that_comes_later_has_it_from_the_others() -> None:
    with ImageLab(hosts=2) as lab:
        image = put_image(lab.registry, "team/app", [20 * MIB] * 2)
        first, second = lab.hosts
        lab.pull_all(image, "containerd", [first])
        asked = len(lab.asked())
        lab.pull_all(image, "containerd", [second])
        assert lab.asked()[asked:] == [], "the registry was asked again within the time that a tag is trusted"
        lab.read_once(image)
