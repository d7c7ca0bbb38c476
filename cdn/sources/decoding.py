"""Content codings taken off a body as it streams, with a bound on how much one byte may become. No I/O.

We ask for ``identity``; some origins send gzip all the same (RFC 9110 §8.4.1: gzip, x-gzip, deflate).
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Self

from cdn.sources.interface import SourceCut
from shared.errors import SourceError

FREE_ALLOWANCE = 64 * 1024 * 1024
"""Decoded bytes that are given out before the ratio is looked at."""
MAX_OUTPUT = 1024 * 1024
"""Decoded bytes given out at once."""

DECODABLE = frozenset({"gzip", "x-gzip", "deflate"})


class Inflater:
    """Decodes gzip (all members), zlib, and the raw deflate that some servers call deflate."""

    def __init__(self, coding: str, ratio: int) -> None:
        self._gzip = coding != "deflate"
        self._ratio = ratio
        self._object: zlib._Decompress | None = None
        self._taken = 0
        self._given = 0
        self._pending = b""

    def feed(self, data: bytes) -> None:
        """Take coded bytes."""
        self._taken += len(data)
        self._pending += data

    def give(self) -> bytes:
        """Up to ``MAX_OUTPUT`` decoded bytes; empty when more input is needed.

        Raises SourceError when the input is not in the coding or grows beyond the allowed ratio.
        """
        while self._pending:
            if self._object is None:
                if not self._gzip and len(self._pending) < 2:
                    return b""  # which deflate it is stands in the first two bytes
                self._object = zlib.decompressobj(self._window())
            try:
                output = self._object.decompress(self._pending, MAX_OUTPUT)
            except zlib.error as error:
                raise SourceError(f"the origin's compressed body is damaged: {error}") from error
            self._pending = self._object.unconsumed_tail
            if self._object.eof:
                rest = self._object.unused_data
                if self._gzip:
                    self._pending = rest.lstrip(b"\0")  # padding between and after members is allowed
                    self._object = None if self._pending else self._object
                else:
                    self._pending = b""
            self._given += len(output)
            if self._given > FREE_ALLOWANCE + self._ratio * self._taken:
                raise SourceError(
                    f"the origin's compressed body grows more than {self._ratio} times (source.decode_ratio)"
                )
            if output:
                return output
        return b""

    @property
    def ended(self) -> bool:
        """Whether the input so far is whole."""
        return not self._pending and (self._taken == 0 or (self._object is not None and self._object.eof))

    def _window(self) -> int:
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        # A zlib header is a multiple of 31 with method 8 (RFC 1950 §2.2); a raw stream hardly ever is.
        head = self._pending[:2]
        plain = len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head, "big") % 31 == 0
        return zlib.MAX_WBITS if plain else -zlib.MAX_WBITS


class DecodedBody:
    """The decoded chunks of a coded body."""

    def __init__(self, chunks: AsyncIterator[bytes], coding: str, ratio: int) -> None:
        self._chunks = chunks
        self._inflater = Inflater(coding, ratio)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not (output := self._inflater.give()):
            try:
                self._inflater.feed(await anext(self._chunks))
            except StopAsyncIteration:
                if not self._inflater.ended:
                    raise SourceCut("the origin's compressed body ended before its end mark") from None
                raise
        return output
