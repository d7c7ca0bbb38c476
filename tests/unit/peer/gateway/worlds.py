"""A host whose registry is the test, and requests to its gateway."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from cdn.images.specs import blob_spec, manifest_spec
from cdn.reader import SourceReader
from cdn.sources.oci.client import Proven
from cdn.sources.oci.descriptor import Descriptor
from cdn.sources.oci.logins import Login
from cdn.sources.oci.names import Reference
from peer.gateway.exchange import Exchange
from peer.gateway.metrics import RegistryMetrics
from peer.gateway.serving import Serving
from peer.gateway.target import Target
from shared.errors import SourceError
from shared.http.messages import Request, Response
from shared.swarm.host import Host
from shared.swarm.origin import OriginJob, OriginSink
from tests.unit.shared.swarm.fakes import FakeOrigin, MemoryStore, Sample, running_host, sample

REGISTRY, REPOSITORY = "quay.io", "team/app"
LAYER = sample(10.5)
MANIFEST = b'{"schemaVersion": 2, "config": {}, "layers": []}'
OCI = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


DIGEST = digest_of(LAYER.data)
BLOB = Target("blobs", REGISTRY, REPOSITORY, digest=DIGEST)
BY_DIGEST = Target("manifests", REGISTRY, REPOSITORY, digest=digest_of(MANIFEST))
BY_TAG = Target("manifests", REGISTRY, REPOSITORY, "v1")
TAGGED = Descriptor(OCI, digest_of(MANIFEST), len(MANIFEST))


class FakeRegistry(FakeOrigin):
    """Gives contents by their URLs; 404 for others."""

    def __init__(self) -> None:
        super().__init__(LAYER)
        self.contents: dict[str, tuple[Sample, str]] = {}
        self.add_blob(DIGEST, LAYER)
        self.add_manifest(MANIFEST, OCI)

    def add_blob(self, digest: str, of: Sample) -> None:
        self.contents[blob_spec(REGISTRY, REPOSITORY, digest).url] = (of, "application/octet-stream")

    def add_manifest(self, data: bytes, kind: str) -> None:
        self.contents[manifest_spec(REGISTRY, REPOSITORY, digest_of(data)).url] = (Sample(data), kind)

    def add(self, url: str, data: bytes) -> None:
        self.contents[url] = (Sample(data), "")

    def supports(self, scheme: str) -> bool:
        return scheme in self.schemes()

    def schemes(self) -> tuple[str, ...]:
        return ("oci", "oci-descriptor")

    async def give(self, job: OriginJob, sink: OriginSink) -> None:
        await trio.lowlevel.checkpoint()
        if job.spec.url not in self.contents:
            raise SourceError("there is no such thing", origin_status=404)
        of, kind = self.contents[job.spec.url]
        meta = msgspec.structs.replace(of.meta, content_type=kind)
        await sink.opened(meta)
        for number in range(of.count):
            if number not in sink.held():
                sink.received(len(of.piece(number)))
                await sink.piece(number, memoryview(of.piece(number)))
        await sink.finished(meta)


class FakeReader:
    """Has a client whose answers to HEAD are the test's."""

    def __init__(self) -> None:
        self.heads: list[tuple[Reference, str, Login | None]] = []

    async def registry_client(self) -> FakeReader:
        return self

    async def head(self, reference: Reference, kind: str, login: Login | None) -> Proven:
        await trio.lowlevel.checkpoint()
        self.heads.append((reference, kind, login))
        return Proven(Descriptor("application/octet-stream", reference.digest, 777), 0.0)


class World:
    """``serving`` answers for ``registry``."""

    def __init__(self, host: Host, store: MemoryStore, registry: FakeRegistry) -> None:
        self.host = host
        self.store = store
        self.registry = registry
        self.reader = FakeReader()
        self.metrics = RegistryMetrics(CollectorRegistry())
        self.serving = Serving(host, cast(SourceReader, self.reader))

    def exchange(self, request: Request, patience: float = 30.0) -> Exchange:
        return Exchange(request, self.metrics, patience)


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    """Nobody may be left at its end."""
    store, registry = MemoryStore(), FakeRegistry()
    async with running_host(store, registry) as host:
        yield World(host, store, registry)
        await trio.testing.wait_all_tasks_blocked()
        assert not len(host.sessions)
        assert all(not task.users and not task.fetches for task in host.tasks)
        assert registry.running == 0
    assert store.opened == 0


def asking(method: str = "GET", path: str = "/v2/", **headers: str) -> Request:
    fields = {"host": "127.0.0.1:65001"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return Request.make(method, path, fields.items())


async def body_of(response: Response) -> bytes:
    """All of the body; the response is over then."""
    body: Any = response.body
    try:
        if not hasattr(body, "__aiter__"):
            return bytes(body)
        try:
            return b"".join([bytes(chunk) async for chunk in body])
        finally:
            await body.aclose()
    finally:
        response.finish()


def fields(response: Response) -> dict[str, str]:
    """The header fields, with the two that the response has apart."""
    told = {name.lower(): value for name, value in response.headers}
    if response.content_type is not None:
        told["content-type"] = response.content_type
    length = response.length if hasattr(response.body, "__aiter__") else len(cast(bytes, response.body))
    return {"content-length": str(length)} | told


def sample_value(counter: Any, *labels: str) -> float:
    """A metric's value."""
    return float((counter.labels(*labels) if labels else counter)._value.get())
