"""Whatever form content has, and however it is cut, what arrives is the content."""

from __future__ import annotations

import array
import io
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from cdn.sources.interface import ContentRange, SourceCut, SourceRequest, SourceResponse
from cdn.sources.plugins.adapter import adapt
from cdn.sources.plugins.flow import Flow, Target
from cdn.sources.plugins.threads import Stop
from cdn.sources.plugins.words import Words
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import MEMORY, PATIENCE, SHORT, Gives, url

WORDS = Words("d7yfs", PATIENCE, MEMORY)


class Reusing:
    """Gives the same buffer again and again, as whoever wants to be fast does."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray(max((len(chunk) for chunk in chunks), default=0))

    def __iter__(self) -> Iterator[memoryview]:
        view = memoryview(self._buffer)
        for chunk in self._chunks:
            view[: len(chunk)] = chunk
            yield view[: len(chunk)]
            view[:] = bytes(len(view))


class Shrinking:
    """Takes its bytearray back after each chunk, which it could not while somebody holds on to it."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytearray]:
        for chunk in self._chunks:
            given = bytearray(chunk)
            yield given
            given.clear()


class Reads:
    """An open file with nothing but ``read``, which gives what it likes to."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = [chunk for chunk in chunks if chunk]

    def read(self, size: int) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


class Buffered(io.BufferedIOBase):
    """Has ``readinto1`` by inheritance, but it does not work."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int | None = -1, /) -> bytes:
        return self._file.read(size)


class Own(SourceResponse):
    """Receives in its own way."""

    def __init__(self, chunks: list[bytes], **rest: Any) -> None:
        super().__init__(**rest)
        self._file = io.BytesIO(b"".join(chunks))

    async def receive_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        return self._file.readinto(buffer[:5000])


class OwnPlain(Own):
    def receive_into(self, buffer: memoryview) -> int:  # type: ignore[override]  # that is the point
        return self._file.readinto(buffer)


