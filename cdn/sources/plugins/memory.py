"""How much memory this process has, and a bound on how much more it may get at once.

The pieces between source and store lie in shared maps and the store's index in a file's, so neither counts:
what counts is what Python objects and libraries take for themselves.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

STATUS = "/proc/self/status"


@dataclass(frozen=True, slots=True)
class Memory:
    """``anonymous``: bytes in use that no file is behind; ``data``: bytes asked for, what RLIMIT_DATA
    counts."""

    anonymous: int
    data: int


def process_memory() -> Memory | None:
    """Of this process, by ``/proc`` (proc_pid_status(5)); None when that cannot be read."""
    try:
        fd = os.open(STATUS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse_status(os.read(fd, 16384))
        finally:
            os.close(fd)
    except OSError:
        return None


def parse_status(text: bytes) -> Memory | None:
    """What a ``status`` file tells; None when it lacks the fields. Swapped memory is in use too."""
    fields: dict[bytes, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        if name in (b"RssAnon", b"VmRSS", b"VmSwap", b"VmData"):
            number = value.split()[:1]
            fields[name] = int(number[0]) * 1024 if number and number[0].isdigit() else 0
    resident = fields.get(b"RssAnon", fields.get(b"VmRSS"))
    if resident is None or b"VmData" not in fields:
        return None
    return Memory(resident + fields.get(b"VmSwap", 0), fields[b"VmData"])


class DataLimit:
    """The process's soft RLIMIT_DATA: an allocation beyond it is a MemoryError instead of the end of the
    process. Children that are started meanwhile inherit it."""

    def __init__(self) -> None:
        self._before: int | None = None

    @property
    def on(self) -> bool:
        """Whether a limit is set."""
        return self._before is not None

    def set(self, limit: int) -> None:
        """Let the process have ``limit`` bytes of data, or what it might have anyway, if that is less."""
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if self._before is None:
            self._before = soft
        bounds = [bound for bound in (self._before, hard) if bound != resource.RLIM_INFINITY]
        self._write(min([limit, *bounds]), hard)

    def lift(self) -> None:
        """Put back what was there before the first :meth:`set`."""
        if self._before is not None:
            self._write(self._before, resource.getrlimit(resource.RLIMIT_DATA)[1])
            self._before = None

    @staticmethod
    def _write(soft: int, hard: int) -> None:
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        except (OSError, ValueError):  # pragma: no cover - a sandbox that forbids it: then it is not bounded
            return

    def __repr__(self) -> str:
        return f"<DataLimit {'on' if self.on else 'off'}>"
