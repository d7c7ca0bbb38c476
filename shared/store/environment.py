"""LMDB environments as the store opens them, and LMDB's errors as ours. Blocking."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import lmdb

from shared.errors import StoreDamaged, StoreError, StoreFull

PAGE = 4096
MAX_READERS = 254
"""Views open at once in one environment; their table is the lock file."""
LOCK_LENGTH = MAX_READERS * 64 + 128
"""Bytes of the lock file: LMDB's header and a cache line per reader."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
SLACK = 256 * 1024
"""Bytes that a write may need beside its data: tree pages, and what the file system keeps for itself."""

_DAMAGE = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.PanicError,
)
_FULL = {
    "quota": "the store's quota is full, and evicting unpinned content did not make room: raise store.quota, "
    "or remove content with `dragonet rm`",
    "disk": "the disk of the data folder is full, and evicting unpinned content did not make room: free disk "
    "space, or give --data-dir a folder on a larger disk",
    "tasks": "the store holds as many tasks as it may, all of them pinned or in use: raise store.max_tasks, "
    "or remove content with `dragonet rm`",
}


class MapFull(StoreFull):
    """The environment's own address space is full: evicting other tasks does not help."""


class WriteCut(StoreError):
    """A write failed though the disk has room. It may have had none then, and others have made some since."""


def open_environment(path: Path, map_size: int, **options: Any) -> lmdb.Environment:
    """Open or create the environment in the file ``path``.

    Raises StoreFull, StoreDamaged when the file is no intact environment, StoreError otherwise. A file
    that is shorter than its own tree says is refused here, because reading beyond its end through the
    memory map would kill the process; so would writing into a hole of the lock file on a full disk, which
    is why that gets its blocks beforehand.
    """
    try:
        _allocate(path.with_name(f"{path.name}-lock"), LOCK_LENGTH)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise full("disk") from None
        raise StoreError(f"the store cannot work with its files: {error}") from None
    try:
        environment = lmdb.open(
            str(path),
            subdir=False,
            map_size=-(-map_size // PAGE) * PAGE,
            meminit=True,  # else what memory held before, credentials too, gets into the unused ends of pages
            max_readers=MAX_READERS,
            **options,
        )
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    except lmdb.Error as error:
        raise write_error(error, path.parent, 2 * PAGE) from None
    if path.stat().st_size < needed:
        environment.close()
        raise StoreDamaged(f"{path.name} is shorter than its content")
    return environment


def _allocate(path: Path, length: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, length)
    finally:
        os.close(descriptor)


def full(what: str) -> StoreFull:
    """The error for a full ``quota`` or ``disk``, or too many ``tasks``, in words."""
    return StoreFull(_FULL[what])


def write_error(error: lmdb.Error, path: Path, size: int) -> StoreError:
    """The error of a failed write of about ``size`` bytes.

    LMDB calls it an input/output error when the disk took only a part of what was written.
    """
    if "Input/output error" in str(error):
        stat = os.statvfs(path)
        if stat.f_bavail * stat.f_frsize < size + SLACK:
            return full("disk")
        return WriteCut(str(as_store_error(error)))
    return as_store_error(error)


def as_store_error(error: lmdb.Error) -> StoreError:
    """LMDB's errors as ours."""
    if isinstance(error, lmdb.MapFullError):
        return MapFull("the content is longer than the store may map for it: raise store.max_map")
    if isinstance(error, lmdb.DiskError) or any(w in str(error) for w in ("No space left", "quota exceeded")):
        return full("disk")
    if isinstance(error, _DAMAGE):
        return StoreDamaged(f"stored content cannot be read: {error}")
    return StoreError(f"the store cannot work with its files: {error}")
