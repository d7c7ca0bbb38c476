"""A host whose disk has changed bytes of what it holds: no runtime ever sees them. ``make lab``, as root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.cluster import Host, ImageLab
from tests.lab.images import Image, put_image
from tests.lab.layers import MIB

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

STEP = MIB // 4
NEEDLE = 64


def damage(lab: ImageLab, host: Host, image: Image) -> int:
    """Change a byte in every quarter of a mebibyte of each layer, wherever the host's store has it; how many."""
    blobs = [(lab.registry.blob_path(layer.digest)).read_bytes() for layer in image.layers]
    changed = 0
    for path in files_of_contents(host):
        held = bytearray(path.read_bytes())
        places = []
        for blob in blobs:
            for start in range(STEP // 2, len(blob) - NEEDLE, STEP):
                at = held.find(blob[start : start + NEEDLE])
                places += [at] if at >= 0 else []
        with path.open("r+b") as file:
            for at in places:
                file.seek(at)
                file.write(bytes([held[at] ^ 0x01]))
        changed += len(places)
    return changed


def files_of_contents(host: Host) -> list[Path]:
    """The files in which its peer keeps the layers."""
    return [path for path in host.data.rglob("*.mdb") if path.stat().st_size > MIB]


def test_bytes_that_changed_on_a_disk_reach_no_runtime() -> None:
    with ImageLab(hosts=3, runtimes=("containerd", "podman")) as lab:
        image = put_image(lab.registry, "team/app", [6 * MIB, 4 * MIB])
        rotten, second, third = lab.hosts
        lab.pull_all(image, "containerd", [rotten])
        lab.seeder.kill()  # so that the others turn to the host
        assert damage(lab, rotten, image) >= 2 * 6 + 2 * 4
        read = sum(lab.blob_egress(image).values())
        pulls = [*lab.pull(image, "containerd", [second]), *lab.pull(image, "podman", [third])]
        for pull in pulls:
            pull.check()
        second.runtimes["containerd"].check_image(lab.reference(image), image)
        third.runtimes["podman"].check_image(lab.reference(image), image)
        assert sum(lab.blob_egress(image).values()) > read, "nothing of it was damaged"
        # and its own runtimes get what is right, too
        rotten.runtimes["containerd"].forget()
        lab.pull_all(image, "containerd", [rotten])
        lab.pull_all(image, "podman", [rotten])
