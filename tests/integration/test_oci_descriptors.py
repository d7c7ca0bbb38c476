"""oci-descriptor:// and the client for registries against docker-registry: without login, with user and password,
with tokens, with TLS."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.images.specs import blob_spec, descriptor_spec, manifest_spec
from cdn.policy import SourcePolicy
from cdn.reader import SourceReader
from cdn.sources.context import SourceContext
from cdn.sources.oci.descriptor import Descriptor, parse_descriptor
from cdn.sources.oci.descriptors import DescriptorSource, open_source
from cdn.sources.oci.logins import Login
from cdn.sources.oci.names import Reference
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import SourceError
from shared.http.client import HttpClient
from shared.swarm.origin import OriginJob
from shared.task.identity import TaskSpec
from tests.programs import require_module, require_program
from tests.registry import CERTIFICATE, MANIFEST, PASSWORD, USER, DockerRegistry, TokenService, htpasswd
from tests.unit.cdn.fakes import MemorySink, random_bytes

BLOB = random_bytes(300_000)
BLOB_DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
TEAM = "team/app"
ALICE = Login(USER, PASSWORD)
CONFORMANCE = [check for check in CHECKS if check.__name__ != "trouble_is_not_expiry"]
"""What is not there counts as expired here: it ends the proof that everybody may have it."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image in it."""
    folder = tmp_path_factory.mktemp("registry")
    with DockerRegistry(folder, require_program("docker-registry")) as registry:
        registry.push_image(TEAM, "v1", BLOB)
    return folder


@pytest.fixture(scope="module")
def registry(content: Path) -> Iterator[DockerRegistry]:
    """A registry without login."""
    with DockerRegistry(content, require_program("docker-registry")) as running:
        yield running


@pytest.fixture
def tokens() -> Iterator[TokenService]:
    """A token service that knows one user."""
    require_module("cryptography")
    with TokenService() as service:
        yield service


@asynccontextmanager
async def client() -> AsyncIterator[DescriptorSource]:
    async with HttpClient() as http:
        yield open_source(SourceContext("oci", http, SourcePolicy(["oci"]), SourceConfig()))


@asynccontextmanager
async def reading(ca_file: str = "", **options: str) -> AsyncIterator[SourceReader]:
    config = SourceConfig(schemes=("oci",), options={"oci": options}, ca_file=ca_file)
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        yield reader


async def fetch(reader: SourceReader, spec: TaskSpec, login: Login | None = None) -> MemorySink:
    """Read through the engine, as a seeder does."""
    sink = MemorySink()
    private = {} if login is None else {"authorization": login.authorization}
    await reader.read(OriginJob(spec, private), sink)
    return sink


def manifest_of(registry: DockerRegistry) -> tuple[str, bytes]:
    """The manifest of the image that is there from the beginning: the same bytes each time."""
    return registry.push_image(TEAM, "v1", BLOB)


@pytest.mark.parametrize("check", CONFORMANCE, ids=lambda check: check.__name__)
async def test_conformance(check: Check, registry: DockerRegistry) -> None:
    digest, manifest = registry.push_image(TEAM, "moving", b"1")

    def change() -> None:
        registry.push_image(TEAM, "moving", b"1", b"2")

    async with client() as source:
        url = descriptor_spec(registry.name, TEAM, "moving").url
        missing = descriptor_spec(registry.name, TEAM, "nothing").url
        expected = Descriptor(MANIFEST, digest, len(manifest)).encode()
        await check(Example(source, url, expected, missing=missing, change=change))


async def test_an_image_as_the_gateway_reads_it(registry: DockerRegistry) -> None:
    digest, manifest = manifest_of(registry)
    async with reading() as reader:
        tag = await fetch(reader, descriptor_spec(registry.name, TEAM, "v1"))
        assert parse_descriptor(tag.content) == Descriptor(MANIFEST, digest, len(manifest))
        blob = await fetch(reader, descriptor_spec(registry.name, TEAM, BLOB_DIGEST, blob=True))
        assert parse_descriptor(blob.content).size == len(BLOB)
        assert registry.gets(f"/v2/{TEAM}/manifests/v1") == 0, "HEAD is enough"
        read = await fetch(reader, manifest_spec(registry.name, TEAM, digest))
        assert (read.content, read.meta.content_type, read.meta.digest) == (manifest, MANIFEST, digest)
        assert registry.gets(f"/v2/{TEAM}/blobs/{digest}") == 0, "it is not looked for among the blobs"
        layer = await fetch(reader, blob_spec(registry.name, TEAM, BLOB_DIGEST))
        assert (layer.content, layer.meta.digest) == (BLOB, BLOB_DIGEST)
        with pytest.raises(SourceError) as caught:
            await fetch(reader, blob_spec(registry.name, TEAM, f"sha256:{0:064}"))
        assert caught.value.origin_status == 404


