"""The stream of a tree, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.tree.frames import (
    MAX_HEAD,
    SMALL_FILE,
    Begun,
    Ended,
    File,
    Head,
    Refused,
    TreeDecoder,
    TreeTaker,
    head_frame,
)
from shared.errors import InvalidRequest


class Collector(TreeTaker):
    """Remembers everything."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.contents: dict[str, bytes] = {}

    def head(self, head: Head) -> None:
        self.heads.append(head)

    def content(self, data: memoryview) -> None:
        last = self.heads[-1]
        assert isinstance(last, File)
        assert data
        self.contents[last.name] = self.contents.get(last.name, b"") + bytes(data)


def stream_of(heads: list[Head], contents: dict[str, bytes]) -> bytes:
    parts = []
    for head in heads:
        parts.append(head_frame(head))
        if isinstance(head, File) and head.length > 0:
            parts.append(contents[head.name])
    return b"".join(parts)


def decoded(stream: bytes, sizes: list[int]) -> tuple[Collector, TreeDecoder]:
    collector = Collector()
    decoder = TreeDecoder(collector)
    view = memoryview(stream)
    while view:
        size = sizes.pop() if sizes else len(view)
        decoder.feed(view[:size])
        view = view[size:]
    return collector, decoder


CONTENTS = st.dictionaries(st.text(min_size=1, max_size=10), st.binary(max_size=200), max_size=6)


@given(CONTENTS, st.lists(st.integers(1, 50), max_size=60))
def test_any_cut_gives_the_same(contents: dict[str, bytes], sizes: list[int]) -> None:
    heads: list[Head] = [Begun(len(contents), 7), Refused("bad", "why")]
    heads += [File(name, len(content), version="v") for name, content in contents.items()]
    heads += [File("large", -1, 5_000_000, '"etag"', 5), Refused("gone", "404", again=True), Ended(3)]
    collector, decoder = decoded(stream_of(heads, contents), sizes)
    assert collector.heads == heads
    assert collector.contents == {name: content for name, content in contents.items() if content}
    assert decoder.ended


@pytest.mark.parametrize(
    "stream",
    [
        b"\0\0\0\0",
        (MAX_HEAD + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        head_frame(File("a", 1)) + b"x",
        head_frame(Begun(1)) + head_frame(Begun(1)),
        head_frame(Begun(1)) + head_frame(Ended(1)) + head_frame(Ended(1)),
        head_frame(Begun(1)) + head_frame(File("a", SMALL_FILE + 1)),
        head_frame(Ended(0)),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_no_stream(stream: bytes, size: int) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        decoded(stream, [size] * len(stream))


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=40))
def test_junk_is_refused_or_incomplete(junk: bytes, sizes: list[int]) -> None:
    try:
        collector, decoder = decoded(head_frame(Begun(1)) + junk, sizes)
    except InvalidRequest:
        return
    assert decoder.ended == any(isinstance(head, Ended) for head in collector.heads)
