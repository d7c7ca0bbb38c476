"""The files of a folder that do not come with its stream: each is fetched as a download of its own."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from cdn.tree.paths import shown
from peer.cli.folder import FileRefused, TargetFolder
from peer.cli.output import OutputError
from peer.cli.unpacking import Unpacker
from shared.errors import DeadlineExceeded, DragonetError
from shared.units import format_duration

if TYPE_CHECKING:
    from peer.orders import DownloadDone, DownloadOrder, DownloadProgress

AT_ONCE = 4

Download = Callable[["DownloadOrder", int, Callable[["DownloadProgress"], None]], Awaitable["DownloadDone"]]
"""Has one order carried out into an open file."""


class LargeFiles:
    """Those that ``unpacker`` noted for later. ``order`` is the folder's, ``base`` its URL, ``deadline`` by the
    monotonic clock; ``show`` is called as it goes on.
    """

    def __init__(
        self,
        folder: TargetFolder,
        unpacker: Unpacker,
        order: DownloadOrder,
        base: str,
        deadline: float,
        show: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._unpacker = unpacker
        self._order = order
        self._base = base
        self._deadline = deadline
        self._show = show
        self._running: dict[str, DownloadProgress] = {}
        self._whole: Counter[str] = Counter()

    @property
    def waiting(self) -> bool:
        """Whether there is anything to fetch."""
        return bool(self._unpacker.outcome.later)

    @property
    def sources(self) -> Counter[str]:
        """Bytes so far, by where they came from."""
        return sum((Counter(each.bytes) for each in self._running.values()), self._whole.copy())

    @property
    def unfinished(self) -> int:
        """Bytes of files that are not whole yet."""
        return sum(each.done for each in self._running.values())

    async def fetch(self, download: Download) -> None:
        """Fetch them, several at a time. A file that cannot be had is noted as failed.

        Raises OutputError when nothing can be written any more, DeadlineExceeded.
        """
        from shared.nursery import run_several

        waiting = deque(self._unpacker.outcome.later)
        at_once = min(AT_ONCE, len(waiting))

        async def work() -> None:
            while waiting:
                name, words = waiting.popleft()
                if words and self._order.no_origin:
                    self._unpacker.outcome.failed.append((shown(name), words))
                else:
                    await self._one(name, download, at_once)

        await run_several(work, at_once)

    async def _one(self, name: str, download: Download, at_once: int) -> None:
        outcome = self._unpacker.outcome
        path = self._unpacker.claim(name)
        if path is None:
            return

        def progress(event: DownloadProgress) -> None:
            self._running[name] = event
            self._show()

        try:
            with self._folder.create(path) as file:
                done = await download(self._order_for(name, at_once), file.fd, progress)
                file.commit()
        except (OutputError, DeadlineExceeded):
            raise
        except (FileRefused, DragonetError) as error:
            outcome.failed.append((shown(name), str(error)))
        else:
            outcome.files += 1
            outcome.length += done.length
            self._whole.update(done.bytes)
        finally:
            self._running.pop(name, None)

    def _order_for(self, name: str, at_once: int) -> DownloadOrder:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise out_of_time(self._order)
        return msgspec.structs.replace(
            self._order,
            url=self._base + name,
            tree="",
            timeout=None if left == math.inf else left,
            limit=self._order.limit / at_once,
        )


def out_of_time(order: DownloadOrder) -> DeadlineExceeded:
    """The error of a folder that did not come in its time."""
    return DeadlineExceeded(
        f"not complete after {format_duration(order.timeout or 0)}: give a longer --timeout; "
        "what came already is kept"
    )
