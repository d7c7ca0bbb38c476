"""What callers get besides the store: an output file written as pieces arrive, and the content's digest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from shared.errors import DigestMismatch, StoreFull
from shared.store import TaskContent
from shared.task.bitmap import Bitmap
from shared.task.digest import content_hasher
from shared.task.pieces import PieceLayout

if TYPE_CHECKING:
    from shared.swarm.task import HostTask

INLINE_HASH = 16 * 1024
"""Up to so many bytes are hashed on the spot: a thread would cost more."""


class OutputFile:
    """A caller's file, written through its descriptor: at each piece's offset, in the order of arrival.

    ``write`` runs in the worker thread that stores the piece, so nothing is read back. A write error
    does not harm the download: it is kept and raised to the caller by :meth:`finish`. Pieces are
    counted per version; a new version begins again from nothing.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written = Bitmap()
        self._version = ""
        self._error: OSError | None = None

    def write(self, version: str, offset: int, number: int, data: memoryview | bytes) -> None:
        """Write a piece of ``version`` at ``offset``. Blocking; never raises."""
        if self._error is not None:
            return
        if version != self._version:
            self._version, self._written = version, Bitmap()
        try:
            _write_all(self._fd, data, offset)
        except OSError as error:
            self._error = error
        else:
            self._written.add(number)

    async def finish(self, content: TaskContent, layout: PieceLayout) -> None:
        """Write what was held before this output was attached, and cut the file to its length.

        Raises StoreFull when the output's disk is full, OSError for other write errors.
        """
        version = content.meta.version
        for number in range(layout.count):
            if version == self._version and number in self._written:
                continue
            async with content.read(number) as data:
                await trio.to_thread.run_sync(self.write, version, layout.offset(number), number, data)
            self._check()
        self._check()
        await trio.to_thread.run_sync(os.ftruncate, self._fd, layout.length)

    def _check(self) -> None:
        if self._error is None:
            return
        if self._error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise StoreFull("the disk of the output file is full: make room there, or choose another place")
        raise self._error


async def digest_of(task: HostTask, algorithm: str) -> str:
    """The digest of a task's content in hexadecimal, computed while its pieces arrive.

    Begins again when the content changes its version; waits for as long as pieces are missing.
    """
    while True:
        content = task.content
        if content is None:
            await task.pulse.wait()
            continue
        hasher, number = content_hasher(algorithm), 0
        while task.content is content:
            layout = task.layout
            if layout is not None and number == layout.count:
                return hasher.hexdigest()
            if number not in content.held:
                await task.pulse.wait()
                continue
            async with content.read(number) as data:
                if len(data) <= INLINE_HASH:
                    hasher.update(data)
                else:
                    await trio.to_thread.run_sync(hasher.update, data)
            number += 1


def check_digest(wanted: str, found: str, algorithm: str) -> None:
    """Raises DigestMismatch in words."""
    if wanted != found:
        raise DigestMismatch(
            f"the content has {algorithm}:{found}, not the {algorithm}:{wanted} that was asked for: "
            "check the digest, or whether the origin serves what you expect"
        )


def _write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count
