"""Whole reads through plugins that do wrong: content that is whole and right, or an error that says who did
what; never anything wrong in the store, and everybody else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from cdn.sources.interface import ContentRange, SourceRequest, SourceResponse
from shared.errors import SourceError
from tests.unit.cdn.fakes import MIB, MemorySink, job
from tests.unit.cdn.sources.plugins.clients import (
    CONTENT,
    SHORT,
    SOON,
    Gives,
    Good,
    Simple,
    chunks,
    gate,
    read,
    reading,
    url,
    wrong_pieces,
)


async def read_bad(client: Good, content: bytes, **settings: Any) -> tuple[MemorySink, str]:
    """Read from ``client`` while another plugin is read from; the sink and what the error said ("": none)."""
    sink, said = MemorySink(), ""
    good = Good(SHORT)
    async with reading(good=good, bad=client, **settings) as reader, trio.open_nursery() as nursery:

        async def beside() -> None:
            assert (await read(reader)).content == SHORT

        nursery.start_soon(beside)
        try:
            await reader.read(job(url("bad")), sink)
            assert sink.final is not None
            assert sink.final.length == len(content)
            assert sink.content == content
        except SourceError as error:
            said = str(error)
            assert sink.final is None
            assert "the source plugin bad " in said or "(source plugin bad)" in said
        assert not wrong_pieces(sink, content)
        assert (await read(reader)).content == SHORT
    return sink, said


@pytest.mark.parametrize("kind", [Good, Simple])
@pytest.mark.parametrize("content", [b"", b"hello world", SHORT, CONTENT], ids=len)
async def test_what_keeps_its_promises_is_read(kind: type[Good], content: bytes) -> None:
    client = kind(content)
    assert (await read_bad(client, content))[1] == ""
    if kind is Good and content is not CONTENT:
        assert len(client.asked) == 1, "one read of the source"
    if kind is Good and content is CONTENT:
        assert len([part for part in client.asked if part is not None and part[0] != part[1]]) == 3


class Shouting(Simple):
    def download(self, request: SourceRequest) -> SourceResponse:
        return SourceResponse(iter(["hello", "world"]))  # type: ignore[arg-type]  # text


async def test_text() -> None:
    sink, said = await read_bad(Shouting(), b"")
    assert said == "the source plugin bad gave text (str) for its content: it takes bytes"
    assert not sink.pieces


@pytest.mark.parametrize(
    ("chunk", "shown"),
    [(None, "None"), (5, "5 (int)"), ({}, "a dict"), (object(), "an object"), ([b"x"], "a list")],
)
@pytest.mark.parametrize("after", [0, 3])
async def test_chunks_that_are_no_bytes(chunk: object, shown: str, after: int) -> None:
    def give(request: SourceRequest) -> SourceResponse:
        return SourceResponse(iter([b"x" * 1000] * after + [chunk]))  # type: ignore[arg-type]

    _, said = await read_bad(Gives(give), b"x" * 1000 * after)
    assert said == f"the source plugin bad gave {shown} for its content: it takes bytes"


# --- lengths --------------------------------------------------------------------------------------


class Lying(Good):
    """Tells ``told`` bytes and gives ``given``, by ranges or not."""

    def __init__(self, told: int, given: int, ranges: bool) -> None:
        super().__init__(CONTENT[:given])
        self._told = told
        self._ranges = ranges

    def download(self, request: SourceRequest) -> SourceResponse:
        self.asked.append(request.range)
        if request.range is None or not self._ranges:
            return SourceResponse(chunks(self.content), content_length=self._told)
        first, last = request.range
        last = self._told - 1 if last is None else min(last, self._told - 1)
        return SourceResponse(
            chunks(self.content[first : last + 1]),
            status=206,
            range=ContentRange(first, last, self._told),
            etag='"x"',
        )


@pytest.mark.parametrize(("told", "given"), [(300_001, 300_000), (20 * MIB, 3 * MIB), (5, 0)])
@pytest.mark.parametrize("ranges", [False, True])
async def test_fewer_bytes_than_told(told: int, given: int, ranges: bool) -> None:
    client = Lying(told, given, ranges)
    _, said = await read_bad(client, CONTENT[:given])
    assert "the source plugin bad gave only " in said
    assert "bytes that it told" in said
    assert 2 <= len(client.asked) <= 8, "it is asked again, and not for ever"


@pytest.mark.parametrize(("told", "given"), [(300_000, 300_001), (3 * MIB, 20 * MIB), (0, 1)])
async def test_more_bytes_than_told(told: int, given: int) -> None:
    client = Lying(told, given, ranges=False)
    _, said = await read_bad(client, CONTENT[:told])
    assert said == f"the source plugin bad gave more than the {told} bytes that it told"
    assert len(client.asked) == 1


# --- ranges ---------------------------------------------------------------------------------------


class Ignoring(Good):
    """Says that it has ranges, and answers everything with the whole."""

    def download(self, request: SourceRequest) -> SourceResponse:
        self.asked.append(request.range)
        return self.whole(request)


class Ignored(Good):
    """Says that it gives the range, and gives the whole."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.body = chunks(self.content)
        return answer


class FromTheFront(Good):
    """Says that it gives the range, and gives as many bytes, but those at the front."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.body = chunks(self.content[: last - first + 2])
        return answer


class Rangeless(Good):
    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.range = None
        return answer


class Elsewhere(Good):
    """Another range than that which was asked for."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        return super().part(request, first + 1, last)


