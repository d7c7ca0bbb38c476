"""There and back with real programs: configured they pull through the gateway, restored they do without it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, Peer
from tests.integration.origins import random_content
from tests.integration.test_runtime_programs import (
    PATIENCE,
    containerd_running,
    dragonet,
    in_its_own_etc,
)
from tests.programs import require_program
from tests.registry import DockerRegistry

pytestmark = pytest.mark.root
LAYERS = (random_content(1_500_000, seed=801), random_content(70_000, seed=802))


@pytest.fixture(autouse=True)
def only_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run containerd, and mount a folder at /etc/containers")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A real registry without login."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with DockerRegistry(folder, require_program("docker-registry")) as running:
        yield running


def up(make_cluster: Callable[..., Cluster]) -> Peer:
    return make_cluster(environ={"DRAGONET_REGISTRY_ALLOW": "127.0.0.1:*"}).start_up()[0]


def asked(peer: Peer) -> float:
    """How many blobs were had of the gateway."""
    return peer.metrics().value("dragonet_registry_requests_total", kind="blobs", code="200", method="GET")


def test_containerd(tmp_path: Path, registry: DockerRegistry, make_cluster: Callable[..., Cluster]) -> None:
    ctr = require_program("ctr")
    peer = up(make_cluster)
    root = tmp_path / "root"
    hosts = root / "etc/containerd/certs.d"
    hosts.mkdir(parents=True)
    arguments = ("containerd", "--registry", registry.name, "--gateway", f"http://{peer.gateway}")
    with containerd_running(tmp_path) as address:

        def fetch(tag: str) -> None:
            registry.push_image("a/b", tag, *LAYERS, tag.encode())
            image = f"{registry.name}/a/b:{tag}"
            command = [ctr, "-a", str(address), "content", "fetch", "--hosts-dir", str(hosts), image]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert done.returncode == 0, done.stderr

        dragonet(root, "configure", *arguments)
        fetch("through")
        assert asked(peer) == len(LAYERS) + 2, "all layers and the configuration"
        dragonet(root, "restore")
        fetch("without")
        assert asked(peer) == len(LAYERS) + 2


def test_skopeo(tmp_path: Path, registry: DockerRegistry, make_cluster: Callable[..., Cluster]) -> None:
    skopeo = require_program("skopeo")
    peer = up(make_cluster)
    folder = tmp_path / "etc/containers"
    folder.mkdir(parents=True)
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.name}"\ninsecure = true\n')
    arguments = ("podman", "--registry", registry.name, "--gateway", f"http://{peer.gateway}")

    def copy(tag: str) -> None:
        registry.push_image("a/b", tag, *LAYERS, tag.encode())
        command = [skopeo, "copy", f"docker://{registry.name}/a/b:{tag}", f"dir:{tmp_path / tag}"]
        done = in_its_own_etc(tmp_path, command)
        assert done.returncode == 0, done.stderr

    dragonet(tmp_path, "configure", *arguments)
    copy("through")
    assert asked(peer) == len(LAYERS) + 2
    dragonet(tmp_path, "restore")
    copy("without")
    assert asked(peer) == len(LAYERS) + 2
