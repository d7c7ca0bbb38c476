from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.sources import decoding
from cdn.sources.decoding import DecodedBody, Inflater
from cdn.sources.interface import SourceCut
from shared.errors import SourceError


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


CODERS = {
    "gzip": ("gzip", gzip.compress),
    "members": ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:]) + b"\0" * 7),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
}


def inflate(coding: str, chunks: list[bytes]) -> tuple[bytes, bool]:
    inflater, output = Inflater(coding, 1000), b""
    for chunk in chunks:
        inflater.feed(chunk)
        while part := inflater.give():
            output += part
    return output, inflater.ended


@given(st.binary(max_size=3000), st.sampled_from(sorted(CODERS)), st.integers(1, 50))
def test_decoded_however_it_is_cut(data: bytes, name: str, step: int) -> None:
    coding, coder = CODERS[name]
    coded = coder(data)
    assert inflate(coding, [coded[i : i + step] for i in range(0, len(coded), step)]) == (data, True)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_garbage_is_an_error_or_incomplete(data: bytes, coding: str) -> None:
    try:
        inflate(coding, [data])
    except SourceError as error:
        assert "damaged" in str(error)  # noqa: PT017 - both outcomes are fine, a crash is not


def test_a_bomb_does_not_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FREE_ALLOWANCE", 1 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    inflater = Inflater("gzip", 100)
    inflater.feed(bomb)
    given_out = 0

    def explode() -> None:
        nonlocal given_out
        while part := inflater.give():
            given_out += len(part)

    with pytest.raises(SourceError, match="grows more than 100 times"):
        explode()
    assert given_out <= (1 << 20) + 100 * len(bomb) + decoding.MAX_OUTPUT


async def test_a_cut_body_is_told() -> None:
    class Chunks:
        def __init__(self, chunks: list[bytes]) -> None:
            self.chunks = chunks

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if not self.chunks:
                raise StopAsyncIteration
            return self.chunks.pop(0)

    coded = gzip.compress(b"hello" * 1000)
    assert b"".join([c async for c in DecodedBody(Chunks([coded]), "gzip", 100)]) == b"hello" * 1000
    body = DecodedBody(Chunks([coded[:-4]]), "gzip", 100)
    with pytest.raises(SourceCut, match="end mark"):
        [c async for c in body]
