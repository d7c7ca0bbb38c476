"""hf:// against a hub that is made from the API's documentation: versions, redirections, refusals, listings."""

from __future__ import annotations

import hashlib

import pytest
import trio

from cdn.sources.interface import ExpireInfo, RangeNotSatisfiable, SourceRequest
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import SourceError
from shared.protocol import TaskMeta
from shared.swarm.origin import OriginJob
from tests.unit.cdn.fakes import MIB, MemorySink, job, random_bytes
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.hub_server import TOKEN, client, hub, reading

CONTENT = random_bytes(300_000)
URL = "hf://owner/name/weights/model.bin"


@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, large: bool) -> None:
    async with hub() as fake, client(fake) as source:
        name = "datasets/owner/name"
        fake.commit(name, {"a b/x": CONTENT, "a b/sub/ä": b"1", "a b/sub/z": b"2", "c": b"3"}, large=large)

        def change() -> None:
            fake.commit(name, {"a b/x": random_bytes(280_000, 2)}, large=large)

        folder = "hf://datasets/owner/name/a%20b"
        await check(
            Example(
                source,
                f"{folder}/x",
                CONTENT,
                missing=f"{folder}/y",
                folder=folder,
                children={"x": False, "sub": True},
                change=change,
            )
        )


# --- through the engine -------------------------------------------------------------------------------


async def test_a_long_file_is_read_in_parallel_from_the_storage() -> None:
    content = random_bytes(40 * MIB)
    async with hub() as fake, reading(fake, token=TOKEN) as reader:
        fake.commit("models/owner/name", {"weights/model.bin": content}, access="private")
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == content
        assert sink.final is not None
        assert sink.final.digest == "sha256:" + hashlib.sha256(content).hexdigest()
        assert sink.final.etag == f'"{hashlib.sha256(content).hexdigest()}"'
        assert [seen.status for seen in fake.seen] == [302], "one redirection is enough for all ranges"
        assert [seen.status for seen in fake.storage.seen] == [206] * 3
        assert fake.seen[0].headers.get("authorization") == f"Bearer {TOKEN}"
        assert all("if-range" not in seen.headers for seen in fake.storage.seen)


@pytest.mark.parametrize("refusal", [400, 403])
async def test_a_signature_that_expires_in_mid_read_is_renewed(refusal: int) -> None:
    content = random_bytes(33 * MIB)
    async with hub() as fake, reading(fake) as reader:
        fake.commit("models/owner/name", {"weights/model.bin": content})
        fake.storage.refusal = refusal

        def expire(number: int) -> None:
            if number == 2:
                fake.storage.expire()

        fake.storage.hook = expire
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == content
        assert sink.count == len(content)
        assert len(sink.metas) == 1
        assert refusal in [seen.status for seen in fake.storage.seen]
        commit = fake.repositories["models/owner/name"].refs["main"]
        assert {f"/owner/name/resolve/{commit}/weights/model.bin"} == {s.target for s in fake.seen[1:]}


async def test_a_cut_answer_is_resumed() -> None:
    content = random_bytes(5 * MIB)
    async with hub() as fake, reading(fake) as reader:
        fake.commit("models/owner/name", {"weights/model.bin": content})
        fake.storage.cuts = {0: 3 * MIB + 17}
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == content
        assert sink.count == len(content)
        assert len(fake.storage.seen) == 2


async def test_a_branch_that_moves_on_does_not_disturb_a_read() -> None:
    old, new = random_bytes(33 * MIB, 1), random_bytes(33 * MIB, 2)
    async with hub() as fake, reading(fake) as reader:
        fake.commit("models/owner/name", {"weights/model.bin": old})

        def move(number: int) -> None:
            if number == 1:
                fake.commit("models/owner/name", {"weights/model.bin": new})
                fake.storage.expire()

        fake.storage.hook = move
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == old
        assert len(sink.metas) == 1


