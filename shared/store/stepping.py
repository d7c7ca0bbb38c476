"""Large writes in small steps, where that is faster.

Linux puts one large write into the page cache in large folios. On virtual machines whose host takes back
free memory, just the large free blocks are those that the host has to provide anew, and writing a piece
then takes ten times as long (measured: 3 s instead of 0.25 s per GiB). A write of 256 KiB at a time finds
small blocks, which are at hand. LMDB writes a piece at once, so where that turns out slow, the pages that it
is going to use, beyond the end of what is committed, are written once before in small steps.
"""

from __future__ import annotations

import os

STEP = 256 * 1024
"""Bytes of one step."""
SLOW = 0.8e-9
"""Seconds per byte from which on a large write counts as slow; 0.3e-9 is usual."""
RETRY = 64
"""Writes after which a large one is tried again."""
LEAST = 1024 * 1024
"""Writes of less than so many bytes are small enough by themselves."""

_ZEROS = bytes(STEP)


def write_in_steps(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Blocking; raises OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view[:STEP], offset)
        view = view[count:]
        offset += count


class Stepping:
    """Decides for one file, from how long writes took, whether to go ahead of them in steps."""

    def __init__(self) -> None:
        self._ahead = 0

    def wanted(self, size: int) -> bool:
        """Whether the next write of ``size`` bytes had better be prepared with :func:`go_ahead`."""
        if size < LEAST or not self._ahead:
            return False
        self._ahead -= 1
        return True

    def took(self, size: int, seconds: float) -> None:
        """An unprepared write of ``size`` bytes took so long."""
        if size >= LEAST and seconds > SLOW * size:
            self._ahead = RETRY


def go_ahead(fd: int, offset: int, size: int) -> None:
    """Write zeros from ``offset``, where nothing is in use, so that the page cache has these pages.

    Blocking. A full disk is left to the real write to find.
    """
    end = offset + size
    try:
        while offset < end:
            offset += os.pwrite(fd, _ZEROS[: end - offset], offset)
    except OSError:
        return