async def _later(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk


async def _at_once(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class Async:
    """An async iterable that is no iterator."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def _on_disk(chunks: list[bytes]) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever reads it
    file.write(b"".join(chunks))
    file.seek(0)
    return file


BODIES: dict[str, Callable[[list[bytes]], Any]] = {
    "bytes": b"".join,
    "bytearray": lambda chunks: bytearray(b"".join(chunks)),
    "memoryview": lambda chunks: memoryview(b"".join(chunks)),
    "list": list,
    "generator": lambda chunks: (chunk for chunk in chunks),
    "bytearrays": lambda chunks: map(bytearray, chunks),
    "reusing": Reusing,
    "shrinking": Shrinking,
    "file": _on_disk,
    "BytesIO": lambda chunks: io.BytesIO(b"".join(chunks)),
    "read": Reads,
    "buffered": lambda chunks: Buffered(b"".join(chunks)),
    "async generator": _later,
    "async without a pause": _at_once,
    "async iterable": Async,
}
OWN: dict[str, Callable[..., SourceResponse]] = {"own": Own, "own plain": OwnPlain}


def answer_of(kind: str, chunks: list[bytes], **rest: Any) -> SourceResponse:
    return OWN[kind](chunks, **rest) if kind in OWN else SourceResponse(BODIES[kind](chunks), **rest)


async def received(answer: SourceResponse, sizes: list[int], range: tuple[int, int] | None = None) -> bytes:
    client = adapt(Gives(lambda _: answer), name="d7yfs", timeout=PATIENCE, memory=MEMORY)
    found = b""
    async with await client.download(SourceRequest(url(), range=range)) as given_:
        for size in itertools.cycle(sizes):
            buffer = memoryview(bytearray(size))
            count = await given_.receive_into(buffer)
            if not count:
                break
            found += buffer[:count]
    return found


@pytest.mark.parametrize("kind", [*BODIES, *OWN])
@given(
    cuts=st.lists(st.integers(0, 20_000), max_size=8),
    length=st.integers(0, 20_000),
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=3),
    told=st.booleans(),
    part=st.booleans(),
)
@settings(max_examples=25)
def test_any_body_cut_in_any_way(
    kind: str, cuts: list[int], length: int, sizes: list[int], told: bool, part: bool
) -> None:
    content = SHORT[:length]
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    chunks = [content[a:b] for a, b in itertools.pairwise(edges)]
    if part and length:
        rest: dict[str, Any] = {"status": 206, "range": ContentRange(0, length - 1, length)}
    else:
        rest = {"content_length": length} if told else {}
    answer = answer_of(kind, chunks, **rest)
    assert trio.run(received, answer, sizes, (0, length) if part else None) == content


@pytest.mark.parametrize("kind", [*BODIES, *OWN])
@pytest.mark.parametrize("more", [-1, 1, -SHORT.__len__(), 100_000])
async def test_any_body_that_lies_about_its_length(kind: str, more: int) -> None:
    chunks = [SHORT[:100_000], SHORT[100_000:]]
    told = len(SHORT) + more
    answer = answer_of(kind, chunks, content_length=told)
    with pytest.raises(SourceError) as caught:
        await received(answer, [70_000])
    if more > 0:
        assert isinstance(caught.value, SourceCut)
        assert str(caught.value) == (
            f"the source plugin d7yfs gave only {len(SHORT)} of the {told} bytes that it told"
        )
    else:
        assert str(caught.value) == f"the source plugin d7yfs gave more than the {told} bytes that it told"


async def test_the_last_bytes_come_only_when_the_end_was_seen() -> None:
    """Otherwise the last piece would be stored before the lie is seen."""
    answer = SourceResponse(iter([SHORT[:1000], SHORT[1000:2000]]), content_length=1000)
    client = adapt(Gives(lambda _: answer), name="d7yfs", timeout=PATIENCE, memory=MEMORY)
    async with await client.download(SourceRequest(url())) as given_:
        with pytest.raises(SourceError, match="gave more than the 1000 bytes"):
            await given_.receive_into(memoryview(bytearray(10)))


# --- what is no content ---------------------------------------------------------------------------


async def _coroutine() -> bytes:
    return b""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (io.StringIO("text"), r"gave text \(str\) for its content"),
        ({"a": 1}, r"gave text \(str\) for its content"),
        (iter(b"abc"), r"gave 97 \(int\) for its content"),
    ],
)
async def test_bodies_that_hold_no_bytes(body: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        await received(SourceResponse(body), [1000])


async def test_an_async_file_is_no_plain_one() -> None:
    class File:
        async def read(self, size: int) -> bytes:
            return b""

    with pytest.raises(SourceError, match="gave a coroutine for its content"):
        await received(SourceResponse(File()), [1000])  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [None, -1, 10**9, "5", 2.0])
async def test_a_file_that_tells_wrong_counts(count: Any) -> None:
    class File:
        def readinto(self, buffer: memoryview) -> Any:
            return count

    with pytest.raises(SourceError, match="for the number of bytes received: it takes 0"):
        await received(SourceResponse(File()), [1000])  # type: ignore[arg-type]


def test_chunks_of_other_shapes() -> None:
    numbers = array.array("I", range(10))
    for chunk in (numbers, memoryview(numbers).cast("B"), memoryview(numbers).cast("B").cast("B", (4, 10))):
        flow, target = Flow(WORDS, None), bytearray(40)
        assert flow.accept(chunk)
        assert flow.give(Target(memoryview(target)), 0) == 40
        assert target == numbers.tobytes()
    strided = memoryview(bytearray(range(10)))[::2]
    flow, target = Flow(WORDS, None), bytearray(5)
    assert flow.accept(strided)
    flow.give(Target(memoryview(target)), 0)
    assert list(target) == [0, 2, 4, 6, 8]
    assert not flow.accept(b"")
    assert repr(flow) == "<Flow 5 of None bytes>"


def test_a_target_that_was_taken_back() -> None:
    buffer = bytearray(5)
    target = Target(memoryview(buffer))
    target.put(1, memoryview(b"ab"))
    target.take_back()
    with pytest.raises(Stop):
        target.put(0, memoryview(b"xyz"))
    assert buffer == b"\0ab\0\0"
