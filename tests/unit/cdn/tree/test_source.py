"""A tree as a source: what the stream holds, whoever reads it."""

from __future__ import annotations

import pytest
import trio

from cdn.sources.interface import ExpireInfo, SourceCut, SourceEntry, SourceRequest
from cdn.tree import reading
from cdn.tree.frames import SMALL_FILE, Begun, Ended
from cdn.tree.order import TreeOrder
from cdn.tree.source import TreeSource
from shared.errors import SourceError
from tests.unit.cdn.fakes import random_bytes
from tests.unit.cdn.tree.folders import CONFIG, ROOT, FolderSource, read_tree

FILES = {f"d{n % 7}/file{n}{'odd' if n % 5 == 0 else ''}": random_bytes(n * 37, seed=n) for n in range(300)}

BULK = pytest.mark.parametrize("bulk", [False, True])


@BULK
@pytest.mark.parametrize("buffer", [1000, 1 << 20])
async def test_everything_comes_once_and_in_order(bulk: bool, buffer: int) -> None:
    source = FolderSource(FILES, bulk=bulk)
    collected, _ = await read_tree(source, buffer=buffer)
    assert collected.files == FILES
    assert collected.decoder.ended
    assert set(source.reads.values()) == {1}
    assert collected.heads[0] == Begun(300, sum(map(len, FILES.values())))
    assert collected.heads[-1] == Ended(300)
    assert source.most > 4 or bulk


@BULK
async def test_the_same_stream_again(bulk: bool) -> None:
    first, etag = await read_tree(FolderSource(FILES, bulk=bulk))
    second, again = await read_tree(FolderSource(FILES, bulk=bulk), buffer=999)
    assert first.heads == second.heads
    assert etag == again


@BULK
@pytest.mark.parametrize("sizes", [True, False])
async def test_large_files_are_named_only(bulk: bool, sizes: bool) -> None:
    files = {"a": b"1", "large": bytes(SMALL_FILE + 1), "limit": bytes(SMALL_FILE), "z": b""}
    source = FolderSource(files, bulk=bulk)
    source.sizes = sizes
    collected, _ = await read_tree(source)
    assert collected.large == ["large"]
    assert {name: len(content) for name, content in collected.files.items()} == {
        "a": 1,
        "limit": SMALL_FILE,
        "z": 0,
    }
    assert source.reads["large"] == (0 if sizes else 1)


async def test_a_listing_reads_nothing() -> None:
    source = FolderSource(FILES)
    collected, _ = await read_tree(source, TreeOrder(contents=False))
    assert sorted(collected.large) == sorted(FILES)
    assert not source.reads


async def test_an_empty_folder() -> None:
    collected, _ = await read_tree(FolderSource({}))
    assert collected.heads == [Begun(0, 0), Ended(0)]


@BULK
async def test_files_that_fail_are_told_and_the_rest_comes(bulk: bool) -> None:
    source = FolderSource(FILES, bulk=bulk)
    source.errors["d1/file1"] = SourceError("it answered 404", origin_status=404)
    source.errors["d2/file2"] = SourceError("it answered 500", origin_status=500)
    collected, _ = await read_tree(source)
    assert collected.refused == {"d1/file1": "it answered 404", "d2/file2": "it answered 500"}
    assert len(collected.files) == 298
    assert source.reads["d1/file1"] == 1
    assert source.reads["d2/file2"] == 1 + CONFIG.retries


async def test_what_passes_is_waited_out() -> None:
    source = FolderSource(FILES)

    async def cut_once(path: str) -> None:
        if path == "d1/file1" and source.reads[path] < 3:
            raise SourceCut("cut")

    source.before = cut_once
    collected, _ = await read_tree(source)
    assert collected.files == FILES


async def test_an_origin_that_fails_altogether_ends_the_read() -> None:
    source = FolderSource(FILES)
    for path in FILES:
        source.errors[path] = SourceError("it answered 501", origin_status=501)
    with pytest.raises(SourceError, match="501"):
        await read_tree(source)


async def test_a_reader_that_cannot_read_ends_the_read() -> None:
    source = FolderSource(FILES)
    source.errors["d1/file1"] = SourceError("no credentials", fault="reader")
    with pytest.raises(SourceError, match="no credentials"):
        await read_tree(source)


async def test_refused_names_come_with_words() -> None:
    source = FolderSource({"good": b"1"})
    source.listed[""] = [SourceEntry(ROOT + "%2e%2e"), SourceEntry(ROOT + "good")]
    collected, _ = await read_tree(source)
    assert collected.files == {"good": b"1"}
    assert list(collected.refused) == ["%2e%2e"]


async def test_headers_go_along() -> None:
    source = FolderSource({"a": b"1"})
    await read_tree(source, headers={"authorization": "x"})
    assert all(request.headers == {"authorization": "x"} for request in source.asked)


async def test_memory_is_bounded_while_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "HELD_BYTES", 200_000)
    monkeypatch.setattr(reading, "BATCH_BYTES", 50_000)
    files = {f"{n:04}": bytes(10_000) for n in range(500)}
    source = FolderSource(files)
    async with trio.open_nursery() as nursery:
        tree = TreeSource(source, TreeOrder().text, CONFIG, nursery)
        async with await tree.download(SourceRequest(ROOT)) as answer:
            await trio.testing.wait_all_tasks_blocked(0.05)
            held = len(source.reads)
            assert 20 <= held < 100
            buffer = memoryview(bytearray(1 << 16))
            while await answer.receive_into(buffer):
                pass
        nursery.cancel_scope.cancel()
    assert len(source.reads) == 500
    assert source.running == 0


async def test_closing_ends_the_reading() -> None:
    source = FolderSource(FILES)
    async with trio.open_nursery() as nursery:
        tree = TreeSource(source, TreeOrder().text, CONFIG, nursery)
        async with await tree.download(SourceRequest(ROOT)) as answer:
            await answer.receive_into(memoryview(bytearray(100)))
    assert source.running == 0


async def test_expiry_is_told_by_the_listing() -> None:
    source = FolderSource(dict(FILES))
    _, etag = await read_tree(source)
    tree = TreeSource(source, TreeOrder().text, CONFIG)
    assert not await tree.is_expired(SourceRequest(ROOT), ExpireInfo(etag=etag))
    source.files["new"] = b"1"
    assert await tree.is_expired(SourceRequest(ROOT), ExpireInfo(etag=etag))
    source.errors[""] = SourceError("in trouble")
    with pytest.raises(SourceError, match="in trouble"):
        await tree.is_expired(SourceRequest(ROOT), ExpireInfo(etag=etag))


def test_an_order_that_is_not_understood() -> None:
    with pytest.raises(SourceError, match="not understood") as caught:
        TreeSource(FolderSource({}), "v=9", CONFIG)
    assert caught.value.fault == "request"