class Longer(Good):
    """A part that begins well and does not end where it says."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.body = chunks(self.content[first : last + 2])
        return answer


class Shorter(Good):
    """Every part lacks its last byte."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.body = chunks(self.content[first:last])
        return answer


class Unversioned(Good):
    """Parts without anything that tells their version."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.etag = ""
        return answer


class Disagreeing(Good):
    """Parts whose length is another one than that of their range."""

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        answer = super().part(request, first, last)
        answer.content_length = 7
        return answer


@pytest.mark.parametrize("kind", [Ignoring, Rangeless, Elsewhere, Unversioned, Disagreeing])
@pytest.mark.parametrize("content", [SHORT, CONTENT], ids=len)
async def test_ranges_that_cannot_be_used_are_done_without(kind: type[Good], content: bytes) -> None:
    assert (await read_bad(kind(content), content))[1] == ""


@pytest.mark.parametrize("kind", [Ignored, FromTheFront, Longer])
async def test_a_part_that_is_none(kind: type[Good]) -> None:
    _, said = await read_bad(kind(), CONTENT)
    assert said.startswith("the source plugin bad gave more than the ")


async def test_a_task_that_is_a_range_is_not_filled_from_the_front() -> None:
    sink = MemorySink()
    async with reading(bad=Ignored()) as reader:
        with pytest.raises(SourceError, match="plugin bad gave more than the 1 bytes that it told"):
            await reader.read(job(url("bad"), f"{MIB}-{3 * MIB}"), sink)
    assert not sink.pieces


async def test_parts_that_always_lack_a_byte() -> None:
    _, said = await read_bad(Shorter(), CONTENT)
    assert "the source plugin bad gave only 0 of the 1 bytes that it told" in said


async def test_a_part_when_the_whole_was_asked_for() -> None:
    class Parting(Rangeless):
        def whole(self, request: SourceRequest) -> SourceResponse:
            return self.part(request, 0, len(self.content) - 1)

    _, said = await read_bad(Parting(SHORT), SHORT)
    # (the first answer is a part without a range, so that the whole is asked for next)
    assert said == "the source plugin bad answered with a part (206) when the whole was asked for"


# --- changes --------------------------------------------------------------------------------------


class Changing(Good):
    """Another version with every answer, up to the ``last`` one."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self._lock = threading.Lock()

    def version(self, number: int) -> bytes:
        return CONTENT[number : 35 * MIB]

    def download(self, request: SourceRequest) -> SourceResponse:
        with self._lock:
            number = min(len(self.asked), self.last)
            self.content, self.etag = self.version(number), f'"{number}"'
            return super().download(request)


async def test_a_new_version_between_ranges_is_read_anew() -> None:
    client = Changing(last=1)
    _, said = await read_bad(client, client.version(1))
    assert said == ""


async def test_a_source_that_changes_with_every_answer() -> None:
    sink = MemorySink()
    async with reading(bad=Changing(last=1000)) as reader:
        with pytest.raises(SourceError) as caught:
            await reader.read(job(url("bad")), sink)
    assert "(source plugin bad) changed 3 times while it was read" in str(caught.value)
    assert sink.final is None


# --- blocking, raising ----------------------------------------------------------------------------


async def test_a_body_that_blocks_for_ever() -> None:
    with gate() as door:

        def body() -> Iterator[bytes]:
            yield SHORT[:1000]
            door.wait()

        _, said = await read_bad(Gives(lambda _: SourceResponse(body())), SHORT, timeout=SOON)
        assert said == (
            "the source plugin bad did not answer: no further byte came for 0.25 s (source.plugin_timeout)"
        )


async def test_a_download_that_blocks_for_ever() -> None:
    with gate() as door:
        _, said = await read_bad(Gives(lambda _: door.wait()), SHORT, timeout=SOON)
        assert said == (
            "the source plugin bad did not answer: download has run for 0.25 s (source.plugin_timeout)"
        )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(),
        OSError(5, "no"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_whatever_is_raised(error: BaseException, late: bool) -> None:
    def body() -> Iterator[bytes]:
        yield SHORT
        raise error

    def give(request: SourceRequest) -> SourceResponse:
        if late:
            return SourceResponse(body())
        raise error

    _, said = await read_bad(Gives(give), SHORT)
    # a generator that raises StopIteration raises RuntimeError (PEP 479)
    name = "RuntimeError" if late and isinstance(error, StopIteration) else type(error).__name__
    assert said.startswith(f"the source plugin bad failed in download: {name}")


@pytest.mark.parametrize("give", [lambda _: None, lambda _: b"hello", lambda _: {"body": b""}, lambda _: "x"])
async def test_what_is_no_answer(give: Callable[[SourceRequest], object]) -> None:
    _, said = await read_bad(Gives(give), SHORT)
    assert "for download: it takes a SourceResponse" in said


async def test_a_broken_connection_is_resumed() -> None:
    """What may pass is tried again, as with every source."""

    class Breaking(Good):
        def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
            def body() -> Iterator[bytes]:
                yield self.content[first : first + 5 * MIB]
                raise ConnectionResetError("reset by peer")

            answer = super().part(request, first, last)
            if last - first > 6 * MIB:
                answer.body = body()
            return answer

    assert (await read_bad(Breaking(), CONTENT, retries=5))[1] == ""
