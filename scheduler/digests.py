"""The piece digests of one version of a task, 32 bytes for each number up to the highest known. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shared.task.bitmap import Bitmap

DIGEST_SIZE = 32
BATCH = 4096
"""Digests in one message at most; a frame stays far below its limit."""


class DigestTable:
    """Digests by piece number. The first digest of a piece stays: within a version content never changes."""

    __slots__ = ("_data", "known")

    def __init__(self) -> None:
        self._data = bytearray()
        self.known = Bitmap()

    def __len__(self) -> int:
        return len(self.known)

    def get(self, number: int) -> bytes | None:
        """The digest of a piece, None where it is not known."""
        if number not in self.known:
            return None
        return bytes(self._data[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])

    def learn(self, digests: Mapping[int, bytes]) -> tuple[dict[int, bytes], list[int]]:
        """Take digests in; gives (those that are new, the numbers whose known digest is another)."""
        fresh: dict[int, bytes] = {}
        contradicted: list[int] = []
        for number, digest in digests.items():
            known = self.get(number)
            if known is None:
                self._put(number, digest)
                fresh[number] = digest
            elif known != digest:
                contradicted.append(number)
        return fresh, contradicted

    def batches(self) -> Iterator[dict[int, bytes]]:
        """All digests, at most ``BATCH`` at a time, ascending."""
        batch: dict[int, bytes] = {}
        for number in self.known:
            batch[number] = bytes(self._data[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])
            if len(batch) == BATCH:
                yield batch
                batch = {}
        if batch:
            yield batch

    def _put(self, number: int, digest: bytes) -> None:
        if len(digest) != DIGEST_SIZE:
            raise ValueError(f"a digest has {DIGEST_SIZE} bytes, not {len(digest)}")
        self.known.add(number)
        end = (number + 1) * DIGEST_SIZE
        if len(self._data) < end:
            self._data.extend(bytes(end - len(self._data)))
        self._data[end - DIGEST_SIZE : end] = digest
