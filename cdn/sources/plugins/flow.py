"""The bytes of a plugin's answer on their way, counted against what was told, and cut to fit.

Chunks are copied once, into the buffer of whoever reads; what is left of one waits for the next call.
"""

from __future__ import annotations

import inspect
import threading

from cdn.sources.interface import SourceCut
from cdn.sources.plugins.threads import Stop
from cdn.sources.plugins.words import Words
from shared.units import write_size

_EMPTY = memoryview(b"")


class Target:
    """A buffer, lent to a worker thread until it is taken back: afterwards nothing is written to it."""

    def __init__(self, buffer: memoryview) -> None:
        self.size = len(buffer)
        self._lock = threading.Lock()
        self._buffer: memoryview | None = buffer

    def put(self, at: int, data: memoryview) -> None:
        """Write ``data`` from ``at`` on. Raises Stop when the buffer was taken back."""
        with self._lock:
            if self._buffer is None:
                raise Stop
            self._buffer[at : at + len(data)] = data

    def take_back(self) -> None:
        """Nobody may write any more."""
        with self._lock:
            self._buffer = None


class Flow:
    """What has come, against what was told: ``length`` bytes, None when nothing was told.

    The last bytes that were told are given only when the end was seen behind them, so that whoever stores
    them knows that the length was no lie.
    """

    def __init__(self, words: Words, length: int | None, memory: int = 0) -> None:
        self._words = words
        self._length = length
        self._memory = memory
        self._spare = _EMPTY
        self._given = 0
        self._ended = False

    @property
    def wanting(self) -> bool:
        """Whether a chunk (or the end) must come before anything can be given."""
        return not self._ended and (not self._spare or self._given + len(self._spare) == self._length)

    def accept(self, chunk: object) -> bool:
        """A chunk came; whether there was anything in it. Raises SourceError when it is none, or too much."""
        view = self._view(chunk)
        if not view:
            return False
        if self._length is not None and self._given + len(self._spare) + len(view) > self._length:
            raise self._words.error(f"gave more than the {self._length} bytes that it told")
        self._spare = view
        if self._given + len(view) == self._length and not view.readonly:
            self._spare = memoryview(
                bytes(view)
            )  # the plugin is asked once more, and may use its buffer again
        return True

    def end(self) -> None:
        """No more chunks come."""
        self._ended = True

    def give(self, target: Target, at: int) -> int:
        """Put what there is into the target; the number of bytes, 0 at the end.

        Raises SourceCut when less came than was told: asking again may help.
        """
        piece = self._spare[: target.size - at]
        target.put(at, piece)
        self._spare = self._spare[len(piece) :] if len(piece) < len(self._spare) else _EMPTY
        self._given += len(piece)
        if not at and not piece and self._length is not None and self._given < self._length:
            raise SourceCut(
                f"the source plugin {self._words.name} gave only {self._given} of the {self._length} bytes "
                "that it told"
            )
        return len(piece)

    def _view(self, chunk: object) -> memoryview:
        if inspect.iscoroutine(chunk):
            chunk.close()
        try:
            view = memoryview(chunk)  # type: ignore[arg-type]  # whether it is that is the question
        except TypeError:
            raise self._words.gave(chunk, "its content", "it takes bytes") from None
        if view.ndim != 1 or view.format != "B":
            view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        if self._memory and len(view) > self._memory:
            raise self._words.error(
                f"gave {len(view)} bytes at once, more than {write_size(self._memory)} (source.plugin_memory): "
                "it takes them in chunks"
            )
        return view

    def __repr__(self) -> str:
        return f"<Flow {self._given} of {self._length} bytes>"
