"""oci-descriptor:// against a registry that gives tokens and redirects to a storage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.images.specs import descriptor_spec
from cdn.policy import SourcePolicy
from cdn.reader import SourceReader
from cdn.sources.builtin import allowed_schemes
from cdn.sources.context import SourceContext
from cdn.sources.interface import ExpireInfo, SourceRequest
from cdn.sources.oci.descriptor import Descriptor, media_type_of, parse_descriptor
from cdn.sources.oci.descriptors import DescriptorSource, open_source
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import ConfigError, SourceError
from shared.http.client import HttpClient
from shared.http.messages import Response
from tests.unit.cdn.fakes import MemorySink, job
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.registry_server import BASIC, MANIFEST, FakeRegistry, digest_of, registry

MANIFEST_BYTES = b'{"schemaVersion":2}'
LAYER = bytes(100_000)
CONFORMANCE = [check for check in CHECKS if check.__name__ != "trouble_is_not_expiry"]
"""What is not there counts as expired here: it ends the proof that everybody may have it."""


@asynccontextmanager
async def client(**options: str) -> AsyncIterator[DescriptorSource]:
    async with HttpClient() as http:
        yield open_source(SourceContext("oci", http, SourcePolicy(["oci"]), SourceConfig(), options))


@asynccontextmanager
async def reading(**options: str) -> AsyncIterator[SourceReader]:
    config = SourceConfig(schemes=("oci",), options={"oci": options}, retry_delay=0.0)
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        yield reader


def url_of(fake: FakeRegistry, held: str, kind: str = "") -> str:
    return f"oci-descriptor{fake.url(held).removeprefix('oci')}{f'?kind={kind}' if kind else ''}"


@pytest.mark.parametrize("check", CONFORMANCE, ids=lambda check: check.__name__)
async def test_conformance(check: Check) -> None:
    async with registry() as fake, client() as source:
        digest = fake.put_manifest(MANIFEST_BYTES, "v1")
        content = Descriptor(MANIFEST, digest, len(MANIFEST_BYTES)).encode()

        def change() -> None:
            fake.put_manifest(b'{"schemaVersion":2,"layers":[]}', "v1")

        await check(Example(source, url_of(fake, "v1"), content, missing=url_of(fake, "none"), change=change))


async def test_what_a_descriptor_says() -> None:
    async with registry() as fake, reading() as reader:
        digest, layer = fake.put_manifest(MANIFEST_BYTES, "v1"), fake.put_blob(LAYER)
        manifest = {"mediaType": MANIFEST, "digest": digest, "size": len(MANIFEST_BYTES)}
        blob = {"mediaType": "application/octet-stream", "digest": layer, "size": len(LAYER)}
        for url, expected in (
            (url_of(fake, "v1"), manifest),
            (url_of(fake, digest), manifest),
            (url_of(fake, digest, "manifest"), manifest),
            (url_of(fake, layer, "blob"), blob),
        ):
            sink = MemorySink()
            await reader.read(job(url), sink)
            assert list(json.loads(sink.content).items()) == list(expected.items()), "the order is fixed"
            assert b" " not in sink.content
            assert (sink.meta.etag, sink.meta.digest) == (f'"{expected["digest"]}"', "")
            assert sink.meta.revalidate == 60.0, "what is public may become private, by its digest too"
            assert parse_descriptor(sink.content) == Descriptor(*expected.values())  # type: ignore[arg-type]
        assert {seen.method for seen in (*fake.seen, *fake.storage.seen)} == {"HEAD"}
        assert not any("authorization" in seen.headers for seen in fake.storage.seen)
        spec = descriptor_spec(fake.address, "lib/app", "v1")
        assert spec.url == url_of(fake, "v1"), "the tasks of images name what is read here"


async def test_our_own_credentials_are_never_shown() -> None:
    for challenge in ("basic", "bearer"):
        async with registry(challenge) as fake:
            fake.readers = frozenset({BASIC})
            digest = fake.put_manifest(MANIFEST_BYTES, "v1")
            async with reading(**{f"auth.{fake.address}": "alice:secret"}) as reader:
                for url in (url_of(fake, "v1"), url_of(fake, digest, "blob")):
                    with pytest.raises(SourceError, match="may not be read by everybody") as caught:
                        await reader.read(job(url), MemorySink())
                    assert (caught.value.origin_status, caught.value.fault) == (401, "origin")
                    assert "source.options" not in str(caught.value)
                shown = {seen.headers.get("authorization") for seen in (*fake.seen, *fake.tokens)}
                assert shown <= {None, "Bearer useless-token"}
                sink = MemorySink()
                await reader.read(job(fake.url("v1")), sink)
                assert sink.content == MANIFEST_BYTES, "the manifest itself may be had with them"
                given = {"authorization": BASIC}
                await reader.read(job(url_of(fake, "v1"), private_headers=given), MemorySink())


async def test_when_a_descriptor_has_expired() -> None:
    async with registry() as fake, client() as source:
        digest, layer = fake.put_manifest(MANIFEST_BYTES, "v1"), fake.put_blob(LAYER)
        for url, held in (
            (url_of(fake, "v1"), digest),
            (url_of(fake, digest), digest),
            (url_of(fake, layer, "blob"), layer),
        ):
            request, info = SourceRequest(url), ExpireInfo(etag=f'"{held}"')
            assert not source.is_immutable(request)
            assert not await source.is_expired(request, info)
            assert await source.is_expired(request, ExpireInfo(etag=f'"{digest_of(b"")}"'))
            for status, expired in ((404, True), (403, True), (401, True), (500, None), (429, None)):
                fake.hook = lambda request, status=status: Response(status)  # type: ignore[misc]
                if expired:
                    assert await source.is_expired(request, info), status
                    continue
                with pytest.raises(SourceError) as caught:
                    await source.is_expired(request, info)
                assert caught.value.origin_status == status
            fake.hook = None
        fake.revoke()
        fake.token_answer = Response.json({}, 401)
        assert await source.is_expired(request, info), "the token service refuses for sure"
        fake.token_answer = Response.json({}, 503, [("retry-after", "7")])
        with pytest.raises(SourceError) as caught:
            await source.is_expired(request, info)
        assert (caught.value.origin_status, caught.value.retry_after) == (503, 7)
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        async with client() as source:
            await source.is_expired(request, info)
    assert caught.value.origin_status is None


async def test_a_read_that_fails_tells_why() -> None:
    async with registry("") as fake, reading() as reader:
        fake.hook = lambda request: Response(429, b"", [("retry-after", "17")])
        with pytest.raises(SourceError, match="asks for fewer requests") as caught:
            await reader.read(job(url_of(fake, "v1")), MemorySink())
        assert (caught.value.origin_status, caught.value.retry_after) == (429, 17)
        assert len(fake.seen) == 1


@pytest.mark.parametrize("missing", ["docker-content-digest", "content-length", "content-type", "status"])
async def test_registries_that_do_not_tell_all_in_a_head(missing: str) -> None:
    async with registry() as fake, client() as source:
        manifest = b'{"schemaVersion":2,"layers":[]}'
        digest = fake.put_manifest(manifest, "v1")

        def hook(request: object) -> Response | None:
            good = getattr(request, "headers", {}).get("authorization")
            if getattr(request, "method", "") != "HEAD" or not good:
                return None
            fields = {"docker-content-digest": digest, "content-length": str(len(manifest))}
            kind = None if missing == "content-type" else MANIFEST
            status = 405 if missing == "status" else 200
            told = [(name, value) for name, value in fields.items() if name != missing]
            if missing == "content-length":
                return Response(status, _chunks(), told, kind)
            return Response(status, b"", told, kind)

        fake.hook = hook
        answer = await source.download(SourceRequest(url_of(fake, "v1")))
        assert parse_descriptor(await read(answer)) == Descriptor(MANIFEST, digest, len(manifest))
        assert [(seen.method, seen.status) for seen in fake.seen][-1] == ("GET", 200)


async def _chunks() -> AsyncIterator[bytes]:
    yield b""


async def test_a_storage_whose_urls_are_good_for_get_only() -> None:
    async with registry() as fake, client() as source:
        layer = fake.put_blob(LAYER)
        fake.storage.heads = False
        answer = await source.download(SourceRequest(url_of(fake, layer, "blob")))
        assert parse_descriptor(await read(answer)).size == len(LAYER)
        assert [(seen.method, seen.status) for seen in fake.storage.seen] == [("HEAD", 403), ("GET", 200)]


def test_media_types() -> None:
    index = "application/vnd.oci.image.index.v1+json"
    assert media_type_of(f" {MANIFEST}; a=b ", b"") == f"{MANIFEST}; a=b"
    assert media_type_of("", b'{"mediaType": "application/x+json"}') == "application/x+json"
    assert media_type_of("", b'{"mediaType": "a\\r\\nb"}') == "application/octet-stream"
    assert media_type_of("text/plain", b'{"manifests": []}') == index
    assert media_type_of("application/json", b'{"layers": []}') == MANIFEST
    assert media_type_of("", b'{"schemaVersion": 1}').endswith("manifest.v1+json")
    assert media_type_of("application/json", b"{}") == "application/json"
    assert media_type_of("", b"<html>") == "application/octet-stream"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"mediaType":"a","digest":"sha256:00","size":1}',
        b'{"mediaType":"a","digest":"sha256:%b","size":-1}' % (b"0" * 64),
        b'{"mediaType":"a","digest":"sha256:%b","size":"1"}' % (b"0" * 64),
    ],
)
def test_what_is_no_descriptor(data: bytes) -> None:
    with pytest.raises(SourceError, match="none"):
        parse_descriptor(data)


# --- beside oci:// ------------------------------------------------------------------------------------


async def test_it_may_be_read_wherever_oci_may() -> None:
    assert allowed_schemes(()) == ()
    assert allowed_schemes(("http",)) == ("http",)
    assert allowed_schemes(("OCI",)) == ("oci", "oci-descriptor")
    for schemes, expected in ((("oci",), True), ((), True), (("http",), False)):
        async with SourceReader.open(SourceConfig(schemes=schemes), CollectorRegistry()) as reader:
            assert reader.supports("oci-descriptor") is expected
            assert ("oci-descriptor" in reader.schemes()) is expected
            if not expected:
                with pytest.raises(SourceError, match=r"source\.schemes"):
                    await reader.registry_client()


async def test_it_has_no_options_of_its_own() -> None:
    config = SourceConfig(options={"oci-descriptor": {"insecure": "a"}})
    with pytest.raises(ConfigError, match="those of oci count"):
        async with SourceReader.open(config, CollectorRegistry()):
            pass
    async with reading(password="secret") as reader:
        with pytest.raises(SourceError, match=r"source\.options\.oci has no option 'password'"):
            await reader.read(job("oci-descriptor://host/a:b"), MemorySink())


async def test_what_is_asked_for_wrongly() -> None:
    async with client() as source:
        for rest in ("host/app", "host/App:v1", "host/a:b?kind=blob", "host/a:b?x=y", "/a:b"):
            with pytest.raises(SourceError, match="cannot be read") as caught:
                await source.download(SourceRequest(f"oci-descriptor://{rest}"))
            assert caught.value.fault == "request"
        with pytest.raises(SourceError, match="cannot be listed"):
            await source.list(SourceRequest("oci-descriptor://host/a:b"))
