"""``dragonet get -r``: a whole folder, through the local daemon, or, where none runs, as a one-shot peer.

The small files come as one stream, which is unpacked while it comes; large ones follow (``large``).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cdn.tree.frames import File, Head, Refused, TreeDecoder, TreeTaker
from cdn.tree.order import TreeOrder, folder_url
from cdn.tree.paths import shown
from peer.cli.execution import UsageError, complain, run_blocking, run_command
from peer.cli.folder import TargetFolder
from peer.cli.large import LargeFiles, out_of_time
from peer.cli.progress import SOURCES, TreeDisplay, TreeProgress, describe_sources
from peer.cli.unpacking import Unpacker
from peer.tree_client import StreamTaker, connect, receive_tree
from shared.errors import DeadlineExceeded, DragonetError, InvalidRequest
from shared.task.identity import redact_url
from shared.units import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from peer.config import Config
    from peer.orders import DownloadDone, DownloadOrder, DownloadProgress

SHOWN = 20
"""Failures that are shown one by one."""
LATE = 2.0
"""Seconds after ``--timeout`` for which an answer of the daemon is still waited for."""


def tree_text(level: int, include: Iterable[str], exclude: Iterable[str], *, contents: bool) -> str:
    """What is wanted of a folder, as the daemon is told. Raises UsageError."""
    try:
        return TreeOrder(level, tuple(include), tuple(exclude), contents).text
    except InvalidRequest as error:
        raise UsageError(str(error)) from None


def list_folder(config: Config, order: DownloadOrder, *, json: bool, verbose: bool) -> int:
    """``get -r --list``: print what there is; gives the exit code. Raises DragonetError."""
    lister = _Lister()
    _Run(config, order, lister, verbose).run(None)
    files = [(redact_url(_base(order) + file.name), file.size) for file in lister.files]
    if json:
        told = [{"url": url, "size": None if size < 0 else size} for url, size in files]
        print(msgspec.json.encode(told).decode())
    else:
        for url, size in files:
            print(url if size < 0 else f"{url}\t{size}")
    _complain_of([(shown(refused.name), refused.words) for refused in lister.refused])
    return 1 if lister.refused else 0


def get_folder(config: Config, order: DownloadOrder, target: Path, *, json: bool, verbose: bool) -> int:
    """``get -r``: fill the folder ``target``, and tell what came; gives the exit code. Raises DragonetError."""
    began = time.monotonic()
    with TargetFolder(target) as folder:
        unpacker = Unpacker(folder)
        display = TreeDisplay(silent=json)

        def show() -> None:
            outcome = unpacker.outcome
            display.update(
                TreeProgress(
                    outcome.files,
                    outcome.total,
                    outcome.length + large.unfinished,
                    outcome.expected,
                    run.sources + large.sources,
                )
            )

        run = _Run(config, order, unpacker, verbose, show)
        large = LargeFiles(folder, unpacker, order, _base(order), run.deadline, show)
        try:
            run.run(large)
        finally:
            unpacker.close()
            display.close()
    outcome, seconds = unpacker.outcome, time.monotonic() - began
    result = Downloaded(outcome.files, outcome.length, outcome.failed, seconds, run.sources + large.sources)
    print(result.json() if json else result.describe(target))
    if not outcome.failed:
        return 0
    _complain_of(outcome.failed)
    count = len(outcome.failed)
    complain(f"{count} of the folder's files could not be had; all others are in {target}")
    return 1


class _Run:
    """Has a folder's stream brought to ``taker``, and what does not come with it after that."""

    def __init__(
        self,
        config: Config,
        order: DownloadOrder,
        taker: StreamTaker,
        verbose: bool,
        show: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._order = order
        self._taker = taker
        self._verbose = verbose
        self._show = show
        self.deadline = math.inf if order.timeout is None else time.monotonic() + order.timeout
        self.sources: Counter[str] = Counter()
        """Bytes of the stream so far, by where they came from."""

    def run(self, large: LargeFiles | None) -> None:
        """Through the daemon where one runs. Raises DragonetError."""
        sock = connect(self._config.peer.socket)
        if sock is None:
            run_command(self._alone, large)
            return
        with sock:
            try:
                done = run_blocking(
                    receive_tree, sock, self._order, self._taker, self._progress, self.deadline + LATE
                )
            except DeadlineExceeded:
                raise out_of_time(self._order) from None
        self._came(done)
        if large is not None and large.waiting:
            from peer.client import LocalClient

            run_command(large.fetch, LocalClient(self._config.peer.socket).download)

    async def _alone(self, large: LargeFiles | None) -> None:
        from peer.downloads import download
        from peer.oneshot import host_once
        from shared.logging import configure

        # this process is a daemon for a moment, but its user asked for files, not for a log
        configure("debug" if self._verbose else "error", self._config.log.format)
        async with host_once(self._config) as host:
            self._taker.begin()
            taker = _InThread(self._taker)
            self._came(await download(host, self._order, None, self._progress, taker))
            if large is not None:
                await large.fetch(lambda order, fd, progress: download(host, order, fd, progress))

    def _progress(self, progress: DownloadProgress) -> None:
        self.sources = Counter(progress.bytes)
        self._show()

    def _came(self, done: DownloadDone) -> None:
        self.sources = Counter(done.bytes)
        if not self._taker.ended:
            raise DragonetError("the list of files ended early: try again")


class Downloaded(msgspec.Struct, frozen=True):
    """What has come: files, their bytes, what could not be had as (name, words), and bytes by source."""

    files: int
    length: int
    failed: list[tuple[str, str]]
    seconds: float
    bytes: Counter[str]

    def json(self) -> str:
        """The closing JSON object; ``bytes`` always names every source."""
        told = {
            "files": self.files,
            "length": self.length,
            "failed": [{"name": name, "error": words} for name, words in self.failed],
            "seconds": round(self.seconds, 6),
            "bytes": {source: self.bytes[source] for source in SOURCES},
        }
        return msgspec.json.encode(told).decode()

    def describe(self, target: Path) -> str:
        """The closing line for people."""
        rate = format_rate(self.length / self.seconds) if self.seconds > 0 else "at once"
        sources = describe_sources(self.bytes)
        return (
            f"{target}: {self.files} file{'' if self.files == 1 else 's'}, {format_size(self.length)} "
            f"in {format_duration(self.seconds)}, {rate}" + (f" ({sources})" if sources else "")
        )


class _Lister(TreeTaker):
    """Takes a stream that is a listing only."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.files: list[File] = []
        self.refused: list[Refused] = []
        self._decoder = TreeDecoder(self)

    def feed(self, data: memoryview) -> None:
        self._decoder.feed(data)

    @property
    def ended(self) -> bool:
        return self._decoder.ended

    def head(self, head: Head) -> None:
        if isinstance(head, File):
            self.files.append(head)
        elif isinstance(head, Refused):
            self.refused.append(head)


class _InThread:
    """Has a stream taken in a worker thread, as writing files takes its time."""

    def __init__(self, taker: StreamTaker) -> None:
        self._taker = taker

    async def piece(self, data: memoryview) -> None:
        import trio

        await trio.to_thread.run_sync(self._taker.feed, data)

    async def again(self) -> None:
        self._taker.begin()


def _base(order: DownloadOrder) -> str:
    """What the names of the stream follow."""
    return folder_url(order.url).partition("?")[0]


def _complain_of(failed: list[tuple[str, str]]) -> None:
    for name, words in failed[:SHOWN]:
        complain(words if words.startswith(name) else f"{name}: {words}")
    if len(failed) > SHOWN:
        complain(f"and {len(failed) - SHOWN} more")