async def test_when_a_tag_has_expired(content: Path, tmp_path: Path) -> None:
    program = require_program("docker-registry")
    spec_of = descriptor_spec
    async with reading() as reader:
        with DockerRegistry(content, program) as registry:
            registry.push_image(TEAM, "next", b"1")
            spec = spec_of(registry.name, TEAM, "next")
            meta = (await fetch(reader, spec)).meta
            assert await reader.is_expired(spec, {}, meta) is False
            registry.push_image(TEAM, "next", b"2")
            assert await reader.is_expired(spec, {}, meta) is True
            assert await reader.is_expired(spec_of(registry.name, TEAM, "gone"), {}, meta) is True
        assert await reader.is_expired(spec, {}, meta) is None, "nobody listens any more"
        with DockerRegistry(content, program, auth=htpasswd(tmp_path)) as private:
            assert await reader.is_expired(spec_of(private.name, TEAM, "next"), {}, meta) is True


async def test_many_clients_of_a_tag_make_one_request(content: Path, tokens: TokenService) -> None:
    with DockerRegistry(content, require_program("docker-registry"), auth=tokens.auth) as registry:
        tokens.public = frozenset({TEAM})
        reference = Reference(registry.name, TEAM, "v1", "")
        async with reading() as reader:
            asking = await reader.registry_client()
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(asking.head, reference, "manifest", None)
        assert registry.log.count(f'"HEAD /v2/{TEAM}/manifests/v1 ') == 2, "one to learn what it wants"
        assert len(tokens.requests) == 1


async def test_who_may_know(content: Path, tokens: TokenService, tmp_path: Path) -> None:
    program = require_program("docker-registry")
    for auth, service in ((htpasswd(tmp_path), False), (tokens.auth, True)):
        with DockerRegistry(content, program, auth=auth) as registry:
            reference = Reference(registry.name, TEAM, "v1", "")
            spec = descriptor_spec(registry.name, TEAM, "v1")
            async with reading(**{f"auth.{registry.name}": f"{USER}:{PASSWORD}"}) as reader:
                asking = await reader.registry_client()
                with pytest.raises(SourceError, match="may not be read by everybody") as caught:
                    await fetch(reader, spec)
                assert (caught.value.origin_status, caught.value.fault) == (401, "origin")
                found = parse_descriptor((await fetch(reader, spec, ALICE)).content)
                proven = await asking.head(reference, "manifest", ALICE)
                assert proven.descriptor == found
                left = proven.expires - trio.current_time()
                assert 0 < left <= 300 if service else left == math.inf
                assert await asking.own_login(reference) == ALICE
                for login in (None, Login(USER, "wrong"), Login(header="Bearer wrong")):
                    with pytest.raises(SourceError) as caught:
                        await asking.head(reference, "manifest", login)
                    assert caught.value.origin_status == 401
                    answer = await asking.get(registry.name, TEAM, "tags/list", "", {}, login)
                    assert (answer.status, b"UNAUTHORIZED" in answer.body) == (401, True)
                    assert answer.headers.get("www-authenticate")
                answer = await asking.get(registry.name, TEAM, "tags/list", "n=1", {}, ALICE)
                assert (answer.status, b'"tags":[' in answer.body) == (200, True)
                answer = await asking.unauthenticated(reference, "manifest")
                assert (answer.status, b"UNAUTHORIZED" in answer.body) == (401, True)
                assert answer.headers.get("www-authenticate", "").startswith("Bearer" if service else "Basic")


async def test_tls(content: Path) -> None:
    with DockerRegistry(content, require_program("docker-registry"), tls=True) as registry:
        reference = Reference(registry.name, TEAM, "v1", "")
        async with reading(str(CERTIFICATE), secure=registry.name) as reader:
            assert (await fetch(reader, descriptor_spec(registry.name, TEAM, "v1"))).content
            asking = await reader.registry_client()
            assert (await asking.head(reference, "manifest", None)).descriptor.media_type == MANIFEST
        async with reading(secure="localhost") as reader:
            with pytest.raises(SourceError, match=r"cannot be reached.*source\.ca_file") as caught:
                await (await reader.registry_client()).head(reference, "manifest", None)
            assert (caught.value.origin_status, caught.value.fault) == (None, "reader")
    with DockerRegistry(content, require_program("docker-registry")) as registry:
        reference = Reference(registry.name, TEAM, "v1", "")
        async with reading(secure=registry.name) as reader:
            with pytest.raises(SourceError, match=r"cannot be reached.*source\.options\.oci insecure"):
                await (await reader.registry_client()).head(reference, "manifest", None)