@pytest.mark.parametrize("linked", [True, False])
async def test_a_commit_that_is_gone_means_another_version(linked: bool) -> None:
    old, new = random_bytes(33 * MIB, 1), random_bytes(34 * MIB, 2)
    async with hub() as fake, reading(fake) as reader:
        first = fake.commit("models/owner/name", {"weights/model.bin": old})
        fake.linked = linked

        def replace(number: int) -> None:
            if number == 1:
                fake.commit("models/owner/name", {"weights/model.bin": new})
                del fake.repositories["models/owner/name"].commits[first]
                fake.storage.expire()

        fake.storage.hook = replace
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == new
        assert len({meta.version for meta in sink.metas}) == 2


async def test_content_that_the_storage_replaces_is_asked_of_the_hub_again() -> None:
    old, new = random_bytes(33 * MIB, 1), random_bytes(33 * MIB, 2)
    async with hub() as fake, reading(fake) as reader:
        commit = fake.commit("models/owner/name", {"weights/model.bin": old})
        held = fake.repositories["models/owner/name"].commits[commit]["weights/model.bin"]

        def replace(number: int) -> None:
            if number == 1:  # the same name in the storage, and another ETag there
                fake.storage.objects[held.name], fake.storage.etags[held.name] = new, '"new"'
                fake.commit("models/owner/name", {"weights/model.bin": new})
                del fake.repositories["models/owner/name"].commits[commit]

        fake.storage.hook = replace
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == new


async def test_a_known_version_goes_on_where_it_was() -> None:
    content = random_bytes(6 * MIB)
    async with hub() as fake, reading(fake) as reader:
        fake.commit("models/owner/name", {"weights/model.bin": content})
        first = MemorySink()
        await reader.read(job(URL), first)
        assert first.final is not None
        sink = MemorySink()
        sink.hold(first.final, content, [0, 1, 2])
        await reader.read(job(URL, meta=first.final), sink)
        assert sink.content == content
        assert sink.count == len(content) - 3 * first.final.piece_length


async def test_a_commit_is_never_asked_again() -> None:
    async with hub() as fake, reading(fake) as reader:
        commit = fake.commit("models/owner/name", {"weights/model.bin": CONTENT})
        metas: list[TaskMeta] = []
        for revision in (commit, "main"):
            sink = MemorySink()
            await reader.read(job(f"hf://owner/name@{revision}/weights/model.bin"), sink)
            assert sink.content == CONTENT
            metas.append(sink.meta)
        assert metas[0].revalidate is None
        assert metas[1].revalidate == 60.0


@pytest.mark.parametrize("large", [True, False])
async def test_an_empty_file(large: bool) -> None:
    async with hub() as fake, reading(fake) as reader, client(fake) as source:
        fake.commit("models/owner/name", {"weights/model.bin": b""}, large=large)
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.final is not None
        assert sink.final.length == 0
        assert sink.final.etag
        assert not await source.is_expired(SourceRequest(URL), ExpireInfo(etag=sink.final.etag))
        with pytest.raises(RangeNotSatisfiable) as caught:
            await source.download(SourceRequest(URL, range=(5, 9)))
        assert caught.value.etag == sink.final.etag


# --- what is told ------------------------------------------------------------------------------------


async def test_the_hub_without_linked_etags_is_read_by_those_of_the_storage() -> None:
    async with hub() as fake, client(fake) as source:
        fake.linked = False
        fake.commit("models/owner/name", {"weights/model.bin": CONTENT})
        response = await source.download(SourceRequest(URL))
        assert response.digest == ""
        assert response.etag == fake.storage.etags["object-0"]
        assert await read(response) == CONTENT


