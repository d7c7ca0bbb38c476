"""Manifests and blobs, whole and in part, held and not held, right and wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from cdn.images.specs import blob_spec, descriptor_spec
from cdn.sources.oci.descriptor import Descriptor
from cdn.sources.oci.logins import login_of
from peer.gateway.access import Granted
from peer.gateway.errors import RegistryError
from peer.gateway.serving import LARGEST_MANIFEST
from peer.gateway.target import Target
from shared.errors import DeadlineExceeded, DigestMismatch, SourceError, StoreFull
from shared.http.messages import Response
from shared.swarm.origin import OriginJob, OriginSink
from tests.unit.peer.gateway.worlds import (
    BLOB,
    BY_DIGEST,
    BY_TAG,
    DIGEST,
    LAYER,
    MANIFEST,
    OCI,
    REGISTRY,
    REPOSITORY,
    TAGGED,
    World,
    asking,
    body_of,
    digest_of,
    fields,
    new_world,
)

Clock = trio.testing.MockClock
PUBLIC = Granted(descriptor=TAGGED)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


async def ask(
    world: World, target: Target, granted: Granted = PUBLIC, method: str = "GET", **headers: str
) -> Response:
    exchange = world.exchange(asking(method, **headers))
    with trio.fail_after(1000):
        return await world.serving.answer(exchange, target, granted)


# --- blobs ---------------------------------------------------------------------------------------------


async def test_a_blob_from_its_registry_then_from_the_store(autojump_clock: Clock, world: World) -> None:
    first = await ask(world, BLOB, Granted())
    assert first.status == 200
    assert fields(first) == {
        "content-length": str(len(LAYER.data)),
        "content-type": "application/octet-stream",
        "docker-content-digest": DIGEST,
        "docker-distribution-api-version": "registry/2.0",
        "etag": f'"{DIGEST}"',
        "accept-ranges": "bytes",
        "cache-status": "dragonet; fwd=miss",
    }
    assert await body_of(first) == LAYER.data
    again = await ask(world, BLOB, Granted())
    assert fields(again)["cache-status"] == "dragonet; hit"
    assert await body_of(again) == LAYER.data
    assert len(world.registry.jobs) == 1


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=40000-", 40000, None),
        ("bytes=-500", -500, None),
        ("bytes=0-0", 0, 1),
    ],
)
async def test_ranges(autojump_clock: Clock, world: World, wanted: str, start: int, stop: int | None) -> None:
    response = await ask(world, BLOB, Granted(), range=wanted)
    part = LAYER.data[start:stop]
    at = LAYER.data.find(part)
    assert response.status == 206
    assert fields(response)["content-range"] == f"bytes {at}-{at + len(part) - 1}/{len(LAYER.data)}"
    assert fields(response)["content-length"] == str(len(part))
    assert await body_of(response) == part


async def test_a_range_beyond_the_end(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(RegistryError) as caught:
        await ask(world, BLOB, Granted(), range=f"bytes={len(LAYER.data)}-")
    assert (caught.value.status, caught.value.code) == (416, "RANGE_INVALID")
    assert dict(caught.value.headers)["content-range"] == f"bytes */{len(LAYER.data)}"


async def test_an_empty_blob(autojump_clock: Clock, world: World) -> None:
    digest = digest_of(b"")
    world.registry.add_blob(digest, replace(LAYER, data=b""))
    response = await ask(world, replace(BLOB, digest=digest), Granted())
    assert fields(response)["content-length"] == "0"
    assert await body_of(response) == b""


async def test_who_has_it_already_is_told_so(autojump_clock: Clock, world: World) -> None:
    response = await ask(world, BLOB, Granted(), if_none_match=f'"{DIGEST}"')
    assert response.status == 304
    assert await body_of(response) == b""
    assert (await ask(world, BLOB, Granted(), if_match='"other"')).status == 412
    assert not world.registry.jobs


async def test_head_of_a_blob_reads_nothing_of_it(autojump_clock: Clock, world: World) -> None:
    place = descriptor_spec(REGISTRY, REPOSITORY, DIGEST, blob=True).url
    world.registry.add(place, Descriptor("application/octet-stream", DIGEST, len(LAYER.data)).encode())
    head = await ask(world, BLOB, Granted(), "HEAD")
    assert [job.spec.url for job in world.registry.jobs] == [place]
    whole = await ask(world, BLOB, Granted())
    assert fields(head) == fields(whole)
    await body_of(whole)
    held = await ask(world, BLOB, Granted(), "HEAD")
    assert fields(held)["cache-status"] == "dragonet; hit"
    assert len(world.registry.jobs) == 2


async def test_head_of_a_private_blob_asks_with_what_the_client_showed(
    autojump_clock: Clock, world: World
) -> None:
    granted = Granted("scope", {"authorization": "Basic YTpi"})
    head = await ask(world, BLOB, granted, "HEAD")
    assert fields(head)["content-length"] == "777"
    [(reference, kind, login)] = world.reader.heads
    assert (str(reference), kind) == (f"{REGISTRY}/{REPOSITORY}@{DIGEST}", "blob")
    assert login == login_of("Basic YTpi")
    assert not world.registry.jobs


async def test_private_and_public_content_are_apart(autojump_clock: Clock, world: World) -> None:
    granted = Granted("scope", {"authorization": "Basic YTpi"})
    assert await body_of(await ask(world, BLOB, granted)) == LAYER.data
    assert await body_of(await ask(world, BLOB, Granted())) == LAYER.data
    first, second = world.registry.jobs
    assert (first.spec.scope, first.private_headers) == ("scope", granted.headers)
    assert (second.spec.scope, second.private_headers) == ("", {})


async def test_headers_wait_for_the_first_byte_and_no_longer(autojump_clock: Clock, world: World) -> None:
    go_on = trio.Event()

    async def slow(job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(LAYER.meta)
        await trio.sleep(7)
        await sink.piece(0, memoryview(LAYER.piece(0)))
        await go_on.wait()
        await world.registry.give(job, sink)

    world.registry.script = slow
    response = await ask(world, BLOB, Granted())
    assert trio.current_time() == pytest.approx(7, abs=0.5)
    go_on.set()
    assert await body_of(response) == LAYER.data


async def test_nothing_comes_in_time(autojump_clock: Clock, world: World) -> None:
    async def silent(job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(LAYER.meta)
        await trio.sleep_forever()

    world.registry.script = silent
    with pytest.raises(DeadlineExceeded):
        await ask(world, BLOB, Granted())
    assert trio.current_time() == pytest.approx(30, abs=1)


async def test_what_is_not_there(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(SourceError) as caught:
        await ask(world, replace(BLOB, digest=digest_of(b"other")), Granted())
    assert caught.value.origin_status == 404


async def test_a_full_store(autojump_clock: Clock, world: World) -> None:
    async def full(_number: int) -> None:
        raise StoreFull("the store is full")

    world.store.before_put = full  # type: ignore[assignment]
    with pytest.raises(StoreFull):
        await ask(world, BLOB, Granted())


async def test_wrong_content_never_comes_to_its_end(autojump_clock: Clock, world: World) -> None:
    digest = digest_of(b"what it should be")
    world.registry.add_blob(digest, LAYER)
    exchange = world.exchange(asking())
    got = bytearray()
    with pytest.raises(DigestMismatch):  # noqa: PT012 – before the headers or while it is sent
        response = await world.serving.answer(exchange, replace(BLOB, digest=digest), Granted())
        body: Any = response.body
        try:
            async for chunk in body:
                got += chunk
        finally:
            await body.aclose()
    assert len(got) < len(LAYER.data)


async def test_a_response_that_nobody_takes_lets_go_of_everything(
    autojump_clock: Clock, world: World
) -> None:
    response = await ask(world, BLOB, Granted())
    body: Any = response.body
    await body.aclose()
    response.finish()
    assert not len(world.host.sessions)


async def test_what_breaks_while_it_is_sent_is_noted(autojump_clock: Clock, world: World) -> None:
    async def breaking(job: OriginJob, sink: OriginSink) -> None:
        await sink.opened(LAYER.meta)
        if 0 not in sink.held():
            await sink.piece(0, memoryview(LAYER.piece(0)))
        await trio.sleep(1)
        raise SourceError("the registry died", origin_status=500)

    world.registry.script = breaking
    exchange = world.exchange(asking())
    response = await world.serving.answer(exchange, BLOB, Granted())
    with pytest.raises(SourceError):
        await body_of(response)
    assert "the registry died" in exchange.broken
    assert exchange.sent == len(LAYER.piece(0)) < exchange.expected


async def test_cluster_only_asks_no_registry(autojump_clock: Clock, world: World) -> None:
    await world.store.hold(LAYER, spec=blob_spec(REGISTRY, REPOSITORY, DIGEST))
    assert await body_of(await ask(world, BLOB, Granted(cluster_only=True))) == LAYER.data
    assert not world.registry.jobs


# --- manifests -----------------------------------------------------------------------------------------


async def test_a_tag_by_its_descriptor(autojump_clock: Clock, world: World) -> None:
    head = await ask(world, BY_TAG, method="HEAD")
    assert not world.registry.jobs, "HEAD needs no content"
    first = await ask(world, BY_TAG)
    assert await body_of(first) == MANIFEST
    again = await ask(world, BY_TAG)
    assert await body_of(again) == MANIFEST
    assert len(world.registry.jobs) == 1
    expected = {
        "content-length": str(len(MANIFEST)),
        "content-type": OCI,
        "docker-content-digest": TAGGED.digest,
        "docker-distribution-api-version": "registry/2.0",
        "etag": f'"{TAGGED.digest}"',
        "cache-status": "dragonet; hit",
    }
    assert fields(head) == fields(again) == expected
    assert fields(first) == expected | {"cache-status": "dragonet; fwd=miss"}


async def test_a_digest_with_and_without_a_descriptor(autojump_clock: Clock, world: World) -> None:
    for granted in (PUBLIC, Granted()):
        whole = await ask(world, BY_DIGEST, granted)
        head = await ask(world, BY_DIGEST, granted, "HEAD")
        assert await body_of(whole) == MANIFEST
        assert await body_of(head) == b""
        assert fields(whole) | {"cache-status": ""} == fields(head) | {"cache-status": ""}
        assert fields(head)["content-type"] == OCI


@pytest.mark.parametrize("told", ["application/json", "application/octet-stream", ""])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_type_that_says_nothing(autojump_clock: Clock, world: World, told: str, method: str) -> None:
    data = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
    world.registry.add_manifest(data, "application/json")
    descriptor = Descriptor(told, digest_of(data), len(data))
    response = await ask(world, BY_TAG, Granted(descriptor=descriptor), method)
    assert fields(response)["content-type"] == "application/vnd.oci.image.index.v1+json"
    assert fields(response)["content-length"] == str(len(data))
    await body_of(response)


async def test_stale_is_said_of_tags_only(autojump_clock: Clock, world: World) -> None:
    stale = replace(PUBLIC, stale=True)
    for method in ("GET", "HEAD"):
        response = await ask(world, BY_TAG, stale, method)
        assert fields(response)["cache-status"] == "dragonet; fwd=stale"
        await body_of(response)
    response = await ask(world, BY_DIGEST, stale)
    assert fields(response)["cache-status"] == "dragonet; hit"


async def test_a_descriptor_had_from_elsewhere_is_no_hit(autojump_clock: Clock, world: World) -> None:
    response = await ask(world, BY_TAG, replace(PUBLIC, hit=False), "HEAD")
    assert fields(response)["cache-status"] == "dragonet; fwd=miss"


async def test_who_has_the_manifest_already(autojump_clock: Clock, world: World) -> None:
    for method in ("GET", "HEAD"):
        response = await ask(world, BY_TAG, PUBLIC, method, if_none_match=f'"{TAGGED.digest}"')
        assert response.status == 304
    assert not world.registry.jobs


async def test_a_tag_that_nobody_can_explain(autojump_clock: Clock, world: World) -> None:
    with pytest.raises(RegistryError, match="v1"):
        await ask(world, BY_TAG, Granted())


async def test_a_manifest_beyond_all_measure(autojump_clock: Clock, world: World) -> None:
    data = b" " * (LARGEST_MANIFEST + 1)
    world.registry.add_manifest(data, OCI)
    with pytest.raises(SourceError, match="bytes"):
        await ask(world, replace(BY_DIGEST, digest=digest_of(data)), Granted())


async def test_a_wrong_manifest(autojump_clock: Clock, world: World) -> None:
    wrong = replace(BY_DIGEST, digest=digest_of(b"other"))
    url = next(url for url in world.registry.contents if "kind=manifest" in url)
    world.registry.contents[url.replace(TAGGED.digest, wrong.digest)] = world.registry.contents[url]
    with pytest.raises(DigestMismatch):
        await ask(world, wrong, Granted())
