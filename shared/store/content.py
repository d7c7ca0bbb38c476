"""Where a task's pieces lie: in an LMDB environment of their own, or, for small ones, in the index.

The environment is ``content/<task id>.mdb``: ``p`` + number (4 bytes, big-endian) is a piece, ``d`` +
number its digest, written in one transaction; ``v`` is the version of the content that they belong to.
So after a kill the environment alone tells which pieces are held. All functions here block; callers run
them in worker threads, each write transaction whole.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Protocol

import lmdb
import structlog

from shared.errors import StoreDamaged, StoreError
from shared.protocol import TaskMeta
from shared.store.environment import PAGE, as_store_error, open_environment, write_error
from shared.store.index import Index
from shared.store.stepping import STEP, Stepping, go_ahead
from shared.task.bitmap import MAX_PIECES
from shared.task.digest import PIECE_DIGEST_LENGTH

log = structlog.get_logger()

ROOM = 4 * 1024 * 1024
"""Address space beside the pieces: tree pages, and pages that a transaction replaces."""

_discarded = itertools.count()


class OpenPiece:
    """A view of a stored piece; ``data`` is valid until ``close``. Closing it again does nothing."""

    __slots__ = ("_close", "data")

    def __init__(self, data: memoryview | bytes, close: Callable[[], None]) -> None:
        self.data = data
        self._close: Callable[[], None] | None = close

    def close(self) -> None:
        """End the view."""
        close, self._close = self._close, None
        if close is not None:
            self.data = b""
            close()


class Pieces(Protocol):
    """Storage of one task's pieces: any number of reads beside writes, which wait for each other."""

    def load(self) -> tuple[dict[int, bytes], int]:
        """The digests of all pieces held, by number, and the bytes that they are together."""

    def put(self, number: int, data: memoryview | bytes, digest: bytes) -> None:
        """Store a piece. Raises StoreError."""

    def open(self, number: int) -> OpenPiece | None:
        """A view of a piece, None when it is not there. Raises StoreError."""

    def drop(self, number: int) -> None:
        """Forget a piece that turned out damaged. Raises StoreError."""

    def sync(self) -> None:
        """Make everything durable. Raises StoreError."""

    def close(self) -> None:
        """Close; no view may be open."""


