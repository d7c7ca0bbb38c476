"""Hosts of which each is told of one other alone, the same for all: they find each other through it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.cluster import Cluster, Peer
from tests.integration.origins import MIB, Origin, random_content
from tests.integration.ring import Ring

CONTENT = random_content(24 * MIB + 7, seed=91)


@pytest.fixture
def star(make_cluster: Callable[..., Cluster]) -> Ring:
    """A ring that has begun at one place, which all hosts are told of."""
    return Ring(make_cluster(), 1)


def start(star: Ring, count: int) -> list[Peer]:
    """The one that all know, last, and ``count`` others before it, all at the same time."""
    others = [star.add(wait=False) for _ in range(count)]
    hosts = [*others, star.add(star.places[0], wait=False)]
    for host in hosts:
        host.wait_ready()
    return hosts


def test_all_find_each_other_though_they_come_at_the_same_time(star: Ring, origin: Origin) -> None:
    hosts = start(star, 3)
    star.wait_whole(timeout=60)
    url = origin.add("/file.bin", CONTENT)
    for result in star.cluster.get_all(url, hosts):
        result.check(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    told = [other["found"] for host in hosts for other in star.view(host)["hosts"]]
    assert all(set(found) <= {"static", "lease", "told"} for found in told)


def test_they_stay_together_without_the_one_that_all_knew(star: Ring, origin: Origin) -> None:
    *others, middle = start(star, 3)
    star.wait_whole(timeout=60)
    middle.kill()
    star.wait_whole(others)
    late = star.add()  # it is told of nobody but the one that is gone
    url = origin.add("/file.bin", CONTENT)
    for result in star.cluster.get_all(url, others):
        result.check(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
    assert star.view(late)["mode"] == "alone"
    middle.restart()
    star.wait_whole(timeout=60)
    assert star.cluster.get(url, late).check(CONTENT).sources["peer"] == len(CONTENT)
    assert origin.count("/file.bin").body == len(CONTENT)
