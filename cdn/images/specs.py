"""The tasks of an image, the same for everybody in the cluster who deals with images. Pure.

What a reference names is told by its *descriptor* (the OCI image specification's word: media type, digest,
size), which is a small task of its own, read by asking the registry with HEAD and checked anew like all
content that may change. It is read without any credentials, so having it proves that everybody may have what
it describes. Manifests and blobs are known by their digests: the same layer of two registries is one task.

What not everybody may have is in the scope of its repository. A scope cannot be guessed from outside the
cluster, since it is derived from a secret that the hosts have in common.
"""

from __future__ import annotations

import hashlib
import hmac

from cdn.sources.oci.names import canonical_registry
from shared.task.identity import TaskSpec, content_spec, normalize_url

DESCRIPTOR_SCHEME = "oci-descriptor"


def descriptor_spec(registry: str, repository: str, reference: str, *, blob: bool = False) -> TaskSpec:
    """The descriptor of a manifest by tag or digest, or of a blob by digest. Raises InvalidRequest."""
    place = _place(registry, repository, reference)
    url, _ = normalize_url(f"{DESCRIPTOR_SCHEME}://{place}{'?kind=blob' if blob else ''}")
    return TaskSpec(url=url)


def manifest_spec(registry: str, repository: str, digest: str, *, scope: str = "") -> TaskSpec:
    """A manifest or an index, byte for byte. Raises InvalidRequest."""
    return content_spec(f"oci://{_place(registry, repository, digest)}?kind=manifest", digest, scope=scope)


def blob_spec(registry: str, repository: str, digest: str, *, scope: str = "") -> TaskSpec:
    """A layer or a configuration. Raises InvalidRequest."""
    return content_spec(f"oci://{_place(registry, repository, digest)}?kind=blob", digest, scope=scope)


def repository_scope(secret: bytes, registry: str, repository: str) -> str:
    """The scope of what only some may read in a repository: 32 hex digits."""
    name = f"{canonical_registry(registry)}/{repository}"
    return hmac.new(secret, b"dragonet repository\0" + name.encode(), hashlib.sha256).hexdigest()[:32]


def _place(registry: str, repository: str, reference: str) -> str:
    separator = "@" if ":" in reference else ":"
    return f"{canonical_registry(registry)}/{repository}{separator}{reference}"
