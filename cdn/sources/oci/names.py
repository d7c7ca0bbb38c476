"""What an oci:// URL names. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlsplit

from shared.errors import ConfigError, InvalidRequest, SourceError
from shared.task.digest import parse_content_digest
from shared.task.identity import redact_url

Kind = Literal["manifest", "blob"]
"""What a digest may name: two registers that a registry keeps apart."""

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_SERVER = "registry-1.docker.io"

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_QUERIES = frozenset({"", "kind=manifest", "kind=blob"})
_LONGEST = 255
"""Characters of a repository's name, as most registries have it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A blob or manifest of a repository. ``registry`` is "host[:port]" as in the URL (Docker Hub by one of
    its names); ``digest`` is "algorithm:hex", "" where the manifest of ``tag`` is meant. ``kind`` tells what the
    digest names, None where the URL does not say it."""

    registry: str
    repository: str
    tag: str
    digest: str
    kind: Kind | None = None

    @property
    def server(self) -> str:
        """The "host[:port]" that answers for the registry."""
        return _HUB_SERVER if self.registry == DOCKER_HUB else self.registry

    def __str__(self) -> str:
        held = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{held}"


def canonical_registry(name: str) -> str:
    """A registry under the one name that it has here."""
    name = name.lower()
    return DOCKER_HUB if name in _HUB_NAMES else name


def is_repository(name: str) -> bool:
    """Whether this is the name of a repository (OCI distribution specification, "Pulling manifests")."""
    return len(name) <= _LONGEST and _REPOSITORY.fullmatch(name) is not None


def is_tag(text: str) -> bool:
    """Whether this may be a tag, by the same section."""
    return _TAG.fullmatch(text) is not None


def parse_reference(url: str) -> Reference:
    """What a URL names. Raises SourceError (fault "request") in words when it names nothing."""
    parts = urlsplit(url)
    registry = canonical_registry(parts.netloc.rpartition("@")[2])
    if not registry or parts.query not in _QUERIES or parts.fragment:
        raise _invalid(url, f"write {parts.scheme}://registry/repository@sha256:HEX")
    name, at, digest = parts.path.strip("/").partition("@")
    repository, colon, tag = name.partition(":")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not is_repository(repository):
        raise _invalid(
            url, "its repository is not one: names are of lower-case letters, digits, '.', '_', '-'"
        )
    if not (at or colon):
        raise _invalid(url, "it names no digest and no tag: write @sha256:HEX or :TAG after the repository")
    if colon and not is_tag(tag):
        raise _invalid(url, f"{tag!r} is not a tag")
    if at:
        try:
            digest = ":".join(parse_content_digest(digest))
        except InvalidRequest as error:
            raise _invalid(url, str(error)) from None
    kind = parts.query.removeprefix("kind=")
    if kind and not digest:
        raise _invalid(url, "a tag names a manifest: leave ?kind= out")
    return Reference(registry, repository, tag, digest, cast(Kind, kind) if kind else None)


class PlainRegistries:
    """Which registries are spoken to without TLS: those that an operator names, and this machine's own."""

    def __init__(self, insecure: str = "", secure: str = "") -> None:
        """``insecure`` ones, and ``secure`` ones among those of this machine: names as "host" (whatever the
        port) or "host:port", separated by commas. Raises ConfigError."""
        self._insecure = _names(insecure, "insecure")
        self._secure = _names(secure, "secure")

    def __contains__(self, server: object) -> bool:
        if not isinstance(server, str):
            return False
        host = urlsplit(f"//{server}").hostname or ""
        if {server, host} & self._secure:
            return False
        return bool({server, host} & self._insecure) or _is_loopback(host)


def _names(text: str, option: str) -> frozenset[str]:
    names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
    for name in sorted(names):
        if "/" in name:
            raise ConfigError(
                f"source.options.oci {option}: {name!r} does not name a registry: write host or host:port, "
                "without a scheme and a path"
            )
    return names


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _invalid(url: str, words: str) -> SourceError:
    return SourceError(f"{redact_url(url)} cannot be read: {words}", fault="request")
