"""What callers get besides the store: an output file written as pieces arrive, and the content's digest."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from shared.errors import DigestMismatch, PieceMissing, StoreFull
from shared.store import TaskContent
from shared.store.stepping import write_in_steps
from shared.task.bitmap import Bitmap
from shared.task.digest import Hasher, content_hasher
from shared.task.pieces import PieceLayout

if TYPE_CHECKING:
    from shared.swarm.task import HostTask

INLINE_HASH = 128 * 1024
"""Up to so many bytes are hashed on the spot: a thread would cost more."""
HASH_RUN, HASH_PIECES = 4 * 1024 * 1024, 8
"""So many bytes in a row, or pieces, are waited for, unless the content ends before, and hashed in one go."""


class OutputFile:
    """A caller's file, written through its descriptor: at each piece's offset, in the order of arrival.

    ``write`` runs in the worker thread that stores the piece, so nothing is read back. A write error
    does not harm the download: it is kept and raised to the caller by :meth:`finish`. Pieces are
    counted per version; a new version begins again from nothing, after the last write of the one
    before. The descriptor stays the caller's: after :meth:`detach` nothing is written to it any more.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written = Bitmap()
        self._version = ""
        self._only: str | None = None  # while it is being finished: writes of others come too late
        self._error: OSError | None = None
        self._detached = False
        self._writing = 0
        self._idle = threading.Condition()

    def write(self, version: str, offset: int, number: int, data: memoryview | bytes) -> None:
        """Write a piece of ``version`` at ``offset``. Blocking; never raises."""
        if not self._begin(version):
            return
        failure: OSError | None = None
        try:
            write_in_steps(self._fd, data, offset)
        except OSError as error:
            failure = error
        with self._idle:
            self._writing -= 1
            if failure is None:
                self._written.add(number)
            else:
                self._error = failure
            self._idle.notify_all()

    def _begin(self, version: str) -> bool:
        with self._idle:
            while version != self._version and self._writing:
                self._idle.wait()
            if self._detached or self._error is not None or self._only not in (None, version):
                return False
            if version != self._version:
                self._version, self._written = version, Bitmap()
            self._writing += 1
            return True

    async def detach(self) -> None:
        """Wait for writes under way, and let no other begin: the caller may close or reuse its file."""
        if not self._settle(0):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._settle, None)

    def _settle(self, timeout: float | None) -> bool:
        with self._idle:
            self._detached = True
            return self._idle.wait_for(lambda: not self._writing, timeout)

    async def finish(self, content: TaskContent, layout: PieceLayout) -> None:
        """Write what was held before this output was attached, and cut the file to its length.

        Raises StoreFull when the output's disk is full, OSError for other write errors, PieceMissing when
        a piece turns out damaged in the store, or the content is closed meanwhile.
        """
        version = self._only = content.meta.version
        try:
            for number in range(layout.count):
                if version == self._version and number in self._written:
                    continue
                async with content.read(number) as data:
                    await trio.to_thread.run_sync(self.write, version, layout.offset(number), number, data)
                self._check()
            self._check()
            await trio.to_thread.run_sync(self._cut, version, layout.length)
        finally:
            self._only = None

    def _cut(self, version: str, length: int) -> None:
        with self._idle:
            self._idle.wait_for(lambda: version == self._version or not self._writing)
        os.ftruncate(self._fd, length)

    def _check(self) -> None:
        if self._error is None:
            return
        if self._error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise StoreFull("the disk of the output file is full: make room there, or choose another place")
        raise self._error


async def digest_of(task: HostTask, algorithm: str) -> str:
    """The digest of a task's content in hexadecimal, computed while its pieces arrive.

    Begins again when the content changes its version; waits for as long as pieces are missing. Pieces are
    verified first, so that a disk that forgets is not taken for a source that lies.
    """
    while True:
        content = task.content
        if content is None:
            await task.pulse.wait()
            continue
        hasher, number, began = content_hasher(algorithm), 0, trio.current_time()
        while task.content is content:
            layout = task.layout
            if layout is not None and number == layout.count:
                return hasher.hexdigest()
            run = _next_run(content, number)
            if not run:
                await task.pulse.wait()
                continue
            try:
                await _hash_pieces(hasher, content, run, began)
            except PieceMissing:
                task.pulse.beat()  # it was damaged on disk: the task is not complete any more
                continue
            number = run.stop


def _next_run(content: TaskContent, number: int) -> range:
    """The pieces from ``number`` on that are hashed together; none while not all of them are held."""
    layout = content.layout
    stop = number + max(1, min(HASH_PIECES, HASH_RUN // content.meta.piece_length))
    run = range(number, stop if layout is None else min(stop, layout.count))
    return run if all(piece in content.held for piece in run) else range(0)


async def _hash_pieces(hasher: Hasher, content: TaskContent, run: range, began: float) -> None:
    """Raises PieceMissing, with nothing hashed, when one of them turns out damaged."""
    with ExitStack() as stack:
        views = []
        for number in run:
            piece = await content.open_piece(number, began)
            stack.callback(piece.close)
            views.append(piece.data)
        if sum(map(len, views)) <= INLINE_HASH:
            _update(hasher, views)
        else:
            await trio.to_thread.run_sync(_update, hasher, views)


def _update(hasher: Hasher, views: list[memoryview | bytes]) -> None:
    for view in views:
        hasher.update(view)


def check_digest(wanted: str, found: str, algorithm: str) -> None:
    """Raises DigestMismatch in words."""
    if wanted != found:
        raise DigestMismatch(
            f"the content has {algorithm}:{found}, not the {algorithm}:{wanted} that was asked for: "
            "check the digest, or whether the origin serves what you expect"
        )
