"""What manifests say: which manifests an index holds, and which blobs a manifest is made of. Pure.

OCI image specification 1.1 ("Image Index", "Image Manifest") and its forerunners: Docker's manifest list and
manifest of version 2, manifests of schema 1, and the artifact manifest that never left its drafts. Whatever is
none of them is a manifest without blobs, since registries may hold any kind. A descriptor is taken by what it
says, never by what it should be: a digest that cannot be checked, or a size that is none, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cdn.images.platforms import Platform
from shared.errors import InvalidRequest, SourceError
from shared.task.digest import parse_content_digest

MAX_ENTRIES = 5000
"""Manifests of one index, and blobs of one manifest."""

INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
EMPTY = "application/vnd.oci.empty.v1+json"
"""Stands for "{}", which everybody has."""
_UNKNOWN = frozenset({"", "unknown"})


class ManifestError(SourceError):
    """What a registry has as a manifest is none, or describes what cannot be: asking again does not help."""

    def __init__(self, message: str) -> None:
        super().__init__(message, fault="request")


@dataclass(frozen=True, slots=True)
class Blob:
    """A content that a manifest names. ``size`` in bytes, None where it is not told."""

    kind: str
    digest: str
    size: int | None
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest that an index names. ``platform`` is None where it is for none (an attestation, an
    artifact) or it is not told."""

    digest: str
    size: int
    media_type: str
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """``entries``: the manifests of an index. Else ``blobs``, its ``config`` being one of them.

    ``foreign`` counts layers that lie elsewhere, which registries do not give out.
    """

    entries: tuple[Entry, ...] = ()
    blobs: tuple[Blob, ...] = ()
    config: Blob | None = None
    foreign: int = 0
    is_index: bool = False


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str | None = None
    platform: _Platform | None = None

    @property
    def kind(self) -> str:
        """Its media type in lower case, without parameters."""
        return (self.media_type or "").partition(";")[0].strip().lower()


class _FsLayer(msgspec.Struct, rename="camel"):
    blob_sum: str


class _Read(msgspec.Struct, rename="camel"):
    manifests: list[_Descriptor] | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    blobs: list[_Descriptor] | None = None
    fs_layers: list[_FsLayer] | None = None


class _Config(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


def parse_manifest(data: bytes, media_type: str) -> Manifest:
    """A manifest or an index; ``media_type`` is what its registry says that it is. Raises ManifestError."""
    try:
        read = msgspec.json.decode(data, type=_Read)
    except msgspec.MsgspecError as error:
        raise ManifestError(f"what should be a manifest is none: {error}") from None
    except RecursionError:
        raise ManifestError("what should be a manifest is none: it is nested too deeply") from None
    kind = media_type.partition(";")[0].strip().lower()
    if kind in INDEXES or (read.manifests is not None and read.layers is None):
        return _index(read.manifests or [])
    if read.fs_layers is not None and read.layers is None:
        return _schema1(read.fs_layers)
    return _manifest(read)


def platform_of(config: bytes) -> Platform | None:
    """What an image runs on, as its configuration tells; None where it does not."""
    try:
        read = msgspec.json.decode(config, type=_Config)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return _platform(_Platform(read.os, read.architecture, read.variant))


def _index(manifests: list[_Descriptor]) -> Manifest:
    _check_count(manifests)
    entries = tuple(
        Entry(_digest(one.digest), _size(one), one.kind, _platform(one.platform)) for one in manifests
    )
    return Manifest(entries=entries, is_index=True)


def _manifest(read: _Read) -> Manifest:
    named = [*(read.layers or ()), *(read.blobs or ())]
    _check_count(named)
    config = None
    if read.config is not None and read.config.kind != EMPTY:
        config = Blob("config", _digest(read.config.digest), _size(read.config), read.config.kind)
    layers, foreign = [], 0
    for one in named:
        if _is_foreign(one):
            foreign += 1
        elif one.kind != EMPTY:
            layers.append(Blob("layer", _digest(one.digest), _size(one), one.kind))
    blobs = (*([config] if config is not None else ()), *layers)
    return Manifest(blobs=blobs, config=config, foreign=foreign)


def _schema1(layers: list[_FsLayer]) -> Manifest:
    """Layers may stand there several times, the topmost first."""
    _check_count(layers)
    digests = dict.fromkeys(_digest(layer.blob_sum) for layer in reversed(layers))
    return Manifest(blobs=tuple(Blob("layer", digest, None) for digest in digests))


def _is_foreign(one: _Descriptor) -> bool:
    return ".foreign." in one.kind or "nondistributable" in one.kind


def _platform(told: _Platform | None) -> Platform | None:
    if told is None or told.os.lower() in _UNKNOWN or told.architecture.lower() in _UNKNOWN:
        return None
    return Platform(told.os.lower(), told.architecture.lower(), told.variant.lower())


def _digest(text: str) -> str:
    try:
        return ":".join(parse_content_digest(text))
    except InvalidRequest as error:
        raise ManifestError(f"a manifest names what cannot be checked: {error}") from None


def _size(one: _Descriptor) -> int:
    if one.size < 0:
        raise ManifestError(f"a manifest says that {one.digest[:100]!r} has {one.size} bytes")
    return one.size


def _check_count(entries: list[_Descriptor] | list[_FsLayer]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise ManifestError(f"a manifest names {len(entries)} contents: at most {MAX_ENTRIES} are taken")
