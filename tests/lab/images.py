"""Images of random bytes in the content folder of a docker-registry, in each form that runtimes take."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab.layers import Layer, Packing, write_layer
from tests.registry import MANIFEST, DockerRegistry

Form = Literal["oci", "docker"]

_OCI, _DOCKER = "application/vnd.oci.image", "application/vnd.docker"
_MANIFESTS = {"oci": MANIFEST, "docker": f"{_DOCKER}.distribution.manifest.v2+json"}
_CONFIGS = {"oci": f"{_OCI}.config.v1+json", "docker": f"{_DOCKER}.container.image.v1+json"}
_INDEXES = {"oci": f"{_OCI}.index.v1+json", "docker": f"{_DOCKER}.distribution.manifest.list.v2+json"}
_LAYERS: dict[tuple[Form, Packing], str] = {
    ("oci", "tar"): f"{_OCI}.layer.v1.tar",
    ("oci", "gzip"): f"{_OCI}.layer.v1.tar+gzip",
    ("oci", "zstd"): f"{_OCI}.layer.v1.tar+zstd",
    ("docker", "tar"): f"{_DOCKER}.image.rootfs.diff.tar",
    ("docker", "gzip"): f"{_DOCKER}.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True)
class Held:
    """A manifest, an index or a configuration: its media type, bytes and digest."""

    kind: str
    content: bytes

    @property
    def digest(self) -> str:
        """sha256:HEX."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def described(self, **more: object) -> dict[str, object]:
        """Its descriptor."""
        return {"mediaType": self.kind, "digest": self.digest, "size": len(self.content), **more}


@dataclass(frozen=True)
class Image:
    """An image for one platform."""

    repository: str
    tag: str
    manifest: Held
    config: Held
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of all blobs: configuration and layers, each counted once."""
        return len(self.config.content) + sum({layer.digest: layer.size for layer in self.layers}.values())

    @property
    def digests(self) -> set[str]:
        """Of everything that a runtime has when it has the image."""
        return {self.manifest.digest, self.config.digest, *(layer.digest for layer in self.layers)}


def put_image(
    registry: DockerRegistry,
    repository: str,
    sizes: Sequence[int],
    *,
    tag: str = "v1",
    seed: int = 1,
    form: Form = "oci",
    packing: Packing = "gzip",
    architecture: str = "amd64",
) -> Image:
    """An image with layers of so many bytes (0: an empty one); no two seeds give the same layers."""
    layers = tuple(
        _put_layer(registry, repository, size, packing, seed * 1000 + number)
        for number, size in enumerate(sizes)
    )
    config = Held(_CONFIGS[form], _config(layers, architecture, seed))
    _put_blob(registry, repository, config.content)
    described = [
        {"mediaType": _LAYERS[form, layer.packing], "digest": layer.digest, "size": layer.size}
        for layer in layers
    ]
    manifest = Held(
        _MANIFESTS[form],
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFESTS[form],
                "config": config.described(),
                "layers": described,
            }
        ).encode(),
    )
    registry.push_manifest(repository, tag, manifest.content, manifest.kind)
    return Image(repository, tag, manifest, config, layers)


def put_index(
    registry: DockerRegistry, repository: str, tag: str, images: dict[str, Image], form: Form = "oci"
) -> Held:
    """An index of images by architecture."""
    described = [
        image.manifest.described(platform={"os": "linux", "architecture": architecture})
        for architecture, image in images.items()
    ]
    kind = _INDEXES[form]
    index = Held(kind, json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": described}).encode())
    registry.push_manifest(repository, tag, index.content, kind)
    return index


def _config(layers: Sequence[Layer], architecture: str, seed: int) -> bytes:
    return json.dumps(
        {
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
        }
    ).encode()


def _put_layer(registry: DockerRegistry, repository: str, size: int, packing: Packing, seed: int) -> Layer:
    path = registry.folder / f"layer-{seed}"
    layer = write_layer(path, size, packing, seed)
    _place_blob(registry, repository, path, layer.digest)
    return layer


def _put_blob(registry: DockerRegistry, repository: str, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    path = registry.folder / f"blob-{digest}"
    path.write_bytes(content)
    _place_blob(registry, repository, path, f"sha256:{digest}")


def _place_blob(registry: DockerRegistry, repository: str, path: Path, digest: str) -> None:
    """Move a file to where the registry keeps it: large ones are pushed so at the speed of the disk."""
    place = registry.blob_path(digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, place)
    algorithm, _, digits = digest.partition(":")
    repositories = registry.folder / "content/docker/registry/v2/repositories"
    link = repositories / repository / "_layers" / algorithm / digits
    link.mkdir(parents=True, exist_ok=True)
    (link / "link").write_text(digest)
