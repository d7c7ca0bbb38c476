"""The same layer in two registries: one content, read at whichever place has it."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.integration.cluster import Cluster, Peer
from tests.integration.fake_registry import FakeRegistry, Image
from tests.integration.net import Answer, request, wait_until
from tests.integration.origins import MIB, Gate, random_content

LAYER = random_content(24 * MIB + 3, seed=431)
Pull = Callable[[Peer, FakeRegistry], Future[Answer]]


@pytest.fixture
def registries() -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    """Two that both have the layer, in repositories of their own."""
    with ExitStack() as stack:
        yield stack.enter_context(FakeRegistry()), stack.enter_context(FakeRegistry())


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A scheduler, a seeder and two peers."""
    return make_cluster(environ={"DRAGONET_REGISTRY_ALLOW": "127.0.0.1:*"}).start(peers=2)


@pytest.fixture
def images(registries: tuple[FakeRegistry, FakeRegistry], cluster: Cluster) -> list[Image]:
    """The images, which all gateways know to be public."""
    made = []
    for name, registry in zip(("one/app", "another/app"), registries, strict=True):
        image = registry.add_image(name, "v1", LAYER)
        made.append(image)
        for peer in cluster.peers:
            assert ask(peer, registry, image, "HEAD").status == 200
    assert made[0].layers == made[1].layers
    return made


@pytest.fixture
def pull(registries: tuple[FakeRegistry, FakeRegistry], images: list[Image]) -> Iterator[Pull]:
    """Begins to pull the layer from one of them."""
    with ThreadPoolExecutor(4) as pool:
        yield lambda peer, registry: pool.submit(
            ask, peer, registry, images[registries.index(registry)], "GET"
        )


def ask(peer: Peer, registry: FakeRegistry, image: Image, method: str) -> Answer:
    return request(peer.gateway, f"{image.blob(0)}?ns={registry.name}", method, timeout=60)


def waiting(cluster: Cluster) -> int:
    """How many wait for the layer."""
    assert cluster.scheduler is not None
    return sum(task["waiting"] for task in cluster.scheduler.tasks() if task["length"] in (None, len(LAYER)))


def check(answer: Answer) -> None:
    assert answer.status == 200, answer.text
    assert answer.body == LAYER


def test_it_is_read_once(
    cluster: Cluster, registries: tuple[FakeRegistry, FakeRegistry], images: list[Image], pull: Pull
) -> None:
    answers = [pull(peer, registry) for peer, registry in zip(cluster.peers, registries, strict=True)]
    for answer in answers:
        check(answer.result())
    given = [registry.count(image.blob(0)).body for registry, image in zip(registries, images, strict=True)]
    assert sum(given) == len(LAYER)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_who_names_the_wrong_place_gets_it_from_the_other(
    cluster: Cluster,
    registries: tuple[FakeRegistry, FakeRegistry],
    images: list[Image],
    pull: Pull,
    status: int,
) -> None:
    wrong, right = registries
    gate = Gate()
    wrong.change(images[0].blob(0), status=status, answer_gate=gate)
    first = pull(cluster.peers[0], wrong)
    wait_until(lambda: gate.waiting == 1, "the wrong place is being read")
    second = pull(cluster.peers[1], right)
    third = pull(cluster.peers[0], right)
    wait_until(lambda: waiting(cluster) == 2, "both machines wait")
    gate.open()
    for answer in (first, second, third):
        check(answer.result())
    assert right.count(images[1].blob(0)).body == len(LAYER)


def test_a_failure_at_one_place_is_not_held_against_another(
    cluster: Cluster, registries: tuple[FakeRegistry, FakeRegistry], images: list[Image], pull: Pull
) -> None:
    wrong, right = registries
    wrong.change(images[0].blob(0), status=404)
    for peer in cluster.peers:
        assert pull(peer, wrong).result().status == 404
    for peer in cluster.peers:
        check(pull(peer, right).result())
    check(pull(cluster.peers[0], wrong).result())
    assert right.count(images[1].blob(0)).body == len(LAYER)


def test_a_registry_that_dies_in_the_middle_is_replaced_by_the_other(
    cluster: Cluster, registries: tuple[FakeRegistry, FakeRegistry], images: list[Image], pull: Pull
) -> None:
    dying, other = registries
    gate = Gate(12 * MIB)
    dying.change(images[0].blob(0), gate=gate)
    first = pull(cluster.peers[0], dying)
    gate.wait_reached()
    second = pull(cluster.peers[1], other)
    wait_until(lambda: waiting(cluster) == 2, "both machines wait")
    assert other.count(images[1].blob(0)).body == 0
    dying.close()
    check(first.result())
    check(second.result())
    assert other.count(images[1].blob(0)).body <= len(LAYER) - 8 * MIB, "what was read already is kept"


@pytest.mark.parametrize("wrong", [LAYER[:-1] + b"x", LAYER[:-1]], ids=["content", "length"])
def test_wrong_bytes_of_one_registry_do_not_spoil_the_other(
    cluster: Cluster,
    registries: tuple[FakeRegistry, FakeRegistry],
    images: list[Image],
    pull: Pull,
    wrong: bytes,
) -> None:
    lying, honest = registries
    lying.change(images[0].blob(0), content=wrong)
    for peer in cluster.peers:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError, AssertionError)):
            check(pull(peer, lying).result())
    for peer in cluster.peers:
        check(pull(peer, honest).result())
    assert honest.count(images[1].blob(0)).body == len(LAYER)
