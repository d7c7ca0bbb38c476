"""The names of images as people write them. Pure."""

from __future__ import annotations

import re

from cdn.sources.oci.names import DOCKER_HUB, Reference, canonical_registry, is_repository, is_tag
from shared.errors import InvalidRequest
from shared.task.digest import parse_content_digest

LATEST = "latest"
_SCHEMES = ("oci://", "docker://")
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?")


def parse_image(text: str) -> Reference:
    """The manifest that a name stands for: ``alpine``, ``team/app:1``, ``registry:5000/a/b@sha256:HEX``,
    ``oci://registry/name:tag``.

    Without a registry Docker Hub is meant, without a tag ``latest``; a digest wins over a tag. Raises
    InvalidRequest.
    """
    name, schemed = text.strip(), False
    for scheme in _SCHEMES:
        if name.lower().startswith(scheme):
            name, schemed = name[len(scheme) :], True
    if "://" in name:
        raise _invalid(text, "an image has no scheme but oci://")
    name, at, digest = name.partition("@")
    first, slash, rest = name.partition("/")
    registry, path = DOCKER_HUB, name
    if slash and (schemed or first.lower() == "localhost" or set(".:[") & set(first)):
        registry, path = canonical_registry(first), rest
    if not _REGISTRY.fullmatch(registry):
        raise _invalid(text, f"{first!r} is not a registry: write host or host:port")
    repository, colon, tag = path.partition(":")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not is_repository(repository):
        raise _invalid(
            text, "names are of lower-case letters, digits, '.', '_' and '-', with slashes between them"
        )
    if colon and not is_tag(tag):
        raise _invalid(text, f"{tag!r} is not a tag")
    if at:
        try:
            return Reference(registry, repository, "", ":".join(parse_content_digest(digest)))
        except InvalidRequest as error:
            raise _invalid(text, str(error)) from None
    return Reference(registry, repository, tag or LATEST, "")


def _invalid(text: str, words: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:300]!r} is not the name of an image: {words}")