class ContentFile:
    """Pieces in an LMDB environment of their own."""

    def __init__(self, path: Path, meta: TaskMeta, max_map: int) -> None:
        self._path = path
        self._stepping = Stepping()
        self._writes = 0
        self._snapshot: _Snapshot | None = None
        self._env = open_environment(path, map_size_for(meta, max_map), sync=False, metasync=False)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # now, while the name is surely this file's
        except OSError as error:
            self._env.close()
            raise StoreError(f"the store cannot open its files: {error.strerror}") from None
        try:
            self._claim(meta.version.encode())
        except lmdb.Error as error:
            self.close()
            raise write_error(error, path.parent, PAGE) from None
        except StoreError:
            self.close()
            raise

    def load(self) -> tuple[dict[int, bytes], int]:
        digests: dict[int, bytes] = {}
        size = 0
        try:
            with self._env.begin(buffers=True) as txn, txn.cursor() as cursor:
                found = cursor.set_range(b"d")
                while found and (key := bytes(cursor.key())).startswith(b"d"):
                    number, digest = int.from_bytes(key[1:], "big"), bytes(cursor.value())
                    piece = txn.get(_piece_key(number))
                    if piece is None or len(digest) != PIECE_DIGEST_LENGTH or number >= MAX_PIECES:
                        raise StoreDamaged(f"{self._path.name} is inconsistent at piece {number}")
                    digests[number] = digest
                    size += len(piece)
                    found = cursor.next()
        except lmdb.Error as error:
            raise as_store_error(error) from None
        return digests, size

    def put(self, number: int, data: memoryview | bytes, digest: bytes) -> None:
        try:
            ahead = self._stepping.wanted(len(data))
            with self._env.begin(write=True) as txn:
                began = perf_counter()
                if ahead:
                    self._go_ahead(len(data))
                txn.put(_piece_key(number), data)
                txn.put(_digest_key(number), digest)
            self._writes += 1
            if not ahead:
                self._stepping.took(len(data), perf_counter() - began)
        except lmdb.Error as error:
            raise write_error(error, self._path.parent, len(data)) from None

    def _go_ahead(self, size: int) -> None:
        """Within a write transaction: nobody else writes, and no page beyond the last one is in use."""
        page = self._env.stat()["psize"]
        go_ahead(self._fd, (self._env.info()["last_pgno"] + 1) * page, size + STEP)

    def open(self, number: int) -> OpenPiece | None:
        """Views of the same state of the file share a transaction: there can be few, and slow clients keep theirs
        for long. Where there is no room for another one, the newest state that has the piece will do."""
        newest = self._snapshot
        try:
            if newest is not None and newest.writes == self._writes and (view := newest.view(number)):
                return view
            snapshot = self._snapshot = _Snapshot(self._env, self._writes)
            return snapshot.view(number)
        except lmdb.ReadersFullError as error:
            if newest is not None and (view := newest.view(number)):
                return view
            raise as_store_error(error) from None
        except lmdb.Error as error:
            raise as_store_error(error) from None

    def drop(self, number: int) -> None:
        try:
            with self._env.begin(write=True) as txn:
                txn.delete(_piece_key(number))
                txn.delete(_digest_key(number))
        except lmdb.Error as error:
            raise as_store_error(error) from None
        finally:
            self._writes += 1
            self._snapshot = None  # it shows what was damaged

    def sync(self) -> None:
        try:
            self._env.sync(True)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)  # the file's own entry
            finally:
                os.close(folder)
        except lmdb.Error as error:
            raise as_store_error(error) from None
        except OSError as error:
            raise StoreError(f"the data folder cannot be synchronised: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._fd)
        self._env.close()

    def _claim(self, version: bytes) -> None:
        """Write the version into a new environment; an old one of another version is not to be used."""
        with self._env.begin() as txn:
            found = txn.get(b"v")
        if found is None:
            with self._env.begin(write=True) as txn:
                txn.put(b"v", version)
        elif found != version:
            raise StoreDamaged(f"{self._path.name} holds another version of the content")


class _Snapshot:
    """A state of a file that views are of: a read transaction, which ends with the last of them. ``writes`` tells
    one state from another."""

    def __init__(self, environment: lmdb.Environment, writes: int) -> None:
        self.writes = writes
        self._txn: lmdb.Transaction | None = environment.begin(buffers=True)
        self._views = 0

    def view(self, number: int) -> OpenPiece | None:
        """A view of a piece; None when it is not in this state, or nothing is any more."""
        data = None
        if self._txn is not None:
            try:
                data = self._txn.get(_piece_key(number))
            finally:
                if data is None:
                    self._end()
        if data is None:
            return None
        self._views += 1
        return OpenPiece(data, self._closed)

    def _closed(self) -> None:
        self._views -= 1
        self._end()

    def _end(self) -> None:
        if not self._views and self._txn is not None:
            self._txn.abort()
            self._txn = None


class InlineContent:
    """The one piece of a small task, as a value in the index. Its ``put`` is committed by the store."""

    def __init__(self, index: Index, task_id: str) -> None:
        self.key = b"i" + task_id.encode()
        self.value = index.get(self.key)

    def load(self) -> tuple[dict[int, bytes], int]:
        if self.value is None:
            return {}, 0
        return {0: self.value[:PIECE_DIGEST_LENGTH]}, len(self.value) - PIECE_DIGEST_LENGTH

    def put(self, number: int, data: memoryview | bytes, digest: bytes) -> None:
        self.value = b"".join((digest, data))

    def open(self, number: int) -> OpenPiece | None:
        if self.value is None:
            return None
        return OpenPiece(memoryview(self.value)[PIECE_DIGEST_LENGTH:], _nothing)

    def drop(self, number: int) -> None:
        self.value = None

    def sync(self) -> None:
        """Index commits are durable."""

    def close(self) -> None:
        """Nothing is open."""


def map_size_for(meta: TaskMeta, max_map: int) -> int:
    """Bytes of address space that a content needs; the file is only as long as what is in it.

    Twice the content, because a piece that is written anew takes fresh pages while the old ones are read.
    """
    if meta.length is None:
        return max_map
    count = -(-meta.length // meta.piece_length)
    return 2 * (meta.length + count * 2 * PAGE + meta.piece_length + ROOM)


def content_path(folder: Path, task_id: str) -> Path:
    """The file of a task's environment."""
    return folder / f"{task_id}.mdb"


def discard(folder: Path, task_id: str) -> Path | None:
    """Take a task's environment out of the way at once; gives what remains to be unlinked, if anything.

    Renaming takes no time, unlinking a large file does. Views that are open stay valid.
    """
    path = content_path(folder, task_id)
    trash = path.with_name(f"{task_id}.{next(_discarded)}.gone")
    try:
        path.with_name(f"{path.name}-lock").unlink(missing_ok=True)
        path.rename(trash)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("a content's file cannot be removed", path=str(path), cause=str(error))
        return None
    return trash


def unlink_all(paths: Iterable[Path]) -> None:
    """Delete files. What cannot be deleted now is a stray file at the next start."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a file of the store cannot be removed", path=str(path), cause=str(error))


def disk_room(folder: Path, share: float) -> int:
    """Bytes that may still be written before more than ``share`` of the file system is in use.

    Raises StoreError when the folder is gone.
    """
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise StoreError(f"the data folder {folder} cannot be used: {error.strerror}") from None
    total = stat.f_blocks * stat.f_frsize
    available = stat.f_bavail * stat.f_frsize
    used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    return max(0, min(available, int(total * share) - used))


def _piece_key(number: int) -> bytes:
    return b"p" + number.to_bytes(4, "big")


def _digest_key(number: int) -> bytes:
    return b"d" + number.to_bytes(4, "big")


def _nothing() -> None:
    pass
