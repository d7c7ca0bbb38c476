"""What a registry says that a reference stands for. Pure.

A *descriptor* is the media type, the digest and the length of a content (OCI image specification, "Content
descriptors"). A HEAD of a manifest or a blob tells all three; where a registry does not tell them, or tells
what cannot be, the manifest itself does.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from cdn.sources.oci.names import Kind, Reference
from shared.errors import InvalidRequest, SourceError
from shared.http.fields import Headers
from shared.task.digest import parse_content_digest

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "*/*",
)
"""Media types to accept for a manifest: without them a registry may rewrite it into an older one."""

MAX_MANIFEST = 8 * 1024 * 1024
"""Bytes of the longest manifest; registries must take 4 MiB, and few take more."""

DESCRIPTOR_TYPE = "application/vnd.oci.descriptor.v1+json"
_DIGEST = "docker-content-digest"
_BLOB_TYPE = "application/octet-stream"
_ANY_TYPE = frozenset({"", _BLOB_TYPE, "application/json"})
_LENGTH = re.compile(r"[0-9]{1,15}")


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """Media type (as the registry writes it), digest ("algorithm:hex") and length in bytes."""

    media_type: str
    digest: str
    size: int

    def encode(self) -> bytes:
        """As JSON: the same bytes wherever they are made."""
        return msgspec.json.encode(self)


class _Manifest(msgspec.Struct, rename="camel"):
    """The parts of a manifest, an index or one of their forerunners that tell which it is."""

    media_type: str = ""
    schema_version: int = 0
    manifests: list[msgspec.Raw] | None = None
    layers: list[msgspec.Raw] | None = None


def parse_descriptor(data: bytes) -> Descriptor:
    """A descriptor from its JSON. Raises SourceError when it is not one."""
    try:
        read = msgspec.json.decode(data, type=Descriptor)
        parse_content_digest(read.digest)
    except (msgspec.DecodeError, InvalidRequest) as error:
        raise SourceError(f"what should be a descriptor is none: {error}") from None
    if read.size < 0:
        raise SourceError("what should be a descriptor is none: its size is below zero")
    return read


def told_digest(headers: Headers) -> str:
    """The digest that a registry tells, "" when it is not one that can be checked."""
    try:
        return ":".join(parse_content_digest(headers.get(_DIGEST, "")))
    except InvalidRequest:
        return ""


def told(reference: Reference, kind: Kind, headers: Headers) -> Descriptor | None:
    """What the head of an answer tells; None where it does not tell enough, or what cannot be."""
    length = headers.get("content-length", "").strip()
    coded = headers.get("content-encoding", "identity").strip().lower() != "identity"
    if not _LENGTH.fullmatch(length) or "transfer-encoding" in headers or coded:
        return None
    size, media_type = int(length), headers.get("content-type", "").strip()
    digest = told_digest(headers)
    if kind == "blob":
        # A storage that was redirected to tells no digest; a page that asks people to log in is no blob.
        page = media_type.lower().startswith("text/") and digest != reference.digest
        return None if page else Descriptor(media_type or _BLOB_TYPE, reference.digest, size)
    if not digest or not 0 < size <= MAX_MANIFEST or _says_nothing(media_type):
        return None
    if reference.digest and reference.digest != digest:
        return None
    return Descriptor(media_type, digest, size)


def found(reference: Reference, headers: Headers, body: bytes) -> Descriptor:
    """What a manifest itself tells. Raises SourceError when it is none, or not the one that was asked for."""
    if not _is_object(body):
        raise SourceError(f"{reference.registry} answered for {reference} with something that is no JSON")
    expected = reference.digest or told_digest(headers)
    algorithm = expected.partition(":")[0] or "sha256"
    digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
    if expected and digest != expected:
        raise SourceError(
            f"{reference.registry} answered for {reference} with a manifest that is not {expected}: "
            "the registry, or something on the way, damages what it gives"
        )
    media_type = media_type_of(headers.get("content-type", ""), body)
    if not expected and _says_nothing(media_type):
        raise SourceError(f"{reference.registry} answered for {reference} with something that is no manifest")
    return Descriptor(media_type, digest, len(body))


def media_type_of(content_type: str, body: bytes) -> str:
    """The media type of a manifest: as the registry tells it, or as the manifest does where that says nothing."""
    content_type = content_type.strip()
    if not _says_nothing(content_type):
        return content_type
    try:
        read = msgspec.json.decode(body, type=_Manifest)
    except msgspec.DecodeError:
        return content_type or _BLOB_TYPE
    if read.media_type.isascii() and read.media_type.isprintable() and read.media_type:
        return read.media_type
    if read.manifests is not None:
        return MANIFESTS[0]
    if read.layers is not None:
        return MANIFESTS[1]
    if read.schema_version == 1:
        return "application/vnd.docker.distribution.manifest.v1+json"
    return content_type or _BLOB_TYPE


def _says_nothing(media_type: str) -> bool:
    kind = media_type.partition(";")[0].strip().lower()
    return kind in _ANY_TYPE or kind.startswith("text/")


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body, type=dict[str, msgspec.Raw]), dict)
    except msgspec.DecodeError:
        return False