async def test_small_files_have_the_hash_of_git_as_version() -> None:
    async with hub() as fake, client(fake) as source:
        commit = fake.commit("models/owner/name", {"weights/model.bin": b"hello"}, large=False)
        response = await source.download(SourceRequest(URL))
        assert response.etag == f'"{hashlib.sha1(b"blob 5" + bytes(1) + b"hello").hexdigest()}"'
        assert response.digest == ""
        assert await read(response) == b"hello"
        again = await source.download(SourceRequest(URL, resolved_url=response.url))
        assert await read(again) == b"hello"
        assert fake.seen[2].target == f"/owner/name/resolve/{commit}/weights/model.bin"


async def test_revisions_with_slashes() -> None:
    async with hub() as fake, client(fake) as source:
        fake.commit("spaces/owner/name", {"app.py": b"pr"}, ref="refs/pr/7")
        fake.commit("spaces/owner/name", {"app.py": b"branch"}, ref="a/b")
        for revision, content in (("refs%2Fpr%2F7", b"pr"), ("refs/pr/7", b"pr"), ("a%2Fb", b"branch")):
            url = f"hf://spaces/owner/name@{revision}/app.py"
            assert await read(await source.download(SourceRequest(url))) == content


async def test_expiry_is_told_by_the_hub_with_one_byte() -> None:
    async with hub() as fake, client(fake) as source:
        commit = fake.commit("models/owner/name", {"weights/model.bin": CONTENT})
        response = await source.download(SourceRequest(URL))
        await response.aclose()
        info = ExpireInfo(etag=response.etag)
        assert not await source.is_expired(SourceRequest(URL), info)
        assert fake.storage.seen[-1].range == "bytes=0-0"
        fake.commit("models/owner/name", {"weights/model.bin": b"new"})
        assert await source.is_expired(SourceRequest(URL), info)
        asked = len(fake.seen)
        pinned = SourceRequest(f"hf://owner/name@{commit}/weights/model.bin")
        assert source.is_immutable(pinned)
        assert not await source.is_expired(pinned, ExpireInfo(etag='"other"'))
        assert len(fake.seen) == asked


async def test_listing_goes_over_pages_and_names_versions() -> None:
    async with hub() as fake, client(fake, {"token": TOKEN}) as source:
        fake.page_size = 2
        files = {f"f{n}": b"x" * n for n in range(5)} | {"d/e/f": b""}
        fake.commit("datasets/owner/name", files, ref="v 1", access="private")
        request = SourceRequest("hf://datasets/owner/name@v%201/")
        entries = await source.list(request)
        assert [entry.url for entry in entries][:2] == [
            "hf://datasets/owner/name@v%201/d/",
            "hf://datasets/owner/name@v%201/f0",
        ]
        assert [entry.size for entry in entries] == [-1, 0, 1, 2, 3, 4]
        assert entries[3].version == hashlib.sha256(b"xx").hexdigest()
        assert len(fake.seen) == 3
        assert all(seen.headers.get("authorization") == f"Bearer {TOKEN}" for seen in fake.seen)
        fake.next_host = "http://127.0.0.1:9"
        with pytest.raises(SourceError, match="another server"):
            await source.list(request)


async def test_cancelled_in_the_middle_it_goes_on_working() -> None:
    async with hub() as fake, client(fake) as source:
        fake.commit("models/owner/name", {"weights/model.bin": CONTENT})
        async with await source.download(SourceRequest(URL)) as response:
            known = response.url
        for resolved in ("", known):
            with trio.CancelScope() as scope:
                scope.cancel()
                await source.download(SourceRequest(URL, resolved_url=resolved))
            assert scope.cancelled_caught
        assert await read(await source.download(SourceRequest(URL, resolved_url=known))) == CONTENT


async def test_private_headers_of_a_job_reach_the_hub_alone() -> None:
    async with hub() as fake, reading(fake) as reader:
        fake.commit("models/owner/name", {"weights/model.bin": CONTENT}, access="private")
        sink = MemorySink()
        private = {"x-dragonet-source-token": TOKEN}
        await reader.read(OriginJob(job(URL).spec, private), sink)
        assert sink.content == CONTENT
        assert all(TOKEN not in str(seen.headers.items()) for seen in fake.storage.seen)
