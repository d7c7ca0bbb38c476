"""What a request to the registry gateway names, and whether it may be asked for. Pure.

The registry is named by the parameter ``ns`` (containerd), else by the first segment of the repository's path
where that can only be a registry (podman, CRI-O, skopeo), else it is the default (Docker). Nothing is guessed:
a name that is not one is refused, so that no way of writing it leads to a registry that was not meant. The
grammar is that of the OCI distribution specification 1.1 ("Pulling manifests") and of image references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import cast

from cdn.sources.oci.names import DOCKER_HUB, canonical_registry, is_repository, is_tag
from peer.gateway.errors import RegistryError
from peer.gateway.registries import is_registry
from peer.gateway.target import Kind, Target
from shared.errors import InvalidRequest
from shared.task.digest import parse_content_digest

_COLON = re.compile("%3[aA]")
_WITH_PORT = re.compile(r"(.+)_([0-9]{1,5})")


def parse_target(path: str, spaces: Sequence[str], default: str) -> Target | None:
    """What a request is about; None for ``/v2/`` itself.

    ``path`` is the request's path as it came, percent-encoded; ``spaces`` are the values of its parameter
    ``ns``; ``default`` is the registry of requests that name none, "" for none. Raises RegistryError.
    """
    if path in ("/v2", "/v2/"):
        return None
    # nothing that a name may hold needs to be encoded; some clients encode the colon of a digest all the same
    path = _COLON.sub(":", path)
    if "%" in path or not path.startswith("/v2/"):
        raise _bad_name(
            f"the path {path[:300]!r} holds encoded characters: no repository, tag or digest has any"
        )
    segments = path.removeprefix("/v2/").split("/")
    kind, named, last = _split(segments)
    registry, repository, prefix, space = _place(named, spaces, default)
    if kind == "tags":
        return Target(kind, registry, repository, prefix=prefix, ns=space)
    tag, digest = _reference(kind, last)
    return Target(kind, registry, repository, tag, digest, prefix, space)


def parse_registry(text: str) -> str:
    """A registry ("host", "host:port", "[address]:port") under the one name that it has here.

    Raises RegistryError.
    """
    if not is_registry(text):
        raise _bad_name(f"{text[:300]!r} does not name a registry: write host or host:port, as in docker.io")
    return canonical_registry(text)


class AllowList:
    """The registries that may be pulled from."""

    def __init__(self, entries: Iterable[str]) -> None:
        """``entries`` are registries, as ``RegistryConfig`` takes them; * stands for any part of a name."""
        self._entries = tuple((entry, _pattern(entry)) for entry in entries)

    def entry_of(self, registry: str) -> str:
        """The first entry that allows a (canonical) registry. Raises RegistryError when none does."""
        for entry, pattern in self._entries:
            if pattern.fullmatch(registry):
                return entry
        raise RegistryError(
            403,
            "DENIED",
            f"pulls from {registry} are not allowed here: add it to registry.allow in dragonet's configuration",
            detail={"registry": registry, "setting": "registry.allow"},
        )


def _pattern(entry: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in canonical_registry(entry).split("*")))


def _split(segments: list[str]) -> tuple[Kind, list[str], str]:
    """(kind, segments of the name, last segment). A repository may itself be named as a kind is."""
    if len(segments) >= 2:
        kind, last = segments[-2:]
        if kind in ("manifests", "blobs", "referrers") or (kind == "tags" and last == "list"):
            return cast(Kind, kind), segments[:-2], last
    raise RegistryError(
        404,
        "UNSUPPORTED",
        "there is nothing at this path: the gateway has manifests, blobs, referrers and lists of tags",
    )


def _place(named: list[str], spaces: Sequence[str], default: str) -> tuple[str, str, str, str]:
    """(registry, repository, prefix, ns)."""
    prefix = space = ""
    if spaces:
        if len(set(spaces)) != 1:
            raise _bad_name("the parameter ns stands there more than once: name one registry")
        space = spaces[0]
        registry = parse_registry(space)
    elif named and (written := _registry_of(named[0])):
        registry = parse_registry(written)
        prefix = f"{named[0]}/"
        named = named[1:]
    elif default:
        registry = canonical_registry(default)
    else:
        raise _bad_name(
            "the request names no registry, and registry.default is empty: set that, or name one with ?ns= or "
            "before the repository"
        )
    repository = "/".join(named)
    if registry == DOCKER_HUB and len(named) == 1:
        repository = f"library/{repository}"
    if not is_repository(repository):
        raise _bad_name(
            f"{repository[:300]!r} does not name a repository: names are of lower-case letters and digits, with "
            "'.', '_' or '-' between them and '/' between their parts, up to 255 characters"
        )
    return registry, repository, prefix, space


def _registry_of(segment: str) -> str:
    """The registry that the first part of an image's name is, by the rule that all clients have; "" for none.

    Its port may be written as ``host_port``: podman, CRI-O and skopeo take no colon in the path of a mirror's
    location, and no host has an underline in its name.
    """
    host, port = match.groups() if (match := _WITH_PORT.fullmatch(segment)) else (segment, "")
    if "." not in host and ":" not in host and host.lower() != "localhost":
        return ""
    return f"{host}:{port}" if port else host


def _reference(kind: Kind, text: str) -> tuple[str, str]:
    """(tag, digest), one of which is ""."""
    if kind == "manifests" and ":" not in text:
        if not is_tag(text):
            # as registries answer (and their conformance suite asks for): there cannot be such a manifest
            raise RegistryError(
                404, "MANIFEST_UNKNOWN", f"{text[:300]!r} cannot be a tag, so there is no such manifest"
            )
        return text, ""
    try:
        digest = ":".join(parse_content_digest(text))
    except InvalidRequest as error:
        raise RegistryError(400, "DIGEST_INVALID", str(error)[:400]) from None
    if digest != text:
        raise RegistryError(400, "DIGEST_INVALID", f"{text!r} is not a digest: its letters are lower-case")
    return "", digest


def _bad_name(words: str) -> RegistryError:
    return RegistryError(400, "NAME_INVALID", words)
