"""A registry that counts what it is asked for and misbehaves on request: an origin with an image's paths."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from tests.integration.origins import Origin
from tests.registry import MANIFEST

BLOB = "application/octet-stream"


def digest_of(content: bytes) -> str:
    """``sha256:HEX``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Image:
    """An image: its manifest, and its layers by their digests."""

    repository: str
    tag: str
    manifest: bytes
    layers: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """That of the manifest."""
        return digest_of(self.manifest)

    @property
    def by_tag(self) -> str:
        """The path of the manifest by its tag."""
        return f"/v2/{self.repository}/manifests/{self.tag}"

    @property
    def by_digest(self) -> str:
        """The path of the manifest by its digest."""
        return f"/v2/{self.repository}/manifests/{self.digest}"

    def blob(self, number: int) -> str:
        """The path of a layer."""
        return f"/v2/{self.repository}/blobs/{digest_of(self.layers[number])}"


class FakeRegistry(Origin):
    """As :class:`Origin`, with images."""

    @property
    def name(self) -> str:
        """What stands before the repository in the names of its images."""
        return self.address

    def add_image(self, repository: str, tag: str, *layers: bytes, **behaviour: object) -> Image:
        """Have an image; ``behaviour`` is that of its layers (see ``Resource``)."""
        described = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(x), "size": len(x)}
            for x in layers
        ]
        config = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(b"{}"),
            "size": 2,
        }
        written = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        image = Image(repository, tag, json.dumps(written).encode(), layers)
        told = {"Content-Type": MANIFEST, "Docker-Content-Digest": image.digest}
        self.add(image.by_tag, image.manifest, headers=told)
        self.add(image.by_digest, image.manifest, headers=told)
        for number, layer in enumerate(layers):
            told = {"Content-Type": BLOB, "Docker-Content-Digest": digest_of(layer)}
            self.add(image.blob(number), layer, headers=told, **behaviour)
        return image
