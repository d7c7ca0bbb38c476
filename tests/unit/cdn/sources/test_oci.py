"""oci:// against a registry that gives tokens and redirects to a storage; the real one is asked in
tests/integration/test_oci_source.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.reader import SourceReader
from cdn.sources.context import SourceContext
from cdn.sources.interface import ExpireInfo, RangeNotSatisfiable, SourceRequest
from cdn.sources.oci import OciSource, open_source
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import ConfigError, SourceError
from shared.http.client import HttpClient
from shared.http.messages import Response
from tests.unit.cdn.fakes import MIB, MemorySink, job, random_bytes
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.registry_server import BASIC, digest_of, registry

CONTENT = random_bytes(300_000)
LOGIN = {"x-dragonet-source-username": "alice", "x-dragonet-source-password": "secret"}


@asynccontextmanager
async def client(options: Mapping[str, str] | None = None) -> AsyncIterator[OciSource]:
    async with HttpClient() as http:
        policy, config = SourcePolicy(["oci"]), SourceConfig()
        yield open_source(SourceContext("oci", http, policy, config, options or {}))


@asynccontextmanager
async def reading(**options: str) -> AsyncIterator[SourceReader]:
    config = SourceConfig(schemes=("oci",), options={"oci": options}, span=16 * MIB, retry_delay=0.0)
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        yield reader


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check) -> None:
    async with registry() as fake, client() as source:
        url = fake.url(fake.put_blob(CONTENT))
        await check(Example(source, url, CONTENT, missing=fake.url(digest_of(b""))))


# --- through the engine -------------------------------------------------------------------------------


async def test_a_long_blob_is_read_in_parallel_from_the_storage() -> None:
    content = random_bytes(40 * MIB)
    async with registry() as fake, reading() as reader:
        digest = fake.put_blob(content)
        sink = MemorySink()
        await reader.read(job(fake.url(digest)), sink)
        assert sink.content == content
        assert (sink.meta.digest, sink.meta.etag) == (digest, f'"{digest}"')
        assert [seen.status for seen in fake.seen] == [401, 307]
        assert [seen.status for seen in fake.storage.seen] == [206] * 3
        assert len(fake.tokens) == 1


async def test_signature_and_token_may_expire_in_mid_read() -> None:
    content = random_bytes(33 * MIB)
    async with registry() as fake, reading() as reader:
        digest = fake.put_blob(content)

        def expire(number: int) -> None:
            if number == 2:
                fake.storage.expire()
                fake.revoke()

        fake.storage.hook = expire
        sink = MemorySink()
        await reader.read(job(fake.url(digest)), sink)
        assert sink.content == content
        assert sink.count == len(content)
        assert len(fake.tokens) == 2, "ranges that are refused at the same time share a new token"


async def test_a_cut_answer_is_resumed() -> None:
    content = random_bytes(5 * MIB)
    async with registry() as fake, reading() as reader:
        digest = fake.put_blob(content)
        fake.storage.cuts = {0: 3 * MIB + 17}
        sink = MemorySink()
        await reader.read(job(fake.url(digest)), sink)
        assert sink.content == content
        assert sink.count == len(content)
        assert len(fake.storage.seen) == 2


async def test_a_manifest_is_found_where_there_is_no_blob() -> None:
    async with registry("") as fake, reading() as reader:
        digest = fake.put_manifest(b'{"schemaVersion": 2}', "v1")
        for held in (digest, "v1"):
            sink = MemorySink()
            await reader.read(job(fake.url(held)), sink)
            assert sink.content == b'{"schemaVersion": 2}'
            assert sink.meta.digest == digest
        assert [seen.status for seen in fake.seen] == [404, 200, 200]
        assert "oci.image.index" in fake.seen[1].headers.get("accept", "")


async def test_sha512() -> None:
    async with registry("") as fake, reading() as reader:
        digest = fake.put_blob(CONTENT, algorithm="sha512")
        sink = MemorySink()
        await reader.read(job(fake.url(digest)), sink)
        assert sink.content == CONTENT
        assert sink.meta.digest == digest


async def test_an_empty_blob() -> None:
    async with registry("") as fake, reading() as reader, client() as source:
        digest = fake.put_blob(b"")
        sink = MemorySink()
        await reader.read(job(fake.url(digest)), sink)
        assert sink.final is not None
        assert sink.final.length == 0
        with pytest.raises(RangeNotSatisfiable) as caught:
            await source.download(SourceRequest(fake.url(digest), range=(3, 4)))
        assert caught.value.etag == f'"{digest}"'


# --- being let in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "headers", "sent"),
    [
        ({}, {}, None),
        ({"auth.REGISTRY": "alice:secret"}, {}, BASIC),
        ({"auth.REGISTRY": "bob:other"}, LOGIN, BASIC),
        ({}, {"authorization": BASIC}, BASIC),
    ],
)
async def test_whose_credentials_the_token_service_is_shown(
    options: dict[str, str], headers: dict[str, str], sent: str | None
) -> None:
    async with registry() as fake:
        named = {name.replace("REGISTRY", fake.address): value for name, value in options.items()}
        async with client(named) as source:
            request = SourceRequest(fake.url(fake.put_blob(CONTENT)), headers)
            assert await read(await source.download(request)) == CONTENT
            assert await read(await source.download(request)) == CONTENT
        assert [seen.headers.get("authorization") for seen in fake.tokens] == [sent]
        assert fake.tokens[0].target == "/token?a=b&service=tests&scope=repository%3Alib%2Fapp%3Apull"
        first, *rest = [seen.headers.get("authorization") for seen in fake.seen]
        assert first is None
        assert set(rest) == {"Bearer secret-token-1"}
        everything = [*fake.seen, *fake.storage.seen]
        assert not any(name.startswith("x-dragonet") for seen in everything for name, _ in seen.headers)
        assert not any("authorization" in seen.headers for seen in fake.storage.seen)


async def test_tokens_are_kept_apart_by_who_asks() -> None:
    async with registry() as fake, client() as source:
        url = fake.url(fake.put_blob(CONTENT))
        for headers in ({}, LOGIN, {}, LOGIN):
            assert await read(await source.download(SourceRequest(url, headers))) == CONTENT
        assert [seen.headers.get("authorization") for seen in fake.tokens] == [None, BASIC]


@pytest.mark.parametrize(
    "header", [{"authorization": "Bearer secret-token-1"}, {"x-dragonet-source-token": "secret-token-1"}]
)
async def test_a_token_that_is_given_is_shown_at_once(header: dict[str, str]) -> None:
    async with registry() as fake, client() as source:
        request = SourceRequest(fake.url(fake.put_blob(CONTENT)), header)
        assert await read(await source.download(request)) == CONTENT
        assert [seen.status for seen in fake.seen] == [307]
        fake.revoke()
        with pytest.raises(SourceError, match="may not be read with these credentials") as caught:
            await source.download(request)
        assert caught.value.origin_status == 401
        assert not fake.tokens
        assert "secret-token" not in f"{caught.value} {source!r} {request!r}"


async def test_user_and_password_where_they_are_asked_for() -> None:
    async with registry("basic") as fake, client() as source:
        url = fake.url(fake.put_blob(CONTENT))
        assert await read(await source.download(SourceRequest(url, LOGIN))) == CONTENT
        with pytest.raises(SourceError, match="may not be read by everybody") as caught:
            await source.download(SourceRequest(url))
        assert caught.value.fault == "reader"


@pytest.mark.parametrize("challenge", ['Negotiate abc=, Digest realm="x"', "nonsense ==="])
async def test_other_ways_in_are_not_known(challenge: str) -> None:
    async with registry(challenge) as fake, client() as source:
        with pytest.raises(SourceError, match="in a way that is not known"):
            await source.download(SourceRequest(fake.url(fake.put_blob(CONTENT)), LOGIN))


async def test_tags_are_checked_by_a_head_that_is_let_in() -> None:
    async with registry() as fake, client() as source:
        digest = fake.put_manifest(b"{}", "v1")
        request = SourceRequest(fake.url("v1"))
        assert not await source.is_expired(request, ExpireInfo(etag=f'"{digest}"'))
        assert [(seen.method, seen.status) for seen in fake.seen] == [("HEAD", 401), ("HEAD", 200)]
        fake.put_manifest(b'{"a": 1}', "v1")
        assert await source.is_expired(request, ExpireInfo(etag=f'"{digest}"'))
        fake.challenge = "basic"
        with pytest.raises(SourceError, match="may not be read by everybody") as caught:
            await source.is_expired(request, ExpireInfo(etag=f'"{digest}"'))
        assert caught.value.fault == "reader", "another host may have the credentials"


@pytest.mark.parametrize(
    ("answer", "expired"),
    [
        (Response(404), True),
        (Response(403, headers=[("www-authenticate", "Basic")]), True),
        (Response(403, headers=[("retry-after", "9")]), None),
        (Response(429, headers=[("retry-after", "9")]), None),
        (Response(500), None),
        (Response(200), True),
        (Response(200, headers=[("docker-content-digest", "nonsense"), ("etag", '"x"')]), True),
        (Response(200, headers=[("docker-content-digest", digest_of(b"{}"))]), False),
    ],
)
async def test_what_a_head_of_a_tag_means(answer: Response, expired: bool | None) -> None:
    async with registry("basic") as fake, client({f"auth.{fake.address}": "alice:secret"}) as source:
        digest = fake.put_manifest(b"{}", "v1")
        request, info = SourceRequest(fake.url("v1")), ExpireInfo(etag=f'"{digest}"')
        assert not await source.is_expired(request, info)
        fake.hook = lambda request: Response(answer.status, b"", answer.headers)
        if expired is None:
            with pytest.raises(SourceError) as caught:
                await source.is_expired(request, info)
            assert caught.value.origin_status == answer.status
            assert (caught.value.retry_after == 9) == (answer.status != 500)
        else:
            assert await source.is_expired(request, info) is expired


async def test_a_registry_without_head() -> None:
    async with registry("") as fake, client() as source:
        digest = fake.put_manifest(b"{}", "v1")
        fake.hook = lambda request: Response(405) if request.method == "HEAD" else None
        request = SourceRequest(fake.url("v1"))
        assert not await source.is_expired(request, ExpireInfo(etag=f'"{digest}"'))
        fake.put_manifest(b'{"a": 1}', "v1")
        assert await source.is_expired(request, ExpireInfo(etag=f'"{digest}"'))


# --- only one kind ------------------------------------------------------------------------------------


async def test_only_the_kind_that_the_url_tells_is_asked_for() -> None:
    async with registry("") as fake, reading() as reader:
        manifest, blob = fake.put_manifest(b'{"schemaVersion": 2}', "v1"), fake.put_blob(CONTENT)
        for digest, kind, content in (
            (manifest, "manifest", b'{"schemaVersion": 2}'),
            (blob, "blob", CONTENT),
        ):
            fake.seen.clear()
            sink = MemorySink()
            await reader.read(job(f"{fake.url(digest)}?kind={kind}"), sink)
            assert sink.content == content
            assert (sink.meta.digest, sink.meta.revalidate) == (digest, None)
            assert [seen.target for seen in fake.seen] == [f"/v2/lib/app/{kind}s/{digest}"]
        for digest, kind in ((manifest, "blob"), (blob, "manifest")):
            fake.seen.clear()
            with pytest.raises(SourceError, match="there is no") as caught:
                await reader.read(job(f"{fake.url(digest)}?kind={kind}"), MemorySink())
            assert caught.value.origin_status == 404
            assert [seen.target for seen in fake.seen] == [f"/v2/lib/app/{kind}s/{digest}"]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.example.Odd+json; charset=utf-8",
        "application/octet-stream",
    ],
)
async def test_the_media_type_of_a_manifest_is_what_the_registry_tells(media_type: str) -> None:
    async with registry("") as fake, reading() as reader:
        fake.media_type = media_type
        digest = fake.put_manifest(b'{"schemaVersion": 2}', "v1")
        for url in (f"{fake.url(digest)}?kind=manifest", fake.url("v1")):
            sink = MemorySink()
            await reader.read(job(url), sink)
            assert sink.meta.content_type == media_type


async def test_our_own_credentials_are_not_for_the_content_of_images() -> None:
    async with registry("basic") as fake:
        options = {f"auth.{fake.address}": "alice:secret"}
        async with client(options) as source:
            url = fake.url(fake.put_blob(CONTENT))
            assert await read(await source.download(SourceRequest(url))) == CONTENT
            fake.seen.clear()
            with pytest.raises(SourceError, match="may not be read by everybody") as caught:
                await source.download(SourceRequest(f"{url}?kind=blob"))
            assert (caught.value.origin_status, caught.value.fault) == (401, "origin")
            assert not any("authorization" in seen.headers for seen in fake.seen)
            given = SourceRequest(f"{url}?kind=blob", {"authorization": BASIC})
            assert await read(await source.download(given)) == CONTENT


async def test_a_redirection_sees_what_is_accepted_and_no_credentials() -> None:
    async with registry("") as fake, registry("") as other, client() as source:
        other.put_manifest(b"{}", "v1")
        place = f"http://{other.address}/v2/lib/app/manifests/v1"
        fake.hook = lambda request: Response(307, headers=[("location", place)])
        request = SourceRequest(fake.url("v1"), {"authorization": BASIC, "cookie": "secret"})
        assert await read(await source.download(request)) == b"{}"
        (seen,) = other.seen
        assert "oci.image.index" in seen.headers.get("accept", "")
        assert seen.headers.get("via") == "1.1 dragonet"
        assert "authorization" not in seen.headers
        assert "cookie" not in seen.headers


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Response.json({}, 401), 401, "may not be read by everybody"),
        (Response.json({}, 503, [("retry-after", "7")]), 503, "answered 503: try again later"),
        (Response.json({}, 302, [("location", "http://127.0.0.1:1/")]), 302, "gives no token this way"),
        (Response.json({"token": ""}), None, "without a token"),
        (Response.json({"token": "a\r\nx: y"}), None, "without a token"),
        (Response.text("<html>"), None, "without a token"),
        (Response(200, bytes(2 * MIB)), None, "more than the"),
    ],
)
async def test_token_services_in_trouble(answer: Response, status: int | None, words: str) -> None:
    async with registry() as fake, client() as source:
        fake.token_answer = answer
        with pytest.raises(SourceError, match=words) as caught:
            await source.download(SourceRequest(fake.url(fake.put_blob(CONTENT))))
        assert caught.value.origin_status == status
        assert (caught.value.retry_after == 7) == (status == 503)
        fake.token_answer = None
        assert await read(await source.download(SourceRequest(fake.url(fake.put_blob(CONTENT))))) == CONTENT


async def test_cancelled_while_a_token_is_asked_for() -> None:
    async with registry() as fake, client() as source:
        request = SourceRequest(fake.url(fake.put_blob(CONTENT)))
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.download(request)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.download, request)
            while not fake.seen:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert await read(await source.download(request)) == CONTENT


async def test_what_is_asked_for_wrongly() -> None:
    async with client() as source:
        for url in (
            "oci://host/app",
            "oci://host/App:v1",
            "oci://host/app@md5:00",
            "oci:///a:b",
            "oci://h/a:b?c",
            "oci://h/a:b?kind=manifest",
            f"oci://h/a@{digest_of(b'')}?kind=tag",
            f"oci://h/a@{digest_of(b'')}?kind=blob&kind=manifest",
        ):
            with pytest.raises(SourceError, match="cannot be read") as caught:
                await source.download(SourceRequest(url))
            assert caught.value.fault == "request"
            assert not source.is_immutable(SourceRequest(url))


@pytest.mark.parametrize(
    "options",
    [
        {"auth.host": "secret"},
        {"auth.": "a:secret"},
        {"password": "secret"},
        {"docker_config": "/there/is/no/secret"},
    ],
)
async def test_wrong_options(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"source\.options\.oci") as caught:
        async with client(options):
            pass
    assert "a:secret" not in str(caught.value)
