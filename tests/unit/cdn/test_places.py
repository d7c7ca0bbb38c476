"""Content that is known by its digest is the same version wherever it is read, whatever each place says of it."""

from __future__ import annotations

import hashlib

import pytest

from shared.errors import SourceError
from shared.protocol import TaskMeta
from shared.swarm.origin import OriginJob
from shared.task.identity import TaskSpec
from tests.unit.cdn.fakes import PIECE, Behaviour, MemorySink, random_bytes, reading, serving

CONTENT = random_bytes(3 * PIECE + 5)
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
ANSWERS = {
    "plain": Behaviour(CONTENT),
    "another etag": Behaviour(CONTENT, etag='"two"'),
    "weak": Behaviour(CONTENT, etag='W/"one"'),
    "a date": Behaviour(CONTENT, etag="", last_modified=DATE),
    "nothing": Behaviour(CONTENT, etag=""),
    "no ranges": Behaviour(CONTENT, etag='"three"', ranges="ignore"),
}
WITHOUT_LENGTH = Behaviour(CONTENT, etag='"four"', ranges="ignore", framing="chunked")


def spec(url: str, content: bytes = CONTENT) -> TaskSpec:
    return TaskSpec(url=url, digest=f"sha256:{hashlib.sha256(content).hexdigest()}")


@pytest.mark.parametrize("first", ANSWERS)
@pytest.mark.parametrize("second", ANSWERS)
async def test_what_one_place_gave_another_one_goes_on_with(first: str, second: str) -> None:
    async with serving() as origin, reading(retries=0) as (reader, _):
        origin.behaviours["/a"] = ANSWERS[first]
        origin.behaviours["/b"] = ANSWERS[second]
        whole, sink = MemorySink(), MemorySink()
        await reader.read(OriginJob(spec(origin.url("/a"))), whole)
        assert whole.content == CONTENT
        assert whole.meta.revalidate is None, "it cannot change"
        held = whole.meta
        sink.hold(held, CONTENT, [0, 2])
        await reader.read(OriginJob(spec(origin.url("/b")), meta=held), sink)
        assert sink.content == CONTENT
        assert sorted(sink.written) == [1, 3]
        assert {meta.version for meta in sink.metas} == {held.version}
        assert {meta.piece_length for meta in sink.metas} == {held.piece_length}
        other = MemorySink()
        await reader.read(OriginJob(spec(origin.url("/b"))), other)
        assert (other.meta.version, other.meta.piece_length) == (held.version, held.piece_length)


async def test_a_place_that_does_not_tell_the_length_goes_with_one_that_does() -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/a"], origin.behaviours["/b"] = WITHOUT_LENGTH, Behaviour(CONTENT)
        for front, back in (("/a", "/b"), ("/b", "/a")):
            one, sink = MemorySink(), MemorySink()
            await reader.read(OriginJob(spec(origin.url(front))), one)
            sink.hold(one.metas[0], CONTENT, [0] if one.metas[0].piece_length == PIECE else [])
            await reader.read(OriginJob(spec(origin.url(back)), meta=one.metas[0]), sink)
            assert sink.content == CONTENT
            assert sink.meta.version == one.metas[0].version


async def test_content_of_another_length_is_another_version() -> None:
    wrong = CONTENT[:-1]
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/a"], origin.behaviours["/b"] = Behaviour(wrong), Behaviour(CONTENT)
        one, sink = MemorySink(), MemorySink()
        await reader.read(OriginJob(spec(origin.url("/a"))), one)
        sink.hold(one.meta, wrong, [0, 1, 2])
        await reader.read(OriginJob(spec(origin.url("/b")), meta=one.meta), sink)
        assert sink.content == CONTENT
        assert sink.meta.version != one.meta.version
        assert sink.written == [0, 1, 2, 3], "nothing of the other one is used"


async def test_the_version_that_the_cluster_speaks_of_is_kept() -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/a"] = Behaviour(CONTENT, etag='"new"')
        sink = MemorySink()
        known = TaskMeta("any name", PIECE, len(CONTENT), etag='"old"')
        sink.hold(known, CONTENT, [3])
        await reader.read(OriginJob(spec(origin.url("/a")), meta=known), sink)
        assert sink.content == CONTENT
        assert sink.meta.version == "any name"
        assert sorted(sink.written) == [0, 1, 2]
        assert all("if-range" not in seen.headers for seen in origin.seen[:1])


@pytest.mark.parametrize("refuses", [False, True])
async def test_no_content_is_a_version_too(refuses: bool) -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/a"] = Behaviour(b"", empty_is_416=refuses)
        sink = MemorySink()
        await reader.read(OriginJob(spec(origin.url("/a"), b"")), sink)
        assert sink.meta.length == 0
        expected = hashlib.sha256(f"{spec('x:y', b'').digest} 0".encode()).hexdigest()[:16]
        assert sink.meta.version == expected


async def test_content_that_is_replaced_while_it_is_read_is_not_mixed() -> None:
    """What a place says of its own answers still counts, one against the other."""
    async with serving() as origin, reading(span=PIECE, restarts=0) as (reader, _):
        origin.behaviours["/a"] = Behaviour(random_bytes(80 * PIECE))

        def replace(_: object) -> None:
            if len(origin.seen) == 2:
                origin.behaviours["/a"] = Behaviour(random_bytes(80 * PIECE), etag='"two"')

        origin.hook = replace
        with pytest.raises(SourceError, match="changed 1 times"):
            await reader.read(OriginJob(spec(origin.url("/a"))), MemorySink())
