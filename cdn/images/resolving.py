"""What an image is made of: the tasks that a pull of it needs, found through the swarm itself.

Descriptor, manifests and blobs are the very tasks that the registry gateway has pulls answered with
(:mod:`cdn.images.specs`), so what is resolved and preheated here is held when somebody pulls. An image that
everybody may have is read without credentials. One that not everybody may have is in the scope of its
repository, once its registry has accepted the credentials that came with the order, or this host's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cdn.images.manifests import INDEXES, Blob, Entry, Manifest, ManifestError, parse_manifest, platform_of
from cdn.images.names import parse_image
from cdn.images.platforms import Platform, missing, parse_platform
from cdn.images.specs import blob_spec, descriptor_spec, manifest_spec, repository_scope
from cdn.sources.interface import SourceRequest
from cdn.sources.oci.client import RegistryClient
from cdn.sources.oci.descriptor import MAX_MANIFEST, Descriptor, parse_descriptor
from cdn.sources.oci.logins import request_login
from cdn.sources.oci.names import Reference
from shared.errors import DragonetError, SourceError
from shared.protocol import PreheatItem, Resolved, ResolveWanted
from shared.swarm.host import Host
from shared.swarm.reading import ReadOrder, read_whole

DESCRIPTOR_LIMIT = 64 * 1024
CONFIG_LIMIT = 8 * 1024 * 1024
MAX_MANIFESTS = 2000
MAX_ITEMS = 10_000
MAX_DEPTH = 3
"""Indexes within indexes."""
READ_PATIENCE = 60.0


class HasRegistryClient(Protocol):
    """Where the client for registries comes from: the reader of sources."""

    async def registry_client(self) -> RegistryClient:
        """The client. Raises SourceError where this machine may not talk to registries."""


@dataclass(slots=True)
class _Image:
    """What is known of the image so far. ``scope`` and ``headers`` are those of its tasks."""

    reference: Reference
    descriptor: Descriptor
    scope: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    own_login: bool = False
    manifests: dict[str, PreheatItem] = field(default_factory=dict)
    configs: dict[str, PreheatItem] = field(default_factory=dict)
    layers: dict[str, PreheatItem] = field(default_factory=dict)
    platforms: int = 0
    foreign: int = 0


class ImageResolver:
    """Finds out what images are made of."""

    def __init__(self, host: Host, reader: HasRegistryClient) -> None:
        self._host = host
        self._reader = reader

    async def resolve(self, wanted: ResolveWanted, *, own_login: bool) -> Resolved:
        """What a pull of the image needs; ``own_login`` as for ``shared.swarm.preheats.Resolver``. Raises
        InvalidRequest, SourceError and what reading raises."""
        reference = parse_image(wanted.image)
        platforms = [parse_platform(platform) for platform in wanted.platforms]
        image = await self._admitted(reference, wanted.headers, own_login)
        await self._explore(image, platforms)
        items = _items(image)
        if len(items) > MAX_ITEMS:
            raise ManifestError(
                f"{reference} is made of {len(items)} contents: at most {MAX_ITEMS} are taken"
            )
        return Resolved(
            job=wanted.job,
            image=str(reference),
            items=items,
            private=bool(image.scope),
            own_login=image.own_login,
            notes=_notes(image, platforms),
        )

    async def own_headers(self, url: str) -> dict[str, str]:
        """What this host shows for its own login to the registry of an ``oci://`` URL; {} where it has none.

        Raises SourceError.
        """
        place = url.partition("?")[0]
        client = await self._reader.registry_client()
        login = await client.own_login(parse_image(place))
        return {} if login is None else {"authorization": login.authorization}

    # --- who may have it -------------------------------------------------------------------------------

    async def _admitted(self, reference: Reference, headers: dict[str, str], own_login: bool) -> _Image:
        """The image in the scope in which it may be had. Raises what its registry says against it."""
        spec = descriptor_spec(reference.registry, reference.repository, reference.digest or reference.tag)
        try:
            order = ReadOrder(spec, patience=READ_PATIENCE)
            whole = await read_whole(self._host, order, DESCRIPTOR_LIMIT)
        except SourceError as error:
            if not _may_be_private(error):
                raise
            refusal = error
        else:
            return _Image(reference, _checked(parse_descriptor(whole.data), reference))
        client = await self._reader.registry_client()
        login = request_login(SourceRequest(spec.url, headers))
        own = False
        if login is None and own_login and self._host.identity.role == "seeder":
            login, own = await client.own_login(reference), True
        if login is None:
            raise _in_words(refusal, reference, own_login)
        proven = await client.head(reference, "manifest", login)
        return _Image(
            reference,
            proven.descriptor,
            scope=repository_scope(self._host.scope_secret, reference.registry, reference.repository),
            headers={"authorization": login.authorization},
            own_login=own,
        )

    # --- what it is made of ----------------------------------------------------------------------------

    async def _explore(self, image: _Image, platforms: list[Platform]) -> None:
        top = image.descriptor
        manifest = await self._manifest(image, top.digest, top.media_type, top.size)
        if not manifest.is_index:
            await self._check_platform(image, manifest, platforms)
            _add_blobs(image, manifest)
            return
        found: list[Platform] = []
        await self._explore_index(image, manifest, platforms, found, 1)
        lacking = missing(platforms, found)
        if lacking:
            raise _no_platform(image.reference, lacking, found)

    async def _explore_index(
        self, image: _Image, index: Manifest, wanted: list[Platform], found: list[Platform], depth: int
    ) -> None:
        for entry in index.entries:
            nested = entry.media_type in INDEXES
            if entry.platform is not None:
                found.append(entry.platform)
            if entry.digest in image.manifests or not (nested or _is_wanted(entry, wanted)):
                continue
            if len(image.manifests) >= MAX_MANIFESTS:
                raise ManifestError(f"{image.reference} has more than {MAX_MANIFESTS} manifests")
            manifest = await self._manifest(image, entry.digest, entry.media_type, entry.size)
            if not manifest.is_index:
                image.platforms += entry.platform is not None
                _add_blobs(image, manifest)
            elif depth < MAX_DEPTH:
                await self._explore_index(image, manifest, wanted, found, depth + 1)
            else:
                raise ManifestError(f"{image.reference} has indexes within indexes, {depth} deep")

    async def _manifest(self, image: _Image, digest: str, media_type: str, size: int) -> Manifest:
        reference = image.reference
        if size > MAX_MANIFEST:
            raise ManifestError(
                f"{reference} has a manifest of {size} bytes: at most {MAX_MANIFEST} are taken"
            )
        spec = manifest_spec(reference.registry, reference.repository, digest, scope=image.scope)
        order = ReadOrder(spec, image.headers, patience=READ_PATIENCE)
        whole = await read_whole(self._host, order, MAX_MANIFEST)
        manifest = parse_manifest(whole.data, media_type)
        kind = "index" if manifest.is_index else "manifest"
        image.manifests[digest] = PreheatItem(spec, f"{kind} {digest}", len(whole.data))
        return manifest

    async def _check_platform(self, image: _Image, manifest: Manifest, wanted: list[Platform]) -> None:
        """An image without an index runs on what its configuration says; where that says nothing, it is taken."""
        if not wanted or manifest.config is None or (manifest.config.size or 0) > CONFIG_LIMIT:
            return
        order = ReadOrder(_blob_item(image, manifest.config).spec, image.headers, patience=READ_PATIENCE)
        found = platform_of((await read_whole(self._host, order, CONFIG_LIMIT)).data)
        lacking = [] if found is None else missing(wanted, [found])
        if found is not None and lacking:
            raise _no_platform(image.reference, lacking, [found])


def _is_wanted(entry: Entry, wanted: list[Platform]) -> bool:
    if not wanted:
        return True
    return entry.platform is not None and any(entry.platform.offers(one) for one in wanted)


def _add_blobs(image: _Image, manifest: Manifest) -> None:
    image.foreign += manifest.foreign
    for blob in manifest.blobs:
        kept = image.configs if blob.kind == "config" else image.layers
        kept.setdefault(blob.digest, _blob_item(image, blob))


def _blob_item(image: _Image, blob: Blob) -> PreheatItem:
    reference = image.reference
    spec = blob_spec(reference.registry, reference.repository, blob.digest, scope=image.scope)
    return PreheatItem(spec, f"{blob.kind} {blob.digest}", blob.size)


def _items(image: _Image) -> list[PreheatItem]:
    """In the order in which they are brought: what is small and asked for first, then the longest first."""
    reference, descriptor = image.reference, image.descriptor
    items: list[PreheatItem] = []
    if not image.scope:  # of what is private, whoever pulls it asks the registry
        name = reference.digest or reference.tag
        spec = descriptor_spec(reference.registry, reference.repository, name)
        items.append(PreheatItem(spec, f"descriptor of {name}", len(descriptor.encode())))
    items += [*image.manifests.values(), *image.configs.values()]
    layers = image.layers.values()
    return items + sorted(layers, key=lambda item: -(item.length or 0))


def _notes(image: _Image, platforms: list[Platform]) -> list[str]:
    notes = []
    if image.foreign:
        layers = "one layer lies" if image.foreign == 1 else f"{image.foreign} layers lie"
        notes.append(f"{layers} outside of registries and cannot be preheated")
    if not platforms and image.platforms > 1:
        notes.append(f"{image.platforms} platforms: name those that are needed with --platform to bring less")
    if image.scope:
        whose = "the seeders' own login" if image.own_login else "the credentials of the order"
        notes.append(f"not everybody may have it: it was read with {whose}, for those who may")
    return notes


def _checked(descriptor: Descriptor, reference: Reference) -> Descriptor:
    if reference.digest not in ("", descriptor.digest):
        raise SourceError(f"the descriptor of {reference.digest} is that of {descriptor.digest}")
    return descriptor


def _may_be_private(error: SourceError) -> bool:
    """Whether the registry says that nobody without credentials may have it (many say that it is not there)."""
    return error.origin_status in (401, 403, 404) and error.retry_after is None


def _in_words(refusal: SourceError, reference: Reference, own_login: bool) -> DragonetError:
    if refusal.origin_status == 404:
        return refusal
    advice = "give credentials (--username, --password-file), or "
    if own_login:
        advice += "log the seeders in (source.options.oci)"
    else:
        advice += (
            "configure the scheduler there (host.scheduler): no login of this host's is shown for a scheduler that "
            "was found"
        )
    return SourceError(
        f"{reference.registry} does not let everybody read {reference.repository} (status "
        f"{refusal.origin_status}): {advice}",
        origin_status=refusal.origin_status,
    )


def _no_platform(reference: Reference, lacking: Iterable[Platform], found: Iterable[Platform]) -> SourceError:
    there = ", ".join(sorted({str(platform) for platform in found})) or "no platform that it tells"
    return SourceError(
        f"{reference} is not there for {', '.join(map(str, lacking))}: it is for {there}", fault="request"
    )
