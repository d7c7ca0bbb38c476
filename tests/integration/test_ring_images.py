"""Images in a network of hosts that have no scheduler: public ones are shared, private ones are each host's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.integration.cluster import Cluster
from tests.integration.origins import random_content
from tests.integration.ring import Ring
from tests.integration.test_private_images import ALICE, LAYER, PRIVATE, SMALL, Client, digest_of
from tests.programs import require_program
from tests.registry import DockerRegistry, htpasswd

OPEN_LAYER = random_content(2_500_000, seed=96)


def ring_for(make_cluster: Callable[..., Cluster], registry: DockerRegistry) -> Ring:
    """Two hosts that may pull from the registry."""
    return Ring(make_cluster(), 2, environ={"DRAGONET_REGISTRY_ALLOW": registry.name}).start()


def given(registry: DockerRegistry) -> int:
    """How often the registry gave out the private layer."""
    path = re.escape(f"/v2/{PRIVATE}/blobs/{digest_of(LAYER)}")
    return len(re.findall(rf'"GET {path} HTTP/1\.1" 20[06] ', registry.log))


def test_public_images_are_shared(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, require_program("docker-registry")) as registry:
        registry.push_image(PRIVATE, "v1", OPEN_LAYER)
        ring = ring_for(make_cluster, registry)
        for host in ring.hosts:
            assert Client(host, registry.name).pull(PRIVATE)[1:] == [OPEN_LAYER]
        assert registry.gets(f"/v2/{PRIVATE}/blobs/{digest_of(OPEN_LAYER)}") == 1


def test_private_images_are_not_shared(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """What keeps them apart is a secret, and hosts that merely found each other do not tell it."""
    program = require_program("docker-registry")
    with DockerRegistry(tmp_path, program) as registry:
        registry.push_image(PRIVATE, "v1", LAYER, SMALL)
    with DockerRegistry(tmp_path, program, auth=htpasswd(tmp_path)) as registry:
        ring = ring_for(make_cluster, registry)
        for number, host in enumerate(ring.hosts, 1):
            assert Client(host, registry.name, ALICE).pull(PRIVATE)[1:] == [LAYER, SMALL]
            assert given(registry) == number
            assert Client(host, registry.name, ALICE).pull(PRIVATE)[1:] == [LAYER, SMALL]
            assert given(registry) == number, "it is held"
            assert Client(host, registry.name).ask(f"{PRIVATE}/blobs/{digest_of(LAYER)}").status == 401
        assert sum(host.metrics().received("peer") for host in ring.hosts) == 0
