"""What ``get`` shows while it works: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from shared.units import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from peer.orders import DownloadProgress

SOURCES = ("store", "peer", "seeder", "origin")
LINE_INTERVAL = 5.0
"""Seconds between two plain lines."""
BAR_AFTER = 0.3
BAR_INTERVAL = 0.1
"""Seconds before the bar of a folder is shown, and between two drawings of it."""


class RateMeter:
    """Bytes per second over the last few seconds, from totals with their times. Pure."""

    def __init__(self, window: float = 4.0) -> None:
        self._window = window
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, total: int) -> None:
        """``total`` bytes were there at ``now``."""
        self._samples.append((now, total))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._window:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """0.0 until two samples apart are known."""
        if len(self._samples) < 2:
            return 0.0
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else 0.0


def describe_sources(counts: Mapping[str, int]) -> str:
    """``peer 120 MiB, seeder 8.0 MiB``: where the bytes are from, without the sources of none."""
    return ", ".join(f"{source} {format_size(counts[source])}" for source in SOURCES if counts.get(source))


def describe_progress(progress: DownloadProgress, rate: float) -> str:
    """One plain line."""
    done = progress.done
    parts = []
    if progress.length:
        parts.append(f"{100 * done // progress.length}%")
        parts.append(f"{format_size(done)} of {format_size(progress.length)}")
    else:
        parts.append(format_size(done))
    parts.append(format_rate(rate))
    if sources := describe_sources(progress.bytes):
        parts.append(sources)
    parts.append(f"{progress.parents} parent{'' if progress.parents == 1 else 's'}")
    if progress.length and rate > 0:
        parts.append(f"{format_duration((progress.length - done) / rate)} left")
    return ", ".join(parts)


class Display(Protocol):
    """Shows progress until closed."""

    def update(self, progress: DownloadProgress) -> None: ...

    def close(self) -> None: ...


class NoDisplay:
    """Shows nothing (``--json``)."""

    def update(self, progress: DownloadProgress) -> None:
        pass

    def close(self) -> None:
        pass


class LineDisplay:
    """A line every ``LINE_INTERVAL`` seconds; short downloads are silent."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._meter = RateMeter()
        self._shown = clock()

    def update(self, progress: DownloadProgress) -> None:
        now = self._clock()
        self._meter.add(now, progress.done)
        if now - self._shown >= LINE_INTERVAL:
            self._shown = now
            print(describe_progress(progress, self._meter.rate), file=self._stream, flush=True)

    def close(self) -> None:
        pass


class BarDisplay:
    """A rich progress bar with bytes by source, rate, parents and the time that is left."""

    def __init__(self, name: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn
        from rich.progress import Progress as Bar

        self._clock = clock
        self._meter = RateMeter()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("{task.fields[detail]}", markup=False, style="dim"),
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task(name, total=None, rate="", detail="waiting")
        self._drawn = float("-inf")
        self._bar.start()

    def update(self, progress: DownloadProgress) -> None:
        now = self._clock()
        done = progress.done
        self._meter.add(now, done)
        if now - self._drawn < 0.1 and done != progress.length:
            return
        self._drawn = now
        rate = self._meter.rate
        detail = [f"{progress.parents} parent{'' if progress.parents == 1 else 's'}"]
        if sources := describe_sources(progress.bytes):
            detail.insert(0, sources)
        if progress.length and rate > 0:
            detail.append(f"{format_duration((progress.length - done) / rate)} left")
        self._bar.update(
            self._task,
            total=progress.length,
            completed=done,
            rate=format_rate(rate),
            detail=" · ".join(detail),
            refresh=True,
        )

    def close(self) -> None:
        self._bar.stop()


@dataclass(frozen=True, slots=True)
class TreeProgress:
    """How far a folder is: files there and in all, bytes there and expected (-1: not known), by source."""

    files: int
    total: int
    length: int
    expected: int
    bytes: Mapping[str, int]


def describe_tree(progress: TreeProgress, rate: float) -> str:
    """One plain line."""
    if progress.total < 0:
        return "listing"
    parts = [f"{progress.files} of {progress.total} files"]
    expected = f" of {format_size(progress.expected)}" if progress.expected >= 0 else ""
    parts.append(format_size(progress.length) + expected)
    parts.append(format_rate(rate))
    if sources := describe_sources(progress.bytes):
        parts.append(sources)
    return ", ".join(parts)


class TreeDisplay:
    """One display for all files of a folder: a bar on a terminal, a line every few seconds elsewhere, nothing
    when ``silent``. What is over at once shows nothing."""

    def __init__(
        self,
        *,
        silent: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        describe: Callable[[TreeProgress, float], str] = describe_tree,
    ) -> None:
        """``describe``: the line for a progress and a rate."""
        self._stream = None if silent else stream or sys.stderr
        self._clock = clock
        self._describe = describe
        self._meter = RateMeter()
        self._bar: _FileBar | None = None
        self._due = clock() + (BAR_AFTER if self._terminal else LINE_INTERVAL)

    @property
    def _terminal(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def update(self, progress: TreeProgress) -> None:
        """Show it, if it is time."""
        now = self._clock()
        self._meter.add(now, progress.length)
        if self._stream is None or now < self._due:
            return
        line = self._describe(progress, self._meter.rate)
        if self._terminal:
            self._due = now + BAR_INTERVAL
            self._bar = self._bar or _FileBar(self._stream)
            self._bar.draw(progress, line)
        else:
            self._due = now + LINE_INTERVAL
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing more is shown."""
        if self._bar is not None:
            self._bar.close()


class _FileBar:
    """A rich progress bar that counts files."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def draw(self, progress: TreeProgress, line: str) -> None:
        total = None if progress.total < 0 else progress.total
        self._bar.update(self._task, total=total, completed=progress.files, description=line, refresh=True)

    def close(self) -> None:
        self._bar.stop()


def choose_display(name: str, *, silent: bool, stream: TextIO | None = None) -> Display:
    """The bar where ``stream`` (stderr) is a terminal, else lines; nothing at all when ``silent``."""
    stream = stream or sys.stderr
    if silent:
        return NoDisplay()
    return BarDisplay(name, stream) if stream.isatty() else LineDisplay(stream)
