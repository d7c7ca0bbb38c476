"""`dragonet runtime configure` and `restore` on folders of runtimes that then really pull: ``make lab``, as root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes import dragonet_command
from tests.lab.cluster import Host, ImageLab
from tests.lab.images import put_image
from tests.lab.layers import MIB
from tests.lab.runtimes import GATEWAY, Runtime

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

READERS = {"containerd": ["containerd"], "podman": ["podman", "skopeo"]}
"""Which programs read what is configured."""


@pytest.fixture(scope="module")
def lab() -> Iterator[ImageLab]:
    """A host whose runtimes pull from the registry itself, and have more in their folders."""
    with ImageLab(hosts=1, runtimes=("containerd", "podman", "skopeo"), direct=True) as running:
        yield running


def files(etc: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder, with its mode."""
    return {
        str(path.relative_to(etc)): (path.stat().st_mode, b"" if path.is_dir() else path.read_bytes())
        for path in etc.rglob("*")
    }


def run(lab: ImageLab, host: Host, *arguments: str) -> str:
    """``dragonet runtime``; what it prints."""
    done = subprocess.run(
        [*dragonet_command(), "runtime", *arguments],
        env=lab.environ(host.folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pulls_through(lab: ImageLab, host: Host, runtime: Runtime, seed: int) -> bool:
    """Pull an image that nobody has; whether it came through the gateway."""
    if runtime.name == "containerd":
        host.containerd.restart()  # as it is told to those who configure it
    image = put_image(lab.registry, f"team/app{seed}", [MIB], seed=seed)
    lab.pull_all(image, runtime.name, [host])
    lab.read_once(image)
    readers = {asked.machine for asked in lab.asked() if f"/team/app{seed}/blobs/" in asked.path}
    through = image.layers[0].digest in host.given()
    assert readers - {lab.network.gateway} == {(lab.centre if through else host.machine).address}
    return through


@pytest.mark.parametrize("name", ["containerd", "podman"])
def test_configure_and_restore_on_what_was_there(lab: ImageLab, name: str) -> None:
    (host,) = lab.hosts
    for number, reader in enumerate(READERS[name]):
        runtime = host.runtimes[reader]
        asked = (
            "--root",
            str(runtime.folder),
            "--registry",
            lab.registry.name,
            "--gateway",
            f"http://{GATEWAY}",
        )
        seed = 10 * number + 100 * (name == "podman")
        fill(runtime, lab)
        before = files(runtime.etc)
        assert not pulls_through(lab, host, runtime, seed + 1)
        run(lab, host, "configure", name, *asked, "--dry-run")
        assert files(runtime.etc) == before
        run(lab, host, "configure", name, *asked)
        configured = files(runtime.etc)
        assert configured != before
        assert pulls_through(lab, host, runtime, seed + 2)
        run(lab, host, "configure", name, *asked)
        assert files(runtime.etc) == configured, "the second time changes nothing"
        assert pulls_through(lab, host, runtime, seed + 3)
        run(lab, host, "restore", name, "--root", str(runtime.folder))
        assert files(runtime.etc) == before
        assert not pulls_through(lab, host, runtime, seed + 4)
        run(lab, host, "restore", name, "--root", str(runtime.folder))
        assert files(runtime.etc) == before, "there is nothing more to put back"


def fill(runtime: Runtime, lab: ImageLab) -> None:
    """Have more in the folder than what the registry needs, in odd forms."""
    if runtime.name == "containerd":
        config = runtime.etc / "config.toml"
        config.write_text(f"# ours\n{config.read_text()}\n[debug]\n  level = 'info' # kept\n")
        other = runtime.etc / "certs.d" / "registry.example:5000" / "hosts.toml"
        other.parent.mkdir(parents=True)
        other.write_text("server='https://registry.example:5000'\n[host.'https://mirror.example']\n")
        other.chmod(0o600)
        return
    other = runtime.etc / "registries.conf.d" / "000-ours.conf"
    other.write_text(
        "# ours\n[[registry]]\nprefix='*.example'\nlocation='other.example'\n\n[aliases]\n'a'='b.example/a'\n"
    )
    other.chmod(0o640)
