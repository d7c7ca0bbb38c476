"""Where a task's pieces lie: in an LMDB environment of their own, or, for small ones, in the index.

The environment is ``content/<task id>.mdb``: ``p`` + number (4 bytes, big-endian) is a piece, ``d`` +
number its digest, written in one transaction. So after a kill the environment alone tells which pieces
are held. All functions here block; callers run them in worker threads, each write transaction whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import lmdb

from shared.store.index import Index, as_store_error
from shared.task.digest import PIECE_DIGEST_LENGTH

PAGE = 4096
ROOM = 4 * 1024 * 1024
"""Address space beside the pieces: tree pages, and pages that a transaction replaces."""


class OpenPiece:
    """A view of a stored piece; valid until ``close``, which must be called once."""

    __slots__ = ("_close", "data")

    def __init__(self, data: memoryview | bytes, close: Callable[[], None]) -> None:
        self.data = data
        self._close = close

    def close(self) -> None:
        """End the view."""
        self.data = b""
        self._close()


class Pieces(Protocol):
    """Storage of one task's pieces. Not thread-safe but for reads beside one write."""

    def load(self) -> dict[int, bytes]:
        """The digests of all pieces held, by number."""

    def put(self, number: int, data: memoryview | bytes, digest: bytes) -> None:
        """Store a piece. Raises StoreError."""

    def open(self, number: int) -> OpenPiece | None:
        """A view of a piece, None when it is not there."""

    def drop(self, number: int) -> None:
        """Forget a piece that turned out damaged."""

    def sync(self) -> None:
        """Make everything durable."""

    def close(self) -> None:
        """Close; no view may be open."""


class ContentFile:
    """Pieces in an LMDB environment of their own."""

    def __init__(self, path: Path, length: int | None, piece_length: int, max_map: int) -> None:
        count = 0 if length is None else -(-length // piece_length)
        needed = max_map if length is None else length + count * 2 * PAGE + 2 * piece_length + ROOM
        try:
            self._env = lmdb.open(
                str(path),
                subdir=False,
                map_size=-(-needed // PAGE) * PAGE,
                sync=False,
                metasync=False,
                meminit=False,
                max_readers=512,
            )
        except lmdb.Error as error:
            raise as_store_error(error) from None

    def load(self) -> dict[int, bytes]:
        digests: dict[int, bytes] = {}
        with self._env.begin() as txn, txn.cursor() as cursor:
            found = cursor.set_range(b"d")
            while found and cursor.key()[:1] == b"d":
                digests[int.from_bytes(cursor.key()[1:], "big")] = cursor.value()
                found = cursor.next()
        return digests

    def put(self, number: int, data: memoryview | bytes, digest: bytes) -> None:
        key = number.to_bytes(4, "big")
        try:
            with self._env.begin(write=True) as txn:
                txn.put(b"p" + key, data, append=False)
                txn.put(b"d" + key, digest)
        except lmdb.Error as error:
            raise as_store_error(error) from None

    def open(self, number: int) -> OpenPiece | None:
        txn = self._env.begin(buffers=True)
        data = txn.get(b"p" + number.to_bytes(4, "big"))
        if data is None:
            txn.abort()
            return None
        return OpenPiece(data, txn.abort)

    def drop(self, number: int) -> None:
        key = number.to_bytes(4, "big")
        try:
            with self._env.begin(write=True) as txn:
                txn.delete(b"p" + key)
                txn.delete(b"d" + key)
        except lmdb.Error as error:
            raise as_store_error(error) from None

    def sync(self) -> None:
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise as_store_error(error) from None

    def close(self) -> None:
        self._env.close()


class InlineContent:
    """The one piece of a small task, as a value in the index. Its ``put`` is asynchronous (see Store)."""

    def __init__(self, index: Index, task_id: str) -> None:
        self._index = index
        self.key = b"i" + task_id.encode()
        self.value = index.get(self.key)

    def load(self) -> dict[int, bytes]:
        return {} if self.value is None else {0: self.value[:PIECE_DIGEST_LENGTH]}

    def put(self, number: int, data: memoryview | bytes, digest: bytes) -> None:
        self.value = digest + bytes(data)

    def open(self, number: int) -> OpenPiece | None:
        if number != 0 or self.value is None:
            return None
        return OpenPiece(memoryview(self.value)[PIECE_DIGEST_LENGTH:], _nothing)

    def drop(self, number: int) -> None:
        self.value = None

    def sync(self) -> None:
        """Index commits are durable."""

    def close(self) -> None:
        """Nothing is open."""


def remove_content(folder: Path, task_id: str) -> None:
    """Unlink a task's environment; open ones stay readable until they are closed."""
    for name in (f"{task_id}.mdb", f"{task_id}.mdb-lock"):
        (folder / name).unlink(missing_ok=True)


def disk_room(folder: Path, share: float) -> int:
    """Bytes that may still be written before more than ``share`` of the file system is in use."""
    stat = os.statvfs(folder)
    total = stat.f_blocks * stat.f_frsize
    available = stat.f_bavail * stat.f_frsize
    used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    return max(0, min(available, int(total * share) - used))


def _nothing() -> None:
    pass
