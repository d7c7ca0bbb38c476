"""oci:// against docker-registry: without login, with user and password, with tokens, with TLS."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.reader import SourceReader
from cdn.sources.context import SourceContext
from cdn.sources.interface import ExpireInfo, SourceRequest
from cdn.sources.oci import OciSource, open_source
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import SourceError
from shared.http.client import HttpClient
from shared.swarm.origin import OriginJob
from shared.task.identity import make_spec
from tests.programs import require_module, require_program
from tests.registry import CERTIFICATE, PASSWORD, USER, DockerRegistry, TokenService, htpasswd
from tests.unit.cdn.fakes import MIB, MemorySink, random_bytes
from tests.unit.cdn.sources.examples import read

BLOB = random_bytes(300_000)
LARGE = random_bytes(40 * MIB)
TEAM = "team/app"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image in it."""
    folder = tmp_path_factory.mktemp("registry")
    with DockerRegistry(folder, require_program("docker-registry")) as registry:
        registry.push_image(TEAM, "v1", BLOB, LARGE)
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


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@asynccontextmanager
async def client(ca_file: Path | None = None, **options: str) -> AsyncIterator[OciSource]:
    async with HttpClient(ca_file=ca_file) as http:
        yield open_source(SourceContext("oci", http, SourcePolicy(["oci"]), SourceConfig(), options))


async def fetch(url: str, headers: dict[str, str] | None = None, **options: str) -> MemorySink:
    """Read through the engine, as a seeder does."""
    config = SourceConfig(schemes=("oci",), options={"oci": options}, span=16 * MIB)
    spec, private = make_spec(url, headers=headers)
    sink = MemorySink()
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        await reader.read(OriginJob(spec, private), sink)
    assert sink.final is not None
    return sink


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_of_blobs(check: Check, registry: DockerRegistry) -> None:
    async with client() as source:
        url = registry.url(TEAM, digest_of(BLOB))
        await check(Example(source, url, BLOB, missing=registry.url(TEAM, digest_of(b"nothing"))))


@pytest.mark.parametrize(
    "check",
    [
        check for check in CHECKS if check.__name__ != "trouble_is_not_expiry"
    ],  # a tag that is gone has expired
    ids=lambda check: check.__name__,
)
async def test_conformance_of_tags(check: Check, registry: DockerRegistry) -> None:
    _, manifest = registry.push_image(TEAM, "moving", b"1")

    def change() -> None:
        registry.push_image(TEAM, "moving", b"1", b"2")

    async with client() as source:
        url = registry.url(TEAM, "moving")
        missing = registry.url(TEAM, "nothing")
        await check(Example(source, url, manifest, missing=missing, change=change))


async def test_a_long_blob_is_read_in_parallel(registry: DockerRegistry) -> None:
    sink = await fetch(registry.url(TEAM, digest_of(LARGE)))
    assert sink.content == LARGE
    assert sink.count == len(LARGE)
    assert sink.meta.digest == digest_of(LARGE)
    assert sink.meta.revalidate is None, "a digest is never asked for again"
    assert registry.gets(f"/v2/{TEAM}/blobs/{digest_of(LARGE)}") == 3


async def test_a_digest_may_name_a_manifest(registry: DockerRegistry) -> None:
    digest, manifest = registry.push_image(TEAM, "v2", b"x")
    sink = await fetch(registry.url(TEAM, digest))
    assert sink.content == manifest
    assert sink.meta.digest == digest
    by_tag = await fetch(registry.url(TEAM, "v2"))
    assert by_tag.content == manifest
    assert (by_tag.meta.digest, by_tag.meta.revalidate) == (digest, 60.0)


async def test_a_tag_that_moves_on_is_noticed_without_reading_it(registry: DockerRegistry) -> None:
    digest, _ = registry.push_image(TEAM, "next", b"x")
    async with client() as source:
        request = SourceRequest(registry.url(TEAM, "next"))
        info = ExpireInfo(etag=f'"{digest}"')
        gets = registry.gets(f"/v2/{TEAM}/manifests/next")
        assert not await source.is_expired(request, info)
        registry.push_image(TEAM, "next", b"y")
        assert await source.is_expired(request, info)
        assert registry.gets(f"/v2/{TEAM}/manifests/next") == gets
        assert await source.is_expired(SourceRequest(registry.url(TEAM, "never")), info), "it is not there"


