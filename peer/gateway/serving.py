"""Manifests and blobs for those who may have them: from what is held, from the swarm, from the registry.

A manifest is answered when all of it is here. A blob is sent while it arrives; its headers go out when its first
byte can follow, so whatever goes wrong before that is told with a status, and whatever goes wrong later breaks
the connection: an answer that comes to its end is the content that was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from cdn.images.specs import blob_spec, descriptor_spec, manifest_spec
from cdn.reader import SourceReader
from cdn.sources.oci.descriptor import Descriptor, parse_descriptor
from cdn.sources.oci.logins import login_of
from cdn.sources.oci.names import Reference
from peer.gateway.access import Granted
from peer.gateway.content import (
    BLOB_TYPE,
    Cache,
    content_headers,
    is_manifest_type,
    manifest_type,
    select_blob,
    select_whole,
)
from peer.gateway.errors import RegistryError
from peer.gateway.exchange import Exchange
from peer.gateway.target import Target
from shared.http.messages import Response
from shared.http.ranges import Selection, Span
from shared.swarm.host import Host
from shared.swarm.reading import Reading, ReadOrder, open_reading, read_whole
from shared.task.identity import TaskSpec

LARGEST_MANIFEST = 8 * 1024 * 1024
"""Bytes; twice what registries must take (distribution specification, "Pushing Manifests")."""
_LARGEST_DESCRIPTOR = 64 * 1024


class Serving:
    """Answers requests for content in the scope that they were granted."""

    def __init__(self, host: Host, reader: SourceReader) -> None:
        self._host = host
        self._reader = reader

    async def answer(self, exchange: Exchange, target: Target, granted: Granted) -> Response:
        """The content, or a part of it. Raises DragonetError, all of them before the answer begins."""
        if target.kind == "blobs":
            return await self._blob(exchange, target, granted)
        return await self._manifest(exchange, target, granted)

    # --- manifests -------------------------------------------------------------------------------------

    async def _manifest(self, exchange: Exchange, target: Target, granted: Granted) -> Response:
        request, descriptor = exchange.request, granted.descriptor
        digest = target.digest or ("" if descriptor is None else descriptor.digest)
        if not digest:
            raise RegistryError(
                502, "UNKNOWN", f"{target.registry} does not say what {target.tag} stands for"
            )
        selection = select_whole(request.method, request.headers, digest)
        stale = granted.stale and not target.digest
        if descriptor is not None and is_manifest_type(descriptor.media_type):
            kind, length, data = descriptor.media_type, descriptor.size, b""
            exchange.cache = _cache(stale, granted.hit)
            if request.method == "HEAD" or not selection.has_body:
                return _bare(selection, content_headers(target, digest, exchange.cache), kind, length)
        spec = manifest_spec(target.registry, target.repository, digest, scope=granted.scope)
        whole = await read_whole(self._host, _order(spec, granted, exchange), LARGEST_MANIFEST)
        data, length = whole.data, len(whole.data)
        told = [] if descriptor is None else [descriptor.media_type]
        kind = manifest_type([*told, whole.meta.content_type], data)
        exchange.cache = _cache(stale, granted.hit and whole.hit)
        headers = content_headers(target, digest, exchange.cache)
        if request.method == "HEAD" or not selection.has_body:
            return _bare(selection, headers, kind, length)
        exchange.obtained, exchange.expected = whole.bytes, length
        exchange.sent = length
        return Response(selection.status, data, [*selection.headers, *headers], kind)

    # --- blobs -----------------------------------------------------------------------------------------

    async def _blob(self, exchange: Exchange, target: Target, granted: Granted) -> Response:
        request = exchange.request
        spec = blob_spec(target.registry, target.repository, target.digest, scope=granted.scope)
        if request.method == "HEAD":
            length = await self._length(exchange, target, granted, spec)
            selection = select_blob("HEAD", request.headers, length, target.digest)
            headers = content_headers(target, target.digest, exchange.cache)
            return _bare(selection, headers, BLOB_TYPE, length)
        known = select_whole("GET", request.headers, target.digest)
        if not known.has_body:
            return _bare(known, content_headers(target, target.digest, "hit"), BLOB_TYPE, 0)
        reading = await open_reading(self._host, _order(spec, granted, exchange))
        try:
            exchange.cache = _cache(False, reading.hit)
            headers = content_headers(target, target.digest, exchange.cache)
            selection = select_blob("GET", request.headers, reading.length, target.digest)
            span = selection.span
            if span is None:
                words = f"no byte of the range is in the content, which has {reading.length} bytes"
                raise RegistryError(416, "RANGE_INVALID", words, headers=selection.headers)
            await reading.ready(span.start, span.stop)
        except BaseException:
            with trio.CancelScope(shield=True):
                await reading.aclose()
            raise
        exchange.length, exchange.expected, exchange.obtained = reading.length, len(span), reading.bytes
        return Response(
            selection.status,
            Sending(reading, span, exchange),
            [*selection.headers, *headers],
            BLOB_TYPE,
            length=len(span),
        )

    async def _length(self, exchange: Exchange, target: Target, granted: Granted, spec: TaskSpec) -> int:
        """Of a blob, without reading it."""
        stored = self._host.store.get(spec.task_id)
        if stored is not None and stored.complete and stored.vouched and stored.meta.length is not None:
            exchange.cache = "hit"
            return stored.meta.length
        exchange.cache = "miss"
        return (granted.descriptor or await self._descriptor(exchange, target, granted)).size

    async def _descriptor(self, exchange: Exchange, target: Target, granted: Granted) -> Descriptor:
        if not granted.scope:
            spec = descriptor_spec(target.registry, target.repository, target.digest, blob=True)
            order = _order(spec, granted, exchange)
            return parse_descriptor((await read_whole(self._host, order, _LARGEST_DESCRIPTOR)).data)
        client = await self._reader.registry_client()
        reference = Reference(target.registry, target.repository, "", target.digest)
        login = login_of(granted.headers["authorization"])
        return (await client.head(reference, "blob", login)).descriptor


class Sending:
    """The bytes of a span of a blob, as they come; counts what it gives out."""

    def __init__(self, reading: Reading, span: Span, exchange: Exchange) -> None:
        self._reading = reading
        self._exchange = exchange
        self._chunks: AsyncIterator[memoryview] = reading.body(span.start, span.stop)

    def __aiter__(self) -> Sending:
        return self

    async def __anext__(self) -> memoryview:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._exchange.broken = str(error)
            raise
        self._exchange.sent += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Let go of the content, wherever the sending stands."""
        self._exchange.obtained = self._reading.bytes
        try:
            aclose = getattr(self._chunks, "aclose", None)
            if aclose is not None:
                await aclose()
        finally:
            await self._reading.aclose()


def _order(spec: TaskSpec, granted: Granted, exchange: Exchange) -> ReadOrder:
    return ReadOrder(spec, granted.headers, cluster_only=granted.cluster_only, patience=exchange.left)


def _cache(stale: bool, hit: bool) -> Cache:
    return "stale" if stale else "hit" if hit else "miss"


def _bare(selection: Selection, headers: list[tuple[str, str]], kind: str, length: int) -> Response:
    """An answer without content: to HEAD, 304, 412."""
    headers = [*selection.headers, *headers]
    if selection.has_body:
        headers.append(("content-length", str(length)))
    return Response(selection.status, b"", headers, kind if selection.has_body else None)