async def test_what_is_not_there(registry: DockerRegistry) -> None:
    for url in (registry.url("none/here", digest_of(BLOB)), registry.url(TEAM, "v9")):
        with pytest.raises(SourceError, match=r"there is no .*: check the repository") as caught:
            await fetch(url)
        assert caught.value.origin_status == 404


async def test_user_and_password(content: Path, tmp_path: Path) -> None:
    with DockerRegistry(content, require_program("docker-registry"), auth=htpasswd(tmp_path)) as registry:
        url = registry.url(TEAM, digest_of(LARGE))
        sink = await fetch(url, **{f"auth.{registry.name}": f"{USER}:{PASSWORD}"})
        assert sink.content == LARGE
        assert registry.log.count('"GET ') == 4, "one answer 401 tells for all ranges what is wanted"
        in_url = url.replace("oci://", f"oci://{USER}:{PASSWORD.replace(' ', '%20')}@")
        assert (await fetch(in_url)).content == LARGE
        for options, fault in (({}, "reader"), ({f"auth.{registry.name}": f"{USER}:wrong"}, "origin")):
            with pytest.raises(SourceError, match="may not be read") as caught:
                await fetch(url, **options)
            assert (caught.value.origin_status, caught.value.fault) == (401, fault)
            assert "wrong" not in str(caught.value)


async def test_tokens(content: Path, tokens: TokenService, tmp_path: Path) -> None:
    with DockerRegistry(content, require_program("docker-registry"), auth=tokens.auth) as registry:
        url = registry.url(TEAM, digest_of(LARGE))
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {f"https://{registry.name}/v2/": {"auth": login}}}))
        sink = await fetch(url, docker_config=str(tmp_path))
        assert sink.content == LARGE
        assert len(tokens.requests) == 1, "one token is enough for all ranges"
        assert tokens.requests[0].query == {
            "service": ["registry.tests"],
            "scope": [f"repository:{TEAM}:pull"],
        }
        assert tokens.requests[0].authorization == f"Basic {login}"
        given = {"x-dragonet-source-username": USER, "x-dragonet-source-password": PASSWORD}
        assert (await fetch(registry.url(TEAM, "v1"), given)).final is not None
        with pytest.raises(SourceError, match="may not be read by everybody"):
            await fetch(url)
        with pytest.raises(SourceError, match="may not be read with these credentials"):
            await fetch(url, {"authorization": "Bearer no-token"})
        wrong = {**given, "x-dragonet-source-password": "wrong"}
        with pytest.raises(SourceError, match="may not be read with these credentials"):
            await fetch(url, wrong)
        tokens.public = frozenset({TEAM})
        public = await fetch(url)
        assert public.content == LARGE
        assert tokens.requests[-1].authorization == ""


async def test_a_token_that_has_expired_is_asked_for_again(content: Path, tokens: TokenService) -> None:
    tokens.public, tokens.lifetime = frozenset({TEAM}), 0
    with DockerRegistry(content, require_program("docker-registry"), auth=tokens.auth) as registry:
        async with client() as source:
            request = SourceRequest(registry.url(TEAM, digest_of(BLOB)))
            for _ in range(2):
                assert await read(await source.download(request)) == BLOB
        assert len(tokens.requests) == 2


async def test_tls(content: Path, tokens: TokenService) -> None:
    program = require_program("docker-registry")
    with DockerRegistry(content, program, tls=True) as registry:
        async with client(CERTIFICATE, secure=registry.name) as source:
            request = SourceRequest(registry.url(TEAM, digest_of(BLOB)))
            assert await read(await source.download(request)) == BLOB
        async with client(secure="localhost") as source:
            with pytest.raises(SourceError, match="cannot be reached") as caught:
                await source.download(request)
            assert caught.value.fault == "reader"
    with DockerRegistry(content, program, tls=True, auth=tokens.auth) as registry:
        async with client(CERTIFICATE, secure="localhost") as source:
            with pytest.raises(
                SourceError, match=r"names http://.* as its token service, which is not asked"
            ):
                await source.download(SourceRequest(registry.url(TEAM, digest_of(BLOB))))
            assert not tokens.requests
